/* SPDX-License-Identifier: Apache-2.0 */
/* A device's own thread: it keeps the context up and carries out what is queued. */
#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "lib/device_sim.h"
#include "lib/fail.h"

enum { BACKOFF_MS = 10, BACKOFF_DOUBLINGS = 8, START_LOOK_NS = 1000000 };

struct starting {
    uint64_t began_ns; /* this try; 0: not yet */
    uint64_t not_before_ns;
    uint32_t n_failed; /* in a row */
    bool begun;        /* the context's start was called */
};

void device_sleep(struct lockstep_device *device, uint64_t until_ns, uint32_t interrupts)
{
    for (;;) {
        uint32_t seen = atomic_load(&device->alarm);

        if (atomic_load(&device->interrupts) != interrupts || atomic_load(&device->give_up) ||
            clock_ns() >= until_ns) {
            return;
        }
        device_sleep_once(device, seen, until_ns);
    }
}

static void end(struct task *task, const struct work_result *result)
{
    task->done(task, result);
}

/* What is carried out from now on, for those who wait behind it. lock is held. */
static void note_busy(struct lockstep_device *device, const struct task *task)
{
    const struct work_call *call = task->order.call;

    device->busy = task;
    device->busy_name = task->name;
    device->busy_function[0] = '\0';
    if (call != NULL) {
        lib_text(device->busy_function, sizeof(device->busy_function), "%s", call->name);
    }
}

/* Takes out of the queue: the first task; or (by_time) those whose deadline has passed; or
 * (of_generation) those that are for one generation; or all. Linked by next. */
enum which { FIRST, EXPIRED, OF_GENERATION, ALL };

static struct task *take(struct lockstep_device *device, enum which which, uint64_t now,
                         uint64_t *ret_next_deadline)
{
    struct task *out = NULL;
    struct task **out_last = &out;
    uint64_t next = UINT64_MAX;

    pthread_mutex_lock(&device->lock);
    if (which == FIRST) {
        device->busy = NULL;
    }
    for (struct task **link = &device->first; *link != NULL;) {
        struct task *task = *link;
        bool match = which == ALL || (which == FIRST && out == NULL) ||
                     (which == EXPIRED && task->order.deadline_ns <= now) ||
                     (which == OF_GENERATION && task->generation != 0);

        if (match) {
            *link = task->next;
            task->next = NULL;
            *out_last = task;
            out_last = &task->next;
            device->n_queued--;
            if (which == FIRST) {
                note_busy(device, task);
                break;
            }
        } else {
            next = MIN(next, task->order.deadline_ns);
            link = &task->next;
        }
    }
    if (device->first == NULL) {
        device->last = &device->first;
    } else if (which != FIRST) {
        device->last = &device->first;
        while (*device->last != NULL) {
            device->last = &(*device->last)->next;
        }
    }
    pthread_mutex_unlock(&device->lock);
    if (ret_next_deadline != NULL) {
        *ret_next_deadline = next;
    }
    return out;
}

static void end_all(struct task *task, enum lockstep_status status, const char *text)
{
    while (task != NULL) {
        struct task *next = task->next;
        struct work_result result = {0};

        work_fail(&result, status, "%s", text);
        end(task, &result);
        task = next;
    }
}

/* The context is of no more use: it is told first, so that nobody waits for what it would have
 * done, and then taken down. */
static void lose(struct lockstep_device *device, const char *reason)
{
    char text[sizeof(device->lose_reason)];

    pthread_mutex_lock(&device->lock);
    lib_text(text, sizeof(text), "%s", device->lose_asked ? device->lose_reason : reason);
    pthread_mutex_unlock(&device->lock);
    device_set_state(device, LOCKSTEP_DEVICE_STARTING, text);
    end_all(take(device, OF_GENERATION, 0, NULL), LOCKSTEP_DEVICE, text);
    device->context->backend->stop(device->context);
    pthread_mutex_lock(&device->lock);
    device->lose_asked = false;
    if (!device->closing) {
        atomic_store(&device->give_up, false);
    }
    pthread_mutex_unlock(&device->lock);
}

static void start_failed(struct lockstep_device *device, struct starting *starting,
                         const struct work_result *result)
{
    uint32_t n = ++starting->n_failed;

    device->context->backend->stop(device->context);
    starting->begun = false;
    starting->began_ns = 0;
    if (n >= device->config.start_tries) {
        starting->n_failed = 0;
        device_set_state(device, LOCKSTEP_DEVICE_FAILED, result->text);
        end_all(take(device, ALL, 0, NULL), LOCKSTEP_DEVICE, result->text);
        return;
    }
    pthread_mutex_lock(&device->lock);
    lib_text(device->reason, sizeof(device->reason), "%s", result->text);
    pthread_mutex_unlock(&device->lock);
    starting->not_before_ns =
        clock_ns() + ((uint64_t)BACKOFF_MS << MIN(n - 1, (uint32_t)BACKOFF_DOUBLINGS)) * 1000000;
}

/* One look at a context that is not up. */
static void bring_up(struct lockstep_device *device, struct starting *starting, uint64_t *wake)
{
    struct work_result result = {0};
    uint64_t now = clock_ns();
    enum lockstep_status status;

    if (now < starting->not_before_ns) {
        *wake = MIN(*wake, starting->not_before_ns);
        return;
    }
    if (starting->began_ns == 0) {
        starting->began_ns = now;
    }
    status =
        starting->begun ? LOCKSTEP_OK : device_sim_start(device, starting->began_ns, wake, &result);
    if (status == LOCKSTEP_OK) {
        starting->begun = true;
        status = device->context->backend->start(device->context, device->generation + 1, &result);
    }
    if (status == LOCKSTEP_PENDING && starting->begun) {
        *wake = MIN(*wake, now + START_LOOK_NS);
    }
    if (status == LOCKSTEP_PENDING && device->config.start_ms > 0) {
        uint64_t limit = starting->began_ns + (uint64_t)device->config.start_ms * 1000000;

        *wake = MIN(*wake, limit);
        if (now >= limit) {
            status = work_fail(&result, LOCKSTEP_TIMEOUT, "the context was not up within %u ms",
                               (unsigned)device->config.start_ms);
        }
    }
    if (status == LOCKSTEP_OK) {
        *starting = (struct starting){0};
        device_set_state(device, LOCKSTEP_DEVICE_UP, NULL);
    } else if (status != LOCKSTEP_PENDING) {
        start_failed(device, starting, &result);
        *wake = MIN(*wake, starting->not_before_ns);
    }
}

static void reach(struct lockstep_device *device, const struct task *task, uint32_t interrupts,
                  struct work_result *result)
{
    if (!device_sim_before(device, interrupts, result)) {
        return;
    }
    if (atomic_load(&device->give_up)) { /* lose() has the reason */
        work_fail(result, LOCKSTEP_DEVICE, "the context was given up");
        return;
    }
    if (task->copy == NULL) {
        device->context->backend->run(device->context, &task->order, result);
        return;
    }
    if (task->copy->count > 0) {
        memcpy(task->copy->out.data, task->copy->in.data, task->copy->count);
    }
    result->status = LOCKSTEP_OK;
}

static void carry_out(struct lockstep_device *device, struct task *task, uint32_t interrupts)
{
    struct work_result result = {0};
    bool reached = false; /* the context, so that its end would be the result */

    if (task->order.deadline_ns <= clock_ns()) {
        work_fail(&result, LOCKSTEP_TIMEOUT, "%s waited until its deadline", task->name);
    } else if (task->generation != 0 && task->generation != device->generation) {
        work_fail(&result, LOCKSTEP_DEVICE, "%s was for generation %llu", task->name,
                  (unsigned long long)task->generation);
    } else {
        reached = true;
        reach(device, task, interrupts, &result);
    }
    if (result.status == LOCKSTEP_DEVICE && reached) {
        lose(device, result.text);
    }
    end(task, &result);
}

/* One look at a context that is up. True if there may be more to do at once. */
static bool serve(struct lockstep_device *device)
{
    struct work_result result = {0};
    struct task *task;
    uint32_t interrupts;
    bool lose_asked;

    pthread_mutex_lock(&device->lock);
    lose_asked = device->lose_asked;
    pthread_mutex_unlock(&device->lock);
    if (lose_asked) {
        lose(device, "");
        return true;
    }
    if (!device->context->backend->alive(device->context, &result)) {
        lose(device, result.text);
        return true;
    }
    /* Read before the task is taken: whoever withdraws tasks and then interrupts misses none. */
    interrupts = atomic_load(&device->interrupts);
    task = take(device, FIRST, 0, NULL);
    if (task != NULL) {
        carry_out(device, task, interrupts);
    }
    return task != NULL;
}

static void pin(const struct lockstep_device *device)
{
    cpu_set_t set;

    if (device->cores != NULL && !device->config.own_process &&
        context_cores_parse(device->cores, &set, sizeof(set))) {
        pthread_setaffinity_np(pthread_self(), sizeof(set), &set); /* a wish */
    }
}

/* True if the device was failed and is to be tried again. */
static bool take_retry(struct lockstep_device *device)
{
    bool asked;

    pthread_mutex_lock(&device->lock);
    asked = device->retry_asked && device->state == LOCKSTEP_DEVICE_FAILED;
    device->retry_asked = false;
    pthread_mutex_unlock(&device->lock);
    return asked;
}

/* One look. Returns until when there is nothing to do. */
static uint64_t look(struct lockstep_device *device, struct starting *starting)
{
    uint64_t wake = UINT64_MAX;
    enum lockstep_device_state state;

    pthread_mutex_lock(&device->lock);
    state = device->state;
    pthread_mutex_unlock(&device->lock);
    if (state == LOCKSTEP_DEVICE_UP) {
        return serve(device) ? 0 : UINT64_MAX;
    }
    if (state == LOCKSTEP_DEVICE_FAILED) {
        if (take_retry(device)) {
            device_set_state(device, LOCKSTEP_DEVICE_STARTING, NULL);
            return 0;
        }
        return UINT64_MAX;
    }
    if (state == LOCKSTEP_DEVICE_STARTING) {
        uint64_t next;

        bring_up(device, starting, &wake);
        end_all(take(device, EXPIRED, clock_ns(), &next), LOCKSTEP_TIMEOUT,
                "the device's context did not come up before the deadline");
        wake = MIN(wake, next);
        pthread_mutex_lock(&device->lock);
        state = device->state;
        pthread_mutex_unlock(&device->lock);
        return state == LOCKSTEP_DEVICE_UP ? 0 : wake;
    }
    return UINT64_MAX;
}

void *device_run(void *arg)
{
    struct lockstep_device *device = arg;
    struct starting starting = {0};

    pin(device);
    for (;;) {
        uint32_t seen = atomic_load(&device->alarm);
        uint64_t wake;
        bool closing;

        pthread_mutex_lock(&device->lock);
        closing = device->closing;
        pthread_mutex_unlock(&device->lock);
        if (closing) {
            break;
        }
        wake = look(device, &starting);
        if (wake > 0) {
            device_sleep_once(device, seen, wake);
        }
    }
    end_all(take(device, ALL, 0, NULL), LOCKSTEP_CANCELLED, "the device was destroyed");
    device->context->backend->stop(device->context);
    return NULL;
}
