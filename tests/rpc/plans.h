/* SPDX-License-Identifier: Apache-2.0 */
/* Random valid plans, for the tests of plans and of their encoding. */
#pragma once

#include "helpers.h"
#include "rpc/plan.h"

enum {
    PLANS_ROWS = 40,
    PLANS_SLOTS = 70,
    PLANS_PAGES = 200,
    PLANS_VOCAB = 1000,
    PLANS_CONTEXT = 2048,
    PLANS_TOP = 20,
    PLANS_BIAS = 30,
};

static const struct plan_limits plans_limits = {
    .max_rows = PLANS_ROWS,
    .n_slots = PLANS_SLOTS,
    .n_pages = PLANS_PAGES,
    .page_tokens = 64,
    .max_context = PLANS_CONTEXT,
    .vocab = PLANS_VOCAB,
    .max_top = PLANS_TOP,
    .max_bias = PLANS_BIAS,
};

/* The arrays of a plan, writable. */
struct plan_space {
    struct step_plan plan;
    int32_t tokens[PLANS_ROWS + 1]; /* one more than the limits allow */
    struct plan_ref refs[PLANS_ROWS];
    struct plan_segment segments[PLANS_SLOTS];
    uint32_t pages[PLANS_SLOTS * 32];
    struct plan_want wants[PLANS_SLOTS];
    struct plan_params params[PLANS_SLOTS];
    struct plan_bias bias[PLANS_SLOTS * PLANS_BIAS];
    int32_t history[PLANS_SLOTS * 20];
    uint32_t cleared[PLANS_SLOTS];
};

static inline void plans_rows(struct random *random, struct plan_space *space)
{
    struct step_plan *plan = &space->plan;
    uint32_t slot = 0;

    while (plan->n_tokens < PLANS_ROWS && slot < PLANS_SLOTS && random_below(random, 12) != 0) {
        uint32_t n = 1 + random_below(random, 4);
        struct plan_segment segment = {.slot = slot};
        uint32_t n_pages;

        segment.n = MIN(n, PLANS_ROWS - plan->n_tokens);
        segment.pos = random_below(random, PLANS_CONTEXT - segment.n + 1);
        n_pages = (uint32_t)div_up(segment.pos + segment.n, 64);
        segment.page_first = random_below(random, n_pages + 1);
        segment.n_pages = n_pages - segment.page_first;
        for (uint32_t i = 0; i < segment.n_pages; i++) {
            space->pages[plan->n_pages++] = random_below(random, PLANS_PAGES);
        }
        for (uint32_t i = 0; i < segment.n; i++) {
            uint32_t row = plan->n_tokens++;

            space->tokens[row] = (int32_t)random_below(random, PLANS_VOCAB);
            if (random_below(random, 4) == 0) {
                space->tokens[row] = PLAN_TOKEN_REF;
                space->refs[plan->n_refs++] =
                    (struct plan_ref){.row = row, .slot = slot, .step = plan->step - 1};
            }
        }
        space->segments[plan->n_segments++] = segment;
        if (random_below(random, 2) == 0) {
            bool logprob = random_below(random, 2) == 0;

            space->wants[plan->n_wants++] = (struct plan_want){
                .row = plan->n_tokens - 1,
                .slot = slot,
                .position = random_below(random, 50),
                .n_top = (uint16_t)(logprob ? random_below(random, PLANS_TOP + 1) : 0),
                .flags = logprob ? PLAN_WANT_LOGPROB : 0};
        }
        for (uint32_t i = 1; i < segment.n && random_below(random, 3) == 0; i++) {
            space->wants[plan->n_wants++] =
                (struct plan_want){.row = plan->n_tokens - segment.n + i - 1,
                                   .slot = slot,
                                   .n_top = (uint16_t)random_below(random, PLANS_TOP + 1),
                                   .flags = PLAN_WANT_LOGPROB | PLAN_WANT_SCORE,
                                   .token = random_below(random, PLANS_VOCAB)};
        }
        slot += 1 + random_below(random, 3);
    }
}

static inline void plans_state(struct random *random, struct plan_space *space)
{
    struct step_plan *plan = &space->plan;

    for (uint32_t slot = 0; slot < PLANS_SLOTS; slot++) {
        struct plan_params params = {.seed = random_next(random),
                                     .slot = slot,
                                     .temperature = 0.5f,
                                     .top_k = 5,
                                     .top_p = 0.9f,
                                     .repetition_penalty = 1.0f,
                                     .choice = random_below(random, 9)};

        if (random_below(random, 10) == 0) {
            space->cleared[plan->n_cleared++] = slot;
        }
        if (random_below(random, 6) != 0) {
            continue;
        }
        params.n_bias = random_below(random, 4) == 0 ? random_below(random, PLANS_BIAS + 1) : 0;
        params.n_min = random_below(random, 3);
        params.n_min_bias = random_below(random, params.n_bias + 1);
        params.n_phrase_bias =
            (uint16_t)random_below(random, params.n_bias - params.n_min_bias + 1);
        params.flags = params.n_min_bias + params.n_phrase_bias < params.n_bias
                           ? (uint16_t)random_below(random, 2)
                           : 0;
        params.n_prompt = random_below(random, 10);
        params.n_generated = random_below(random, 10);
        for (uint32_t i = 0; i < params.n_bias; i++) {
            space->bias[plan->n_bias++] =
                (struct plan_bias){.token = random_below(random, PLANS_VOCAB),
                                   .add = i % 2 == 0 ? -1.5f : -__builtin_inff()};
        }
        for (uint32_t i = 0; i < params.n_prompt + params.n_generated; i++) {
            space->history[plan->n_history++] = (int32_t)random_below(random, PLANS_VOCAB);
        }
        space->params[plan->n_params++] = params;
    }
}

static inline void plans_make(struct random *random, struct plan_space *space)
{
    memset(space, 0, sizeof(*space));
    space->plan = (struct step_plan){
        .step = 1 + random_below(random, 1000),
        .flags = random_below(random, 2),
        .tokens = space->tokens,
        .refs = space->refs,
        .segments = space->segments,
        .pages = space->pages,
        .wants = space->wants,
        .params = space->params,
        .bias = space->bias,
        .history = space->history,
        .cleared = space->cleared,
    };
    plans_rows(random, space);
    plans_state(random, space);
}
