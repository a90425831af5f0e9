/* SPDX-License-Identifier: Apache-2.0 */
/* The thread pool: every thread runs every job once, more threads than cores do not hang, shares
 * cover. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/float_env.h"
#include "cpu/pool.h"

struct counts {
    uint32_t by_thread[64];
    _Atomic uint32_t total;
    _Atomic uint32_t not_canonical;
};

static void count(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct counts *counts = arg;

    assert_in_range(thread, 0, n_threads - 1);
    counts->by_thread[thread]++; /* plain: only this thread writes it */
    atomic_fetch_add(&counts->total, 1);
    if (thread > 0 && !float_env_is_canonical()) {
        atomic_fetch_add(&counts->not_canonical, 1);
    }
}

static void run_jobs(uint32_t n_threads, uint32_t jobs, uint32_t pause_every)
{
    struct counts counts = {0};
    struct pool *pool = NULL;
    struct err err = {0};

    assert_int_equal(pool_create(n_threads, &pool, &err), STATUS_OK);
    assert_int_equal(pool_n_threads(pool), n_threads);
    for (uint32_t i = 0; i < jobs; i++) {
        pool_run(pool, count, &counts);
        assert_int_equal(counts.total, (i + 1) * n_threads);
        if (pause_every > 0 && i % pause_every == 0) {
            usleep(3000); /* long enough that workers sleep on the futex */
        }
    }
    for (uint32_t t = 0; t < n_threads; t++) {
        assert_int_equal(counts.by_thread[t], jobs);
    }
    assert_int_equal(counts.not_canonical, 0);
    pool_destroy(&pool);
    assert_null(pool);
}

static void test_runs(void **state)
{
    (void)state;
    run_jobs(1, 100, 0);
    run_jobs(2, 5000, 0);
    run_jobs(2, 60, 3);
    run_jobs(9, 300, 50); /* more threads than this machine has cores */
}

enum { SLOW_US = 200 * 1000 };

/* Thread 1 takes long. */
static void be_slow(void *arg, uint32_t thread, uint32_t n_threads)
{
    (void)arg;
    (void)n_threads;
    if (thread == 1) {
        usleep(SLOW_US);
    }
}

static void note_idle(void *arg)
{
    ++*(uint32_t *)arg; /* plain: only the caller of pool_run does this */
}

/* Whoever waits for long is called meanwhile, and not afterwards; workers that wait are not. */
static void test_idle(void **state)
{
    struct counts counts = {0};
    struct pool *pool = NULL;
    uint32_t calls = 0;
    uint32_t before;

    (void)state;
    assert_int_equal(pool_create(3, &pool, NULL), STATUS_OK);
    pool_set_idle(pool, note_idle, &calls);
    pool_run(pool, be_slow, NULL);
    assert_in_range(calls, 2, SLOW_US / 5000); /* every 10 ms, or less often on a busy machine */
    before = calls;
    usleep(50 * 1000);
    assert_int_equal(calls, before);
    pool_set_idle(pool, NULL, NULL);
    pool_run(pool, be_slow, NULL);
    assert_int_equal(calls, before);
    pool_run(pool, count, &counts);
    assert_int_equal(counts.total, 3);
    pool_destroy(&pool);
}

static void test_destroy_idle(void **state)
{
    struct pool *pool = NULL;

    (void)state;
    assert_int_equal(pool_create(3, &pool, NULL), STATUS_OK);
    usleep(5000);
    pool_destroy(&pool);
    pool_destroy(&pool);
}

static void test_shares(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 70; n++) {
        for (uint32_t unit = 1; unit <= 8; unit *= 2) {
            for (uint32_t n_threads = 1; n_threads < 12; n_threads++) {
                uint32_t next = 0;

                for (uint32_t t = 0; t < n_threads; t++) {
                    uint32_t begin;
                    uint32_t end;

                    pool_share(n, unit, t, n_threads, &begin, &end);
                    assert_int_equal(begin, next);
                    assert_true(begin % unit == 0 || begin == n);
                    next = end;
                }
                assert_int_equal(next, n);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_destroy_idle),
        cmocka_unit_test(test_shares),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
