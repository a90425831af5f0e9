/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world inside: its ranks, its epoch, and a thread that drives the machine of world/state.h. Here
 * "spawned" is a device whose context is up, kill_all withdraws and aborts what the epoch has under
 * way, and "all reaped" means that no device carries anything out for it any more.
 *
 * What breaks an epoch (a device lost, a part that failed) is noted by whoever learns of it, at
 * once, so that no part of it can be taken for a success's remainder; the thread does the rest.
 *
 * Locks: changing over the telling of a state, lock for the fields. A device's lock may be taken
 * while lock is held, and a device's changing never.
 */
#pragma once

#include "lib/op.h"
#include "lib/region.h"
#include "world/state.h"

enum world_note_kind {
    NOTE_DEVICE_UP,     /* rank, generation */
    NOTE_DEVICE_FAILED, /* rank */
    NOTE_JOINED,        /* rank, epoch */
    NOTE_SUM,           /* rank, epoch, sum */
    NOTE_BROKEN,        /* epoch: world->broken_* say why */
    NOTE_COMMITTED,     /* epoch */
    NOTE_EMPTY,         /* nothing of the epoch is under way any more */
    NOTE_CLOSE,
};

struct world_note {
    enum world_note_kind kind;
    uint32_t rank;
    uint64_t epoch;
    uint64_t generation;
    uint32_t sum;
};

struct world_rank {
    struct lockstep_device *device; /* a reference */
    uint64_t generation;            /* of this epoch; 0: not up yet in it */
    uint32_t n_out;                 /* parts under way */
    struct task build;              /* the part in building that is under way, if build_out */
    bool build_out;
    const struct work *build_works[1];
    struct work build_work;
    struct work_join join;
    struct lockstep_world *world; /* for the build's done */
};

struct lockstep_world {
    uint32_t n_ranks;
    uint32_t in_flight_limit;
    uint32_t leave_ms;
    pthread_t thread;
    struct world_machine machine; /* the thread's */
    uint32_t n_kills;             /* the thread's: kill_all in this epoch */

    pthread_mutex_t changing;
    struct watch_list watches; /* changing's */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t noted; /* the thread waits for it */
    pthread_cond_t changed;
    struct world_rank ranks[LOCKSTEP_RANKS_MAX];
    enum lockstep_world_state state;
    uint64_t epoch;
    uint64_t n_rebuilds;
    char reason[512];
    bool ended;            /* the thread is gone, or going */
    struct region *region; /* of the epoch; NULL: none */
    bool committed;        /* an operation of this epoch has succeeded */
    bool broken;           /* the epoch has ended; if so: */
    bool broken_by_abort;  /*   lockstep_world_abort, or the world's end */
    bool broken_by_device; /*   a device was lost */
    uint32_t broken_rank;
    enum lockstep_status broken_status;
    const struct lockstep_op *broken_op; /*   the operation whose failure it was, or NULL */
    char broken_text[512];
    uint32_t n_out;       /* parts under way, of all ranks */
    uint32_t n_in_flight; /* operations */
    struct world_note *notes;
    size_t n_notes;
    size_t notes_cap;
};

/* The thread's main function; its argument is the world. */
void *lib_world_run(void *arg);

/* lock is held: notes something for the thread. */
void lib_world_note(struct lockstep_world *world, const struct world_note *note);

/* lock is held: the epoch has ended, unless it has before. op: whose failure it is, or NULL. */
void lib_world_break(struct lockstep_world *world, uint32_t rank, enum lockstep_status status,
                     bool by_device, const struct lockstep_op *op, const char *text);

/* lock is held: one part of rank's has ended. */
void lib_world_part_ended(struct lockstep_world *world, uint32_t rank);

/* The part of op on its rank has ended, for a task of a group too. */
void lib_world_op_part_done(struct op_part *part, const struct work_result *result);

struct watch_list *lib_world_watches(struct lockstep_world *world, pthread_mutex_t **ret_lock);
void lib_world_event(struct lockstep_world *world, struct lockstep_event *ret_event);

/* OK, NOT_READY or GIVEN_UP, with lock held. */
enum lockstep_status lib_world_check_ready(struct lockstep_world *world, const char *name,
                                           struct lockstep_error *error);
