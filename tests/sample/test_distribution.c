/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens come up as often as they should: counts of many draws against exact probabilities, which a
 * plain double-precision model of the documented order computes (with libm, and a full sort). A
 * sampler that is right fails one check in a million; keys are fixed, so it fails always or never.
 */
#include "sample/helpers.h"

#include "sample/sampler.h"

enum { VOCAB_MAX = 2100 };

struct ranked {
    double logit;
    uint32_t token;
};

static int compare(const void *a, const void *b)
{
    const struct ranked *left = a;
    const struct ranked *right = b;

    if (left->logit != right->logit) {
        return left->logit > right->logit ? -1 : 1;
    }
    return left->token < right->token ? -1 : 1;
}

static bool holds(const int32_t *tokens, size_t n, uint32_t token, uint32_t *ret_times)
{
    *ret_times = 0;
    for (size_t i = 0; i < n; i++) {
        *ret_times += tokens[i] == (int32_t)token;
    }
    return *ret_times > 0;
}

static double adjusted(const struct sample_request *request, const float *logits, uint32_t token)
{
    const struct sample_params *params = request->params;
    double logit = logits[token];
    uint32_t in_prompt;
    uint32_t times;
    bool seen = holds(request->prompt, request->n_prompt, token, &in_prompt);

    for (uint32_t i = 0; i < params->n_bias; i++) {
        logit += params->bias[i].token == token ? params->bias[i].add : 0.0;
    }
    seen |= holds(request->generated, request->n_generated, token, &times);
    if (seen) {
        logit = logit > 0 ? logit / params->repetition_penalty : logit * params->repetition_penalty;
    }
    return logit - times * params->frequency_penalty - (times > 0 ? params->presence_penalty : 0);
}

/* Exact probability of every token. */
static void model(const struct sample_request *request, const float *logits, uint32_t vocab,
                  double *ret_probabilities)
{
    const struct sample_params *params = request->params;
    static struct ranked ranked[VOCAB_MAX];
    static double mass[VOCAB_MAX];
    double total = 0.0;
    double kept = 0.0;
    uint32_t n = vocab;
    uint32_t n_kept = 0;

    for (uint32_t i = 0; i < vocab; i++) {
        ranked[i] = (struct ranked){adjusted(request, logits, i), i};
    }
    qsort(ranked, vocab, sizeof(*ranked), compare);
    for (uint32_t i = 0; i < vocab; i++) {
        mass[i] = exp((ranked[i].logit - ranked[0].logit) / params->temperature);
        if (n == vocab && mass[i] < params->min_p) {
            n = i;
        }
    }
    n = params->top_k > 0 && params->top_k < n ? params->top_k : n;
    for (uint32_t i = 0; i < n; i++) {
        total += mass[i];
    }
    while (n_kept < n && (n_kept == 0 || (params->top_p < 1 && kept < params->top_p * total) ||
                          params->top_p == 1)) {
        kept += mass[n_kept++];
    }
    memset(ret_probabilities, 0, vocab * sizeof(*ret_probabilities));
    for (uint32_t i = 0; i < n_kept; i++) {
        ret_probabilities[ranked[i].token] = mass[i] / kept;
    }
}

static void check(struct sample_request *request, const float *logits, uint32_t vocab, uint32_t n)
{
    static double probabilities[VOCAB_MAX];
    static uint32_t counts[VOCAB_MAX];
    static float copy[VOCAB_MAX];
    struct sampler sampler;

    model(request, logits, vocab, probabilities);
    memset(counts, 0, sizeof(counts));
    assert_int_equal(sampler_init(&sampler, vocab), STATUS_OK);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token;

        request->key = (struct sample_key){.seed = 2024, .position = i};
        memcpy(copy, logits, vocab * sizeof(*copy));
        assert_int_equal(sampler_token(&sampler, request, copy, &token, NULL), STATUS_OK);
        counts[token]++;
    }
    sampler_release(&sampler);
    check_counts(counts, probabilities, vocab, n);
}

/* Logits spread over `spread`. */
static void fill(float *logits, uint32_t vocab, double spread, uint64_t seed)
{
    for (uint32_t i = 0; i < vocab; i++) {
        logits[i] = (float)(spread * (test_uniform(&seed) - 0.5));
    }
}

struct setting {
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
};

static const struct setting SETTINGS[] = {
    {1.0f, 0, 1.0f, 0.0f},  {0.5f, 0, 1.0f, 0.0f},   {2.0f, 0, 1.0f, 0.0f},
    {1.0f, 5, 1.0f, 0.0f},  {0.7f, 20, 1.0f, 0.0f},  {1.0f, 0, 0.3f, 0.0f},
    {1.0f, 0, 0.9f, 0.0f},  {1.5f, 0, 0.99f, 0.0f},  {1.0f, 0, 1.0f, 0.05f},
    {0.8f, 0, 1.0f, 0.3f},  {0.6f, 20, 0.95f, 0.0f}, {1.0f, 30, 0.8f, 0.02f},
    {1.0f, 0, 0.85f, 0.1f}, {0.9f, 7, 1.0f, 0.2f},   {1.2f, 40, 0.5f, 0.001f},
};

static struct sample_params params_of(const struct setting *setting)
{
    struct sample_params params;

    sample_params_init(&params);
    params.temperature = setting->temperature;
    params.top_k = setting->top_k;
    params.top_p = setting->top_p;
    params.min_p = setting->min_p;
    return params;
}

static void test_small_vocabulary(void **state)
{
    float logits[50];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(SETTINGS); i++) {
        struct sample_params params = params_of(&SETTINGS[i]);
        struct sample_request request = {.params = &params};

        fill(logits, 50, 6.0, 100 + i);
        check(&request, logits, 50, 25000);
    }
}

/* Three blocks, the last of 52 rows; flat enough that every block is drawn from. */
static void test_several_blocks(void **state)
{
    static float logits[VOCAB_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(SETTINGS); i++) {
        struct sample_params params = params_of(&SETTINGS[i]);
        struct sample_request request = {.params = &params};

        fill(logits, VOCAB_MAX, 16.0, 200 + i);
        for (uint32_t token = 0; token < SAMPLE_BLOCK_ROWS; token++) {
            logits[token] -= 1.5f; /* blocks with different maxima */
        }
        check(&request, logits, VOCAB_MAX, 4000);
    }
}

static void test_penalties_and_bias(void **state)
{
    const int32_t prompt[] = {3, 4, 4, 9, 20, 21, 22, 23};
    const int32_t generated[] = {1, 2, 2, 2, 4, 30, 30, 31};
    const struct sample_bias bias[] = {{2, 1.5f}, {7, 3.0f}, {8, -100.0f}, {9, 0.5f}};
    struct sample_params params;
    struct sample_request request = {
        .params = &params,
        .prompt = prompt,
        .n_prompt = ARRAY_LEN(prompt),
        .generated = generated,
        .n_generated = ARRAY_LEN(generated),
    };
    float logits[50];

    (void)state;
    fill(logits, 50, 6.0, 300);
    sample_params_init(&params);
    params.repetition_penalty = 1.3f;
    check(&request, logits, 50, 50000);
    params.repetition_penalty = 0.8f;
    params.presence_penalty = 0.7f;
    check(&request, logits, 50, 50000);
    params.frequency_penalty = -0.4f;
    params.bias = bias;
    params.n_bias = ARRAY_LEN(bias);
    check(&request, logits, 50, 50000);
    params.temperature = 0.8f;
    params.top_k = 25;
    params.top_p = 0.9f;
    params.min_p = 0.01f;
    check(&request, logits, 50, 50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_vocabulary),
        cmocka_unit_test(test_several_blocks),
        cmocka_unit_test(test_penalties_and_bias),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
