/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/turns.h"

void turns_init(struct turns *turns)
{
    *turns = (struct turns){.lock = PTHREAD_MUTEX_INITIALIZER};
}

bool turns_ask(struct turns *turns, struct turn *turn)
{
    bool holds;

    pthread_mutex_lock(&turns->lock);
    if (turns->holder == NULL) {
        turns->holder = turn;
    } else if (turns->holder != turn && !turn->asked) {
        turn->asked = true;
        turn->next = NULL;
        if (turns->first == NULL) {
            turns->first = turn;
        } else {
            turns->last->next = turn;
        }
        turns->last = turn;
        atomic_fetch_add(&turns->n_waiting, 1);
    }
    holds = turns->holder == turn;
    pthread_mutex_unlock(&turns->lock);
    return holds;
}

bool turns_wanted(struct turns *turns)
{
    return atomic_load_explicit(&turns->n_waiting, memory_order_relaxed) > 0;
}

/* Takes the turn out of the line, if it stands in it. */
static void leave_line(struct turns *turns, struct turn *turn)
{
    struct turn *before = NULL;

    for (struct turn *t = turns->first; t != NULL; before = t, t = t->next) {
        if (t == turn) {
            if (before == NULL) {
                turns->first = t->next;
            } else {
                before->next = t->next;
            }
            turns->last = turns->last == t ? before : turns->last;
            atomic_fetch_sub(&turns->n_waiting, 1);
            break;
        }
    }
    turn->asked = false;
}

void turns_leave(struct turns *turns, struct turn *turn)
{
    struct turn *next = NULL;

    pthread_mutex_lock(&turns->lock);
    if (turns->holder == turn) {
        next = turns->first;
        if (next != NULL) {
            leave_line(turns, next);
        }
        turns->holder = next;
    } else if (turn->asked) {
        leave_line(turns, turn);
    }
    if (next != NULL) {
        next->wake(next->arg); /* under the lock, so that it cannot be gone */
    }
    pthread_mutex_unlock(&turns->lock);
}
