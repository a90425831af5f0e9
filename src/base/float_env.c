/* SPDX-License-Identifier: Apache-2.0 */
#include "base/float_env.h"

#if defined(__x86_64__)
#include <xmmintrin.h>

/* MXCSR: all exceptions masked, FTZ (bit 15), DAZ (bit 6), round to nearest; the sticky flags are
 * left out of every comparison. */
enum { CANONICAL = 0x9fc0, STICKY = 0x3f };

void float_env_enter(struct float_env *env)
{
    env->saved = _mm_getcsr();
    _mm_setcsr(CANONICAL);
}

void float_env_leave(const struct float_env *env)
{
    _mm_setcsr((unsigned)env->saved);
}

bool float_env_is_canonical(void)
{
    return (_mm_getcsr() & ~(unsigned)STICKY) == CANONICAL;
}

#elif defined(__aarch64__)

/* FPCR: FZ (bit 24) flushes denormals before rounding, which is why arm64 is an arithmetic class of
 * its own (DESIGN.md). */
static const uint64_t CANONICAL = (uint64_t)1 << 24;

static uint64_t fpcr_get(void)
{
    uint64_t value;

    __asm__ volatile("mrs %0, fpcr" : "=r"(value));
    return value;
}

static void fpcr_set(uint64_t value)
{
    __asm__ volatile("msr fpcr, %0" ::"r"(value));
}

void float_env_enter(struct float_env *env)
{
    env->saved = fpcr_get();
    fpcr_set(CANONICAL);
}

void float_env_leave(const struct float_env *env)
{
    fpcr_set(env->saved);
}

bool float_env_is_canonical(void)
{
    return fpcr_get() == CANONICAL;
}

#else
#error "Lockstep runs on x86-64 and arm64"
#endif
