/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on a world: it keeps their journal, makes the plans that compute them, and hands out
 * their tokens as steps are committed. A plan is sent one step ahead: its token may be what the
 * step before it samples, so that the way to the leader and back is not on the path of every token;
 * a request that turns out to have ended loses the step that was ahead.
 *
 * After a rebuild each request goes on from its journal: with the KV pages as they are, or by
 * prefilling its positions again; its client sees a pause. The pages of a request that has ended
 * are parked with its tokens until they are needed: a later prompt that begins the same need not be
 * computed again.
 *
 * Who runs when is simple here: every request in each step, decodes before prefills, as far as the
 * rows go. All memory of a request, its pages too, is taken when it is added.
 *
 * One thread, the supervisor's; callbacks are called on it from batch_turn and batch_cancel, and
 * may add and cancel requests.
 */
#pragma once

#include "world/journal.h"
#include "world/supervisor.h"

struct batch;

struct batch_config {
    uint32_t n_slots; /* requests that run at once, at most PLAN_MAX_SLOTS */
    uint32_t max_rows;
    uint32_t n_pages; /* KV pages of the world */
    uint32_t page_tokens;
    uint32_t max_context;
    uint32_t vocab;
    bool hash_state; /* ranks compare their activations after every step */
    size_t journal_bytes;
};

enum batch_end {
    BATCH_STOP,      /* its token function said so */
    BATCH_LENGTH,    /* max_generated tokens */
    BATCH_CANCELLED, /* batch_cancel */
    BATCH_FAILED,    /* why says it */
};

struct batch_request {
    struct plan_params params;    /* how it is sampled; slot and counts but n_bias are set here */
    const struct plan_bias *bias; /* [params.n_bias] */
    const int32_t *prompt;        /* [n_prompt], at least one token */
    uint32_t n_prompt;
    uint32_t max_generated; /* at least 1; cut to what the context holds */
    /* Called with each token once all ranks have it. False: it is not part of the answer, and the
     * answer ends. */
    bool (*token)(void *arg, int32_t token);
    /* Called once, last. status and why: of BATCH_FAILED. */
    void (*end)(void *arg, enum batch_end end, enum status status, const char *why);
    void *arg;
};

/* Never NULL. */
struct batch *batch_create(const struct batch_config *config);
void batch_destroy(struct batch **batch);

/* The handlers that a supervisor for this batch must be created with (progress is left as it is),
 * and that supervisor. */
void batch_handle(struct batch *batch, struct supervisor_handlers *handlers);
void batch_attach(struct batch *batch, struct supervisor *supervisor);

/* Adds a request, copying all of it; n_cached of its prompt's tokens need not be computed.
 * STATUS_LIMIT: it does not fit the context, or there is no slot, page or journal room now. */
NODISCARD enum status batch_add(struct batch *batch, const struct batch_request *request,
                                uint64_t *ret_id, uint32_t *ret_n_cached, struct err *err);

/* Ends a request; nothing happens if it has ended. */
void batch_cancel(struct batch *batch, uint64_t id);

uint32_t batch_running(const struct batch *batch);

/* Issues what can be issued and lets the supervisor turn once. */
void batch_turn(struct batch *batch, uint64_t deadline_ns, struct pollfd *extra, uint32_t n_extra);
