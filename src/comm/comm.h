/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives among the ranks of a world: one table of functions for each back end. A model calls
 * them where tensor parallelism needs them. The back end `self` is a world of one rank and the
 * reference that others are compared with; `shm` is several processes or threads of one host
 * (comm/shm.h).
 *
 * Every rank calls the same collectives in the same order with the same count, type, reduction and
 * root; a rank that does not is an error that names it, on every rank (STATUS_INVALID). Every call
 * has a deadline (STATUS_TIMEOUT names the ranks that did not arrive), and another thread can abort
 * it (STATUS_CANCELLED). A peer that left or failed is STATUS_LINK. After any of these errors the
 * communicator is of no more use: each further call returns the same error, and outputs are
 * undefined. Arguments that are wrong in themselves (a type, reduction, root or peer that does not
 * exist, NULL where memory is needed, a size that overflows, in and out that overlap in another way
 * than the call allows) are STATUS_INVALID before anything is sent, and the communicator stays as
 * it is. STATUS_UNSUPPORTED: the back end does not have the operation; likewise.
 *
 * What a reduction computes. Operands are combined in the halving tree over the ranks' numbers, the
 * first half the larger, so that all ranks get the same bits, every time, from every back end.
 *   - f32 and f64 in their own type. f16 and bf16 are widened to f32, combined in f32 and rounded
 *     once at the end, to nearest even. All of it in the canonical environment (base/float_env.h):
 *     round to nearest, and denormals of f32, f64 and bf16 (not of f16, which are normal in f32)
 *     count as zero and become zero. The caller's environment is left alone.
 *   - Integers wrap around, the signed ones as two's complement.
 *   - avg is the sum as above divided by the number of ranks: before the rounding for f16 and bf16;
 *     of integers the wrapped sum, truncating towards zero.
 *   - premul_sum: each rank's input times that rank's scale (rounded once in the computing type;
 *     integers wrap), then the sum. The ranks' scales may differ.
 *   - min and max compute nothing, they choose an operand with its bits: denormals count in full,
 *     -0 is less than +0, and if any operand is a NaN the result is the quiet NaN of positive sign
 *     without payload.
 * Results that are NaN otherwise (inf - inf) may have any payload. With one rank, sum, prod, min
 * and max are a copy.
 *
 * Group. Calls between comm_group_begin and comm_group_end are noted and run at the end, together:
 * sends and receives in any order, on each rank another one, and between collectives, which the
 * ranks call in one order. What arguments point to (data, counts, scale) stays the caller's and
 * unchanged until then. Groups may be nested; the outermost end runs them.
 *
 * A communicator belongs to one rank and is used by one thread at a time; comm_abort and
 * comm_poll_error may be called by any.
 */
#pragma once

#include <stdatomic.h>

#include "base/err.h"

struct comm;
struct comm_group;

/* Names one world in one epoch, so that members of another cannot join by mistake. */
struct comm_id {
    uint8_t bytes[16];
};

enum { COMM_TIMEOUT_MS = 10 * 1000 }; /* unless the owner sets another */

enum { COMM_GROUP_MAX = 64 << 10 }; /* calls in one group */

enum comm_type {
    COMM_F32,
    COMM_F64,
    COMM_F16,
    COMM_BF16,
    COMM_I8,
    COMM_U8,
    COMM_I32,
    COMM_U32,
    COMM_I64,
    COMM_U64,
    COMM_TYPE_COUNT
};

enum comm_reduction {
    COMM_SUM,
    COMM_PROD,
    COMM_MIN,
    COMM_MAX,
    COMM_AVG,
    COMM_PREMUL_SUM,
    COMM_REDUCTION_COUNT
};

enum comm_operation {
    COMM_NONE,
    COMM_SUM_TREE,
    COMM_ALL_REDUCE,
    COMM_ALL_GATHER,
    COMM_BROADCAST,
    COMM_BARRIER,
    COMM_REDUCE_SCATTER,
    COMM_REDUCE,
    COMM_ALL_TO_ALL,
    COMM_ALL_TO_ALLV,
    COMM_SEND,
    COMM_RECV,
    COMM_OPERATION_COUNT
};

/* Bytes of an element; "f32", "premul_sum", "all_to_allv". Values of the enumerations only. */
size_t comm_type_bytes(enum comm_type type);
const char *comm_type_name(enum comm_type type);
const char *comm_reduction_name(enum comm_reduction reduction);
const char *comm_operation_name(enum comm_operation operation);

/* What most collectives move. in and out may be the same memory where the call says so. */
struct comm_data {
    const void *in;
    void *out;
    size_t count; /* elements, the same on every rank; 0 only meets the others */
    enum comm_type type;
    const void *scale; /* COMM_PREMUL_SUM: this rank's, one element of the computing type, which is
                          f32 for f16 and bf16, else type; read when the call runs */
};

/* What all_to_allv moves: an array of counts and one of offsets (elements) for each direction, each
 * [n_ranks]. Blocks of recv do not overlap. */
struct comm_vectors {
    const void *in; /* to rank r: send_counts[r] from in + send_offsets[r] */
    void *out;      /* from rank r: recv_counts[r] to out + recv_offsets[r] */
    const size_t *send_counts;
    const size_t *send_offsets;
    const size_t *recv_counts; /* [r] is what rank r's send_counts says for this rank, or else it is
                                  an error on every rank that names both */
    const size_t *recv_offsets;
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

/* What a communicator can do. Masks have bit 1 << value of the enumeration. */
struct comm_capabilities {
    const char *backend;    /* "self", "shm"; static, as is */
    const char *arithmetic; /* the class of reductions: equal names, equal bits */
    uint32_t types;
    uint32_t reductions;
    uint32_t operations;
    uint32_t n_ranks;
    uint64_t peers; /* bit r: rank r has joined and neither left nor failed; itself too */
};

struct comm_backend; /* comm/backend.h */

struct comm {
    const struct comm_backend *backend;
    uint32_t rank;
    uint32_t n_ranks;
    uint64_t timeout_ns;      /* of each call; the owner may change it between calls */
    _Atomic uint32_t aborted; /* set by comm_abort */
    struct comm_group *group; /* NULL: outside of any */
};

/* A fresh random id. */
void comm_id_make(struct comm_id *ret_id);

/* The world of one rank. Never NULL. */
struct comm *comm_self_create(void);

void comm_destroy(struct comm **comm);

/* Ends the call that is under way in another thread, if any, and fails all later ones with
 * STATUS_CANCELLED. Peers see it as STATUS_LINK when they next need this rank. */
void comm_abort(struct comm *comm);

/* Without waiting: the error that the next call would return, because this rank or a peer failed,
 * left or was aborted; STATUS_OK if there is none yet. */
NODISCARD enum status comm_poll_error(struct comm *comm, struct err *err);

void comm_capabilities(struct comm *comm, struct comm_capabilities *ret_capabilities);

/* Adds all leaves by the halving tree. Not in a group. In a world of one rank whose partial is sum
 * no number is looked at. */
NODISCARD enum status comm_sum_tree(struct comm *comm, const struct comm_tree *args,
                                    struct err *err);

/* Memory of the back end into which the producer may write the roots of the next sum_tree, to be
 * passed as partial with *ret_root_stride (elements), so that they are not copied. Valid until the
 * next collective other than barrier, and only for a sum_tree of this count and n_roots. NULL where
 * the back end has none or the count is too large: use memory of your own. */
float *comm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                           size_t *ret_root_stride);

/* out[i] = all ranks' in[i] combined. in may be out. */
NODISCARD enum status comm_all_reduce(struct comm *comm, const struct comm_data *data,
                                      enum comm_reduction reduction, struct err *err);

/* As all_reduce, on rank root; out is not used on other ranks. */
NODISCARD enum status comm_reduce(struct comm *comm, const struct comm_data *data,
                                  enum comm_reduction reduction, uint32_t root, struct err *err);

/* out[i] = all ranks' in[rank * count + i] combined; in has n_ranks * count elements. out may be
 * this rank's place in in, in + rank * count; the rest of in is left alone. */
NODISCARD enum status comm_reduce_scatter(struct comm *comm, const struct comm_data *data,
                                          enum comm_reduction reduction, struct err *err);

/* out[r * count + i] = rank r's in[i]; in may be its own place in out. */
NODISCARD enum status comm_all_gather(struct comm *comm, const struct comm_data *data,
                                      struct err *err);

/* out[i] = in[i] of rank root; in is not used on other ranks, and may be out. */
NODISCARD enum status comm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                                     struct err *err);

/* out[r * count + i] = rank r's in[rank * count + i]; in may be out. */
NODISCARD enum status comm_all_to_all(struct comm *comm, const struct comm_data *data,
                                      struct err *err);

/* As all_to_all, with a count for each pair. in may be out if what goes to each rank and what comes
 * from it have the same count and offset. */
NODISCARD enum status comm_all_to_allv(struct comm *comm, const struct comm_vectors *vectors,
                                       struct err *err);

/* Sends count elements to rank peer, whose receive has the same count and type, or else both get
 * an error that names them. The k-th send to a rank meets that rank's k-th receive from this one.
 * May return before the peer has called: in is free again. A rank sends to itself in a group. */
NODISCARD enum status comm_send(struct comm *comm, const void *in, size_t count,
                                enum comm_type type, uint32_t peer, struct err *err);
NODISCARD enum status comm_recv(struct comm *comm, void *out, size_t count, enum comm_type type,
                                uint32_t peer, struct err *err);

/* Returns when every rank has called it. */
NODISCARD enum status comm_barrier(struct comm *comm, struct err *err);

void comm_group_begin(struct comm *comm);

/* Runs what was noted and returns when all of it is complete; the first error, if any. The deadline
 * is that of one call. STATUS_INVALID without a comm_group_begin. */
NODISCARD enum status comm_group_end(struct comm *comm, struct err *err);
