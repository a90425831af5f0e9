/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/workers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { WORKERS_MAX = 16 };

struct workers {
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t wake;
    struct job *first;
    struct job *last;
    bool stop;
    pthread_t threads[WORKERS_MAX];
    uint32_t n;
};

static void *work(void *arg)
{
    struct workers *w = arg;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct job *job;

        while (w->first == NULL && !w->stop) {
            pthread_cond_wait(&w->wake, &w->lock);
        }
        if (w->stop) {
            break;
        }
        job = w->first;
        w->first = job->next;
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        mailbox_put(job->done, &job->mail);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum status workers_create(uint32_t n, struct workers **ret_workers, struct err *err)
{
    struct workers *w = xalloc(sizeof(*w));

    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    for (w->n = 0; w->n < MIN(n, (uint32_t)WORKERS_MAX); w->n++) {
        int error = pthread_create(&w->threads[w->n], NULL, work, w);

        if (error != 0) {
            workers_destroy(&w);
            return err_set(err, STATUS_NO_MEMORY, "no thread: %s", strerror(error));
        }
    }
    *ret_workers = w;
    return STATUS_OK;
}

void workers_destroy(struct workers **workers)
{
    struct workers *w = *workers;

    if (w == NULL) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++) {
        pthread_join(w->threads[i], NULL);
    }
    for (struct job *job = w->first; job != NULL;) {
        struct job *next = job->next;

        mailbox_put(job->done, &job->mail);
        job = next;
    }
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
    *workers = NULL;
}

void workers_give(struct workers *workers, struct job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&workers->lock);
    if (workers->first == NULL) {
        workers->first = job;
    } else {
        workers->last->next = job;
    }
    workers->last = job;
    pthread_cond_signal(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
}
