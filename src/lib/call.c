/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of functions on one device. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/fail.h"
#include "lib/op.h"

static void called(struct task *task, const struct work_result *result)
{
    struct op_part *part = task->arg;

    if (!op_claim(part->op)) {
        op_forget(part->op);
        return;
    }
    part->result = *result;
    if (result->status == LOCKSTEP_CANCELLED && clock_ns() >= part->op->deadline_ns) {
        part->result.status = LOCKSTEP_TIMEOUT;
    }
    op_end(part->op, part->result.status, part->result.text);
}

static enum lockstep_status check_tensors(const struct lockstep_device *device,
                                          const char *function,
                                          const struct lockstep_call_args *args,
                                          struct lockstep_error *error)
{
    for (size_t i = 0; i < args->n_tensors; i++) {
        const struct lockstep_tensor *tensor = args->tensors[i];
        enum lockstep_status status;

        if (tensor == NULL) {
            return lib_fail(error, LOCKSTEP_INVALID, "call of '%.60s': tensor %zu is NULL",
                            function, i);
        }
        if (tensor->device != device) {
            return lib_fail(error, LOCKSTEP_INVALID,
                            "call of '%.60s': tensor %zu is on device %s, not %s", function, i,
                            tensor->device->name, device->name);
        }
        status = tensor_check_fresh(tensor, "", error);
        if (status != LOCKSTEP_OK) {
            return status;
        }
    }
    return LOCKSTEP_OK;
}

static enum lockstep_status check(const struct lockstep_device *device, const char *function,
                                  const struct lockstep_call_args *args,
                                  const struct lockstep_options *options,
                                  struct lockstep_error *error)
{
    enum lockstep_status status = op_check_options(options, "call", error);

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (device == NULL || function == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_call: an argument is NULL");
    }
    if (strlen(function) >= WORK_NAME_BYTES) {
        return lib_fail(error, LOCKSTEP_INVALID, "a function's name has at most %d bytes",
                        WORK_NAME_BYTES - 1);
    }
    if (options != NULL && options->group != NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "call of '%s': a call is part of no group",
                        function);
    }
    if (args == NULL) {
        return LOCKSTEP_OK;
    }
    if (args->bytes != sizeof(*args)) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_call_args.bytes is %zu, not %zu",
                        args->bytes, sizeof(*args));
    }
    if (args->n_tensors > LOCKSTEP_CALL_MAX || args->args_bytes > LOCKSTEP_BYTES_MAX ||
        (args->n_tensors > 0 && args->tensors == NULL) ||
        (args->args_bytes > 0 && args->args == NULL)) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "call of '%s': at most %d tensors and %d bytes of arguments, and not NULL",
                        function, LOCKSTEP_CALL_MAX, LOCKSTEP_BYTES_MAX);
    }
    return check_tensors(device, function, args, error);
}

static void fill(struct lockstep_op *op, const char *function,
                 const struct lockstep_call_args *args)
{
    struct work_call *call = op->call;

    memcpy(call->name, function, strlen(function) + 1);
    if (args == NULL) {
        return;
    }
    for (size_t i = 0; i < args->n_tensors; i++) {
        struct lockstep_tensor *tensor = args->tensors[i];

        op->call_tensors[i] = tensor_ref(tensor);
        call->tensors[i] = (struct work_tensor){
            .span = tensor->span, .count = tensor->count, .type = (uint32_t)tensor->type};
        op->parts[0].task.generation = tensor->generation;
    }
    call->n_tensors = (uint32_t)args->n_tensors;
    call->args_bytes = (uint32_t)args->args_bytes;
    if (args->args_bytes > 0) {
        memcpy(call->args, args->args, args->args_bytes);
    }
}

enum lockstep_status lockstep_call(struct lockstep_device *device, const char *function,
                                   const struct lockstep_call_args *args,
                                   const struct lockstep_options *options,
                                   struct lockstep_op **ret_op, struct lockstep_error *error)
{
    enum lockstep_status status = check(device, function, args, options, error);
    struct lockstep_op *op;
    struct op_part *part;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    op = op_create("call", 1, options, ret_op != NULL);
    device_ref(device);
    op->device = device;
    op->call = xalloc(sizeof(*op->call));
    part = &op->parts[0];
    part->taken = true;
    part->task.order.call = op->call;
    part->task.done = called;
    fill(op, function, args);
    if (ret_op != NULL) {
        *ret_op = op; /* before it can end */
    }
    status = device_post(device, &part->task, error);
    if (status != LOCKSTEP_OK) {
        if (ret_op != NULL) {
            *ret_op = NULL;
        }
        op_discard(&op);
    }
    return status;
}
