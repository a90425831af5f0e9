/* SPDX-License-Identifier: Apache-2.0 */
/* Private to host.c and host_thread.c. */
#pragma once

#include "gateway/host.h"

struct host {
    struct host_config config;
    char *name;

    /* The front's. */
    bool started; /* there is a thread */
    pthread_t thread;
    uint64_t last_id;

    struct mailbox box; /* to the thread */

    pthread_mutex_t lock; /* of snapshot */
    struct host_snapshot snapshot;

    /* Written by the front, read by the thread. */
    _Atomic bool refuse; /* no further sequences */
    _Atomic bool stop;   /* once nothing runs, or stop_at_ns has come */
    _Atomic uint64_t stop_at_ns;

    /* The thread's. */
    struct host_world world;
    bool was_ready;
    bool failed;            /* from the state failed until ready again */
    struct seq *seqs;       /* that were submitted and have not ended */
    struct host_news *news; /* of this turn */
    struct turn turn;
    uint64_t last_step_ns;
    uint64_t last_steps; /* committed, as batch counts them */
    bool holds_turn;
    uint64_t turn_steps;   /* that were committed when it got the turn */
    uint64_t turn_ends_ns; /* if others wait */
    uint64_t published_ns;
    enum world_state published_state;
    bool published_busy;
    uint64_t metered_ns;
    uint64_t asked_ns;          /* an idle world, the last time */
    uint64_t metered_rebuilds;  /* that are over */
    uint64_t counted_rebuilds;  /* that have begun */
    struct batch_stats metered; /* what was added to the metrics so far, of this load */
    struct supervisor_counters metered_ranks[HOST_MAX_RANKS];
    uint64_t load_start_ns;
};

/* Events for the front, in the order in which they came. */
struct host_news {
    struct mail mail;
    struct news_event *events; /* [n] */
    size_t n;
    size_t cap;
    struct result_top *tops; /* [n_tops] of all of them */
    size_t n_tops;
    size_t cap_tops;
    struct host *host; /* of the two below */
    bool loaded;
    bool stopped;
    enum status status;
    char *why;
};

struct news_event {
    struct seq *seq;
    struct seq_event event; /* why: owned; token.tops: an index into tops until it is delivered */
    size_t top;
};

/* What the two kinds of mail do on the thread. */
void host_deliver_seq(struct mail *mail);
void host_cancel_seq(struct host *host, uint64_t id);

/* The thread's main function. */
void *host_run(void *host);

/* Delivers to the front; frees. */
void news_deliver(struct mail *mail);
