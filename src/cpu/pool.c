/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"
#include "base/float_env.h"

enum { SPIN_NS = 50 * 1000, YIELD_NS = 1000 * 1000, IDLE_NS = 10 * 1000 * 1000 };

struct worker {
    struct pool *pool;
    uint32_t thread;
    pthread_t handle;
};

struct pool {
    uint32_t n_threads;
    uint32_t n_started;
    struct worker *workers; /* [n_threads - 1] */
    pool_fn *fn;            /* written by the caller before job rises */
    void *arg;
    void (*idle)(void *arg); /* or NULL */
    void *idle_arg;
    bool stop;
    _Alignas(2 * CACHE_LINE) _Atomic uint32_t job;     /* number of the newest job */
    _Alignas(2 * CACHE_LINE) _Atomic uint32_t pending; /* workers that have not finished it */
    _Alignas(2 * CACHE_LINE) _Atomic uint32_t asleep;  /* threads in a futex wait, either side */
};

/* Sleeps until *word, which had this value, changes; the caller of pool_run not for long. */
static void sleep_on(struct pool *pool, _Atomic uint32_t *word, uint32_t value)
{
    bool idles = word == &pool->pending && pool->idle != NULL;

    if (idles) {
        pool->idle(pool->idle_arg);
    }
    /* asleep rises before the word is looked at again: whoever changes the word next sees it */
    atomic_fetch_add(&pool->asleep, 1);
    if (atomic_load(word) == value) {
        futex_wait(word, value, idles ? IDLE_NS : 0);
    }
    atomic_fetch_sub(&pool->asleep, 1);
}

/* Waits until *word is (same == true) or is no longer (same == false) value; see the policy above.
 */
static void wait_word(struct pool *pool, _Atomic uint32_t *word, uint32_t value, bool same)
{
    uint64_t start = 0;

    for (uint32_t spins = 0;; spins++) {
        uint32_t now = atomic_load_explicit(word, memory_order_acquire);
        uint64_t waited;

        if ((now == value) == same) {
            return;
        }
        if (spins % 64 != 63) {
            cpu_relax();
            continue;
        }
        if (start == 0) {
            start = clock_ns();
        }
        waited = clock_ns() - start;
        if (waited > YIELD_NS) {
            sleep_on(pool, word, now);
        } else if (waited > SPIN_NS) {
            sched_yield();
        }
    }
}

static void wake(struct pool *pool, _Atomic uint32_t *word)
{
    if (atomic_load(&pool->asleep) > 0) {
        futex_wake_all(word);
    }
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;
    struct float_env fenv;
    uint32_t seen = 0;

    float_env_enter(&fenv);
    for (;;) {
        wait_word(pool, &pool->job, seen, false);
        seen++;
        if (pool->stop) {
            return NULL;
        }
        pool->fn(pool->arg, worker->thread, pool->n_threads);
        if (atomic_fetch_sub(&pool->pending, 1) == 1) {
            wake(pool, &pool->pending);
        }
    }
}

static void publish(struct pool *pool)
{
    atomic_fetch_add(&pool->job, 1);
    wake(pool, &pool->job);
}

void pool_run(struct pool *pool, pool_fn *fn, void *arg)
{
    if (pool->n_threads > 1) {
        pool->fn = fn;
        pool->arg = arg;
        atomic_store_explicit(&pool->pending, pool->n_threads - 1, memory_order_relaxed);
        publish(pool);
    }
    fn(arg, 0, pool->n_threads);
    if (pool->n_threads > 1) {
        wait_word(pool, &pool->pending, 0, true);
    }
}

void pool_set_idle(struct pool *pool, void (*idle)(void *arg), void *arg)
{
    pool->idle = idle;
    pool->idle_arg = arg;
}

/* Workers take no signals: those belong to the thread that started the pool. */
static int start_worker(struct worker *worker)
{
    sigset_t all;
    sigset_t before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&worker->handle, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum status pool_create(uint32_t n_threads, struct pool **ret_pool, struct err *err)
{
    struct pool *pool = aligned_alloc(_Alignof(struct pool), sizeof(struct pool));

    ENSURE(pool != NULL && n_threads >= 1);
    memset(pool, 0, sizeof(*pool));
    pool->n_threads = n_threads;
    pool->workers = xcalloc(n_threads, sizeof(*pool->workers));
    for (uint32_t i = 0; i + 1 < n_threads; i++) {
        int error;

        pool->workers[i] = (struct worker){.pool = pool, .thread = i + 1};
        error = start_worker(&pool->workers[i]);
        if (error != 0) {
            pool_destroy(&pool);
            return err_set(err, STATUS_NO_MEMORY, "cannot start compute thread %u of %u: %s", i + 2,
                           n_threads, strerror(error));
        }
        pool->n_started++;
    }
    *ret_pool = pool;
    return STATUS_OK;
}

void pool_destroy(struct pool **pool)
{
    struct pool *p = *pool;

    if (p == NULL) {
        return;
    }
    p->stop = true;
    publish(p);
    for (uint32_t i = 0; i < p->n_started; i++) {
        pthread_join(p->workers[i].handle, NULL);
    }
    free(p->workers);
    free(p);
    *pool = NULL;
}

uint32_t pool_n_threads(const struct pool *pool)
{
    return pool->n_threads;
}
