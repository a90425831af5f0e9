/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the back end shm: the region's layout and the step that all collectives are made of. */
#pragma once

#include "comm/backend.h"
#include "comm/combine.h"
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
    uint32_t operation; /* enum comm_operation */
    uint32_t type;
    uint32_t reduction;
    uint32_t root;
    uint32_t n_leaves;
    uint32_t first; /* leaf range of sum_tree */
    uint32_t n_owned;
    uint32_t unused;
    uint64_t scale; /* bytes of it, of premul_sum */
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
    /* for messages: it sleeps on its bell, which whoever wakes it changes; no more than a hint */
    _Atomic uint32_t listening;
    _Atomic uint32_t bell;
    /* a line that only watchers read: number << 8 | operation << 1 | inside */
    _Alignas(SHM_LINE) _Atomic uint64_t progress;
};

/* One part of a message, or all of it. */
struct shm_chunk {
    _Alignas(SHM_LINE) _Atomic uint32_t number; /* 1 + how many came before it in the channel */
    uint32_t type;                              /* of the message */
    uint64_t count;
    char data[(16 << 10) - 16];
};

enum { SHM_CHUNKS = 8 };

/* Messages from one rank to another: a ring of chunks. */
struct shm_channel {
    _Alignas(SHM_LINE) _Atomic uint32_t taken; /* chunks; by the receiver, as is */
    _Atomic uint32_t refused;                  /* 1: it expected another message, this one: */
    uint32_t expected_type;
    uint64_t expected_count;
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

/* A send or receive under way. */
struct shm_message {
    struct shm_message *next; /* with the same peer in the same direction */
    bool is_send;
    bool begun; /* its first chunk was sent or received */
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
    struct shm_line sends[COMM_SHM_RANKS_MAX];
    struct shm_line receives[COMM_SHM_RANKS_MAX];
    size_t n_messages;           /* that are not done */
    _Atomic uint32_t has_failed; /* failure may be read by any thread */
};

/* A rank's slot of the collective under way. */
static inline char *shm_slot(const struct shm *shm, uint32_t rank)
{
    size_t number = 2 * (size_t)rank + (shm->turn & 1);

    return (char *)shm->region + SHM_SLOTS_AT + number * SHM_SLOT_BYTES;
}

/* Where the channels begin. */
static inline size_t shm_channels_at(uint32_t n_ranks)
{
    return round_up(SHM_SLOTS_AT + 2 * (size_t)n_ranks * SHM_SLOT_BYTES, 4096);
}

static inline struct shm_channel *shm_channel(const struct shm *shm, uint32_t from, uint32_t to)
{
    char *channels = (char *)shm->region + shm_channels_at(shm->comm.n_ranks);

    return (struct shm_channel *)(void *)channels + (size_t)from * shm->comm.n_ranks + to;
}

/* What a rank said in the newest step. */
static inline const struct shm_call *shm_call_of(const struct shm *shm, uint32_t rank)
{
    return &shm->region->ranks[rank].arrivals[shm->step & 1].call;
}

/* Marks the communicator as failed and tells why. Returns status. */
NODISCARD enum status shm_fail(struct shm *shm, struct err *err, enum status status,
                               const char *format, ...) PRINTF_LIKE(4, 5);

/* Names of what peers wrote, which may be anything. */
const char *shm_operation_name(uint32_t operation);
const char *shm_type_name(uint32_t type);

/* One step of the collective under way. Begin publishes the own slot with shm->call; end returns
 * when every rank has published the same call. */
void shm_step_begin(struct shm *shm);
NODISCARD enum status shm_step_end(struct shm *shm, struct err *err);
NODISCARD enum status shm_step(struct shm *shm, struct err *err);

/* The collective under way begins, ends. */
NODISCARD enum status shm_enter(struct shm *shm, const struct shm_call *call, struct err *err);
void shm_leave(struct shm *shm);

/* Ends the collective under way if all is well. Returns status. */
NODISCARD enum status shm_finish(struct shm *shm, enum status status);

/* STATUS_CANCELLED if it or the world was aborted. */
NODISCARD enum status shm_check_aborted(struct shm *shm, struct err *err);

/* Notes when the deadline is, at its first call in a collective; true once it is over. */
bool shm_is_late(struct shm *shm, uint64_t now);

/* Messages (shm_message.c). Add hangs up one that stays where it is until it is done or the
 * communicator has failed; progress does what can be done without waiting, *ret_moved says if that
 * was anything; finish waits until all are done. */
void shm_message_add(struct shm *shm, struct shm_message *message, const struct comm_call *call);
NODISCARD enum status shm_message_progress(struct shm *shm, bool *ret_moved, struct err *err);
NODISCARD enum status shm_message_finish(struct shm *shm, struct err *err);

/* The operations; each enters and leaves. */
NODISCARD enum status shm_sum_tree(struct comm *comm, const struct comm_tree *args,
                                   struct err *err);
float *shm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                          size_t *ret_root_stride);
NODISCARD enum status shm_all_reduce(struct comm *comm, const struct comm_data *data,
                                     enum comm_reduction reduction, struct err *err);
NODISCARD enum status shm_reduce(struct shm *shm, const struct comm_call *args, struct err *err);
NODISCARD enum status shm_reduce_scatter(struct shm *shm, const struct comm_call *args,
                                         struct err *err);
NODISCARD enum status shm_all_gather(struct comm *comm, const struct comm_data *data,
                                     struct err *err);
NODISCARD enum status shm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                                    struct err *err);
NODISCARD enum status shm_all_to_all(struct shm *shm, const struct comm_data *data,
                                     struct err *err);
NODISCARD enum status shm_all_to_allv(struct shm *shm, const struct comm_vectors *vectors,
                                      struct err *err);

void shm_abort(struct comm *comm);
void shm_destroy(struct comm **comm);

extern const struct comm_backend shm_backend;
