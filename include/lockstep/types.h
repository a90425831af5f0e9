/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all parts of liblockstep share: outcomes, element types, reductions, results.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOCKSTEP_API __attribute__((visibility("default")))

enum {
    LOCKSTEP_RANKS_MAX = 16,
    LOCKSTEP_GROUP_MAX = 32,  /* operations in a group */
    LOCKSTEP_CALL_MAX = 8,    /* tensors of a call */
    LOCKSTEP_BYTES_MAX = 1024 /* arguments of a call, and its result */
};

enum lockstep_status {
    LOCKSTEP_OK = 0,
    LOCKSTEP_PENDING = 1,       /* not done yet */
    LOCKSTEP_INVALID = -1,      /* a wrong argument; nothing was sent */
    LOCKSTEP_UNSUPPORTED = -3,  /* not on this device */
    LOCKSTEP_NOT_FOUND = -4,    /* no such function */
    LOCKSTEP_NO_MEMORY = -5,    /* neither here nor, for a tensor, on the device */
    LOCKSTEP_IO = -6,           /* the system refused a thread, a descriptor, a process */
    LOCKSTEP_LIMIT = -7,        /* the queue is full */
    LOCKSTEP_TIMEOUT = -8,      /* the deadline passed */
    LOCKSTEP_CANCELLED = -9,    /* aborted, or the device or world was destroyed */
    LOCKSTEP_DEVICE = -10,      /* the device's context is lost; it is being restarted */
    LOCKSTEP_LINK = -11,        /* the communicator broke */
    LOCKSTEP_CALL_FAILED = -14, /* the called function said so */
    LOCKSTEP_STALE = -15,       /* a handle of an earlier generation */
    LOCKSTEP_REBUILT = -16,     /* the world was rebuilt under the operation */
    LOCKSTEP_NOT_READY = -17,   /* the world is being built; try again */
    LOCKSTEP_GIVEN_UP = -18,    /* the world failed: its restart budget is used up */
};

struct lockstep_error {
    enum lockstep_status status;
    char text[1024]; /* one sentence that names the rank, device or argument */
};

enum lockstep_type {
    LOCKSTEP_F32,
    LOCKSTEP_F64,
    LOCKSTEP_F16,
    LOCKSTEP_BF16,
    LOCKSTEP_I8,
    LOCKSTEP_U8,
    LOCKSTEP_I32,
    LOCKSTEP_U32,
    LOCKSTEP_I64,
    LOCKSTEP_U64,
};

/* f16 and bf16 are combined in f32 and rounded once; sums run along a fixed tree over the ranks;
 * integers wrap; AVG is the sum / N, truncating for integers; MIN and MAX of a NaN are NaN. */
enum lockstep_reduction {
    LOCKSTEP_SUM,
    LOCKSTEP_PROD,
    LOCKSTEP_MIN,
    LOCKSTEP_MAX,
    LOCKSTEP_AVG,
    LOCKSTEP_PREMUL_SUM, /* each rank's input times its factor (options) */
};

/* ---- What is under way ---- */

/* The result of a collective or a call, joined over its ranks. It is complete when every rank has
 * ended its part and the data is there; it fails if any rank failed, and lists each. */
struct lockstep_op;

/* Called once, when the operation is complete, on a thread of the library: it may start further
 * operations but must not wait for any (waiting there is refused). op is lent for the call. After a
 * call that is not in a process of its own this may be later than the deadline: when the function
 * has returned. */
typedef void lockstep_done_fn(void *arg, struct lockstep_op *op, enum lockstep_status status);

struct lockstep_group;

struct lockstep_options {
    size_t bytes;                 /* sizeof(struct lockstep_options) */
    uint32_t timeout_ms;          /* from now until it must be complete; default 10,000 */
    lockstep_done_fn *done;       /* NULL: poll or wait */
    void *arg;                    /* of done */
    struct lockstep_group *group; /* the operation is sent with this group */
    const void *factors; /* PREMUL_SUM: one a rank, of the tensors' type (f16, bf16: f32) */
};

/* LOCKSTEP_PENDING, or how it ended. */
LOCKSTEP_API enum lockstep_status lockstep_op_poll(struct lockstep_op *op,
                                                   struct lockstep_error *error);

/* As poll, but waits up to timeout_ms for the end; LOCKSTEP_PENDING if it did not come. */
LOCKSTEP_API enum lockstep_status lockstep_op_wait(struct lockstep_op *op, uint32_t timeout_ms,
                                                   struct lockstep_error *error);

/* How one rank's part ended (0 for a call). INVALID: it had none. */
LOCKSTEP_API enum lockstep_status lockstep_op_rank(struct lockstep_op *op, uint32_t rank,
                                                   struct lockstep_error *error);

/* What a called function left as its result, as long as op; NULL and 0 if it did not succeed. */
LOCKSTEP_API const void *lockstep_op_result(struct lockstep_op *op, size_t *ret_bytes);

/* Gives the result up; what is under way goes on. NULL is fine. */
LOCKSTEP_API void lockstep_op_release(struct lockstep_op **op);

/* ---- About the library ---- */

LOCKSTEP_API const char *lockstep_version(void); /* "0.1.0" */
LOCKSTEP_API const char *lockstep_status_text(enum lockstep_status status);
LOCKSTEP_API const char *lockstep_type_text(enum lockstep_type type);
LOCKSTEP_API size_t lockstep_type_bytes(enum lockstep_type type); /* of an element; 0: no type */

#ifdef __cplusplus
}
#endif
