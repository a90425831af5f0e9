/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token does not depend on how the vocabulary is divided: one sampler against 1 to 16 parts of
 * random sizes (empty ones too), over settings, vocabularies, ties, impossible tokens and
 * histories.
 */
#include "sample/helpers.h"

#include "base/mem.h"
#include "sample/sampler.h"

enum { PARTS_MAX = 16, VOCAB_MAX = 40000, HISTORY = 300 };

struct divided {
    struct sample_part parts[PARTS_MAX];
    uint32_t n_parts;
    struct sample_merge merge;
    uint32_t n_rounds; /* of the last token */
};

/* Cuts the blocks at n_parts - 1 random places. */
static void divide(struct divided *divided, uint32_t vocab, uint32_t n_parts, uint64_t *random)
{
    uint32_t n_blocks = (uint32_t)div_up(vocab, SAMPLE_BLOCK_ROWS);
    uint32_t cuts[PARTS_MAX + 1] = {0};

    for (uint32_t i = 1; i < n_parts; i++) {
        uint32_t cut = (uint32_t)(test_random(random) % (n_blocks + 1));
        uint32_t at = i;

        for (; at > 1 && cuts[at - 1] > cut; at--) {
            cuts[at] = cuts[at - 1];
        }
        cuts[at] = cut;
    }
    cuts[n_parts] = n_blocks;
    divided->n_parts = n_parts;
    for (uint32_t i = 0; i < n_parts; i++) {
        uint32_t begin = MIN(cuts[i] * SAMPLE_BLOCK_ROWS, vocab);
        uint32_t end = MIN(cuts[i + 1] * SAMPLE_BLOCK_ROWS, vocab);

        assert_int_equal(
            sample_part_init(&divided->parts[i], cuts[i] * SAMPLE_BLOCK_ROWS, end - begin),
            STATUS_OK);
    }
    assert_int_equal(sample_merge_init(&divided->merge, vocab), STATUS_OK);
}

static void release(struct divided *divided)
{
    for (uint32_t i = 0; i < divided->n_parts; i++) {
        sample_part_release(&divided->parts[i]);
    }
    sample_merge_release(&divided->merge);
}

static uint32_t token_of_parts(struct divided *divided, const struct sample_request *request,
                               float *logits)
{
    struct sample_answer answers[PARTS_MAX];
    struct sample_ask ask;
    enum status status;
    uint32_t token = UINT32_MAX;

    for (uint32_t i = 0; i < divided->n_parts; i++) {
        struct sample_part *part = &divided->parts[i];

        assert_int_equal(sample_part_begin(part, request, logits + part->first_row), STATUS_OK);
    }
    divided->n_rounds = 0;
    sample_merge_begin(&divided->merge, request, &ask);
    do {
        for (uint32_t i = 0; i < divided->n_parts; i++) {
            sample_part_answer(&divided->parts[i], &ask, &answers[i]);
        }
        status = sample_merge_next(&divided->merge, answers, divided->n_parts, &ask, &token);
        divided->n_rounds++;
    } while (status == STATUS_PENDING);
    assert_int_equal(status, STATUS_OK);
    return token;
}

static struct sample_params random_params(uint64_t *random)
{
    struct sample_params params;

    sample_params_init(&params);
    params.temperature = (float)(0.2 + 1.5 * test_uniform(random));
    if (test_random(random) % 8 == 0) {
        params.temperature = 0.0f;
    }
    if (test_random(random) % 3 == 0) {
        params.top_k = 1 + (uint32_t)(test_random(random) % 200);
    }
    if (test_random(random) % 2 == 0) {
        params.top_p = (float)(0.05 + 0.949 * test_uniform(random));
    }
    if (test_random(random) % 4 == 0) {
        params.min_p = (float)(0.2 * test_uniform(random));
    }
    if (test_random(random) % 2 == 0) {
        params.repetition_penalty = 1.2f;
        params.presence_penalty = 0.4f;
        params.frequency_penalty = 0.3f;
    }
    return params;
}

/* Spread, steps (ties) and holes differ from call to call. */
static void random_logits(float *logits, uint32_t vocab, uint64_t *random)
{
    double spread = 1.0 + 30.0 * test_uniform(random);
    double step = test_random(random) % 2 == 0 ? 0.0 : 0.5;
    bool holes = test_random(random) % 2 == 0;

    for (uint32_t i = 0; i < vocab; i++) {
        double value = spread * (test_uniform(random) - 0.5);

        value = step > 0.0 ? floor(value / step) * step : value;
        logits[i] = holes && i > 0 && test_random(random) % 4 == 0 ? -INFINITY : (float)value;
    }
}

static void check(uint32_t vocab, uint32_t n_parts, uint64_t *random, uint32_t *most_rounds)
{
    static float logits[VOCAB_MAX];
    static float copy[VOCAB_MAX];
    static int32_t history[HISTORY];
    struct sample_params params = random_params(random);
    const struct sample_bias bias = {(uint32_t)(test_random(random) % vocab), 2.0f};
    struct sample_request request = {
        .params = &params,
        .key = {.seed = test_random(random), .position = (uint32_t)test_random(random)},
        .prompt = history,
        .n_prompt = HISTORY / 2,
        .generated = history + HISTORY / 2,
        .n_generated = HISTORY / 2,
    };
    struct divided divided = {0};
    struct sampler whole;
    uint32_t expected;

    params.bias = &bias;
    params.n_bias = 1;
    for (size_t i = 0; i < HISTORY; i++) {
        history[i] = (int32_t)(test_random(random) % vocab);
    }
    random_logits(logits, vocab, random);
    memcpy(copy, logits, vocab * sizeof(*copy));
    assert_int_equal(sampler_init(&whole, vocab), STATUS_OK);
    assert_int_equal(sampler_token(&whole, &request, copy, &expected, NULL), STATUS_OK);
    sampler_release(&whole);
    divide(&divided, vocab, n_parts, random);
    assert_int_equal(token_of_parts(&divided, &request, logits), expected);
    assert_memory_equal(logits, copy, vocab * sizeof(*copy)); /* penalties too */
    *most_rounds = MAX(*most_rounds, divided.n_rounds);
    release(&divided);
}

static void test_divisions(void **state)
{
    static const uint32_t vocabs[] = {1, 50, 1024, 1025, 5000, 16 * 1024, VOCAB_MAX};
    uint32_t most_rounds = 0;
    uint64_t random = 77;

    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(vocabs); v++) {
        for (uint32_t n_parts = 1; n_parts <= PARTS_MAX; n_parts++) {
            for (int repeat = 0; repeat < 8; repeat++) {
                check(vocabs[v], n_parts, &random, &most_rounds);
            }
        }
    }
    assert_in_range(most_rounds, 3, 6); /* the rounds of top-p were tested too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divisions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
