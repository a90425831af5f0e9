/* SPDX-License-Identifier: Apache-2.0 */
/* The sequence of a fake world, computed step by step, and what a test expects of the world. */
#pragma once

#include "fake_world.h"

/* Issues the sequence's next step if one can be issued. */
static inline void fake_issue(struct fake_world *w)
{
    uint32_t n = MIN(w->n_tokens - w->positions, w->max_rows);
    uint32_t pages[FAKE_CONTEXT];
    struct plan_params params = fake_params();
    struct plan_want want = {.row = n - 1, .position = w->n_tokens - FAKE_PROMPT};
    struct plan_segment segment = {
        .n = n,
        .pos = w->positions,
        .n_pages = (uint32_t)div_up(w->positions + n, FAKE_PAGE_TOKENS),
    };
    struct step_plan plan = {
        .flags = PLAN_HASH_STATE,
        .tokens = w->tokens + w->positions,
        .n_tokens = n,
        .segments = &segment,
        .n_segments = 1,
        .pages = pages,
        .n_pages = segment.n_pages,
        .wants = &want,
        .n_wants = w->positions + n == w->n_tokens,
        .params = &params,
        .n_params = !w->told,
        .history = w->tokens,
        .n_history = w->told ? 0 : w->n_tokens,
    };

    params.n_prompt = FAKE_PROMPT;
    params.n_generated = w->n_tokens - FAKE_PROMPT;
    for (uint32_t i = 0; i < segment.n_pages; i++) {
        pages[i] = FAKE_PAGES - 1 - i;
    }
    if (w->in_flight == 0 && supervisor_can_issue(w->s)) {
        assert_int_equal(supervisor_issue(w->s, &plan, &(struct world_part){.request = 1}, 1, NULL),
                         STATUS_OK);
        assert_int_equal(plan.step, w->last_step + 1);
        w->in_flight = n;
        w->told = true;
    }
}

/* n more tokens, whatever happens to the ranks meanwhile. */
static inline void fake_generate(struct fake_world *w, uint32_t n)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;
    uint32_t goal = w->n_tokens + n;

    ENSURE_OP(goal, <, FAKE_CONTEXT);
    while (w->n_tokens < goal) {
        if (clock_ns() >= end) {
            fail_msg("no token, it is %s: %s", world_state_text(supervisor_state(w->s)),
                     supervisor_why(w->s));
        }
        fake_issue(w);
        fake_turn(w);
    }
}

static inline void fake_expect_why(struct fake_world *w, const char *part)
{
    if (strstr(supervisor_why(w->s), part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", supervisor_why(w->s), part);
    }
}

/* What all ranks said to the load of the present epoch. */
static inline void fake_expect_load(struct fake_world *w, const char *field, bool expected)
{
    for (uint32_t r = 0; r < w->s->n_members; r++) {
        const json_t *answer = supervisor_answer(w->s, MESSAGE_LOAD_OK, r);

        assert_non_null(answer);
        if (json_is_true(json_object_get(answer, field)) != expected) {
            fail_msg("rank %u: %s is not %d: %s", r, field, expected, supervisor_why(w->s));
        }
    }
}
