/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model that is served: its world of ranks and the thread that drives it. The front (the loop
 * that talks with clients) loads and unloads it, submits sequences and gets their events; the two
 * threads share nothing but mail, and a snapshot of what the world is like.
 *
 *   front                                     the host's thread
 *   host_load ─────────────────────────────▶  opens the model, starts the ranks
 *   host_submit, host_cancel, host_call ───▶  batch, supervisor
 *   ◀──── events of sequences, one mail a turn; loaded, stopped
 *
 * Requests are accepted from the moment the world was ready first until it is unloaded: during a
 * rebuild they wait. Once the restart budget is used up (failed) they are refused until a probe has
 * brought the world back.
 *
 *   host.c         the front's side
 *   host_thread.c  the thread
 */
#pragma once

#include "gateway/mailbox.h"
#include "gateway/turns.h"
#include "metrics/metrics.h"
#include "world/batch.h"

struct host;

/* A world, opened by whoever wires back ends (cmd). */
struct host_world {
    struct supervisor *supervisor;
    struct batch *batch;
    uint32_t n_ranks;
    uint32_t max_context;
    uint32_t max_running;
    uint32_t vocab;
    uint32_t page_tokens;
};

struct host_backend {
    void *arg;
    /* On the host's thread: reads what describes the model and makes supervisor and batch, not yet
     * started; on has progress set. Errors name what is wrong; nothing is left behind. */
    enum status (*open)(void *arg, const struct supervisor_handlers *on,
                        struct host_world *ret_world, struct err *err);
    /* Destroys both; the ranks are down. */
    void (*close)(void *arg, struct host_world *world);
    /* Descriptors that the thread is to wait for as well (at most HOST_MAX_FDS), and what to do
     * when one is ready; NULL: none. */
    uint32_t (*poll)(void *arg, struct pollfd *fds);
    void (*ready)(void *arg, struct supervisor *supervisor);
};

enum { HOST_MAX_FDS = 12, HOST_MAX_RANKS = SUPERVISOR_MAX_RANKS };

/* What the front is told. */
struct host_handlers {
    void *arg;
    /* A load ended: STATUS_OK, or why not; then stopped follows at once. */
    void (*loaded)(void *arg, struct host *host, enum status status, const char *why);
    /* It is down again, once for each host_load that began. */
    void (*stopped)(void *arg, struct host *host);
};

struct host_config {
    const char *name;
    struct host_backend backend;
    struct host_handlers on;
    struct mailbox *front;
    struct turns *turns;     /* of all hosts that share cores */
    struct metrics *metrics; /* borrowed */
    uint32_t stop_ms;        /* for ranks to leave */
};

enum host_phase {
    HOST_DOWN,    /* nothing is loaded */
    HOST_LOADING, /* for the first time since it was down */
    HOST_READY,
    HOST_REBUILDING,
    HOST_FAILED, /* until a probe succeeds */
    HOST_DRAINING,
    HOST_STOPPING,
};

/* "ready"; static. */
const char *host_phase_text(enum host_phase phase);

struct host_snapshot {
    enum host_phase phase;
    uint64_t epoch;
    uint64_t rebuilds;
    uint32_t n_ranks;
    pid_t pids[HOST_MAX_RANKS]; /* 0: not alive */
    bool up[HOST_MAX_RANKS];    /* holds the model */
    uint64_t load_done[HOST_MAX_RANKS];
    uint64_t load_total[HOST_MAX_RANKS];
    uint64_t load_start_ns;
    uint64_t last_step_ns; /* clock_ns of the last committed step; 0: none */
    struct batch_stats batch;
    uint32_t max_context;
    uint32_t max_running;
    uint64_t kv_token_bytes;       /* of one position, all ranks together; 0: not known */
    uint64_t weight_bytes;         /* of all ranks, with what they share */
    struct supervisor_fault fault; /* the last one */
    char arithmetic[96];           /* the class of its arithmetic, once loaded */
    char why[ERR_TEXT_BYTES];
};

struct host *host_create(const struct host_config *config);
/* Unloads at once, waits for the thread, and delivers the front's mail, so that none is left that
 * leads here. The handlers are not called any more. The front's thread. */
void host_destroy(struct host **host);

/* Copies what the thread last published. Any thread. */
void host_snapshot(struct host *host, struct host_snapshot *ret_snapshot);
/* The phase alone. */
enum host_phase host_phase(struct host *host);

struct metrics *host_metrics(const struct host *host);

/* --- The front's thread --- */

/* Starts to load; handlers.loaded tells the outcome. STATUS_PENDING: a load or unload is under way,
 * or it is loaded. */
NODISCARD enum status host_load(struct host *host, struct err *err);
/* Ends it: no further sequence is taken, those that run may go on for drain_ms, then they fail.
 * STATUS_NOT_FOUND: nothing is loaded. Called again it shortens the time. */
NODISCARD enum status host_unload(struct host *host, uint32_t drain_ms, struct err *err);
/* As host_unload without its end: nothing is taken any more, what runs goes on. */
void host_refuse(struct host *host);

struct seq_event;

/* One sequence. The front fills it in and owns it again from `end` on. */
struct seq {
    struct mail mail;
    struct batch_request request; /* callbacks and arg are the host's to set */
    struct plan_bias *bias;       /* owned */
    int32_t *prompt;              /* owned */
    int32_t *ends;                /* [n_ends] tokens that end it; owned */
    uint32_t n_ends;
    uint32_t n_first; /* end tokens do not end it before so many were generated */
    /* On the front's thread, in order; end comes last, exactly once. */
    void (*event)(void *arg, struct seq *seq, const struct seq_event *event);
    void *arg;
    uint64_t id; /* set by host_submit */

    /* The host's. */
    struct host *host;
    uint64_t batch_id;
    uint32_t n_generated;
    int32_t ended_by; /* the end token that came */
    uint64_t submitted_ns;
    uint64_t started_ns;
    uint64_t first_ns;
    uint64_t last_ns;
    struct seq *next;
    struct seq *prev;
};

enum seq_event_kind {
    SEQ_STARTED,      /* n_cached */
    SEQ_TOKEN,        /* token */
    SEQ_PROMPT_TOKEN, /* position, token */
    SEQ_END,
};

struct seq_event {
    enum seq_event_kind kind;
    uint32_t n_cached;
    uint32_t position;
    struct batch_token token;
    enum batch_end end;
    int32_t end_token;  /* of BATCH_STOP: the token that ended it */
    enum status status; /* of BATCH_FAILED; STATUS_LIMIT: the queue is full; STATUS_LINK: the world
                           failed */
    const char *why;
};

/* Gives the sequence to the host. */
void host_submit(struct host *host, struct seq *seq);
/* Its end comes soon; nothing happens if it has come. */
void host_cancel(struct host *host, uint64_t id);

/* Frees a sequence and what it owns; NULL is accepted. */
void seq_destroy(struct seq **seq);

/* Something to be done on the host's thread, with its answer delivered to the front. */
struct host_call {
    struct mail mail; /* deliver is the host's, both ways */
    struct host *host;
    /* On the host's thread; supervisor NULL: nothing is loaded. */
    void (*run)(struct host_call *call, struct supervisor *supervisor, struct batch *batch);
    void (*done)(struct host_call *call); /* on the front's; owns it */
};

void host_call(struct host *host, struct host_call *call);
