/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the back end shm: the region's layout and the step that all collectives are made of. */
#pragma once

#include "comm/combine.h"
#include "comm/shm.h"

enum {
    SHM_LINE = 128,              /* two cache lines: processors fetch them in pairs */
    SHM_PIECE_BYTES = 128 << 10, /* of one vector */
    SHM_ROOTS_MAX = 16,          /* of one rank: enough for any range of 512 leaves */
    /* a slot has room for the roots and for one share of a result; its odd end keeps the same
     * element of different slots out of the same cache set */
    SHM_RESULT_AT = SHM_ROOTS_MAX * SHM_PIECE_BYTES,
    SHM_SLOT_BYTES = SHM_RESULT_AT + SHM_PIECE_BYTES + 3 * SHM_LINE,
};

enum shm_op { SHM_NONE, SHM_SUM_TREE, SHM_ALL_REDUCE, SHM_ALL_GATHER, SHM_BROADCAST, SHM_BARRIER };

/* What a rank says it calls. All but the leaf range must be the same everywhere. */
struct shm_call {
    uint64_t count;
    uint32_t op;
    uint32_t type;
    uint32_t reduction;
    uint32_t root;
    uint32_t n_leaves;
    uint32_t first; /* leaf range of sum_tree */
    uint32_t n_owned;
    uint32_t unused;
};

/* Written by its rank alone; call is valid while step is the reader's own number. */
struct shm_arrival {
    _Alignas(SHM_LINE) _Atomic uint32_t step;
    struct shm_call call;
};

enum shm_state { SHM_EMPTY, SHM_JOINED, SHM_LEFT, SHM_ABORTED, SHM_FAILED };

struct shm_rank {
    struct shm_arrival arrivals[2]; /* by parity of the step */
    /* a line that peers read now and then */
    _Alignas(SHM_LINE) _Atomic uint32_t state; /* enum shm_state; also written by comm_abort */
    _Atomic uint32_t asleep;                   /* 1 + the rank whose arrival it sleeps on, or 0 */
    /* a line that only watchers read: number << 8 | op << 1 | inside */
    _Alignas(SHM_LINE) _Atomic uint64_t progress;
};

struct shm_region {
    _Atomic uint64_t magic; /* written last */
    uint32_t version;
    uint32_t n_ranks;
    struct comm_id id;
    _Alignas(SHM_LINE) _Atomic uint32_t abort; /* set by comm_shm_abort */
    _Alignas(SHM_LINE) struct shm_rank ranks[COMM_SHM_RANKS_MAX];
};

/* Slots of rank 0, rank 1, ... begin here, two each. */
enum { SHM_SLOTS_AT = (sizeof(struct shm_region) + 4095) / 4096 * 4096 };

enum { SHM_PROGRAMS = 4 }; /* divisions of leaves that are in use at once, normally one or two */

struct shm {
    struct comm comm; /* first: a struct comm * is a struct shm * */
    struct shm_region *region;
    struct shm_rank *self;
    uint32_t step;        /* published last */
    uint32_t turn;        /* slot uses so far: the next is slot turn & 1 */
    uint64_t number;      /* of the collective under way */
    struct shm_call call; /* likewise */
    uint64_t deadline_ns; /* likewise; 0: it has not waited long enough to look at the clock */
    uint64_t spin_ns;     /* how long a wait spins before it sleeps */
    struct err failure;   /* what every further call returns */
    struct combine_program programs[SHM_PROGRAMS];
    uint32_t next_program;                /* to be replaced */
    struct combine_program ranks_program; /* one leaf a rank, for all_reduce */
};

/* A rank's slot of the collective under way. */
static inline char *shm_slot(const struct shm *shm, uint32_t rank)
{
    size_t number = 2 * (size_t)rank + (shm->turn & 1);

    return (char *)shm->region + SHM_SLOTS_AT + number * SHM_SLOT_BYTES;
}

const char *shm_op_name(uint32_t op);

/* Marks the communicator as failed and tells why. Returns status. */
NODISCARD enum status shm_fail(struct shm *shm, struct err *err, enum status status,
                               const char *format, ...) PRINTF_LIKE(4, 5);

/* One step of the collective under way: publishes the own slot with shm->call, returns when every
 * rank has published the same call. */
NODISCARD enum status shm_step(struct shm *shm, struct err *err);

/* The collective under way begins, ends. */
NODISCARD enum status shm_enter(struct shm *shm, const struct shm_call *call, struct err *err);
void shm_leave(struct shm *shm);

void shm_abort(struct comm *comm);
void shm_destroy(struct comm **comm);

extern const struct comm_backend shm_backend;
