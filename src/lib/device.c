/* SPDX-License-Identifier: Apache-2.0 */
/* A device seen from other threads. */
#include "lib/device.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"
#include "lib/device_sim.h"
#include "lib/fail.h"

enum { QUEUE_LIMIT = 1024, START_TRIES = 3, STOPPED_MS = 1000 };

static const uint64_t MEMORY_BYTES = (uint64_t)4 << 30;

void device_ref(struct lockstep_device *device)
{
    atomic_fetch_add(&device->refs, 1);
}

void device_unref(struct lockstep_device **device)
{
    struct lockstep_device *d = *device;

    *device = NULL;
    if (atomic_fetch_sub(&d->refs, 1) != 1) {
        return;
    }
    if (d->context != NULL) {
        d->context->backend->destroy(&d->context);
    }
    memory_unref(&d->memory);
    device_sim_destroy(&d->sim);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->changing);
    free(d->name);
    free(d->cores);
    free(d);
}

void device_wake(struct lockstep_device *device)
{
    atomic_fetch_add(&device->alarm, 1);
    futex_wake_all_shared(&device->alarm);
}

void device_sleep_once(struct lockstep_device *device, uint32_t seen, uint64_t until_ns)
{
    uint64_t now = clock_ns();

    if (until_ns == UINT64_MAX) {
        futex_wait_shared(&device->alarm, seen, 0);
    } else if (until_ns > now) {
        futex_wait_shared(&device->alarm, seen, until_ns - now);
    }
}

void device_interrupt(struct lockstep_device *device)
{
    atomic_fetch_add(&device->interrupts, 1);
    device_wake(device);
}

void device_set_state(struct lockstep_device *device, enum lockstep_device_state state,
                      const char *reason)
{
    struct lockstep_event event = {.device = device, .device_state = state};

    pthread_mutex_lock(&device->changing);
    pthread_mutex_lock(&device->lock);
    if (device->state == LOCKSTEP_DEVICE_CLOSED) { /* nothing comes after */
        pthread_mutex_unlock(&device->lock);
        pthread_mutex_unlock(&device->changing);
        return;
    }
    device->state = state;
    if (reason != NULL) {
        lib_text(device->reason, sizeof(device->reason), "%s", reason);
    }
    memory_unref(&device->memory);
    device->process = 0;
    if (state == LOCKSTEP_DEVICE_UP) {
        device->generation++;
        device->memory = memory_ref(device->context->memory);
        device->process = device->context->process;
    }
    event.generation = device->generation;
    memcpy(event.reason, device->reason, sizeof(event.reason));
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
    if (device->listener.changed != NULL) {
        device->listener.changed(device->listener.arg, device->listener.rank, state,
                                 event.generation, event.reason);
    }
    watch_tell(&device->watches, &event);
    pthread_mutex_unlock(&device->changing);
}

/* --- The queue --- */

static enum lockstep_status refuse(const struct lockstep_device *device, const struct task *task,
                                   struct lockstep_error *error)
{
    if (device->closing) {
        return lib_fail(error, LOCKSTEP_CANCELLED, "device %s was destroyed", device->name);
    }
    if (device->state == LOCKSTEP_DEVICE_FAILED) {
        return lib_fail(error, LOCKSTEP_DEVICE, "device %s failed: %s", device->name,
                        device->reason);
    }
    if (task->generation != 0 && (device->state != LOCKSTEP_DEVICE_UP || device->lose_asked ||
                                  device->generation != task->generation)) {
        return lib_fail(error, LOCKSTEP_DEVICE, "device %s lost its context: %s", device->name,
                        device->lose_asked ? device->lose_reason : device->reason);
    }
    if (task->owner == NULL && device->n_queued >= device->config.queue_limit) {
        return lib_fail(error, LOCKSTEP_LIMIT, "device %s: %u operations wait already",
                        device->name, (unsigned)device->n_queued);
    }
    return LOCKSTEP_OK;
}

enum lockstep_status device_post(struct lockstep_device *device, struct task *task,
                                 struct lockstep_error *error)
{
    enum lockstep_status status;

    pthread_mutex_lock(&device->lock);
    status = refuse(device, task, error);
    if (status == LOCKSTEP_OK) {
        task->next = NULL;
        *device->last = task;
        device->last = &task->next;
        device->n_queued++;
    }
    pthread_mutex_unlock(&device->lock);
    if (status == LOCKSTEP_OK) {
        device_wake(device);
    }
    return status;
}

bool device_carries_out(struct lockstep_device *device, const struct task *task)
{
    bool is_busy;

    pthread_mutex_lock(&device->lock);
    is_busy = device->busy == task;
    pthread_mutex_unlock(&device->lock);
    return is_busy;
}

/* ", behind ..." if something is carried out. lock is held. */
static void tell_busy(const struct lockstep_device *device, char *out, size_t size)
{
    if (device->busy == NULL) {
        out[0] = '\0';
    } else if (device->busy_function[0] != '\0') {
        lib_text(out, size, ", behind function '%s', which device %s still runs",
                 device->busy_function, device->name);
    } else {
        lib_text(out, size, ", behind %s on device %s", device->busy_name, device->name);
    }
}

void device_withdraw(struct lockstep_device *device, const void *owner, const struct task *one)
{
    struct task *out = NULL;
    struct task **out_last = &out;
    char busy[2 * WORK_NAME_BYTES + 64];

    pthread_mutex_lock(&device->lock);
    tell_busy(device, busy, sizeof(busy));
    for (struct task **link = &device->first; *link != NULL;) {
        struct task *task = *link;

        if (owner != NULL ? task->owner == owner : task == one) {
            *link = task->next;
            task->next = NULL;
            *out_last = task;
            out_last = &task->next;
            device->n_queued--;
        } else {
            link = &task->next;
        }
    }
    device->last = &device->first;
    while (*device->last != NULL) {
        device->last = &(*device->last)->next;
    }
    pthread_mutex_unlock(&device->lock);
    while (out != NULL) {
        struct task *task = out;
        struct work_result result = {0};

        out = task->next;
        work_fail(&result, LOCKSTEP_CANCELLED, "%s was withdrawn before it began%s", task->name,
                  busy);
        task->done(task, &result);
    }
}

void device_lose(struct lockstep_device *device, uint64_t generation, const char *reason)
{
    pthread_mutex_lock(&device->lock);
    if (device->state == LOCKSTEP_DEVICE_UP && !device->lose_asked &&
        (generation == 0 || generation == device->generation)) {
        device->lose_asked = true;
        lib_text(device->lose_reason, sizeof(device->lose_reason), "%s", reason);
        atomic_store(&device->give_up, true);
    } else if (device->state == LOCKSTEP_DEVICE_FAILED && generation == 0) {
        device->retry_asked = true;
    }
    pthread_mutex_unlock(&device->lock);
    device_interrupt(device);
}

void device_retry(struct lockstep_device *device)
{
    pthread_mutex_lock(&device->lock);
    if (device->state == LOCKSTEP_DEVICE_FAILED) {
        device->retry_asked = true;
    }
    pthread_mutex_unlock(&device->lock);
    device_wake(device);
}

bool device_attach(struct lockstep_device *device, const void *world,
                   const struct device_listener *listener)
{
    bool is_free;

    pthread_mutex_lock(&device->changing);
    pthread_mutex_lock(&device->lock);
    is_free = device->world == NULL;
    if (is_free) {
        device->world = world;
    }
    pthread_mutex_unlock(&device->lock);
    if (is_free) {
        device->listener = *listener;
    }
    pthread_mutex_unlock(&device->changing);
    return is_free;
}

void device_detach(struct lockstep_device *device)
{
    pthread_mutex_lock(&device->changing);
    device->listener = (struct device_listener){0};
    pthread_mutex_lock(&device->lock);
    device->world = NULL;
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_unlock(&device->changing);
}

/* --- What the public header promises --- */

static enum lockstep_status check_config(const struct lockstep_device_config *config,
                                         struct lockstep_error *error)
{
    cpu_set_t set;

    if (config->bytes != sizeof(*config)) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "lockstep_device_config.bytes is %zu, not its size (%zu)", config->bytes,
                        sizeof(*config));
    }
    if (config->backend != LOCKSTEP_CPU && config->backend != LOCKSTEP_SIM) {
        return lib_fail(error, LOCKSTEP_INVALID, "backend %d is not known", (int)config->backend);
    }
    if (config->cores != NULL && !context_cores_parse(config->cores, &set, sizeof(set))) {
        return lib_fail(error, LOCKSTEP_INVALID, "cores '%.100s' is no list as 0-3,8",
                        config->cores);
    }
    if (config->n_functions > 0 && config->functions == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "n_functions is %zu, but functions is NULL",
                        config->n_functions);
    }
    if (config->own_process && !context_process_possible()) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "own_process: the program does not call lockstep_device_main first in "
                        "main, so that it cannot be a device's process");
    }
    return LOCKSTEP_OK;
}

static enum lockstep_status make_context(struct lockstep_device *device,
                                         struct lockstep_error *error)
{
    const struct context_config config = {
        .name = device->name,
        .cores = device->cores,
        .memory_bytes = device->config.memory_bytes,
        .stopped_ms = device->config.stopped_ms,
        .functions = device->config.functions,
        .n_functions = device->config.n_functions,
        .alarm = &device->alarm,
        .give_up = &device->give_up,
    };

    if (device->config.own_process) {
        return context_process_create(&config, &device->context, error);
    }
    device->context = context_thread_create(&config);
    return LOCKSTEP_OK;
}

static struct lockstep_device *make_device(const struct lockstep_device_config *config)
{
    static _Atomic uint32_t n_made; /* only for names */
    struct lockstep_device *device = xalloc(sizeof(*device));
    char name[WORK_NAME_BYTES];

    if (config->name != NULL) {
        lib_text(name, sizeof(name), "%s", config->name);
    } else {
        lib_text(name, sizeof(name), "device %u", (unsigned)atomic_fetch_add(&n_made, 1));
    }
    device->refs = 1;
    device->config = *config;
    device->name = xstrdup(name);
    device->cores = config->cores != NULL ? xstrdup(config->cores) : NULL;
    device->config.name = device->name;
    device->config.cores = device->cores;
    if (config->queue_limit == 0) {
        device->config.queue_limit = QUEUE_LIMIT;
    }
    if (config->start_tries == 0) {
        device->config.start_tries = START_TRIES;
    }
    if (config->memory_bytes == 0) {
        device->config.memory_bytes = MEMORY_BYTES;
    }
    if (config->stopped_ms == 0) {
        device->config.stopped_ms = STOPPED_MS;
    }
    device->sim = config->backend == LOCKSTEP_SIM ? device_sim_create() : NULL;
    pthread_mutex_init(&device->changing, NULL);
    pthread_mutex_init(&device->lock, NULL);
    threads_cond_init(&device->changed);
    device->last = &device->first;
    return device;
}

enum lockstep_status lockstep_device_create(const struct lockstep_device_config *config,
                                            struct lockstep_device **ret_device,
                                            struct lockstep_error *error)
{
    struct lockstep_device *device;
    enum lockstep_status status;
    int code;

    if (config == NULL || ret_device == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_device_create: an argument is NULL");
    }
    status = check_config(config, error);
    if (status != LOCKSTEP_OK) {
        return status;
    }
    device = make_device(config);
    status = make_context(device, error);
    if (status == LOCKSTEP_OK) {
        code = threads_start(&device->thread, device_run, device);
        if (code != 0) {
            status = lib_fail(error, LOCKSTEP_IO, "device %s: no thread: %s", device->name,
                              strerror(code));
        }
    }
    if (status != LOCKSTEP_OK) {
        device_unref(&device);
        return status;
    }
    *ret_device = device;
    return LOCKSTEP_OK;
}

void lockstep_device_destroy(struct lockstep_device **device)
{
    struct lockstep_device *d = device == NULL ? NULL : *device;

    if (d == NULL) {
        return;
    }
    *device = NULL;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    atomic_store(&d->give_up, true);
    pthread_mutex_unlock(&d->lock);
    device_set_state(d, LOCKSTEP_DEVICE_CLOSED, "the device was destroyed");
    device_interrupt(d);
    pthread_join(d->thread, NULL);
    device_unref(&d);
}

void lockstep_device_info(struct lockstep_device *device, struct lockstep_device_info *ret_info)
{
    pthread_mutex_lock(&device->lock);
    *ret_info = (struct lockstep_device_info){
        .name = device->name,
        .state = device->state,
        .generation = device->generation,
        .process = device->process,
        .n_queued = device->n_queued,
    };
    memcpy(ret_info->reason, device->reason, sizeof(ret_info->reason));
    pthread_mutex_unlock(&device->lock);
}

enum lockstep_status lockstep_device_wait(struct lockstep_device *device, uint64_t generation,
                                          uint32_t timeout_ms, struct lockstep_error *error)
{
    uint64_t deadline = lib_deadline(timeout_ms);
    enum lockstep_status status = timeout_ms > 0 ? lib_may_wait(__func__, error) : LOCKSTEP_OK;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    pthread_mutex_lock(&device->lock);
    for (status = LOCKSTEP_PENDING; status == LOCKSTEP_PENDING;) {
        if (device->closing) {
            status = lib_fail(error, LOCKSTEP_CANCELLED, "device %s was destroyed", device->name);
        } else if (device->state == LOCKSTEP_DEVICE_UP && !device->lose_asked &&
                   device->generation >= generation) {
            status = LOCKSTEP_OK;
        } else if (device->state == LOCKSTEP_DEVICE_FAILED && !device->retry_asked) {
            status = lib_fail(error, LOCKSTEP_DEVICE, "device %s failed: %s", device->name,
                              device->reason);
        } else if (!threads_cond_wait(&device->changed, &device->lock, deadline)) {
            status = lib_fail(
                error, LOCKSTEP_TIMEOUT, "device %s was not up in generation %llu within %u ms%s%s",
                device->name, (unsigned long long)MAX(generation, 1ull), (unsigned)timeout_ms,
                device->reason[0] != '\0' ? ": " : "", device->reason);
        }
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

void lockstep_device_reset(struct lockstep_device *device, const char *reason)
{
    device_lose(device, 0, reason != NULL ? reason : "it was reset");
}
