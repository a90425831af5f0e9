/* SPDX-License-Identifier: Apache-2.0 */
/* Private to batch.c and batch_plan.c. */
#pragma once

#include "world/batch.h"

/* A place for one sequence on the ranks, and the KV pages it has. */
struct batch_slot {
    bool running;
    uint32_t *pages; /* [n_pages] */
    uint32_t n_pages;
    int32_t *tokens; /* [n_tokens] of the positions that its pages hold, while parked */
    uint32_t n_tokens;
    uint64_t parked_at; /* in the order of parking; 0: nothing is parked */
};

/* What the ranks were told of a request, in committed steps and in those in flight. */
struct batch_sent {
    uint32_t positions;
    uint32_t n_pages;
    uint32_t sampling; /* wants in flight */
    uint64_t sampled;  /* number of the newest step that samples for it */
    bool params;
};

/* A request that runs. */
struct batch_run {
    struct batch_request request; /* its callbacks; prompt and bias are the journal's */
    struct journal_entry *entry;
    uint32_t slot;
    struct batch_sent sent;
    uint32_t n_steps; /* in flight */
    bool alone;
    bool ended; /* end was called; it is here until its steps are over */
    struct batch_run *next;
};

/* A request's part in a step in flight. */
struct batch_part {
    struct batch_run *run;
    uint32_t n;
    bool want;
    struct batch_sent before;
};

struct batch_step {
    uint64_t number;
    struct batch_part *parts; /* [n_parts], room for n_slots */
    uint32_t n_parts;
};

/* The arrays of the plan that is being made. */
struct batch_space {
    int32_t *tokens;       /* [max_rows] */
    struct plan_ref *refs; /* [n_slots], as all that have one a request */
    struct plan_segment *segments;
    struct plan_want *wants;
    struct plan_params *params;
    struct world_part *parts;
    uint32_t *cleared;
    uint32_t *pages; /* [n_pages] */
    struct plan_bias *bias;
    size_t bias_cap;
    int32_t *history;
    size_t history_cap;
};

struct batch {
    struct batch_config config;
    struct supervisor *supervisor;
    struct journal journal;
    struct batch_slot *slots; /* [n_slots] */
    uint32_t *free_pages;     /* [n_free] */
    uint32_t n_free;
    uint64_t n_parked;      /* ever */
    struct batch_run *runs; /* in the order of their adding */
    uint64_t last_id;
    struct batch_step steps[FLIGHT_MAX_STEPS]; /* oldest first */
    uint32_t n_steps;
    struct batch_space space;
    uint32_t n_waiting;
    bool paused;
    bool lone_turn; /* the next step may be a lone request's */
};

/* Makes the next plan of what is to be computed, and issues it. False: there is nothing, or the
 * world does not take it now. */
bool batch_issue(struct batch *batch);

/* Parameters of a run as the journal keeps them. */
struct plan_params batch_params(const struct batch_run *run);
/* And its biases, the bytes of [params.n_bias] struct plan_bias. */
const uint8_t *batch_bias(const struct batch_run *run);
