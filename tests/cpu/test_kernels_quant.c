/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as integers: every instruction set gives the definition's codes, scales and sums,
 * whatever the row's leaves and values. */
#include "kernel_fixture.h"

#include "tensor/quant.h"

enum { LONGEST = 1500, GROUPS_MAX = 64, ROUNDS = 40 };

struct quants {
    int8_t codes[GROUPS_MAX * QUANT_GROUP];
    int16_t wide[GROUPS_MAX * QUANT_GROUP];
    float scales[GROUPS_MAX];
    int32_t sums[GROUPS_MAX];
};

/* Of rows without a boundary, with some at multiples of 32, and with some anywhere. */
static const uint32_t plans[][5] = {
    {1500},      {1024},
    {512},       {256},
    {576},       {31},
    {32},        {33},
    {512, 1024}, {256, 512, 768, 1024},
    {544, 1120}, {480, 992, 1500},
    {100, 700},  {1, 514, 1027},
    {511, 1023}, {600, 600, 1112},
};

static void run(const struct cpu_kernels *kernels, const float *x, const struct leaf_plan *leaves,
                bool wide, struct quants *out)
{
    struct quant quant = {.n_groups = quant_n_groups(leaves),
                          .codes = wide ? NULL : out->codes,
                          .wide = wide ? out->wide : NULL,
                          .scales = out->scales,
                          .sums = out->sums};

    assert_true(quant.n_groups <= GROUPS_MAX);
    memset(out, 0x5a, sizeof(*out));
    if (kernels == NULL) {
        quant_row(x, leaves, &quant);
    } else {
        kernels->quant_row(x, leaves, &quant);
    }
}

static void check(struct kernel_fixture *fixture, const float *x, uint32_t n,
                  const struct leaf_plan *leaves)
{
    struct quants *expected = xalloc(sizeof(*expected));
    struct quants *found = xalloc(sizeof(*found));

    for (int wide = 0; wide < 2; wide++) {
        run(NULL, x, leaves, wide != 0, expected);
        for (uint32_t l = 0; l < fixture->n_levels; l++) {
            run(&fixture->levels[l], x, leaves, wide != 0, found);
            if (memcmp(expected, found, sizeof(*found)) != 0) {
                fail_msg("%s: %u columns, %u leaves, wide %d", fixture->levels[l].level, n,
                         leaves->n_leaves, wide);
            }
        }
    }
    free(expected);
    free(found);
}

/* Whole groups in which one value decides how all are taken: none, the least that counts, the
 * greatest, infinity, not a number. */
static void make_special(struct kernel_fixture *fixture, float *x, uint32_t n)
{
    static const float values[] = {0.0f,     0x1p-101f, 0x1p-100f, 0x1.fffffep127f,
                                   INFINITY, NAN,       1.5f};
    uint32_t group = kernel_below(&fixture->random, (uint32_t)div_up(n, QUANT_GROUP));
    float value = values[kernel_below(&fixture->random, ARRAY_LEN(values))];

    for (uint32_t i = group * QUANT_GROUP; i < MIN(n, (group + 1) * QUANT_GROUP); i++) {
        x[i] = kernel_below(&fixture->random, 2) == 0 ? 0.0f : -0.0f;
    }
    x[MIN(n - 1, group * QUANT_GROUP + kernel_below(&fixture->random, QUANT_GROUP))] = value;
}

static void test_quant_row(void **state)
{
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 5);
    for (size_t p = 0; p < ARRAY_LEN(plans); p++) {
        uint32_t bounds[6] = {0};
        struct leaf_plan leaves = {.bounds = bounds};

        while (leaves.n_leaves < 5 && plans[p][leaves.n_leaves] > 0) {
            bounds[leaves.n_leaves + 1] = plans[p][leaves.n_leaves];
            leaves.n_leaves++;
        }
        for (uint32_t i = 0; i < ROUNDS; i++) {
            uint32_t n = bounds[leaves.n_leaves];
            float *x = kernel_floats(&fixture->random, n, (enum kernel_kind)(i % KIND_COUNT), -108);

            if (i % 3 == 0) {
                make_special(fixture, x, n);
            }
            check(fixture, x, n, &leaves);
            free(x);
        }
    }
}

/* Halfway between two codes: to the even one. */
static void test_ties(void **state)
{
    struct kernel_fixture *fixture = *state;
    uint32_t bounds[2] = {0, 1024};
    struct leaf_plan leaves = {.n_leaves = 1, .bounds = bounds};
    float *x = aligned_alloc(64, 1024 * sizeof(float));

    assert_non_null(x);
    for (uint32_t i = 0; i < 1024; i++) {
        x[i] = i % QUANT_GROUP == 5 ? -127.0f : (float)(i % 250) - 124.5f;
    }
    check(fixture, x, 1024, &leaves);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_quant_row, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_ties, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
