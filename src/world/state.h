/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a world as a pure machine: events with their time go in, actions come out. It does no
 * input or output, reads no clock, starts no thread and makes no random number, so that every
 * transition is a line in a test. The supervisor carries out the actions in their order and reports
 * what happens as events. What it is not: detection (hang.h), processes (spawner.h), what requests
 * have said so far (journal.h).
 *
 *   down ──load──▶ spawning ─▶ hello ─▶ comm_init ─▶ sanity ─▶ loading ─▶ ready ──drain──▶ draining
 *                     ▲            │ each "─▶": all ranks have answered  │  ▲                 │
 *                     │            └───────────── a fault ──────────────┬┘  └─ (a rebuild    │
 *                     │                                                 ▼      ends in the   │
 *                     ├──────────────── all reaped ────────────── rebuilding   state it left)│
 *                     │                              budget used up │   ▲──── a fault ───────┤
 *                   probe       a load refused, unload, mismatch    ▼                        │
 *                     └─ failed ◀──────── all reaped ──────────── stopping ◀──── drained ────┘
 *                          down ◀──────── all reaped ────────────────┘
 *
 * What holds in each state (state_rules.def has every transition):
 *   down        no rank is alive, nothing is loaded, nothing is planned.
 *   spawning    the ranks of a new epoch are being started; nothing was sent to them.
 *   hello       all are started; those whose build matches have said so.
 *   comm_init   all match; the epoch's unique id was sent.
 *   sanity      all have a communicator; the all-reduce of ones was asked for.
 *   loading     the sum was right on every rank; the model is being mapped or read.
 *   ready       all ranks hold the model; steps may be issued.
 *   draining    as ready, but no new requests: it ends when those that run have ended.
 *   rebuilding  every rank was sent SIGKILL; once all are reaped (and a back-off is over) a new
 *               epoch is spawned. Requests wait; none is lost.
 *   stopping    the world goes down for good: no request is left, ranks were asked to leave or
 *               killed. DESIGN.md has it inside draining and failed; it is a state of its own so
 *               that down and failed always mean that no rank is alive.
 *   failed      as down, but one probe is spawned every probe_ms.
 *
 * Invariants: at most one epoch has living ranks; memory is dropped only when no rank is alive; a
 * request leaves by its own end or by one fail_requests; between two steps with progress the budget
 * is never exceeded; every state but down and ready has a deadline unless the configuration says 0.
 *
 * A plain struct without locks: one thread (the supervisor's).
 */
#pragma once

#include "world/flight.h"

enum {
    WORLD_MAX_RANKS = 64,
    WORLD_MAX_ACTIONS = 8, /* from one event */
};

enum world_state {
#define WORLD_STATE(name, text) WORLD_##name,
#include "world/state.def"
#undef WORLD_STATE
    WORLD_N_STATES,
};

enum world_event_kind {
#define WORLD_EVENT(name, text, of_epoch) WORLD_EV_##name,
#include "world/state.def"
#undef WORLD_EVENT
    WORLD_N_EVENTS,
};

enum world_action_kind {
#define WORLD_ACTION(name, text) WORLD_DO_##name,
#include "world/state.def"
#undef WORLD_ACTION
    WORLD_N_ACTIONS,
};

enum world_error {
#define WORLD_ERROR(name, value, text) WORLD_ERROR_##name = value,
#include "world/state.def"
#undef WORLD_ERROR
};

/* Why a world was rebuilt, stopped or failed. */
enum world_cause {
    WORLD_CAUSE_NONE,
    WORLD_CAUSE_SPAWN,       /* detail: errno */
    WORLD_CAUSE_MISMATCH,    /* another build or layout version */
    WORLD_CAUSE_EXIT,        /* detail: exit code */
    WORLD_CAUSE_SIGNAL,      /* detail: signal */
    WORLD_CAUSE_OOM,         /* killed by the kernel for memory */
    WORLD_CAUSE_HUNG,        /* the progress word stood still */
    WORLD_CAUSE_LATE,        /* no answer within the limit; detail: the enum world_state */
    WORLD_CAUSE_SANITY,      /* detail: the sum seen */
    WORLD_CAUSE_PLAN,        /* disagrees on a plan */
    WORLD_CAUSE_ERROR,       /* detail: enum world_error */
    WORLD_CAUSE_DEVICE_GONE, /* for good */
};

struct world_fault {
    enum world_cause cause;
    uint32_t rank;
    int64_t detail;
    bool injected;
};

struct world_event {
    enum world_event_kind kind;
    uint64_t epoch; /* of the events that state.def says belong to one */
    uint32_t rank;

    uint32_t n_ranks; /* LOAD: 1 to WORLD_MAX_RANKS */
    uint64_t request; /* REQUEST_ENDED */
    bool mismatch;    /* HELLO */
    uint32_t sum;     /* SANITY_RESULT */
    int error;        /* LOAD_ERROR, RANK_ERROR: enum world_error; SPAWN_FAILED: errno */
    int signal;       /* RANK_DIED: 0, or the signal */
    int exit_code;    /* RANK_DIED without a signal */
    bool oom;         /* RANK_DIED: the kernel killed it for memory */
    uint64_t step;    /* STEP_ISSUED, STEP_COMMITTED */
    const struct world_part *parts; /* STEP_ISSUED: [n_parts], borrowed for the call */
    size_t n_parts;
};

struct world_action {
    enum world_action_kind kind;
    enum world_state state; /* REPORT: the new state; machine->fault says why */
    uint32_t n_ranks;       /* SPAWN_ALL */
    uint64_t epoch;         /* SPAWN_ALL */
    bool keep_weights;      /* SEND_LOAD: map the kept weights; otherwise read them anew */
    bool keep_kv;           /* SEND_LOAD, RESUME: KV pages are kept; otherwise fresh ones, and the
                               committed positions are prefilled again from the journal */
    uint64_t step;          /* RESUME: number of the next step to issue (the one in flight again) */
    bool all;               /* FAIL_REQUESTS: every request, and ids is empty */
    const uint64_t *ids;    /* FAIL_REQUESTS, or RESUME: the requests that are run alone */
    size_t n_ids;           /* ids: borrowed until the next event */
    uint64_t at;            /* ARM_PROBE: time of the next probe */
};

struct world_actions {
    struct world_action list[WORLD_MAX_ACTIONS];
    size_t n;
};

/* Limits in milliseconds; 0: none. */
struct world_config {
    uint32_t restart_budget; /* rebuilds without progress in between; 0: no limit */
    uint32_t probe_ms;       /* from failed to the next probe */
    uint32_t spawn_ms;
    uint32_t hello_ms;
    uint32_t comm_init_ms;
    uint32_t sanity_ms;
    uint32_t load_ms; /* since the last load_progress of any rank */
    uint32_t drain_ms;
    uint32_t stop_ms;   /* between the request to leave and SIGKILL */
    uint32_t reap_ms;   /* until ranks that do not die are killed again and reported */
    bool keeps_weights; /* they lie in memory that outlives a rank */
    bool keeps_kv;      /* so do KV pages; false also forces the path by re-prefill */
};

struct world_machine {
    struct world_config config;
    enum world_state state;
    uint64_t epoch; /* of the last spawn; 0 before the first */
    uint32_t n_ranks;
    struct world_fault fault; /* the last one */

    uint64_t now;
    uint64_t deadline;       /* of the state; 0: none */
    uint64_t drain_deadline; /* of the drain; 0: none */
    uint64_t spawned;        /* rank sets, one bit each */
    uint64_t answered;       /* what the state waits for */
    uint64_t gone;           /* devices lost in this epoch */

    uint32_t in_a_row;     /* rebuilds since the last progress */
    uint32_t oom_in_a_row; /* kills for memory since the last progress */
    bool injected;         /* the epoch's next fault was made on purpose */
    bool loaded;           /* the load was once complete: there may be requests */
    bool weights_valid;    /* the kept weights are complete and cut for n_ranks */
    bool kv_valid;         /* the kept KV pages hold every committed position */
    bool weights_mapped;   /* this epoch's load was told to keep them */
    bool kv_mapped;
    bool drain;             /* drain was asked for */
    bool probing;           /* this epoch is the probe of a failed world */
    bool no_ranks;          /* rebuilding: all are reaped, the back-off runs */
    enum world_state after; /* stopping: WORLD_DOWN or WORLD_FAILED */

    struct flight flight; /* steps, and the requests that may be what kills */

    uint64_t n_rebuilds;
    uint64_t n_stale;   /* events of an old epoch, or of a rank that it does not have */
    uint64_t n_ignored; /* events that changed nothing */
};

/* The defaults of DESIGN.md; keeps both weights and KV pages. */
void world_config_init(struct world_config *config);

void world_machine_init(struct world_machine *machine, const struct world_config *config);
void world_machine_release(struct world_machine *machine);

/* Hands in one event. now is monotonic nanoseconds; a time before the last one counts as that one.
 * Fills *ret_actions (possibly with none). Returns false where the event changed nothing: it is
 * stale, out of order, a duplicate, or refused. A STEP_ISSUED is refused (try again after the next
 * commit or resume) when the world is not ready, when the number is not the next one, when two are
 * in flight, and when a request that is to be run alone would share a step or the pipeline. */
bool world_machine_event(struct world_machine *machine, const struct world_event *event,
                         uint64_t now, struct world_actions *ret_actions);

/* When the machine next needs a TICK; UINT64_MAX if only events can move it. */
uint64_t world_machine_wake_at(const struct world_machine *machine);

/* Number that the next STEP_ISSUED must carry. */
uint64_t world_machine_next_step(const struct world_machine *machine);

const char *world_state_text(enum world_state state);

/* Whether the ranks are up and take steps in this state. */
static inline bool world_computes(enum world_state state)
{
    return state == WORLD_READY || state == WORLD_DRAINING;
}
const char *world_event_text(enum world_event_kind kind);
const char *world_action_text(enum world_action_kind kind);

/* One word: "signal", "hang"; NULL for WORLD_CAUSE_NONE. */
const char *world_cause_word(enum world_cause cause);

/* One sentence, for example "rank 1 died of signal 9 (Killed)". Returns out. */
char *world_fault_text(const struct world_fault *fault, char *out, size_t size);

/* The rules, for tests and for whoever prints them. */
struct world_rule {
    enum world_event_kind event;
    uint32_t states;     /* one bit each */
    const char *handler; /* its name; "ignore": nothing happens */
    const char *what;    /* happens, or why nothing does */
};

extern const struct world_rule world_rules[];
extern const size_t world_n_rules;
