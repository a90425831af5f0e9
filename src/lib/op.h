/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A result that is joined over ranks: one part a rank that takes part, each a task in that rank's
 * device. It ends when the last part has; the memory lives until then and until its owner has
 * released it. Parts are filled before the first is posted and are the device's afterwards.
 */
#pragma once

#include "lib/tensor.h"

struct lockstep_op;

struct op_part {
    struct lockstep_op *op;
    struct task task;
    struct work work;
    const struct work *works[1]; /* = work */
    bool taken;                  /* there is a part for this rank */
    struct lockstep_tensor *in;  /* references until the end */
    struct lockstep_tensor *out;
    struct work_result result;
};

struct lockstep_op {
    _Atomic uint32_t refs;  /* the owner's, and one until the end */
    _Atomic uint32_t ended; /* enum op_ended; a futex */
    const char *name;
    struct lockstep_world *world; /* NULL: a call; only until the end */
    uint64_t epoch;
    _Atomic uint32_t n_left; /* parts that have not ended */
    uint64_t deadline_ns;
    lockstep_done_fn *done;
    void *arg;
    struct lockstep_group *group;   /* NULL: it is sent alone */
    struct lockstep_device *device; /* of a call: a reference */
    struct work_call *call;         /* of a call */
    struct lockstep_tensor *call_tensors[LOCKSTEP_CALL_MAX];
    struct lockstep_error outcome; /* valid once ended */
    uint32_t n_parts;
    struct op_part parts[]; /* [n_parts], by rank */
};

enum { OP_TIMEOUT_MS = 10 * 1000 };

/* Whoever takes an operation from PENDING to ENDING fills its outcome and ends it. */
enum op_ended { OP_PENDING, OP_ENDING, OP_ENDED };

/* Checks the options (NULL: none). */
enum lockstep_status op_check_options(const struct lockstep_options *options, const char *name,
                                      struct lockstep_error *error);

/* An operation with one reference for its end, and one more if is_owned. */
struct lockstep_op *op_create(const char *name, uint32_t n_parts,
                              const struct lockstep_options *options, bool is_owned);

/* Of one that was never sent. */
void op_discard(struct lockstep_op **op);

/* All parts have ended: status, with the text (as a sentence) that precedes what each rank says.
 * No lock is held. */
void op_end(struct lockstep_op *op, enum lockstep_status status, const char *text);

/* True once: the operation is the caller's to end. */
NODISCARD bool op_claim(struct lockstep_op *op);

/* What was ended at its deadline while it was carried out is carried out no more. */
void op_forget(struct lockstep_op *op);

/* The first part that failed; NULL: none did. */
const struct op_part *op_first_failure(const struct lockstep_op *op);
