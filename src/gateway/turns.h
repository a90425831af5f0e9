/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worlds that share cores take turns by step: ranks of two worlds that compute at once would wait
 * for each other's time slices in every collective. Whoever has work asks for the turn, computes
 * while it holds it, and hands it on, between two steps, as soon as another asks. A world alone
 * keeps it. First come, first served; a world whose step does not end, or that is being rebuilt,
 * gives the turn up (gateway/host_thread.c). Any thread.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"

/* One of those that take turns; zero at first, belongs to its world's thread. */
struct turn {
    void (*wake)(void *arg); /* from any thread: the turn is yours now */
    void *arg;
    struct turn *next;
    bool asked; /* lock */
};

struct turns {
    pthread_mutex_t lock;
    struct turn *holder;
    struct turn *first; /* waiting, */
    struct turn *last;
    _Atomic uint32_t n_waiting;
};

void turns_init(struct turns *turns);

/* Asks for the turn; true if it holds it (now, or already). Otherwise wake is called once it does.
 */
bool turns_ask(struct turns *turns, struct turn *turn);
bool turns_wanted(struct turns *turns); /* by somebody who waits */
/* Gives back what it holds, or stops waiting. */
void turns_leave(struct turns *turns, struct turn *turn);
