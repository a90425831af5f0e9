/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/threads.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "world/guard.h"

int threads_start(pthread_t *ret_thread, void *(*run)(void *), void *arg)
{
    sigset_t before;
    int code;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    world_signals_block(); /* inherited by the thread */
    code = pthread_create(ret_thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

void threads_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool threads_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
    struct timespec until = {
        .tv_sec = (time_t)(deadline_ns / 1000000000),
        .tv_nsec = (long)(deadline_ns % 1000000000),
    };

    if (deadline_ns == UINT64_MAX) {
        return pthread_cond_wait(cond, lock) == 0;
    }
    return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}
