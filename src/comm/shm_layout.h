/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the back end shm: what lies where in the region, and who writes it. */
#pragma once

#include <stdatomic.h>

#include "comm/shm.h"

enum {
    SHM_LINE = 128,              /* two cache lines: processors fetch them in pairs */
    SHM_PIECE_BYTES = 128 << 10, /* of one vector */
    SHM_ROOTS_MAX = 16,          /* of one rank: enough for any range of 512 leaves */
    /* a slot has room for the roots, or for a piece to each rank, then for one share of a result,
     * and for the counts of all_to_allv; its odd end keeps the same element of different slots out
     * of the same cache set */
    SHM_RESULT_AT = SHM_ROOTS_MAX * SHM_PIECE_BYTES,
    SHM_COUNTS_AT = SHM_RESULT_AT + SHM_PIECE_BYTES,
    SHM_SLOT_BYTES = SHM_COUNTS_AT + 5 * SHM_LINE,
};

/* What a rank says it calls. All before first must be the same everywhere. Nothing here is trusted.
 */
struct shm_call {
    uint64_t count;
    uint64_t what; /* shm_what */
    /* The leaf range of sum_tree; of a short all_to_allv between two ranks the elements to and from
     * the other, of any other all_to_allv UINT32_MAX. */
    uint32_t first;
    uint32_t n_owned;
    uint64_t scale; /* bytes of it, of premul_sum */
};

/* A vector so short needs no slot: it goes with the call, if it is very short in the very line that
 * readers wait for. */
enum {
    SHM_TINY_BYTES = SHM_LINE - sizeof(uint64_t) - sizeof(struct shm_call),
    SHM_TINY_HEAD = SHM_TINY_BYTES - CACHE_LINE, /* of it in that line */
};

/* Written by its rank alone; call and data are valid while step is the reader's own number. */
struct shm_arrival {
    _Alignas(SHM_LINE) _Atomic uint32_t step;
    struct shm_call call;
    char data[SHM_TINY_BYTES];
};

_Static_assert(sizeof(struct shm_arrival) == SHM_LINE, "one pair of lines");

/* The parts of shm_call.what, in one word that is put together, copied and compared at once. */
static inline uint64_t shm_what(uint32_t operation, uint32_t type, uint32_t reduction,
                                uint32_t root, uint32_t n_leaves)
{
    return operation | type << 8 | reduction << 16 | root << 24 | (uint64_t)n_leaves << 32;
}

static inline uint32_t shm_operation_of(const struct shm_call *call)
{
    return call->what & 0xff;
}

static inline uint32_t shm_type_of(const struct shm_call *call)
{
    return call->what >> 8 & 0xff;
}

static inline uint32_t shm_reduction_of(const struct shm_call *call)
{
    return call->what >> 16 & 0xff;
}

static inline uint32_t shm_root_of(const struct shm_call *call)
{
    return call->what >> 24 & 0xff;
}

static inline uint32_t shm_n_leaves_of(const struct shm_call *call)
{
    return (uint32_t)(call->what >> 32);
}

enum shm_state { SHM_EMPTY, SHM_JOINED, SHM_LEFT, SHM_ABORTED, SHM_FAILED };

struct shm_rank {
    struct shm_arrival arrivals[2]; /* by parity of the step */
    /* a line that peers read now and then */
    _Alignas(SHM_LINE) _Atomic uint32_t state; /* enum shm_state; also written by comm_abort */
    _Atomic uint32_t asleep;                   /* 1 + the rank whose arrival it sleeps on, or 0 */
    /* for messages: it sleeps on its bell, which whoever wakes it changes; no more than a hint */
    _Atomic uint32_t listening;
    _Atomic uint32_t bell;
    /* where its process and a word in it are, for who wants to read its memory (shm_direct.c) */
    _Alignas(SHM_LINE) uint64_t pid;
    uint64_t probe_at;
    uint64_t probe;
    /* a line that only watchers read: number << 8 | operation << 1 | inside */
    _Alignas(SHM_LINE) _Atomic uint64_t progress;
};

/* One part of a message, or all of it. */
struct shm_chunk {
    _Alignas(SHM_LINE) _Atomic uint32_t number; /* 1 + how many came before it in the channel */
    uint32_t type;                              /* of the message */
    uint64_t count;
    uint64_t lies_at; /* not 0: the message is not here but there, in the sender's memory */
    _Alignas(32) char data[(16 << 10) - 32];
};

enum { SHM_CHUNKS = 8, SHM_CHUNK_HEAD = CACHE_LINE - offsetof(struct shm_chunk, data) };

/* Messages from one rank to another: a ring of chunks. */
struct shm_channel {
    _Alignas(SHM_LINE) _Atomic uint32_t taken; /* chunks; by the receiver, as is */
    _Atomic uint32_t refused;                  /* 1: it expected another message, this one: */
    uint32_t expected_type;
    uint64_t expected_count;
    _Atomic uint32_t readable;           /* 1: the receiver can read the sender's memory */
    struct shm_chunk chunks[SHM_CHUNKS]; /* by the sender */
};

struct shm_region {
    _Atomic uint64_t magic; /* written last */
    uint32_t version;
    uint32_t n_ranks;
    struct comm_id id;
    _Alignas(SHM_LINE) _Atomic uint32_t abort; /* set by comm_shm_abort */
    _Alignas(SHM_LINE) struct shm_rank ranks[COMM_SHM_RANKS_MAX];
};

/* Slots of rank 0, rank 1, ... begin here, two each; then the channels from rank 0 to rank 0, to
 * rank 1, ... */
enum { SHM_SLOTS_AT = (sizeof(struct shm_region) + 4095) / 4096 * 4096 };
