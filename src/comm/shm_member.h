/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the back end shm: a member, and where in the region what it has and others have lies. */
#pragma once

#include "comm/backend.h"
#include "comm/combine.h"
#include "comm/shm_layout.h"

/* A send or receive under way. */
struct shm_message {
    struct shm_message *next; /* with the same peer in the same direction */
    bool is_send;
    bool is_shown; /* its place was sent: it is done when that chunk is taken */
    uint32_t peer;
    uint32_t type;
    size_t count;
    size_t bytes;
    size_t done;
    const char *in;
    char *out;
};

struct shm_line { /* what there is with one peer in one direction */
    struct shm_message *first;
    struct shm_message **last; /* where the next one is hung up */
    uint32_t n_chunks;         /* sent or received so far */
    uint32_t n_taken;          /* of those sent: as last seen */
};

/* Whether this rank can read a peer's memory, and all ranks each other's. */
enum shm_reach { SHM_UNKNOWN, SHM_UNREACHABLE, SHM_OTHER_PROCESS, SHM_SAME_PROCESS };

enum {
    SHM_SCRATCH_BYTES = (64 << 10) + SHM_LINE
}; /* what is read of each peer before it is combined */

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
    bool owes_wake;       /* somebody may sleep on the newest arrival */
    uint64_t patience_ns; /* and how much longer the one under way (shm_be_patient) */
    struct err failure;   /* what every further call returns */
    struct combine_program programs[SHM_PROGRAMS];
    uint32_t next_program;                /* to be replaced */
    struct combine_program ranks_program; /* one leaf a rank, for all_reduce */
    struct combine_math math;             /* of the newest reduction: the next is often like it */
    uint64_t math_of;                     /* type and reduction, or 0 */
    struct shm_line sends[COMM_SHM_RANKS_MAX];
    struct shm_line receives[COMM_SHM_RANKS_MAX];
    size_t n_messages;           /* that are not done */
    _Atomic uint32_t has_failed; /* failure may be read by any thread */
    uint64_t probe;              /* what peers look for */
    enum shm_reach reach[COMM_SHM_RANKS_MAX];
    bool knows_all; /* all_reach was agreed on */
    bool all_reach;
    unsigned char *scratch; /* [n_ranks][SHM_SCRATCH_BYTES]; NULL as long as it is not used */
};

static inline char *shm_slot(const struct shm *shm, uint32_t rank)
{
    size_t number = 2 * (size_t)rank + (shm->turn & 1);

    return (char *)shm->region + SHM_SLOTS_AT + number * SHM_SLOT_BYTES;
}

/* Copies bytes to where head of them share a line with the word that publishes them, on which the
 * reader spins: these last, else it would take the line away in between. */
static inline void shm_copy_last(char *to, size_t head, const char *from, size_t bytes)
{
    if (bytes > head) {
        memcpy(to + head, from + head, bytes - head);
    }
    if (bytes > 0) {
        memcpy(to, from, MIN(bytes, head));
    }
}

/* Writes n bytes of this rank's vector of so many, before a step. */
static inline void shm_put_vector(struct shm *shm, size_t bytes, const char *from, size_t n)
{
    if (bytes <= SHM_TINY_BYTES) {
        shm_copy_last(shm->self->arrivals[(shm->step + 1) & 1].data, SHM_TINY_HEAD, from, n);
    } else if (n > 0) {
        memcpy(shm_slot(shm, shm->comm.rank), from, n);
    }
}

static inline size_t shm_channels_at(uint32_t n_ranks)
{
    return round_up(SHM_SLOTS_AT + 2 * (size_t)n_ranks * SHM_SLOT_BYTES, 4096);
}

static inline struct shm_channel *shm_channel(const struct shm *shm, uint32_t from, uint32_t to)
{
    char *channels = (char *)shm->region + shm_channels_at(shm->comm.n_ranks);

    return (struct shm_channel *)(void *)channels + (size_t)from * shm->comm.n_ranks + to;
}

static inline const struct shm_call *shm_call_of(const struct shm *shm, uint32_t rank)
{
    return &shm->region->ranks[rank].arrivals[shm->step & 1].call;
}

/* Where a rank's is, after it. */
static inline const char *shm_vector(const struct shm *shm, uint32_t rank, size_t bytes)
{
    return bytes <= SHM_TINY_BYTES ? shm->region->ranks[rank].arrivals[shm->step & 1].data
                                   : shm_slot(shm, rank);
}

/* The same for what one rank has for another and for no third, and the bytes of it. */
static inline void shm_put_block(struct shm *shm, uint32_t peer, const char *from, size_t bytes)
{
    if (shm->comm.n_ranks == 2) {
        shm_put_vector(shm, bytes, from, bytes);
    } else if (bytes > 0) {
        memcpy(shm_slot(shm, shm->comm.rank) + (size_t)peer * SHM_PIECE_BYTES, from, bytes);
    }
}

static inline const char *shm_block(const struct shm *shm, uint32_t peer, size_t bytes)
{
    return shm->comm.n_ranks == 2 ? shm_vector(shm, peer, bytes)
                                  : shm_slot(shm, peer) + (size_t)shm->comm.rank * SHM_PIECE_BYTES;
}
