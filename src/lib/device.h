/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device: a name, a queue and a thread that keeps a context up and carries out what is queued.
 *
 *   starting ──up──▶ up ──lost──▶ starting      A context that was lost is restarted at once; one
 *      │  ▲                                     that does not start is tried again after a moment,
 *      │  └── reset, or a world that wants it   start_tries times.
 *      └── too often ──▶ failed                 any ── destroyed ──▶ closed
 *
 * Tasks wait in the order in which they were posted. While the context is not up those that are for
 * any generation go on waiting until their deadline; those for the one that was lost have ended.
 *
 * Locks: changing is held over a change of state and its telling, lock for the fields alone. A
 * world's lock may be held when lock is taken, and is taken while changing is held.
 */
#pragma once

#include <pthread.h>

#include <lockstep/watch.h>

#include "lib/task.h"
#include "lib/threads.h"
#include "lib/watch.h"

/* Told each change, in order, with changing held. */
struct device_listener {
    void (*changed)(void *arg, uint32_t rank, enum lockstep_device_state state, uint64_t generation,
                    const char *reason);
    void *arg;
    uint32_t rank;
};

struct device_sim; /* device_sim.h */

struct lockstep_device {
    _Atomic uint32_t refs;
    struct lockstep_device_config config; /* strings are copies */
    char *name;
    char *cores;
    struct context *context; /* the thread's */
    struct device_sim *sim;  /* NULL: real */
    pthread_t thread;

    pthread_mutex_t changing;
    struct device_listener listener; /* changing's */
    struct watch_list watches;       /* changing's */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    enum lockstep_device_state state;
    uint64_t generation;
    struct memory *memory; /* of the context that is up */
    int process;
    char reason[256];
    bool closing;
    bool lose_asked;
    bool retry_asked;
    char lose_reason[256];
    struct task *first;
    struct task **last;
    uint32_t n_queued;
    const struct task *busy; /* what is carried out, to be compared only; NULL: nothing */
    const char *busy_name;   /* its name */
    char busy_function[WORK_NAME_BYTES]; /* if it is a call */
    const void *world;                   /* that it belongs to */

    _Atomic bool give_up;        /* what is carried out is to end */
    _Atomic uint32_t interrupts; /* changes when simulated waits are to end */
    _Atomic uint32_t alarm;      /* changes when the thread has something to look at */
};

void device_ref(struct lockstep_device *device);
void device_unref(struct lockstep_device **device);

/* Queues a task. Refused (nothing is queued and done is not called): LIMIT, CANCELLED (closed),
 * DEVICE (failed, or not up in the task's generation). */
enum lockstep_status device_post(struct lockstep_device *device, struct task *task,
                                 struct lockstep_error *error);

/* Whether the task is being carried out. */
NODISCARD bool device_carries_out(struct lockstep_device *device, const struct task *task);

/* Ends the queued tasks of that owner, or (owner NULL) that one task, with CANCELLED. */
void device_withdraw(struct lockstep_device *device, const void *owner, const struct task *task);

/* The context of that generation (0: whichever) is of no more use. Any thread. */
void device_lose(struct lockstep_device *device, uint64_t generation, const char *reason);

/* Simulated waits end. */
void device_interrupt(struct lockstep_device *device);

/* Tries again if the device is failed. */
void device_retry(struct lockstep_device *device);

/* False: it belongs to another world. */
NODISCARD bool device_attach(struct lockstep_device *device, const void *world,
                             const struct device_listener *listener);
void device_detach(struct lockstep_device *device);

/* Changes state, keeps reason (NULL: as it is) and tells. */
void device_set_state(struct lockstep_device *device, enum lockstep_device_state state,
                      const char *reason);

void device_wake(struct lockstep_device *device);

/* The thread's main function; its argument is the device. */
void *device_run(void *arg);

/* On the device's thread: sleeps until then, an interrupt since that number, or a closing. */
void device_sleep(struct lockstep_device *device, uint64_t until_ns, uint32_t interrupts);

/* Sleeps on the alarm until it changes from seen, at most until then. */
void device_sleep_once(struct lockstep_device *device, uint32_t seen, uint64_t until_ns);
