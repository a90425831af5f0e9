/* SPDX-License-Identifier: Apache-2.0 */
/* Private to supervisor*.c: its state. */
#pragma once

#include "rpc/channel.h"
#include "rpc/wiring.h"
#include "world/hang.h"
#include "world/spawner.h"
#include "world/supervisor.h"

enum {
    SUPERVISOR_RING_SLOTS = 8, /* two plans, and words of messages */
    SUPERVISOR_MAX_EVENTS = 256,
};

/* What the leader has of one rank in the present epoch. */
struct member {
    struct channel channel;
    int region_fd;      /* the rank's own region */
    pid_t pid;          /* 0: not alive */
    bool asked;         /* a request is unanswered */
    uint64_t silent_ns; /* watched time for which it is so, with no step in flight */
    uint64_t cut_ns;    /* when its channel was cut; 0: it is whole, or that has been dealt with */
    bool unloaded;
    uint64_t load_done;
    uint64_t load_total;
    json_t *answers[MESSAGE_END]; /* the last of each type */
    struct err err;               /* the last error it reported */
    struct err cut;               /* why its channel was cut */
};

/* A step in flight. */
struct pending_step {
    uint64_t number;
    uint64_t plan_hash;
    uint32_t n_wants;
    uint32_t n_rows;
    uint64_t issued_ns;
    uint64_t done;    /* ranks whose result is there, one bit each */
    uint32_t first;   /* the rank whose result is kept */
    uint64_t *record; /* the first of the results, 8-byte aligned */
    size_t record_bytes;
    bool by_channel;
};

/* A fault to be injected once. */
struct planned_fault {
    uint32_t id; /* under which a rank records it; never used again */
    struct fault_spec spec;
    bool fired;
    bool armed; /* the process of this epoch was told of it */
};

/* Memory that outlives an epoch; all -1 where there is none. */
struct kept_fds {
    int weights[SUPERVISOR_MAX_RANKS];
    int kv[SUPERVISOR_MAX_RANKS];
    uint64_t kv_page_bytes[SUPERVISOR_MAX_RANKS]; /* 0: not known */
    int host;
    bool from_files; /* weights and host are files of the pack cache, which nobody may write */
    bool unsaved;    /* they are new, and the pack cache has no copy */
};

struct supervisor {
    struct supervisor_config config;
    json_t *load;
    json_t *cores;
    char devices[SUPERVISOR_MAX_RANKS][64];
    struct world_machine machine;
    struct spawner *spawner;
    struct hang hang;
    uint64_t looked_ns;     /* at progress words, */
    uint64_t around_ns;     /* at channels and processes, */
    uint64_t extra_ns;      /* and at the caller's descriptors */
    _Atomic uint32_t alarm; /* changes when a process has started or ended */
    uint32_t alarm_seen;
    bool has_alarm;           /* this kernel can wait for it and for a rank at once */
    uint64_t around_every_ns; /* how long channels may go unlooked at while steps are in flight */

    struct world_event events[SUPERVISOR_MAX_EVENTS]; /* to be fed, in order */
    uint32_t n_events;

    uint32_t places[SUPERVISOR_MAX_RANKS];        /* of each rank, in config's devices and cores */
    uint32_t device_faults[SUPERVISOR_MAX_RANKS]; /* of each rank, since a step was committed */
    bool place_gone[SUPERVISOR_MAX_RANKS];

    uint32_t n_members;
    struct member members[SUPERVISOR_MAX_RANKS];
    int leader_fd; /* the leader's region */
    int comm_fd;
    void *comm_region;
    size_t comm_region_bytes;
    struct comm_id id;
    struct wiring_leader wiring;
    bool wired;
    uint32_t result_bytes;
    uint64_t *incoming; /* a result as it came */
    void *plan_record;
    size_t plan_record_bytes;

    struct kept_fds kept;
    struct pack_cache *pack_cache; /* NULL: none */
    int logits_fds[SUPERVISOR_MAX_RANKS];
    const float *logits[SUPERVISOR_MAX_RANKS];

    struct pending_step steps[FLIGHT_MAX_STEPS]; /* oldest first */
    uint32_t n_steps;

    struct planned_fault faults[SUPERVISOR_MAX_FAULTS];
    uint32_t n_faults;
    uint32_t last_fault_id;
    bool unloading; /* the ranks were asked to unload, and then are to leave */
    bool asking;    /* a query is under way */
    bool want_query;
    uint64_t refused_ns; /* when the first refusal of this epoch came; 0: none */
    struct world_event refusal;
    char why[ERR_TEXT_BYTES];
    char hang_text[256]; /* who stopped where, the last time */
    struct supervisor_fault last_fault;
    uint64_t oom_kills;                                    /* that the kernel has counted */
    uint64_t detection_ns;                                 /* of the last fault */
    struct supervisor_counters past[SUPERVISOR_MAX_RANKS]; /* of epochs that are over */
    struct trace *trace;                                   /* NULL: nobody asked for one */
    struct trace_reader trace_readers[SUPERVISOR_MAX_RANKS];
    uint64_t fault_ns; /* when the last fault was noticed, */
    uint64_t ready_ns; /* and when the world was last ready */
};

/* Notes an event for the machine; it is fed before the turn is over. */
void supervisor_post(struct supervisor *s, const struct world_event *event);
/* An event of the present epoch and this rank. */
struct world_event supervisor_event(const struct supervisor *s, enum world_event_kind kind,
                                    uint32_t rank);

/* --- supervisor_epoch.c --- */
void epoch_spawn(struct supervisor *s, uint32_t n_ranks);
void epoch_connect(struct supervisor *s); /* comm_init to all */
void epoch_release(struct supervisor *s); /* all ranks are reaped */
void kept_release(struct supervisor *s);
/* Before a first load: takes what the pack cache has, so that the ranks map it. */
void kept_find(struct supervisor *s);
/* A rank refused the load: what came from the pack cache is discarded there. */
void kept_refused(struct supervisor *s);
/* After load_ok of all: new weights go to the pack cache. */
void kept_save(struct supervisor *s);
/* Fresh memfds, or those that are kept; STATUS_IO. */
NODISCARD enum status kept_prepare(struct supervisor *s, bool keep_weights, bool keep_kv,
                                   struct err *err);
/* After load_ok of a rank: nobody writes its weights any more. */
void kept_seal(struct supervisor *s, uint32_t rank);
/* After load_ok of all: nor the embedding. */
void kept_seal_host(struct supervisor *s);

/* --- supervisor_talk.c --- */
/* Asks every rank; outs is NULL or [n_members]. A rank that cannot be asked is a fault. */
void talk_ask_all(struct supervisor *s, enum message_type type, const struct message_out *outs);
bool talk_busy(const struct supervisor *s);
void talk_send_load(struct supervisor *s, bool keep_weights, bool keep_kv);
/* Takes what has come over the channels; true if anything has. */
bool talk_take(struct supervisor *s);
/* Ranks whose channel is cut and that still live: true if there was one to be reported. */
bool talk_watch_cut(struct supervisor *s, uint64_t now);
/* Ranks that have nothing to do and do not answer, though the world is up: hung. passed_ns: since
 * the last call. */
bool talk_watch_silent(struct supervisor *s, uint64_t passed_ns);
/* While the world stops politely: this rank has unloaded, or never will. The last one: all may
 * leave. */
void talk_unloaded(struct supervisor *s, uint32_t rank);
/* When talk_watch_cut next has something to say; UINT64_MAX: not at all. */
uint64_t talk_wake_at(const struct supervisor *s);
/* Sends what waits for a free channel: faults, queries. */
void talk_pump(struct supervisor *s);

/* --- supervisor_step.c --- */
bool step_take(struct supervisor *s);
/* Sleeps until a rank has finished the oldest step, at most until deadline. */
void step_wait(struct supervisor *s, uint64_t deadline_ns);
/* A rank says that its device has failed. The second time in a row it is taken to be gone for good:
 * true if that was posted. */
bool watch_device(struct supervisor *s, uint32_t rank);
/* A result that came over the channel. */
void step_result_in(struct supervisor *s, uint32_t rank, const void *bytes, size_t n);
void step_drop_all(struct supervisor *s);

/* --- supervisor_trace.c --- */
void trace_look(struct supervisor *s);
void trace_epoch_begins(struct supervisor *s); /* its rings are there */
void trace_epoch_ends(struct supervisor *s);   /* its memory is about to go */
void trace_step_ended(struct supervisor *s, const struct pending_step *step, bool committed);
void trace_ready(struct supervisor *s); /* the world, again */

/* --- supervisor_watch.c --- */
void watch_start(struct supervisor *s); /* once, before the first epoch */
bool watch_processes(struct supervisor *s);
bool watch_progress(struct supervisor *s, uint64_t now);
/* True if the fault is for a process of this epoch that was not told of it. */
bool watch_is_due(const struct supervisor *s, const struct planned_fault *fault);
/* Reads from the status pages which injected faults have fired, and tells the machine; before any
 * event that may be their consequence. */
void watch_injected(struct supervisor *s);
/* The last fault in words, for supervisor_why. */
void watch_explain(struct supervisor *s);
void watch_report(struct supervisor *s, enum world_state state);
