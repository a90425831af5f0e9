/* SPDX-License-Identifier: Apache-2.0 */
/* The front's side of a host: orders to the thread, news from it. */
#include "gateway/host.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "gateway/host_priv.h"

const char *host_phase_text(enum host_phase phase)
{
    static const char *const texts[] = {
        [HOST_DOWN] = "down",         [HOST_LOADING] = "loading",
        [HOST_READY] = "ready",       [HOST_REBUILDING] = "rebuilding",
        [HOST_FAILED] = "failed",     [HOST_DRAINING] = "draining",
        [HOST_STOPPING] = "stopping",
    };

    return texts[phase];
}

static void wake_for_turn(void *arg)
{
    struct host *h = arg;

    mailbox_ring(&h->box);
}

struct host *host_create(const struct host_config *config)
{
    struct host *h = xalloc(sizeof(*h));
    struct err err = {0};

    h->config = *config;
    h->name = xstrdup(config->name);
    h->config.name = h->name;
    h->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    h->turn = (struct turn){.wake = wake_for_turn, .arg = h};
    ENSURE_OP(mailbox_init(&h->box, &err), ==, STATUS_OK);
    return h;
}

static void join(struct host *h)
{
    if (h->started) {
        pthread_join(h->thread, NULL);
        h->started = false;
    }
}

void host_destroy(struct host **host)
{
    struct host *h = *host;

    if (h == NULL) {
        return;
    }
    if (h->started) {
        atomic_store(&h->stop_at_ns, 0);
        atomic_store(&h->stop, true);
        mailbox_ring(&h->box);
        join(h);
    }
    mailbox_deliver(&h->box);                 /* calls that came too late */
    h->config.on = (struct host_handlers){0}; /* nobody is told any more, */
    mailbox_deliver(h->config.front);         /* but its last news are about it */
    mailbox_release(&h->box);
    pthread_mutex_destroy(&h->lock);
    free(h->name);
    free(h);
    *host = NULL;
}

void host_snapshot(struct host *host, struct host_snapshot *ret_snapshot)
{
    pthread_mutex_lock(&host->lock);
    *ret_snapshot = host->snapshot;
    pthread_mutex_unlock(&host->lock);
}

enum host_phase host_phase(struct host *host)
{
    enum host_phase phase;

    pthread_mutex_lock(&host->lock);
    phase = host->snapshot.phase;
    pthread_mutex_unlock(&host->lock);
    return phase;
}

struct metrics *host_metrics(const struct host *host)
{
    return host->config.metrics;
}

/* --- Load, unload --- */

enum status host_load(struct host *host, struct err *err)
{
    sigset_t all;
    sigset_t old;
    int error;

    if (host->started) {
        return err_set(err, STATUS_PENDING, "%s is %s", host->name,
                       host_phase_text(host_phase(host)));
    }
    atomic_store(&host->refuse, false);
    atomic_store(&host->stop, false);
    atomic_store(&host->stop_at_ns, UINT64_MAX);
    pthread_mutex_lock(&host->lock);
    host->snapshot = (struct host_snapshot){.phase = HOST_LOADING, .load_start_ns = clock_ns()};
    pthread_mutex_unlock(&host->lock);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    error = pthread_create(&host->thread, NULL, host_run, host);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0) {
        pthread_mutex_lock(&host->lock);
        host->snapshot.phase = HOST_DOWN;
        pthread_mutex_unlock(&host->lock);
        return err_set(err, STATUS_NO_MEMORY, "no thread: %s", strerror(error));
    }
    host->started = true;
    return STATUS_OK;
}

void host_refuse(struct host *host)
{
    atomic_store(&host->refuse, true);
    mailbox_ring(&host->box);
}

enum status host_unload(struct host *host, uint32_t drain_ms, struct err *err)
{
    uint64_t at = clock_ns() + (uint64_t)drain_ms * 1000000;

    if (!host->started) {
        return err_set(err, STATUS_NOT_FOUND, "%s is not loaded", host->name);
    }
    atomic_store(&host->refuse, true);
    if (at < atomic_load(&host->stop_at_ns)) {
        atomic_store(&host->stop_at_ns, at);
    }
    atomic_store(&host->stop, true);
    mailbox_ring(&host->box);
    return STATUS_OK;
}

/* --- News --- */

/* Only here: who reads `down` may load again at once, and the reason of a failure is known. */
static void set_down(struct host *h)
{
    pthread_mutex_lock(&h->lock);
    h->snapshot = (struct host_snapshot){.phase = HOST_DOWN};
    pthread_mutex_unlock(&h->lock);
}

static void free_news(struct host_news *news)
{
    free(news->events);
    free(news->tops);
    free(news->why);
    free(news);
}

void news_deliver(struct mail *mail)
{
    struct host_news *news = (struct host_news *)mail;
    struct host *h = news->host;

    for (size_t i = 0; i < news->n; i++) {
        struct news_event *e = &news->events[i];
        char *why = (char *)e->event.why;

        e->event.token.tops = e->event.token.n_tops > 0 ? news->tops + e->top : NULL;
        e->seq->event(e->seq->arg, e->seq, &e->event);
        free(why);
    }
    if (news->stopped) {
        join(h);
        mailbox_deliver(&h->box); /* what came too late for the thread */
        set_down(h);
    }
    if (news->loaded && h->config.on.loaded != NULL) {
        h->config.on.loaded(h->config.on.arg, h, news->status, news->why);
    }
    if (news->stopped && h->config.on.stopped != NULL) {
        h->config.on.stopped(h->config.on.arg, h);
    }
    free_news(news);
}

/* --- Sequences --- */

void seq_destroy(struct seq **seq)
{
    struct seq *s = *seq;

    if (s != NULL) {
        free(s->bias);
        free(s->prompt);
        free(s->ends);
        free(s);
        *seq = NULL;
    }
}

/* A host without a thread: the end comes by the front's own box, as it would from the thread. */
static void refuse_unloaded(struct host *h, struct seq *seq)
{
    struct host_news *news = xalloc(sizeof(*news));

    news->mail.deliver = news_deliver;
    news->host = h;
    news->events = xcalloc(1, sizeof(*news->events));
    news->cap = 1;
    news->n = 1;
    news->events[0] = (struct news_event){
        .seq = seq,
        .event = {.kind = SEQ_END,
                  .end = BATCH_FAILED,
                  .status = STATUS_LINK,
                  .end_token = -1,
                  .why = xstrdup("the model is not loaded")},
    };
    mailbox_put(h->config.front, &news->mail);
}

void host_submit(struct host *host, struct seq *seq)
{
    seq->id = ++host->last_id;
    seq->host = host;
    seq->submitted_ns = clock_ns();
    if (!host->started) {
        refuse_unloaded(host, seq);
        return;
    }
    seq->mail.deliver = host_deliver_seq;
    mailbox_put(&host->box, &seq->mail);
}

struct cancel_mail {
    struct mail mail;
    struct host *host;
    uint64_t id;
};

static void deliver_cancel(struct mail *mail)
{
    struct cancel_mail *cancel = (struct cancel_mail *)mail;

    host_cancel_seq(cancel->host, cancel->id);
    free(cancel);
}

void host_cancel(struct host *host, uint64_t id)
{
    struct cancel_mail *cancel;

    if (!host->started) {
        return;
    }
    cancel = xalloc(sizeof(*cancel));
    *cancel = (struct cancel_mail){.mail.deliver = deliver_cancel, .host = host, .id = id};
    mailbox_put(&host->box, &cancel->mail);
}

/* --- Calls --- */

static void deliver_done(struct mail *mail)
{
    struct host_call *call = (struct host_call *)mail;

    call->done(call);
}

static void deliver_call(struct mail *mail)
{
    struct host_call *call = (struct host_call *)mail;
    struct host *h = call->host;

    call->run(call, h->world.supervisor, h->world.batch);
    call->mail.deliver = deliver_done;
    mailbox_put(h->config.front, &call->mail);
}

void host_call(struct host *host, struct host_call *call)
{
    call->host = host;
    call->mail.deliver = deliver_call;
    if (host->started) {
        mailbox_put(&host->box, &call->mail);
        return;
    }
    call->run(call, NULL, NULL);
    call->mail.deliver = deliver_done;
    mailbox_put(host->config.front, &call->mail);
}
