/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping on a 32-bit word, private to the process or in memory shared with others. Any thread. */
#pragma once

#include <stdatomic.h>

#include "base/base.h"

/* Sleeps while *word == expected, at most timeout_ns (0: no limit). May return early. */
void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void futex_wake_all(_Atomic uint32_t *word);

/* The same for a word in shared memory, which this process may map read-only. */
void futex_wait_shared(const _Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void futex_wake_all_shared(const _Atomic uint32_t *word);

/* Sleeps while both words are as expected, at most timeout_ns. Each may lie in shared memory and is
 * woken by futex_wake_all_shared. May return early; false, at once, if the kernel cannot (before
 * Linux 5.16). */
bool futex_wait_two_shared(const _Atomic uint32_t *a, uint32_t expected_a,
                           const _Atomic uint32_t *b, uint32_t expected_b, uint64_t timeout_ns);

/* One step of a spin loop. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
