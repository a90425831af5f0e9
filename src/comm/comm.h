/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives among the ranks of a world: one table of functions for each back end. A model calls
 * them where tensor parallelism needs them. The back end `self` is a world of one rank and the
 * reference that others are compared with; `shm` is several processes or threads of one host
 * (comm/shm.h).
 *
 * Every rank calls the same collectives in the same order with the same count, type and reduction;
 * a rank that does not is an error that names it, on every rank (STATUS_INVALID). Every call has a
 * deadline (STATUS_TIMEOUT names the ranks that did not arrive), and another thread can abort it
 * (STATUS_CANCELLED). A peer that left or failed is STATUS_LINK. After any error the communicator
 * is of no more use: each further call returns the same error, and outputs are undefined.
 *
 * Floats are computed in the canonical environment (base/float_env.h) and combined in an order that
 * depends on the ranks' numbers alone, so that all ranks get the same bits, every time.
 *
 * A communicator belongs to one rank and is used by one thread at a time; comm_abort may be called
 * by any.
 */
#pragma once

#include <stdatomic.h>

#include "base/err.h"

struct comm;

/* Names one world in one epoch, so that members of another cannot join by mistake. */
struct comm_id {
    uint8_t bytes[16];
};

enum { COMM_TIMEOUT_MS = 10 * 1000 }; /* unless the owner sets another */

enum comm_type { COMM_F32, COMM_U32, COMM_TYPE_COUNT };

/* Sums and products of u32 wrap around. With a NaN, min and max of f32 are one of the operands. */
enum comm_reduction { COMM_SUM, COMM_PROD, COMM_MIN, COMM_MAX, COMM_REDUCTION_COUNT };

/* What most collectives move. in and out may be the same memory. */
struct comm_data {
    const void *in;
    void *out;
    size_t count; /* elements, the same on every rank; 0 only meets the others */
    enum comm_type type;
};

/* The partial sums of one row-parallel product (tensor/leaves.h). Ranks own ascending ranges of its
 * leaves, possibly empty, that cover all of them. Exactly one of sum and add_to is set. */
struct comm_tree {
    uint32_t n_leaves; /* of the whole product; the same on every rank, as is count */
    uint32_t first;    /* leaves [first, first + n_owned) are this rank's */
    uint32_t n_owned;
    uint32_t n_roots;     /* maximal subtrees inside that range */
    const float *partial; /* root r: count floats at partial + r * root_stride */
    size_t root_stride;
    size_t count;
    float *sum;    /* [count], the same on every rank afterwards; may be partial */
    float *add_to; /* [count], add_to[i] += the sum's element i; not partial */
};

struct comm_backend {
    const char *name;
    NODISCARD enum status (*sum_tree)(struct comm *comm, const struct comm_tree *args,
                                      struct err *err);
    NODISCARD enum status (*all_reduce)(struct comm *comm, const struct comm_data *data,
                                        enum comm_reduction reduction, struct err *err);
    NODISCARD enum status (*all_gather)(struct comm *comm, const struct comm_data *data,
                                        struct err *err);
    NODISCARD enum status (*broadcast)(struct comm *comm, const struct comm_data *data,
                                       uint32_t root, struct err *err);
    NODISCARD enum status (*barrier)(struct comm *comm, struct err *err);
    float *(*partial_buffer)(struct comm *comm, size_t count, uint32_t n_roots,
                             size_t *ret_root_stride);
    void (*abort)(struct comm *comm);
    void (*destroy)(struct comm **comm);
};

struct comm {
    const struct comm_backend *backend;
    uint32_t rank;
    uint32_t n_ranks;
    uint64_t timeout_ns;      /* of each call; the owner may change it between calls */
    _Atomic uint32_t aborted; /* set by comm_abort */
};

/* A fresh random id. */
void comm_id_make(struct comm_id *ret_id);

/* The world of one rank. Never NULL. */
struct comm *comm_self_create(void);

void comm_destroy(struct comm **comm);

/* Ends the call that is under way in another thread, if any, and fails all later ones with
 * STATUS_CANCELLED. Peers see it as STATUS_LINK when they next need this rank. */
void comm_abort(struct comm *comm);

/* Adds all leaves by the halving tree. */
NODISCARD enum status comm_sum_tree(struct comm *comm, const struct comm_tree *args,
                                    struct err *err);

/* Memory of the back end into which the producer may write the roots of the next sum_tree, to be
 * passed as partial with *ret_root_stride (elements), so that they are not copied. Valid until the
 * next collective other than barrier, and only for a sum_tree of this count and n_roots. NULL where
 * the back end has none or the count is too large: use memory of your own. */
float *comm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                           size_t *ret_root_stride);

/* out[i] = all ranks' in[i] combined, by the halving tree over the ranks. */
NODISCARD enum status comm_all_reduce(struct comm *comm, const struct comm_data *data,
                                      enum comm_reduction reduction, struct err *err);

/* out[r * count + i] = rank r's in[i]; in may be its own place in out. */
NODISCARD enum status comm_all_gather(struct comm *comm, const struct comm_data *data,
                                      struct err *err);

/* out[i] = in[i] of rank root; in is not used on other ranks. */
NODISCARD enum status comm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                                     struct err *err);

/* Returns when every rank has called it. */
NODISCARD enum status comm_barrier(struct comm *comm, struct err *err);
