/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks in the place of the real ones: pages hold tokens, steps are carried out in their order at
 * once, and committed later. A sampled token follows from the tokens that the pages hold, so that
 * a page that is somebody else's shows as another token. After everything that happens the books
 * are audited, and each step is checked against the rules.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sched/sched.h"

enum { SIM_PAGE = 4, SIM_CONTEXT = 96, SIM_FLIGHT = 2, SIM_MAX_RUNNING = 16, SIM_MAX_PAGES = 512 };

struct sim_request {
    struct sched_seq *seq; /* NULL once it is over */
    struct sched_request asked;
    int32_t tokens[SIM_CONTEXT + 2];
    uint32_t n_known;
    uint32_t n_cached; /* at its first admission */
    uint32_t n_scored;
    bool started;
    bool done;       /* it got all that it asked for */
    uint64_t number; /* of its admission, and of the admissions when it came */
    uint64_t came;
    int32_t ahead; /* the token that is in flight */
};

struct sim_step {
    struct sched_part parts[SIM_MAX_RUNNING];
    struct sim_request *requests[SIM_MAX_RUNNING];
    int32_t sampled[SIM_MAX_RUNNING];
    uint32_t n;
};

struct sim {
    struct sched_config config;
    struct sched *s;
    int32_t pages[SIM_MAX_PAGES * SIM_PAGE];
    struct sim_step steps[SIM_FLIGHT];
    uint32_t n_steps;
    uint64_t random;
    uint64_t n_rows; /* issued */
    uint64_t n_admitted;
};

static inline uint32_t sim_below(struct sim *sim, uint32_t n)
{
    sim->random = sim->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(sim->random >> 33) % n;
}

static inline void sim_open(struct sim *sim, const struct sched_config *config)
{
    *sim = (struct sim){.config = *config, .random = sim->random};
    sim->config.page_tokens = SIM_PAGE;
    sim->config.max_context = SIM_CONTEXT;
    assert_true(config->n_pages <= SIM_MAX_PAGES && config->max_running <= SIM_MAX_RUNNING);
    sim->s = sched_create(&sim->config);
}

static inline int32_t sim_token(const int32_t *tokens, uint32_t n)
{
    uint64_t hash = 7;

    for (uint32_t i = 0; i < n; i++) {
        hash = (hash ^ (uint64_t)(uint32_t)tokens[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return (int32_t)(hash % 1000);
}

/* A prompt of these tokens: first, first + 1 ... */
static inline struct sim_request sim_ask(uint64_t tenant, int32_t first, uint32_t n_prompt,
                                         uint32_t max_generated)
{
    struct sim_request request = {
        .asked = {.tenant = tenant, .n_prompt = n_prompt, .max_generated = max_generated},
        .n_known = n_prompt,
    };

    for (uint32_t i = 0; i < n_prompt && i < SIM_CONTEXT; i++) {
        request.tokens[i] = first + (int32_t)i;
    }
    return request;
}

static inline enum status sim_add(struct sim *sim, struct sim_request *request, struct err *err)
{
    enum status status;

    request->asked.tokens = request->tokens;
    request->asked.owner = request;
    request->came = sim->n_admitted;
    status = sched_add(sim->s, &request->asked, &request->seq, err);
    sched_audit(sim->s);
    return status;
}

static inline void sim_must_add(struct sim *sim, struct sim_request *request)
{
    struct err err = {0};

    if (sim_add(sim, request, &err) != STATUS_OK) {
        fail_msg("not added: %s", err.text);
    }
}

static inline void sim_remove(struct sim *sim, struct sim_request *request)
{
    sched_remove(sim->s, &request->seq);
    sched_audit(sim->s);
}
