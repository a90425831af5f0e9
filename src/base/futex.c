/* SPDX-License-Identifier: Apache-2.0 */
#include "base/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_on(const _Atomic uint32_t *word, int operation, uint32_t expected,
                    uint64_t timeout_ns)
{
    struct timespec limit = {
        .tv_sec = (time_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long)(timeout_ns % 1000000000u),
    };

    syscall(SYS_futex, word, operation, expected, timeout_ns == 0 ? NULL : &limit, NULL, 0);
}

void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    wait_on(word, FUTEX_WAIT_PRIVATE, expected, timeout_ns);
}

void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void futex_wait_shared(const _Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    wait_on(word, FUTEX_WAIT, expected, timeout_ns);
}

void futex_wake_all_shared(const _Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* on every architecture */
#endif

/* As in linux/futex.h, which older systems have without it. */
struct waiter {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t zero;
};

bool futex_wait_two_shared(const _Atomic uint32_t *a, uint32_t expected_a,
                           const _Atomic uint32_t *b, uint32_t expected_b, uint64_t timeout_ns)
{
    enum { SIZE_U32 = 2 };
    struct waiter waiters[2] = {
        {.value = expected_a, .address = (uintptr_t)a, .flags = SIZE_U32},
        {.value = expected_b, .address = (uintptr_t)b, .flags = SIZE_U32},
    };
    struct timespec until;
    uint64_t ns;

    clock_gettime(CLOCK_MONOTONIC, &until); /* it takes a time, not a duration */
    ns = (uint64_t)until.tv_nsec + timeout_ns;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    return syscall(SYS_futex_waitv, waiters, 2, 0, &until, CLOCK_MONOTONIC) >= 0 ||
           (errno != ENOSYS && errno != EPERM);
}
