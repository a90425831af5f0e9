/* SPDX-License-Identifier: Apache-2.0 */
/* A request on fake ranks, what it got, and what the model says that it should have got. */
#pragma once

#include "fake_world.h"
#include "world/batch.h"

enum { SCENE_BIAS = 3, SCENE_NEVER = 1 << 20 };

struct scene;

/* A request, and what became of it. */
struct asked {
    struct scene *scene;
    struct plan_params params;
    struct plan_bias bias[SCENE_BIAS];
    const struct plan_bias *biases; /* in its place; NULL: bias it is */
    int32_t prompt[FAKE_CONTEXT + 4];
    uint32_t n_prompt;
    uint32_t n_answered;
    uint32_t max_generated;
    uint64_t tenant;
    int32_t priority;
    bool logprobs;
    uint32_t n_top;
    bool prompt_logprobs;
    uint32_t n_prompt_top;
    uint32_t n_scored; /* tokens of its prompt */
    uint32_t stop_at;  /* its token function says false at this token */
    uint64_t id;
    uint32_t n_started;
    uint32_t n_cached;

    int32_t got[FAKE_CONTEXT + 4];
    uint32_t n_got;
    bool ended;
    enum batch_end end;
    enum status status;
    char why[256];
    uint32_t n_blamed; /* at most so many kills since its last token */

    void (*on_start)(struct asked *asked);
    void (*on_token)(struct asked *asked); /* NULL, or called with each token and at the end */
    void (*on_end)(struct asked *asked);
    struct asked *other; /* for these */
};

static inline void scene_started(void *arg, uint32_t n_cached)
{
    struct asked *asked = arg;

    assert_int_equal(asked->n_started++, 0);
    assert_false(asked->ended);
    asked->n_cached = n_cached;
    if (asked->on_start != NULL) {
        asked->on_start(asked);
    }
}

/* Says what the model says of the n-th token after those before it. */
static inline void scene_expect_report(const struct asked *asked, uint32_t n, bool wanted,
                                       uint32_t n_top, const struct batch_token *token)
{
    int32_t before[2 * FAKE_CONTEXT];

    memcpy(before, asked->prompt, MIN(n, asked->n_prompt) * sizeof(*before));
    if (n > asked->n_prompt) {
        memcpy(before + asked->n_prompt, asked->got, (n - asked->n_prompt) * sizeof(*before));
    }
    assert_true(token->logprob == (wanted ? fake_logprob(before, n, token->token) : 0));
    assert_int_equal(token->n_tops, n_top);
    for (uint32_t k = 0; k < n_top; k++) {
        uint32_t top = fake_top(before, n, k);

        assert_int_equal(token->tops[k].token, top);
        assert_true(token->tops[k].logprob == fake_logprob(before, n, (int32_t)top));
    }
}

static inline void scene_prompt_token(void *arg, uint32_t position, const struct batch_token *token)
{
    struct asked *asked = arg;

    assert_true(asked->prompt_logprobs && !asked->ended && asked->n_got == 0);
    assert_int_equal(position, ++asked->n_scored); /* each once, in order */
    assert_int_equal(token->token, asked->prompt[position]);
    scene_expect_report(asked, position, true, asked->n_prompt_top, token);
}

static inline bool scene_token(void *arg, const struct batch_token *token)
{
    struct asked *asked = arg;

    assert_false(asked->ended);
    ENSURE_OP(asked->n_got, <, ARRAY_LEN(asked->got));
    assert_int_equal(asked->n_scored, asked->prompt_logprobs ? asked->n_prompt - 1 : 0);
    scene_expect_report(asked, asked->n_prompt + asked->n_got, asked->logprobs || asked->n_top > 0,
                        asked->n_top, token);
    asked->got[asked->n_got++] = token->token;
    asked->n_blamed = 0;
    if (asked->on_token != NULL) {
        asked->on_token(asked);
    }
    return asked->n_got <= asked->stop_at;
}

static inline void scene_end(void *arg, enum batch_end end, enum status status, const char *why)
{
    struct asked *asked = arg;

    assert_false(asked->ended); /* exactly once */
    asked->ended = true;
    asked->end = end;
    asked->status = status;
    snprintf(asked->why, sizeof(asked->why), "%s", why == NULL ? "" : why);
    if (asked->on_end != NULL) {
        asked->on_end(asked);
    }
}

/* A request of n tokens, the first of which is first. */
static inline struct asked scene_ask(int32_t first, uint32_t n_prompt, uint32_t max_generated)
{
    struct asked asked = {
        .params = {.seed = 11, .temperature = 1, .repetition_penalty = 1},
        .n_prompt = n_prompt,
        .max_generated = max_generated,
        .stop_at = SCENE_NEVER,
    };

    for (uint32_t i = 0; i < n_prompt && i < ARRAY_LEN(asked.prompt); i++) {
        asked.prompt[i] = (first + (int32_t)i) % FAKE_VOCAB;
    }
    return asked;
}

static inline const struct plan_bias *scene_bias(const struct asked *asked)
{
    return asked->biases != NULL ? asked->biases : asked->bias;
}

/* What the model says about an ended request. */
static inline void scene_expect_exact(const struct asked *asked)
{
    uint64_t key = fake_key(&asked->params, scene_bias(asked));
    uint32_t most = MIN(asked->max_generated, FAKE_CONTEXT + 1 - asked->n_prompt);
    int32_t tokens[2 * FAKE_CONTEXT];
    uint32_t n = asked->n_prompt;

    memcpy(tokens, asked->prompt, n * sizeof(*tokens));
    for (uint32_t i = 0; i < asked->n_got; i++) {
        assert_false(fake_is_nan(&asked->params, i));
        if (asked->got[i] != fake_token(key, tokens, n)) {
            fail_msg("request %d: token %u is %d, not %d", (int)asked->id, i, asked->got[i],
                     fake_token(key, tokens, n));
        }
        tokens[n++] = asked->got[i];
    }
    assert_true(asked->n_got <= most);
    if (!asked->ended || asked->end == BATCH_CANCELLED || asked->end == BATCH_FAILED) {
        return;
    }
    assert_int_equal(asked->end, asked->n_got > asked->stop_at ? BATCH_STOP : BATCH_LENGTH);
    assert_int_equal(asked->n_got, MIN(most, asked->stop_at + 1));
}
