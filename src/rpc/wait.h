/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How to wait for a word in shared memory: spin with pause, then yield, then sleep on a futex, so
 * that a busy world loses no time, an oversubscribed one does not collapse and an idle one is idle.
 * No system call while spinning; no sleep is longer than slice_ns and no wait longer than its
 * deadline, because who should end it may be dead. Any thread.
 */
#pragma once

#include <stdatomic.h>

#include "base/status.h"

struct wait {
    uint64_t deadline_ns;     /* clock_ns() at which it is over */
    uint64_t spin_ns;         /* from the start: spin for so long */
    uint64_t yield_ns;        /* from the start: yield until then, sleep after it */
    uint64_t slice_ns;        /* longest sleep, and so how late stop may be noticed */
    const _Atomic bool *stop; /* NULL, or: give up when it becomes true */
    /* NULL, or a word of this process: give up when it is no longer `heard`. Whoever changes it
     * wakes its sleepers. */
    const _Atomic uint32_t *alarm;
    uint32_t heard;
};

/* Waits of a rank: 50 us of spinning, yields up to 1 ms, sleeps of 50 ms. */
struct wait wait_rank(uint64_t deadline_ns);
/* Waits of the leader, which shares its core and is in no hurry that would be worth a rank's time:
 * sleeps at once, for 2 ms at most. */
struct wait wait_leader(uint64_t deadline_ns);

/* STATUS_PENDING: keep waiting. Anything else ends the wait. */
typedef enum status wait_ready_fn(void *arg);

/*
 * Calls ready until it does not say STATUS_PENDING; returns what it says, STATUS_TIMEOUT, or
 * STATUS_CANCELLED (stop, alarm). bell is a word that the other side changes after it has made
 * ready true and before it looks at *asleep, both sequentially consistent; asleep is a word that
 * only this side writes and that the other side can read.
 */
NODISCARD enum status wait_for(const struct wait *wait, wait_ready_fn *ready, void *arg,
                               const _Atomic uint32_t *bell, _Atomic uint32_t *asleep);
