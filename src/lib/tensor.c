/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor.h"

#include <stdlib.h>

#include "base/mem.h"
#include "lib/fail.h"

struct lockstep_tensor *tensor_ref(struct lockstep_tensor *tensor)
{
    atomic_fetch_add(&tensor->refs, 1);
    return tensor;
}

void tensor_unref(struct lockstep_tensor **tensor)
{
    struct lockstep_tensor *t = *tensor;

    *tensor = NULL;
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1) {
        return;
    }
    if (t->whole != NULL) {
        tensor_unref(&t->whole);
    }
    if (t->memory != NULL) {
        memory_give(t->memory, &t->block);
        memory_unref(&t->memory);
    }
    device_unref(&t->device);
    free(t);
}

size_t tensor_bytes(const struct lockstep_tensor *tensor)
{
    return tensor->count * lockstep_type_bytes(tensor->type);
}

bool tensor_overlaps(const struct lockstep_tensor *a, const struct lockstep_tensor *b)
{
    uintptr_t a_begin = (uintptr_t)a->span.data;
    uintptr_t b_begin = (uintptr_t)b->span.data;

    if (a_begin == b_begin && a->count == b->count) {
        return false;
    }
    return a_begin < b_begin + tensor_bytes(b) && b_begin < a_begin + tensor_bytes(a);
}

enum lockstep_status tensor_check_fresh(const struct lockstep_tensor *tensor, const char *who,
                                        struct lockstep_error *error)
{
    struct lockstep_device *device = tensor->device;
    enum lockstep_status status = LOCKSTEP_OK;

    pthread_mutex_lock(&device->lock);
    if (device->closing) {
        status = lib_fail(error, LOCKSTEP_STALE, "%sdevice %s was destroyed", who, device->name);
    } else if (device->generation != tensor->generation) {
        status = lib_fail(error, LOCKSTEP_STALE,
                          "%sthe handle is of generation %llu, but device %s is in generation %llu",
                          who, (unsigned long long)tensor->generation, device->name,
                          (unsigned long long)device->generation);
    } else if (device->state != LOCKSTEP_DEVICE_UP || device->lose_asked) {
        status =
            lib_fail(error, LOCKSTEP_STALE,
                     "%sthe handle is of generation %llu, whose context device %s has lost: %s",
                     who, (unsigned long long)tensor->generation, device->name,
                     device->lose_asked ? device->lose_reason : device->reason);
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

static enum lockstep_status check(const struct lockstep_device *device, enum lockstep_type type,
                                  size_t count, struct lockstep_tensor **ret_tensor,
                                  size_t *ret_bytes, struct lockstep_error *error)
{
    if (device == NULL || ret_tensor == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "a tensor needs a device and a place to go to");
    }
    if (lockstep_type_bytes(type) == 0) {
        return lib_fail(error, LOCKSTEP_INVALID, "device %s: %d is no element type", device->name,
                        (int)type);
    }
    if (!size_mul(count, lockstep_type_bytes(type), ret_bytes) ||
        *ret_bytes > (size_t)PTRDIFF_MAX) {
        return lib_fail(error, LOCKSTEP_INVALID, "device %s: %zu elements of %s are too many",
                        device->name, count, lockstep_type_text(type));
    }
    return LOCKSTEP_OK;
}

/* A handle in the generation that is up now, without memory. NULL: it is not up. */
static struct lockstep_tensor *make(struct lockstep_device *device, enum lockstep_type type,
                                    size_t count)
{
    struct lockstep_tensor *tensor = NULL;

    pthread_mutex_lock(&device->lock);
    if (device->state == LOCKSTEP_DEVICE_UP && !device->lose_asked) {
        tensor = xalloc(sizeof(*tensor));
        *tensor = (struct lockstep_tensor){
            .refs = 1,
            .device = device,
            .memory = memory_ref(device->memory),
            .generation = device->generation,
            .type = type,
            .count = count,
        };
    }
    pthread_mutex_unlock(&device->lock);
    if (tensor != NULL) {
        device_ref(device);
    }
    return tensor;
}

/* As make, but waits for the context. */
static enum lockstep_status wait_and_make(struct lockstep_device *device, enum lockstep_type type,
                                          size_t count, uint32_t timeout_ms,
                                          struct lockstep_tensor **ret_tensor,
                                          struct lockstep_error *error)
{
    uint64_t deadline = lib_deadline(timeout_ms);
    enum lockstep_status status;

    for (;;) {
        *ret_tensor = make(device, type, count);
        if (*ret_tensor != NULL) {
            return LOCKSTEP_OK;
        }
        status = lockstep_device_wait(device, 0, lib_ms_left(deadline), error);
        if (status != LOCKSTEP_OK) {
            return status;
        }
    }
}

enum lockstep_status lockstep_tensor_create(struct lockstep_device *device, enum lockstep_type type,
                                            size_t count, uint32_t timeout_ms,
                                            struct lockstep_tensor **ret_tensor,
                                            struct lockstep_error *error)
{
    struct lockstep_tensor *tensor;
    size_t bytes = 0;
    enum lockstep_status status = check(device, type, count, ret_tensor, &bytes, error);

    if (status == LOCKSTEP_OK) {
        status = wait_and_make(device, type, count, timeout_ms, &tensor, error);
    }
    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (!memory_take(tensor->memory, bytes, &tensor->block)) {
        memory_unref(&tensor->memory);
        tensor_unref(&tensor);
        return lib_fail(error, LOCKSTEP_NO_MEMORY, "device %s: no memory for %zu elements of %s",
                        device->name, count, lockstep_type_text(type));
    }
    tensor->span = (struct work_span){.data = tensor->block.data, .at = tensor->block.at};
    tensor->owned = true;
    *ret_tensor = tensor;
    return LOCKSTEP_OK;
}

enum lockstep_status lockstep_tensor_borrow(struct lockstep_device *device, enum lockstep_type type,
                                            void *data, size_t count, uint32_t timeout_ms,
                                            struct lockstep_tensor **ret_tensor,
                                            struct lockstep_error *error)
{
    struct lockstep_tensor *tensor;
    size_t bytes;
    enum lockstep_status status = check(device, type, count, ret_tensor, &bytes, error);

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (device->config.own_process) {
        return lib_fail(error, LOCKSTEP_UNSUPPORTED,
                        "device %s is a process of its own and cannot reach borrowed memory",
                        device->name);
    }
    if ((data == NULL && count > 0) || (uintptr_t)data % lockstep_type_bytes(type) != 0) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "device %s: borrowed memory is NULL or not aligned for %s", device->name,
                        lockstep_type_text(type));
    }
    status = wait_and_make(device, type, count, timeout_ms, &tensor, error);
    if (status != LOCKSTEP_OK) {
        return status;
    }
    memory_unref(&tensor->memory);
    tensor->span.data = data;
    *ret_tensor = tensor;
    return LOCKSTEP_OK;
}

enum lockstep_status lockstep_tensor_slice(struct lockstep_tensor *tensor, size_t first,
                                           size_t count, struct lockstep_tensor **ret_slice,
                                           struct lockstep_error *error)
{
    struct lockstep_tensor *slice;
    size_t skipped;

    if (tensor == NULL || ret_slice == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_tensor_slice: an argument is NULL");
    }
    if (first > tensor->count || count > tensor->count - first) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "elements %zu to %zu are not inside a handle of %zu elements", first,
                        first + count, tensor->count);
    }
    skipped = first * lockstep_type_bytes(tensor->type);
    slice = xalloc(sizeof(*slice));
    *slice = (struct lockstep_tensor){
        .refs = 1,
        .device = tensor->device,
        .whole = tensor_ref(tensor),
        .generation = tensor->generation,
        .type = tensor->type,
        .count = count,
        .span = {.data = tensor->span.data == NULL ? NULL : (char *)tensor->span.data + skipped,
                 .at = tensor->span.at + skipped},
        .owned = tensor->owned,
    };
    device_ref(tensor->device);
    *ret_slice = slice;
    return LOCKSTEP_OK;
}

void lockstep_tensor_destroy(struct lockstep_tensor **tensor)
{
    if (tensor != NULL && *tensor != NULL) {
        tensor_unref(tensor);
    }
}

void lockstep_tensor_info(struct lockstep_tensor *tensor, struct lockstep_tensor_info *ret_info)
{
    *ret_info = (struct lockstep_tensor_info){
        .device = tensor->device,
        .generation = tensor->generation,
        .type = tensor->type,
        .count = tensor->count,
        .owned = tensor->owned,
        .stale = tensor_check_fresh(tensor, "", NULL) != LOCKSTEP_OK,
    };
}

void *lockstep_tensor_data(struct lockstep_tensor *tensor, struct lockstep_error *error)
{
    if (tensor == NULL) {
        lib_fail(error, LOCKSTEP_INVALID, "lockstep_tensor_data: the handle is NULL");
        return NULL;
    }
    return tensor_check_fresh(tensor, "", error) == LOCKSTEP_OK ? tensor->span.data : NULL;
}

/* --- Reading and writing in the order of the queue --- */

struct copying {
    struct task task;
    struct work work;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    struct work_result result;
};

static void copied(struct task *task, const struct work_result *result)
{
    struct copying *copying = task->arg;

    pthread_mutex_lock(&copying->lock);
    copying->result = *result;
    copying->done = true;
    pthread_cond_signal(&copying->changed);
    pthread_mutex_unlock(&copying->lock);
}

/* Waits for the copy; past its deadline it is taken back unless it is under way. */
static void wait_copied(struct copying *copying, struct lockstep_device *device)
{
    uint64_t deadline = copying->task.order.deadline_ns;

    pthread_mutex_lock(&copying->lock);
    while (!copying->done) {
        if (!threads_cond_wait(&copying->changed, &copying->lock, deadline)) {
            pthread_mutex_unlock(&copying->lock);
            device_withdraw(device, NULL, &copying->task);
            pthread_mutex_lock(&copying->lock);
            if (copying->done && copying->result.status == LOCKSTEP_CANCELLED) {
                work_fail(&copying->result, LOCKSTEP_TIMEOUT, "it waited until its deadline");
            }
            deadline = UINT64_MAX;
        }
    }
    pthread_mutex_unlock(&copying->lock);
}

static enum lockstep_status copy(struct lockstep_tensor *tensor, struct copying *copying,
                                 uint32_t timeout_ms, const char *what,
                                 struct lockstep_error *error)
{
    enum lockstep_status status = lib_may_wait(what, error);

    if (status == LOCKSTEP_OK) {
        status = tensor_check_fresh(tensor, "", error);
    }
    if (status != LOCKSTEP_OK) {
        return status;
    }
    copying->work.kind = WORK_COPY;
    copying->task = (struct task){
        .name = what,
        .order = {.deadline_ns = lib_deadline(timeout_ms)},
        .copy = &copying->work,
        .generation = tensor->generation,
        .done = copied,
        .arg = copying,
    };
    pthread_mutex_init(&copying->lock, NULL);
    threads_cond_init(&copying->changed);
    status = device_post(tensor->device, &copying->task, error);
    if (status == LOCKSTEP_OK) {
        wait_copied(copying, tensor->device);
        status = copying->result.status;
        if (status != LOCKSTEP_OK) {
            lib_fail(error, status, "%s: device %s: %s", what, tensor->device->name,
                     copying->result.text);
        }
    }
    pthread_cond_destroy(&copying->changed);
    pthread_mutex_destroy(&copying->lock);
    return status;
}

static enum lockstep_status check_range(const struct lockstep_tensor *tensor, size_t first,
                                        size_t count, const void *memory, const char *what,
                                        struct lockstep_error *error)
{
    if (tensor == NULL || (memory == NULL && count > 0)) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: an argument is NULL", what);
    }
    if (first > tensor->count || count > tensor->count - first) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "%s: %zu elements from %zu on are not inside a handle of %zu", what, count,
                        first, tensor->count);
    }
    return LOCKSTEP_OK;
}

enum lockstep_status lockstep_tensor_read(struct lockstep_tensor *tensor, size_t first,
                                          size_t count, void *out, uint32_t timeout_ms,
                                          struct lockstep_error *error)
{
    struct copying copying = {0};
    enum lockstep_status status = check_range(tensor, first, count, out, __func__, error);
    size_t bytes;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    bytes = lockstep_type_bytes(tensor->type);
    copying.work.in.data = (char *)tensor->span.data + first * bytes;
    copying.work.out.data = out;
    copying.work.count = count * bytes;
    return copy(tensor, &copying, timeout_ms, __func__, error);
}

enum lockstep_status lockstep_tensor_write(struct lockstep_tensor *tensor, size_t first,
                                           size_t count, const void *in, uint32_t timeout_ms,
                                           struct lockstep_error *error)
{
    struct copying copying = {0};
    enum lockstep_status status = check_range(tensor, first, count, in, __func__, error);
    size_t bytes;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    bytes = lockstep_type_bytes(tensor->type);
    copying.work.in.data = (void *)(uintptr_t)in;
    copying.work.out.data = (char *)tensor->span.data + first * bytes;
    copying.work.count = count * bytes;
    return copy(tensor, &copying, timeout_ms, __func__, error);
}
