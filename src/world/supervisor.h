/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor: the loop that feeds the world's machine (state.h) with what happens to the ranks
 * and carries out what it says. It owns everything that an epoch consists of (processes, channels,
 * shared memory) and what outlives epochs (the memfds of weights and KV pages, numbers of steps).
 * It knows nothing of requests but their numbers: who issues steps (batch.h) also keeps the journal
 * and gets committed results and orders to resume.
 *
 * One thread calls all of it, and handlers are called on that thread, from supervisor_turn only. A
 * handler may issue steps and stop the world, but not call supervisor_turn or destroy.
 *
 *   supervisor.c        life, the machine's events and actions, the loop
 *   supervisor_epoch.c  what an epoch consists of: made, handed to the ranks, taken away
 *   supervisor_talk.c   control messages: out, and back in as events
 *   supervisor_step.c   plans out, results in, commits
 *   supervisor_trace.c  the ranks' time: counters, recordings
 *   supervisor_watch.c  deaths, hangs, injected faults, and how they are reported
 */
#pragma once

#include <poll.h>

#include "comm/shm.h"
#include "rpc/fault.h"
#include "rpc/message.h"
#include "rpc/result.h"
#include "world/state.h"
#include "world/trace.h"

enum { SUPERVISOR_MAX_RANKS = COMM_SHM_RANKS_MAX, SUPERVISOR_MAX_FAULTS = 64 };

struct supervisor;

struct supervisor_handlers {
    void *arg;
    /* A step was committed by all ranks; the result (the same of each) is valid for the call. */
    void (*commit)(void *arg, const struct step_result *result);
    /* The world is ready, for the first time (keep_kv false) or again: steps that were issued and
     * not committed are void, and the next one has the next number. keep_kv: KV pages hold every
     * committed position; otherwise none. alone: requests that must not share a step or the
     * pipeline. */
    void (*resume)(void *arg, bool keep_kv, const uint64_t *alone, size_t n_alone);
    /* These requests (all: every one) end with an error, which supervisor_why explains. Whenever
     * the world is down it has been told to all. */
    void (*fail)(void *arg, bool all, const uint64_t *ids, size_t n_ids);
    /* Memory ran out twice in a row: give back what is only kept for later (supervisor_drop_page).
     */
    void (*drop_cache)(void *arg);
    /* Of loading, all ranks together. */
    void (*progress)(void *arg, uint64_t bytes, uint64_t total);
    void *progress_arg;
};

struct supervisor_config {
    uint32_t n_ranks;
    struct world_config world;
    uint32_t hang_ms;
    const char *build;          /* what a rank's hello must say, */
    uint32_t layout;            /* and the version of what ranks keep in memory */
    const char *const *devices; /* [n_ranks] names, or NULL */
    const json_t *cores;        /* NULL, or an array of arrays of core numbers, one a rank */
    const json_t *load;         /* {"model", "options"} as the load message has them (borrowed);
                                   NULL: nothing is loaded, only the communicator is proved */
    size_t logits_bytes;        /* of each rank's shared memory for logits; 0: none */
    uint32_t max_rows;          /* of a step */
    uint32_t n_slots;
    uint32_t n_layers;
    uint32_t vocab;
    const char *pack_cache; /* folder of packed weights (pack_cache.h); NULL: none are kept */
    const struct fault_spec *faults; /* [n_faults] to be injected, each once */
    uint32_t n_faults;
    struct supervisor_handlers on;
};

/* Copies what it needs of config. Call it after world_signals_block, with no other thread that
 * could take signals. */
NODISCARD enum status supervisor_create(const struct supervisor_config *config,
                                        struct supervisor **ret_supervisor, struct err *err);
/* Kills and reaps every rank that is left. */
void supervisor_destroy(struct supervisor **supervisor);

/* Asks for the world, from down or failed. */
void supervisor_start(struct supervisor *supervisor);
/* Ends it: ranks are asked to leave, then killed. Down once supervisor_state says so. */
void supervisor_stop(struct supervisor *supervisor);

/* Handles what has happened; if nothing has, waits until something does, extra (borrowed; revents
 * are set) is ready, or deadline_ns has come. While steps are in flight extra is looked at every
 * few milliseconds only. */
void supervisor_turn(struct supervisor *supervisor, uint64_t deadline_ns, struct pollfd *extra,
                     uint32_t n_extra);

enum world_state supervisor_state(const struct supervisor *supervisor);
/* Ranks of the present epoch: fewer than configured once a device is gone for good. */
uint32_t supervisor_ranks(const struct supervisor *supervisor);
/* Why the world was last rebuilt, stopped or failed: one line, with every rank's own error. */
const char *supervisor_why(const struct supervisor *supervisor);
/* The last fault, for who shows it; kind NULL: there was none. */
struct supervisor_fault {
    const char *kind; /* "signal", "hang" ...: world_cause_word */
    uint32_t rank;
    bool injected;
    uint64_t step; /* where the rank was; 0: in no step */
    uint32_t layer;
    uint32_t collective;
};
struct supervisor_fault supervisor_last_fault(const struct supervisor *supervisor);
/* What the rank has read of its share, in this epoch's load. */
void supervisor_load_progress(const struct supervisor *supervisor, uint32_t rank,
                              uint64_t *ret_done, uint64_t *ret_total);
/* True if the last load was refused for a reason that lies with the user: files, options, memory.
 */
bool supervisor_refused(const struct supervisor *supervisor);
uint64_t supervisor_epoch(const struct supervisor *supervisor);
uint64_t supervisor_rebuilds(const struct supervisor *supervisor);
uint64_t supervisor_next_step(const struct supervisor *supervisor);
pid_t supervisor_pid(const struct supervisor *supervisor, uint32_t rank); /* 0: not alive */
/* clock_ns() at which the last fault was noticed; 0: none. */
uint64_t supervisor_fault_ns(const struct supervisor *supervisor);
/* From the last sign of life of the rank that it was about to that moment: of a hang exactly, of a
 * death an upper bound. 0: none. */
uint64_t supervisor_detection_ns(const struct supervisor *supervisor);
/* And at which the world was last ready; 0: never. */
uint64_t supervisor_ready_ns(const struct supervisor *supervisor);
/* The body of rank's last answer of this type (sanity_result, load_ok, pong), NULL if none;
 * borrowed until the next turn. */
const json_t *supervisor_answer(const struct supervisor *supervisor, enum message_type type,
                                uint32_t rank);
/* Logits of the last committed step that asked for them, this rank's columns; NULL without. */
const float *supervisor_logits(const struct supervisor *supervisor, uint32_t rank);

/* What a rank has done in all epochs so far. */
struct supervisor_counters {
    uint64_t steps;
    uint64_t rows;
    uint64_t collectives;
    uint64_t step_ns;        /* in steps, collectives included */
    uint64_t collective_ns;  /* in those, peers' slowness included */
    uint64_t wait_ns;        /* without anything to do */
    uint64_t frames_dropped; /* of the control channel, on both sides */
};
void supervisor_rank_counters(const struct supervisor *supervisor, uint32_t rank,
                              struct supervisor_counters *ret_counters);

/* Begins a recording of every step, layer and collective; it goes on over rebuilds, filled by
 * supervisor_turn. STATUS_PENDING: one is under way. */
NODISCARD enum status supervisor_trace_begin(struct supervisor *supervisor, struct err *err);
bool supervisor_tracing(const struct supervisor *supervisor);
/* Ends it and gives it away (trace_destroy); NULL if none is under way. */
struct trace *supervisor_trace_end(struct supervisor *supervisor);

/* False: a step would be refused now, whatever is in it. */
bool supervisor_can_issue(const struct supervisor *supervisor);

/* Sends a step to all ranks. plan->step is set to its number. STATUS_PENDING: not now (the world is
 * not ready, two steps are in flight, a lone request would have company). */
NODISCARD enum status supervisor_issue(struct supervisor *supervisor, struct step_plan *plan,
                                       const struct world_part *parts, size_t n_parts,
                                       struct err *err);

/* Gives back the memory of a KV page that no request uses, on every rank. */
void supervisor_drop_page(struct supervisor *supervisor, uint32_t page);

/* True while the request must not share a step or the pipeline; a step of its own that succeeds may
 * have ended that. */
bool supervisor_is_alone(const struct supervisor *supervisor, uint64_t request);

/* The request is over, whatever came of it. */
void supervisor_request_ended(struct supervisor *supervisor, uint64_t request);

/* Injects a fault, now if the world is up, else as soon as its rank is. STATUS_INVALID (no such
 * rank), STATUS_LIMIT. */
NODISCARD enum status supervisor_inject(struct supervisor *supervisor,
                                        const struct fault_spec *spec, struct err *err);

/* Asks all ranks for their memory and counters; the answers are there (supervisor_answer,
 * MESSAGE_QUERY_RESULT) once supervisor_asking is false again. */
void supervisor_query(struct supervisor *supervisor);
bool supervisor_asking(const struct supervisor *supervisor);

/* State, epoch, ranks with pids and places, counters: for whoever asks from outside. A new
 * reference. */
json_t *supervisor_describe(const struct supervisor *supervisor);
