/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A static pool of compute threads. pool_run gives every thread, the caller among them, the same
 * function with its number; work is cut by that number, so that which thread does what is fixed. No
 * queue, no stealing.
 *
 * Waiting: spin with pause for about 50 us, then yield, and after about 1 ms sleep on a futex, on
 * both sides, so that an oversubscribed machine does not collapse and an idle one is idle. One
 * thread at a time may call pool_run. Workers have the canonical float environment for life.
 */
#pragma once

#include "base/err.h"

struct pool;

typedef void pool_fn(void *arg, uint32_t thread, uint32_t n_threads);

/* n_threads >= 1 counts the caller. */
NODISCARD enum status pool_create(uint32_t n_threads, struct pool **ret_pool, struct err *err);
void pool_destroy(struct pool **pool);
uint32_t pool_n_threads(const struct pool *pool);

/* Returns when every thread has returned from fn. */
void pool_run(struct pool *pool, pool_fn *fn, void *arg);

/* Where pool_run has to wait for long it calls idle about every 10 ms meanwhile, on its thread. */
void pool_set_idle(struct pool *pool, void (*idle)(void *arg), void *arg);

/* The share of thread of [0, n): contiguous, sizes differing by at most one unit. */
static inline void pool_share(uint32_t n, uint32_t unit, uint32_t thread, uint32_t n_threads,
                              uint32_t *ret_begin, uint32_t *ret_end)
{
    uint64_t units = div_up(n, unit);

    *ret_begin = (uint32_t)MIN(units * thread / n_threads * unit, n);
    *ret_end = (uint32_t)MIN(units * (thread + 1) / n_threads * unit, n);
}
