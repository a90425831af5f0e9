/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on a world: it keeps their journal, makes the plans that compute them, and hands out
 * their tokens as steps are committed. A plan is sent one step ahead: its token may be what the
 * step before it samples, so that the way to the leader and back is not on the path of every token;
 * a request that turns out to have ended loses the step that was ahead.
 *
 * Who runs, in which slot, with which KV pages and how many rows, is sched/sched.h's decision. A
 * request that loses its pages there goes on later from its journal, with the same text: sampling
 * has no state. The same holds after a rebuild: with the KV pages as they are, or by computing
 * positions again; its client sees a pause.
 *
 * Ranks carry out plans in their order, so slots and pages of a request that has ended belong to
 * others from the next plan on, whatever is still in flight for it.
 *
 * One thread, the supervisor's; callbacks are called on it from batch_turn and batch_cancel, and
 * may add and cancel requests.
 */
#pragma once

#include "world/journal.h"
#include "world/supervisor.h"

struct batch;

struct batch_config {
    uint32_t n_slots;   /* requests that run at once, at most PLAN_MAX_SLOTS */
    uint32_t max_queue; /* requests that wait for that, at most */
    uint32_t max_rows;  /* of a step: its token budget; n_slots and more, or decoding takes turns */
    uint32_t n_pages;   /* KV pages of the world */
    uint32_t page_tokens;
    uint32_t max_context;
    uint32_t vocab;
    uint32_t max_top;        /* likeliest tokens that may be asked for with each token */
    uint32_t max_score_rows; /* rows of prompts, in a step, whose tokens are scored */
    bool hash_state;         /* ranks compare their activations after every step */
    size_t journal_bytes;
};

enum batch_end {
    BATCH_STOP,      /* its token function said so */
    BATCH_LENGTH,    /* max_generated tokens */
    BATCH_CANCELLED, /* batch_cancel */
    BATCH_FAILED,    /* why says it */
};

/* A token, and what the ranks said of it. Lent for the call. */
struct batch_token {
    int32_t token;
    float logprob;                 /* 0 where none was asked for */
    const struct result_top *tops; /* [n_tops] the likeliest first */
    uint32_t n_tops;
};

struct batch_request {
    struct plan_params params;    /* how it is sampled; slot and counts but n_bias are set here */
    const struct plan_bias *bias; /* [params.n_bias] */
    const int32_t *prompt;        /* [n_prompt], at least one token */
    uint32_t n_prompt;
    uint32_t n_answered;    /* of the prompt's tokens, the last: an earlier request's answer, which
                               this one goes on with; below n_prompt */
    uint32_t max_generated; /* at least 1; what does not fit the context is cut to what does */
    uint64_t tenant;        /* requests of one tenant share one part of the machine */
    int32_t priority;       /* smaller: sooner */
    uint64_t salt;          /* prefixes are only shared among requests of equal salt */
    bool logprobs;          /* of generated tokens, */
    uint32_t n_top;         /* and of so many of the likeliest in their places */
    bool prompt_logprobs;   /* also of the prompt's tokens; then all of it is computed anew */
    uint32_t n_prompt_top;

    /* Called the first time that its rows are issued; n_cached tokens of its prompt were in the
     * prefix cache. May be NULL. */
    void (*started)(void *arg, uint32_t n_cached);
    /* Called with each token once all ranks have it. False: it is not part of the answer, and the
     * answer ends. */
    bool (*token)(void *arg, const struct batch_token *token);
    /* Called for the prompt's tokens at positions 1, 2 ... in order, each once, with
     * prompt_logprobs. */
    void (*prompt_token)(void *arg, uint32_t position, const struct batch_token *token);
    /* Called once, last. status and why: of BATCH_FAILED. */
    void (*end)(void *arg, enum batch_end end, enum status status, const char *why);
    void *arg;
};

struct batch_stats {
    uint32_t running; /* requests, */
    uint32_t waiting;
    uint32_t kv_total; /* pages: kv_used + kv_cached + kv_free */
    uint32_t kv_used;  /* have a holder */
    uint32_t kv_cached;
    uint32_t kv_free;
    uint64_t preemptions;      /* ever, as all that follow */
    uint64_t prefix_queries;   /* prompt tokens looked up in the prefix cache, */
    uint64_t prefix_hits;      /* and found */
    uint64_t prompt_tokens;    /* computed or found, each once a request */
    uint64_t generated_tokens; /* handed out */
    uint64_t steps;            /* committed */
    uint64_t step_rows;        /* of all of them */
};

/* Never NULL. */
struct batch *batch_create(const struct batch_config *config);
void batch_destroy(struct batch **batch);

/* The handlers that a supervisor for this batch must be created with (progress is left as it is),
 * and that supervisor. */
void batch_handle(struct batch *batch, struct supervisor_handlers *handlers);
void batch_attach(struct batch *batch, struct supervisor *supervisor);

/* Adds a request, copying all of it; it waits for its turn. STATUS_INVALID: it can never run
 * (its tokens, or its size, with the numbers). STATUS_LIMIT: the queue is full, or the journal. */
NODISCARD enum status batch_add(struct batch *batch, const struct batch_request *request,
                                uint64_t *ret_id, struct err *err);

/* Ends a request, whether it waits or runs: nothing more is issued for it. Nothing happens if it
 * has ended. */
void batch_cancel(struct batch *batch, uint64_t id);

uint32_t batch_running(const struct batch *batch);
uint32_t batch_waiting(const struct batch *batch);
void batch_stats(const struct batch *batch, struct batch_stats *ret_stats);

/* Anything to issue, or in flight. */
bool batch_has_work(const struct batch *batch);
/* No step is in flight. */
bool batch_idle(const struct batch *batch);
/* While it is paused nothing is issued; steps in flight end. So worlds that share cores can take
 * turns. */
void batch_pause(struct batch *batch, bool paused);

/* Issues what can be issued and lets the supervisor turn once. */
void batch_turn(struct batch *batch, uint64_t deadline_ns, struct pollfd *extra, uint32_t n_extra);
