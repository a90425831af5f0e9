/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wait.h"

#include <sched.h>

#include "base/clock.h"
#include "base/futex.h"

enum { SPINS = 64 }; /* between two looks at the clock */

struct wait wait_rank(uint64_t deadline_ns)
{
    return (struct wait){.deadline_ns = deadline_ns,
                         .spin_ns = 50 * 1000,
                         .yield_ns = 1000 * 1000,
                         .slice_ns = 50 * 1000 * 1000};
}

struct wait wait_leader(uint64_t deadline_ns)
{
    return (struct wait){.deadline_ns = deadline_ns, .slice_ns = 2 * 1000 * 1000};
}

/* asleep is set before the last look, and the other side looks at it after its change: one of the
 * two sees the other. */
static enum status sleep_once(const struct wait *wait, wait_ready_fn *ready, void *arg,
                              const _Atomic uint32_t *bell, _Atomic uint32_t *asleep,
                              uint64_t limit_ns)
{
    enum status status;
    uint32_t heard;

    atomic_store(asleep, 1);
    heard = atomic_load(bell);
    status = ready(arg);
    if (status == STATUS_PENDING &&
        (wait->alarm == NULL ||
         !futex_wait_two_shared(bell, heard, wait->alarm, wait->heard, limit_ns))) {
        futex_wait_shared(bell, heard, limit_ns);
    }
    atomic_store(asleep, 0);
    return status;
}

enum status wait_for(const struct wait *wait, wait_ready_fn *ready, void *arg,
                     const _Atomic uint32_t *bell, _Atomic uint32_t *asleep)
{
    uint64_t start = 0;

    for (;;) {
        enum status status = ready(arg);
        uint64_t now;

        for (uint32_t i = 1; i < SPINS && status == STATUS_PENDING; i++) {
            cpu_relax();
            status = ready(arg);
        }
        if (status != STATUS_PENDING) {
            return status;
        }
        now = clock_ns();
        start = start == 0 ? now : start;
        if (now >= wait->deadline_ns) {
            return STATUS_TIMEOUT;
        }
        if (wait->stop != NULL && atomic_load_explicit(wait->stop, memory_order_acquire)) {
            return STATUS_CANCELLED;
        }
        if (wait->alarm != NULL && atomic_load(wait->alarm) != wait->heard) {
            return STATUS_CANCELLED;
        }
        if (now - start < wait->spin_ns) {
            continue;
        }
        if (now - start < wait->yield_ns) {
            sched_yield();
            continue;
        }
        status = sleep_once(wait, ready, arg, bell, asleep,
                            MAX(MIN(wait->slice_ns, wait->deadline_ns - now), 1));
        if (status != STATUS_PENDING) {
            return status;
        }
    }
}
