/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"
#include "lib/fail.h"

enum { OVERDUE_LOOK_NS = 1000000 };

static void unref(struct lockstep_op **op)
{
    struct lockstep_op *o = *op;

    *op = NULL;
    if (atomic_fetch_sub(&o->refs, 1) == 1) {
        if (o->device != NULL) {
            device_unref(&o->device);
        }
        free(o->call);
        free(o);
    }
}

enum lockstep_status op_check_options(const struct lockstep_options *options, const char *name,
                                      struct lockstep_error *error)
{
    if (options != NULL && options->bytes != sizeof(*options)) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: lockstep_options.bytes is %zu, not %zu", name,
                        options->bytes, sizeof(*options));
    }
    return LOCKSTEP_OK;
}

struct lockstep_op *op_create(const char *name, uint32_t n_parts,
                              const struct lockstep_options *options, bool is_owned)
{
    struct lockstep_op *op = xalloc(sizeof(*op) + n_parts * sizeof(op->parts[0]));
    uint32_t timeout_ms = options != NULL ? options->timeout_ms : 0;

    op->refs = is_owned ? 2 : 1;
    op->name = name;
    op->n_parts = n_parts;
    op->deadline_ns = lib_deadline(timeout_ms != 0 ? timeout_ms : (uint32_t)OP_TIMEOUT_MS);
    if (options != NULL) {
        op->done = options->done;
        op->arg = options->arg;
        op->group = options->group;
    }
    for (uint32_t r = 0; r < n_parts; r++) {
        struct op_part *part = &op->parts[r];

        part->op = op;
        part->works[0] = &part->work;
        part->task.name = name;
        part->task.order.deadline_ns = op->deadline_ns;
        part->task.arg = part;
        part->task.rank = r;
    }
    return op;
}

static void drop_tensors(struct lockstep_op *op)
{
    for (uint32_t r = 0; r < op->n_parts; r++) {
        tensor_unref(&op->parts[r].in);
        tensor_unref(&op->parts[r].out);
    }
    for (uint32_t i = 0; i < LOCKSTEP_CALL_MAX; i++) {
        tensor_unref(&op->call_tensors[i]);
    }
}

void op_discard(struct lockstep_op **op)
{
    drop_tensors(*op);
    (*op)->refs = 1;
    unref(op);
}

const struct op_part *op_first_failure(const struct lockstep_op *op)
{
    for (uint32_t r = 0; r < op->n_parts; r++) {
        if (op->parts[r].taken && op->parts[r].result.status != LOCKSTEP_OK) {
            return &op->parts[r];
        }
    }
    return NULL;
}

/* "<text>; rank 0: cancelled; rank 2: ..." */
static void tell_outcome(struct lockstep_op *op, enum lockstep_status status, const char *text)
{
    char *out = op->outcome.text;
    size_t size = sizeof(op->outcome.text);
    size_t used = strlen(lib_text(out, size, "%s: %s", op->name, text));

    op->outcome.status = status;
    for (uint32_t r = 0; op->world != NULL && r < op->n_parts && used < size; r++) {
        const struct op_part *part = &op->parts[r];

        if (part->taken && part->result.status != LOCKSTEP_OK) {
            lib_text(out + used, size - used, "; rank %u: %s", (unsigned)r, part->result.text);
            used += strlen(out + used);
        }
    }
}

bool op_claim(struct lockstep_op *op)
{
    uint32_t pending = OP_PENDING;

    return atomic_compare_exchange_strong(&op->ended, &pending, OP_ENDING);
}

void op_forget(struct lockstep_op *op)
{
    drop_tensors(op);
    unref(&op);
}

void op_end(struct lockstep_op *op, enum lockstep_status status, const char *text)
{
    if (status != LOCKSTEP_OK) {
        tell_outcome(op, status, text);
    }
    drop_tensors(op);
    op->world = NULL;
    atomic_store(&op->ended, OP_ENDED);
    futex_wake_all(&op->ended);
    if (op->done != NULL) {
        bool was = lib_callback_enter();

        op->done(op->arg, op, status);
        lib_callback_leave(was);
    }
    unref(&op);
}

/* A call past its deadline: what still waits in the queue is withdrawn; what is carried out goes on
 * without anybody who waits for it, since a function of the program cannot be interrupted. */
static void end_overdue(struct lockstep_op *op)
{
    struct op_part *part = &op->parts[0];

    device_withdraw(op->device, NULL, &part->task);
    if (!device_carries_out(op->device, &part->task) || !op_claim(op)) {
        return; /* somebody else ends it now */
    }
    work_fail(&part->result, LOCKSTEP_TIMEOUT,
              "function '%s' still runs on device %s, and its deadline has passed", op->call->name,
              op->device->name);
    tell_outcome(op, LOCKSTEP_TIMEOUT, part->result.text);
    atomic_store(&op->ended, OP_ENDED);
    futex_wake_all(&op->ended);
}

static bool is_overdue(const struct lockstep_op *op)
{
    return op->device != NULL && op->done == NULL && clock_ns() >= op->deadline_ns;
}

/* --- What the public header promises --- */

enum lockstep_status lockstep_op_poll(struct lockstep_op *op, struct lockstep_error *error)
{
    if (op == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "the operation is NULL");
    }
    if (atomic_load(&op->ended) != OP_ENDED && is_overdue(op)) {
        end_overdue(op);
    }
    if (atomic_load(&op->ended) != OP_ENDED) {
        return LOCKSTEP_PENDING;
    }
    if (op->outcome.status != LOCKSTEP_OK && error != NULL) {
        *error = op->outcome;
    }
    return op->outcome.status;
}

enum lockstep_status lockstep_op_wait(struct lockstep_op *op, uint32_t timeout_ms,
                                      struct lockstep_error *error)
{
    uint64_t deadline = lib_deadline(timeout_ms);
    enum lockstep_status status = lockstep_op_poll(op, error);

    if (status != LOCKSTEP_PENDING || timeout_ms == 0) {
        return status;
    }
    if (lib_may_wait(__func__, error) != LOCKSTEP_OK) {
        return LOCKSTEP_INVALID;
    }
    for (;;) {
        uint64_t now = clock_ns();
        uint32_t seen = atomic_load(&op->ended);
        uint64_t until = deadline;

        status = lockstep_op_poll(op, error);
        if (status != LOCKSTEP_PENDING || now >= deadline) {
            return status;
        }
        if (op->device != NULL && op->done == NULL) { /* then poll ends it */
            until = MIN(until, MAX(op->deadline_ns, now + OVERDUE_LOOK_NS));
        }
        futex_wait(&op->ended, seen, until - now);
    }
}

enum lockstep_status lockstep_op_rank(struct lockstep_op *op, uint32_t rank,
                                      struct lockstep_error *error)
{
    const struct work_result *result;

    if (op == NULL || rank >= op->n_parts || !op->parts[rank].taken) {
        return lib_fail(error, LOCKSTEP_INVALID, "rank %u has no part in %s", (unsigned)rank,
                        op != NULL ? op->name : "no operation");
    }
    if (atomic_load(&op->ended) != OP_ENDED) {
        return LOCKSTEP_PENDING;
    }
    result = &op->parts[rank].result;
    if (result->status != LOCKSTEP_OK) {
        return lib_fail(error, result->status, "%s", result->text);
    }
    return LOCKSTEP_OK;
}

const void *lockstep_op_result(struct lockstep_op *op, size_t *ret_bytes)
{
    bool has = op != NULL && op->call != NULL && atomic_load(&op->ended) == OP_ENDED &&
               op->outcome.status == LOCKSTEP_OK;

    if (ret_bytes != NULL) {
        *ret_bytes = has ? op->call->result_bytes : 0;
    }
    return has ? op->call->result : NULL;
}

void lockstep_op_release(struct lockstep_op **op)
{
    if (op != NULL && *op != NULL) {
        unref(op);
    }
}
