/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library, which take no signal of the program, and waiting with a deadline. */
#pragma once

#include <pthread.h>

#include "base/base.h"

/* 0, or an errno. Every signal is blocked in the thread. */
int threads_start(pthread_t *ret_thread, void *(*run)(void *), void *arg);

/* A condition that is waited for by the monotonic clock. */
void threads_cond_init(pthread_cond_t *cond);

/* False when the deadline (clock_ns; UINT64_MAX: none) has passed. */
bool threads_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns);
