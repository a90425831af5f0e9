/* SPDX-License-Identifier: Apache-2.0 */
/* Exact behaviour: arg-max, ties, penalties, cuts, infinities, refusals, log-probabilities. */
#include "sample/helpers.h"

#include "sample/sampler.h"

enum { VOCAB_MAX = 4096 };

/* One token with the given parameters; logits are left as they are. */
static uint32_t draw(const struct sample_params *params, const float *logits, uint32_t vocab,
                     uint32_t position)
{
    struct sample_request request = {.params = params, .key = {.seed = 7, .position = position}};
    static float copy[VOCAB_MAX];
    struct sampler sampler;
    uint32_t token = UINT32_MAX;

    memcpy(copy, logits, vocab * sizeof(*logits));
    assert_int_equal(sampler_init(&sampler, vocab), STATUS_OK);
    assert_int_equal(sampler_token(&sampler, &request, copy, &token, NULL), STATUS_OK);
    sampler_release(&sampler);
    return token;
}

/* The tokens that come up in 300 draws, as a bit mask. */
static uint64_t drawn(const struct sample_params *params, const float *logits, uint32_t vocab)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < 300; i++) {
        mask |= 1ull << draw(params, logits, vocab, i);
    }
    return mask;
}

static struct sample_params defaults(void)
{
    struct sample_params params;

    sample_params_init(&params);
    return params;
}

static void test_argmax(void **state)
{
    static float logits[2500];
    struct sample_params params = defaults();

    (void)state;
    params.temperature = 0.0f;
    params.top_k = 1;
    params.top_p = 0.1f; /* the cuts do not matter */
    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        logits[i] = -5.0f;
    }
    assert_int_equal(draw(&params, logits, 2500, 0), 0); /* all tied */
    logits[2400] = logits[1030] = logits[1029] = 3.0f;
    assert_int_equal(draw(&params, logits, 2500, 0), 1029);
    logits[2499] = INFINITY;
    assert_int_equal(draw(&params, logits, 2500, 0), 2499);
    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        logits[i] = i == 77 ? -3e38f : -INFINITY;
    }
    assert_int_equal(draw(&params, logits, 2500, 0), 77);
    logits[76] = -0.0f;
    logits[78] = 0.0f; /* equal to -0 */
    assert_int_equal(draw(&params, logits, 2500, 0), 76);
}

static void test_bias_reaches_argmax(void **state)
{
    const float logits[4] = {1.0f, 2.0f, 3.0f, 0.0f};
    const struct sample_bias bias[] = {{2, -100.0f}, {0, 0.75f}, {0, 0.75f}};
    struct sample_params params = defaults();

    (void)state;
    params.temperature = 0.0f;
    params.bias = bias;
    params.n_bias = 1;
    assert_int_equal(draw(&params, logits, 4, 0), 1);
    params.n_bias = 3; /* twice 0.75 */
    assert_int_equal(draw(&params, logits, 4, 0), 0);
}

static void test_penalties_exact(void **state)
{
    float logits[6] = {2.0f, -2.0f, 2.0f, -2.0f, 2.0f, 2.0f};
    const float expected[6] = {
        2.0f / 1.25f,                          /* prompt only: repetition */
        -2.0f * 1.25f,                         /* the same below zero */
        2.0f / 1.25f - 0.5f * 3.0f - 0.125f,   /* prompt and three times generated */
        -2.0f * 1.25f - 0.5f - 0.125f,         /* generated once */
        2.0f,                                  /* neither */
        (2.0f + 1.0f) / 1.25f - 0.5f - 0.125f, /* bias comes first */
    };
    const int32_t prompt[] = {0, 1, 2, 0, -1, 6, 1 << 30}; /* strangers are ignored */
    const int32_t generated[] = {2, 3, 2, 2, 5};
    const struct sample_bias bias = {5, 1.0f};
    struct sample_params params = defaults();
    struct sample_request request = {
        .params = &params,
        .prompt = prompt,
        .n_prompt = ARRAY_LEN(prompt),
        .generated = generated,
        .n_generated = ARRAY_LEN(generated),
    };
    struct sample_part part;

    (void)state;
    params.repetition_penalty = 1.25f;
    params.frequency_penalty = 0.5f;
    params.presence_penalty = 0.125f;
    params.bias = &bias;
    params.n_bias = 1;
    assert_int_equal(sample_part_init(&part, 0, 6), STATUS_OK);
    assert_int_equal(sample_part_begin(&part, &request, logits), STATUS_OK);
    assert_memory_equal(logits, expected, sizeof(expected));
    request.n_generated = 0; /* counts of the call before are gone */
    request.n_prompt = 0;
    params.n_bias = 0;
    assert_int_equal(sample_part_begin(&part, &request, logits), STATUS_OK);
    assert_memory_equal(logits, expected, sizeof(expected));
    sample_part_release(&part);
}

static void test_top_k(void **state)
{
    const float logits[6] = {1.0f, 1.5f, 1.0f, 1.5f, 1.0f, 0.0f};
    struct sample_params params = defaults();

    (void)state;
    params.top_k = 1;
    assert_true(drawn(&params, logits, 6) == 0x02); /* the lower of two equals */
    params.top_k = 2;
    assert_true(drawn(&params, logits, 6) == 0x0a);
    params.top_k = 4;
    assert_true(drawn(&params, logits, 6) == 0x0f);
    params.top_k = 6;
    assert_true(drawn(&params, logits, 6) == 0x3f);
    params.top_k = 1000;
    assert_true(drawn(&params, logits, 6) == 0x3f);
}

/* Probabilities 1/2, 1/4, 1/8, 1/8 (powers of two, so that top-p's sums are exact). */
static void test_top_p_covers(void **state)
{
    const float ln2 = 0.69314718f;
    const float logits[4] = {-3.0f * ln2, -ln2, -3.0f * ln2, -2.0f * ln2};
    struct sample_params params = defaults();

    (void)state;
    params.top_p = 1e-6f; /* at least one */
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.top_p = 0.49f;
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.top_p = 0.51f;
    assert_true(drawn(&params, logits, 4) == 0xa);
    params.top_p = 0.74f;
    assert_true(drawn(&params, logits, 4) == 0xa);
    params.top_p = 0.76f;
    assert_true(drawn(&params, logits, 4) == 0xb); /* the lower of two equals */
    params.top_p = 0.88f;
    assert_true(drawn(&params, logits, 4) == 0xf);
    params.top_k = 2; /* a share of what is left: 2/3, 1/3 */
    params.top_p = 0.66f;
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.top_p = 0.68f;
    assert_true(drawn(&params, logits, 4) == 0xa);
    params.top_k = 0;
    params.min_p = 0.4f; /* the same two */
    params.top_p = 0.66f;
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.top_p = 0.68f;
    assert_true(drawn(&params, logits, 4) == 0xa);
}

static void test_top_p_ties_exact(void **state)
{
    const float logits[8] = {0}; /* 1/8 each: sums and shares are exact */
    struct sample_params params = defaults();

    (void)state;
    params.top_p = 0.5f; /* reached by four, not exceeded: four are enough */
    assert_true(drawn(&params, logits, 8) == 0x0f);
    params.top_p = 0.5000001f;
    assert_true(drawn(&params, logits, 8) == 0x1f);
}

static void test_min_p(void **state)
{
    const float ln2 = 0.69314718f;
    const float logits[4] = {-3.0f * ln2, -ln2, -3.0f * ln2, -2.0f * ln2};
    struct sample_params params = defaults();

    (void)state;
    params.min_p = 1.0f;
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.min_p = 0.51f;
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.min_p = 0.49f;
    assert_true(drawn(&params, logits, 4) == 0xa);
    params.min_p = 0.24f;
    assert_true(drawn(&params, logits, 4) == 0xf);
    params.temperature = 0.5f; /* squares the ratios: 1/4, 1/16 */
    assert_true(drawn(&params, logits, 4) == 0xa);
}

static void test_temperature_extremes(void **state)
{
    const float logits[4] = {0.0f, 1.0f, 0.999f, -1.0f};
    struct sample_params params = defaults();

    (void)state;
    params.temperature = 1e-40f; /* its reciprocal is infinite */
    assert_true(drawn(&params, logits, 4) == 0x2);
    params.temperature = SAMPLE_TEMPERATURE_MAX;
    assert_true(drawn(&params, logits, 4) == 0xf);
}

static void test_infinities(void **state)
{
    const float some[5] = {-INFINITY, 0.0f, -INFINITY, 0.5f, -INFINITY};
    const float top[5] = {1.0f, INFINITY, 2.0f, INFINITY, -INFINITY};
    struct sample_params params = defaults();

    (void)state;
    for (int cut = 0; cut < 4; cut++) {
        params = defaults();
        params.top_k = cut == 1 ? 5 : 0;
        params.top_p = cut == 2 ? 0.999f : 1.0f;
        params.min_p = cut == 3 ? 1e-9f : 0.0f;
        assert_true(drawn(&params, some, 5) == 0x0a);
        assert_true(drawn(&params, top, 5) == 0x0a);
    }
}

static void check_numeric(struct sample_params *params, float *logits, uint32_t vocab,
                          const char *part)
{
    struct sample_request request = {.params = params};
    struct sampler sampler;
    struct err err = {0};
    uint32_t token = 12345;

    assert_int_equal(sampler_init(&sampler, vocab), STATUS_OK);
    assert_int_equal(sampler_token(&sampler, &request, logits, &token, &err), STATUS_NUMERIC);
    assert_int_equal(token, 12345); /* untouched */
    assert_non_null(strstr(err.text, part));
    sampler_release(&sampler);
}

static void test_numeric_errors(void **state)
{
    static float logits[2048];
    struct sample_params params = defaults();

    (void)state;
    for (int cut = 0; cut < 3; cut++) {
        params.temperature = cut == 0 ? 0.0f : 1.0f;
        params.top_k = cut == 1 ? 3 : 0;
        for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
            logits[i] = -INFINITY;
        }
        check_numeric(&params, logits, 2048, "minus infinity");
        logits[1500] = NAN;
        check_numeric(&params, logits, 2048, "not a number");
    }
}

static void test_params_refused(void **state)
{
    const struct sample_bias outside = {10, 0.0f};
    const struct sample_bias infinite = {9, INFINITY};
    struct err err = {0};

    (void)state;
#define REFUSED(field, value)                                                     \
    do {                                                                          \
        struct sample_params params = defaults();                                 \
        params.field = value;                                                     \
        params.n_bias = params.bias != NULL;                                      \
        assert_int_equal(sample_params_check(&params, 10, &err), STATUS_INVALID); \
        if (params.bias == NULL) {                                                \
            assert_non_null(strstr(err.text, #field));                            \
        } else {                                                                  \
            assert_non_null(strstr(err.text, "bias"));                            \
        }                                                                         \
    } while (0)
    REFUSED(temperature, -0.1f);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_p, 0.0f);
    REFUSED(top_p, 1.1f);
    REFUSED(top_p, NAN);
    REFUSED(min_p, -0.1f);
    REFUSED(min_p, 1.1f);
    REFUSED(repetition_penalty, 0.0f);
    REFUSED(repetition_penalty, INFINITY);
    REFUSED(presence_penalty, NAN);
    REFUSED(frequency_penalty, INFINITY);
    REFUSED(bias, &outside);
    REFUSED(bias, &infinite);
    assert_int_equal(
        sample_params_check(&(struct sample_params){.top_p = 1.0f, .repetition_penalty = 1.0f}, 10,
                            &err),
        STATUS_OK);
}

/* The same request gives the same token; another seed, position, choice or prompt another sequence.
 */
static void test_reproducible(void **state)
{
    float logits[64];
    struct sample_params params = defaults();
    uint64_t random = 3;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        logits[i] = (float)test_uniform(&random);
    }
    for (int field = 0; field < 5; field++) {
        int same = 0;

        for (uint32_t position = 0; position < 64; position++) {
            struct sample_request request = {.params = &params,
                                             .key = {.seed = 9, .position = position}};
            struct sampler sampler;
            uint32_t tokens[2];
            float copy[64];

            assert_int_equal(sampler_init(&sampler, 64), STATUS_OK);
            for (int i = 0; i < 2; i++) {
                memcpy(copy, logits, sizeof(copy));
                assert_int_equal(sampler_token(&sampler, &request, copy, &tokens[i], NULL),
                                 STATUS_OK);
                request.key.seed += field == 1;
                request.key.prompt += field == 2;
                request.key.choice += field == 3;
                request.key.draw += field == 4;
            }
            same += tokens[0] == tokens[1];
            sampler_release(&sampler);
        }
        if (field == 0) {
            assert_int_equal(same, 64);
        } else { /* about 1 in 64 by chance */
            assert_in_range(same, 0, 8);
        }
    }
}

/* The greedy token of logits 0, 1, 2 ... with these biases. */
static uint32_t greedy_after(const struct sample_params *params, const int32_t *generated,
                             uint32_t n_generated)
{
    const struct sample_request request = {
        .params = params, .generated = generated, .n_generated = n_generated};
    struct sampler sampler;
    float logits[3000];
    uint32_t token = UINT32_MAX;

    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        logits[i] = (float)i;
    }
    assert_int_equal(sample_params_check(params, ARRAY_LEN(logits), NULL), STATUS_OK);
    assert_int_equal(sampler_init(&sampler, ARRAY_LEN(logits)), STATUS_OK);
    for (int i = 0; i < 2; i++) { /* the first leaves nothing behind for the second */
        float copy[3000];

        memcpy(copy, logits, sizeof(copy));
        assert_int_equal(sampler_token(&sampler, &request, copy, &token, NULL), STATUS_OK);
    }
    sampler_release(&sampler);
    return token;
}

static uint32_t greedy(const struct sample_params *params, uint32_t n_generated)
{
    static const int32_t generated[8];

    return greedy_after(params, generated, n_generated);
}

static void test_min_tokens(void **state)
{
    static const struct sample_bias bias[] = {{2999, -INFINITY}, {2998, -INFINITY}, {5, 1e6f}};
    struct sample_params params = defaults();

    (void)state;
    params.temperature = 0.0f;
    params.bias = bias;
    params.n_bias = 2;
    params.n_min = 3;
    params.n_min_bias = 1;
    assert_int_equal(greedy(&params, 0), 2997);
    assert_int_equal(greedy(&params, 2), 2997);
    assert_int_equal(greedy(&params, 3), 2999);
    params.n_min_bias = 0; /* both hold for ever */
    assert_int_equal(greedy(&params, 3), 2997);
    params.n_min_bias = 2;
    params.n_bias = 3;
    assert_int_equal(greedy(&params, 2), 5);
    assert_int_equal(greedy(&params, 8), 5);
}

/* Logits 0, 1, 2, ...: 2999 is next, unless it would complete one of the phrases. */
static void test_phrases(void **state)
{
    static const struct sample_bias bias[] = {{2998, -INFINITY}, {4, 0.0f},    {2999, -INFINITY},
                                              {5, 0.0f},         {6, 0.0f},    {2999, -INFINITY},
                                              {2997, 0.0f},      {2997, -1e6f}};
    static const struct {
        int32_t generated[3];
        uint32_t n;
        uint32_t token;
    } cases[] = {{{0}, 0, 2999},       {{4}, 1, 2997},    {{4, 4}, 2, 2997},   {{4, 5}, 2, 2999},
                 {{6}, 1, 2999},       {{5, 6}, 2, 2997}, {{6, 5}, 2, 2999},   {{4, 5, 6}, 3, 2997},
                 {{5, 6, 5}, 3, 2999}, {{2997}, 1, 2999}, {{6, 6, 6}, 3, 2999}};
    struct sample_params params = defaults();
    struct err err = {0};

    (void)state;
    params.temperature = 0.0f;
    params.bias = bias;
    params.n_bias = ARRAY_LEN(bias);
    params.n_phrase_bias = ARRAY_LEN(bias) - 1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(greedy_after(&params, cases[i].generated, cases[i].n), cases[i].token);
    }
    params.n_bias -= 2; /* a list of one allowed token, 2998, and phrases beside it */
    params.n_phrase_bias -= 2;
    params.n_min_bias = 2;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
    params.n_min_bias = 1;
    params.allow = true;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
    params.n_bias--; /* the last one has no end */
    params.n_phrase_bias--;
    params.n_min_bias = 0;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "no end"));
    params.n_bias = 1;
    params.n_phrase_bias = 2;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
}

static void test_allow_list(void **state)
{
    static const struct sample_bias bias[] = {
        {2000, -INFINITY}, {7, 0.0f}, {2000, 0.0f}, {1023, 0.0f}, {7, 0.0f}};
    static const struct sample_bias heavier[] = {{7, 2000.0f}, {2000, 0.0f}};
    struct sample_params params = defaults();
    struct err err = {0};

    (void)state;
    params.allow = true;
    params.temperature = 0.0f;
    params.bias = bias;
    params.n_bias = ARRAY_LEN(bias);
    params.n_min = 2;
    params.n_min_bias = 1;
    assert_int_equal(greedy(&params, 0), 1023);
    assert_int_equal(greedy(&params, 2), 2000);
    params.n_min_bias = 0; /* now token 2000 is both allowed and impossible */
    assert_int_equal(greedy(&params, 2), 1023);
    params.bias = heavier;
    params.n_bias = 2;
    assert_int_equal(greedy(&params, 0), 7);
    params.n_min_bias = 2;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "allowed"));
    params.n_min_bias = 3;
    assert_int_equal(sample_params_check(&params, 3000, &err), STATUS_INVALID);
}

/* What is not a number fails a request even where it is not allowed. */
static void test_allow_not_a_number(void **state)
{
    static const struct sample_bias bias[] = {{1, 0.0f}};
    struct sample_params params = defaults();
    const struct sample_request request = {.params = &params};
    float logits[] = {NAN, 1.0f, 2.0f};
    struct sampler sampler;
    uint32_t token;

    (void)state;
    params.allow = true;
    params.bias = bias;
    params.n_bias = 1;
    assert_int_equal(sampler_init(&sampler, 3), STATUS_OK);
    assert_int_equal(sampler_token(&sampler, &request, logits, &token, NULL), STATUS_NUMERIC);
    logits[0] = 0.0f;
    assert_int_equal(sampler_token(&sampler, &request, logits, &token, NULL), STATUS_OK);
    assert_int_equal(token, 1);
    sampler_release(&sampler);
}

static void test_logprobs(void **state)
{
    static float logits[2050];
    static struct sample_logprob top[3000];
    struct sample_logprob chosen = {0};
    struct sampler sampler;
    double total = 0.0;
    uint64_t random = 5;
    uint32_t n_top = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        logits[i] = (float)(8.0 * test_uniform(&random));
    }
    logits[17] = -INFINITY;
    logits[2049] = logits[1] = 9.0f;
    for (size_t i = 0; i < ARRAY_LEN(logits); i++) {
        total += exp((double)logits[i]);
    }
    assert_int_equal(sampler_init(&sampler, 2050), STATUS_OK);
    assert_int_equal(sampler_logprobs(&sampler, logits, 4, 3, &chosen, top, &n_top), STATUS_OK);
    assert_int_equal(n_top, 3);
    assert_int_equal(chosen.token, 4);
    assert_true(fabs(chosen.logprob - (logits[4] - log(total))) < 2e-6);
    assert_int_equal(top[0].token, 1);
    assert_int_equal(top[1].token, 2049);
    assert_true(fabs(top[1].logprob - (9.0 - log(total))) < 2e-6);
    assert_true(top[2].logprob < top[1].logprob);
    assert_int_equal(sampler_logprobs(&sampler, logits, 17, 0, &chosen, NULL, &n_top), STATUS_OK);
    assert_true(chosen.logprob == -INFINITY);
    assert_int_equal(n_top, 0);
    assert_int_equal(sampler_logprobs(&sampler, logits, 4, 3000, &chosen, top, &n_top), STATUS_OK);
    assert_int_equal(n_top, 2049); /* all but the impossible one */
    logits[3] = NAN;
    assert_int_equal(sampler_logprobs(&sampler, logits, 4, 3, &chosen, top, &n_top),
                     STATUS_NUMERIC);
    sampler_release(&sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_argmax),          cmocka_unit_test(test_bias_reaches_argmax),
        cmocka_unit_test(test_penalties_exact), cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p_covers),    cmocka_unit_test(test_top_p_ties_exact),
        cmocka_unit_test(test_min_p),           cmocka_unit_test(test_temperature_extremes),
        cmocka_unit_test(test_infinities),      cmocka_unit_test(test_numeric_errors),
        cmocka_unit_test(test_params_refused),  cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_logprobs),        cmocka_unit_test(test_min_tokens),
        cmocka_unit_test(test_allow_list),      cmocka_unit_test(test_allow_not_a_number),
        cmocka_unit_test(test_phrases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
