/* SPDX-License-Identifier: Apache-2.0 */
/* Private to batch.c, batch_commit.c and batch_plan.c. */
#pragma once

#include "sched/sched.h"
#include "world/batch.h"

/* What the ranks were told of a request, in committed steps and in those in flight. */
struct batch_sent {
    uint32_t n_pages;
    uint64_t sampled; /* number of the newest step that samples for it */
    bool params;
};

/* A request. */
struct batch_run {
    struct batch_request request; /* its callbacks; prompt and bias are the journal's */
    struct journal_entry *entry;
    struct sched_seq *seq; /* NULL once it has ended */
    struct batch_sent sent;
    uint32_t lives;   /* of seq, that sent and the entry's positions are about */
    uint32_t n_steps; /* in flight */
    bool placed;      /* it ran, with these lives */
    bool started;     /* its client was told */
    bool ended;       /* end was called; it is here until its steps are over */
    struct batch_run *next;
    struct batch_run *prev;
};

/* A request's part in a step in flight. */
struct batch_part {
    struct batch_run *run;
    struct sched_part sched;
    struct batch_sent before;
};

struct batch_step {
    uint64_t number;
    uint32_t n_rows;
    struct batch_part *parts; /* [n_parts], room for n_slots */
    uint32_t n_parts;
};

/* The arrays of the plan that is being made. */
struct batch_space {
    struct sched_part *picked; /* [n_slots], as all that have one a request */
    int32_t *tokens;           /* [max_rows] */
    struct plan_ref *refs;
    struct plan_segment *segments;
    struct plan_want *wants; /* [n_slots + max_score_rows] */
    struct plan_params *params;
    struct world_part *parts;
    uint32_t *pages;
    size_t pages_cap;
    struct plan_bias *bias;
    size_t bias_cap;
    int32_t *history;
    size_t history_cap;
};

struct batch {
    struct batch_config config;
    struct supervisor *supervisor;
    struct journal journal;
    struct sched *sched;
    struct batch_run *runs; /* in the order of their adding */
    struct batch_run *last;
    uint64_t last_id;
    struct batch_step steps[FLIGHT_MAX_STEPS]; /* oldest first */
    uint32_t n_steps;
    struct batch_space space;
    bool paused;
    bool lone_turn;           /* the next step may be a lone request's */
    struct batch_stats stats; /* what is ever */
};

/* Makes the next plan of what is to be computed, and issues it. False: there is nothing, or the
 * world does not take it now. */
bool batch_issue(struct batch *batch);

/* Ends a request, if it has not ended, and calls its end. */
void batch_end(struct batch *batch, struct batch_run *run, enum batch_end how, enum status status,
               const char *why);
/* Removes a run that has ended and whose steps are over. */
void batch_release_if_over(struct batch *batch, struct batch_run *run);

/* Parameters of a run as the journal keeps them. */
struct plan_params batch_params(const struct batch_run *run);
/* And its biases, the bytes of [params.n_bias] struct plan_bias. */
const uint8_t *batch_bias(const struct batch_run *run);
