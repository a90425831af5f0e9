/* SPDX-License-Identifier: Apache-2.0 */
/* The generator: published vectors, uniformity, and independence of neighbouring keys. */
#include "sample/helpers.h"

#include "sample/philox.h"

struct vector {
    uint32_t counter[4];
    uint32_t key[2];
    uint32_t out[4];
};

/* The three vectors of philox4x32-10 that the authors publish with Random123 (tests/kat_vectors).
 */
static const struct vector VECTORS[] = {
    {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(VECTORS); i++) {
        uint32_t out[4];

        philox4x32(VECTORS[i].counter, VECTORS[i].key, out);
        assert_memory_equal(out, VECTORS[i].out, sizeof(out));
    }
}

/* A key is the counter and key of the third vector: which word goes where is part of the contract,
 * because a journal written by one build is continued by another. */
static void test_key_layout(void **state)
{
    const struct sample_key key = {
        .seed = 0x299f31d0a4093822u,
        .prompt = 0x03707344,
        .choice = 0x13198a2e,
        .position = 0x85a308d3,
        .draw = 0x243f6a88,
    };
    const double expected = (double)(0xd16cfe0994fdcceb >> 12) * 0x1p-52;

    (void)state;
    assert_true(sample_uniform(&key) == expected);
}

enum { CELLS = 16, PAIRS = 200000 };

/* Two uniform numbers a pair, from keys that differ by one step in one field. */
static void check_independent(const struct sample_key *step)
{
    static uint32_t counts[CELLS * CELLS];
    static double probabilities[CELLS * CELLS];
    double product = 0.0;

    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < PAIRS; i++) {
        struct sample_key a = {.seed = 42 + 2 * i * step->seed,
                               .prompt = 2 * i * step->prompt,
                               .choice = 2 * i * step->choice,
                               .position = 2 * i * step->position,
                               .draw = 2 * i * step->draw};
        struct sample_key b = {.seed = a.seed + step->seed,
                               .prompt = a.prompt + step->prompt,
                               .choice = a.choice + step->choice,
                               .position = a.position + step->position,
                               .draw = a.draw + step->draw};
        double u = sample_uniform(&a);
        double v = sample_uniform(&b);

        assert_true(u >= 0.0 && u < 1.0);
        counts[(uint32_t)(u * CELLS) * CELLS + (uint32_t)(v * CELLS)]++;
        product += (u - 0.5) * (v - 0.5) * 12.0;
    }
    for (size_t i = 0; i < CELLS * CELLS; i++) {
        probabilities[i] = 1.0 / (CELLS * CELLS);
    }
    check_counts(counts, probabilities, CELLS * CELLS, PAIRS);
    /* correlation: mean of products of variance 1, normal with deviation 1 / sqrt(n); 4.9 of them
     */
    assert_true(fabs(product / PAIRS) < 4.9 / sqrt(PAIRS));
}

static void test_neighbours(void **state)
{
    (void)state;
    check_independent(&(struct sample_key){.seed = 1});
    check_independent(&(struct sample_key){.seed = 1ull << 32});
    check_independent(&(struct sample_key){.prompt = 1});
    check_independent(&(struct sample_key){.choice = 1});
    check_independent(&(struct sample_key){.position = 1});
    check_independent(&(struct sample_key){.draw = 1});
    check_independent(&(struct sample_key){.seed = 1, .position = 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_key_layout),
        cmocka_unit_test(test_neighbours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
