/* SPDX-License-Identifier: Apache-2.0 */
#include "base/futex.h"

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
