/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the local spawner: what its two threads share. spawner_local.c runs on the supervisor's
 * thread, spawner_watch.c on the spawner's own, and spawner_child.c between fork and exec, a file
 * of its own because nothing but async-signal-safe calls are allowed there.
 */
#pragma once

#include <pthread.h>

#include "world/capture.h"
#include "world/spawner.h"

enum {
    SPAWNER_STREAMS = 2,                            /* stdout, stderr */
    SPAWNER_MAX_EVENTS = 2 * SPAWNER_MAX_RANKS + 1, /* of an epoch; the next starts when all are
                                                       taken */
};

/* What is to be started: copies, owned. */
struct spawner_order {
    char **argv;
    int fds[SPAWNER_MAX_FDS];
    uint32_t n_fds;
};

struct spawner_stream {
    int fd; /* -1: closed */
    struct capture capture;
};

/* A rank, while it is not reaped (pid != 0). */
struct spawner_child {
    struct spawner_local *local;
    uint32_t rank;
    pid_t pid;
    int pidfd;
    int report_fd; /* -1 once exec has succeeded or failed */
    bool failed;
    struct spawner_stream streams[SPAWNER_STREAMS];
};

struct spawner_local {
    struct spawner base;
    struct spawner_local_config config;
    pthread_t thread;
    pid_t leader;
    int command_fd;
    int null_fd;
    int death_pipe[2]; /* its writing end closes with the leader */

    pthread_mutex_t lock;         /* guards what follows, up to the blank line */
    struct spawner_order *orders; /* [n_orders] posted and not yet started; NULL: none */
    uint32_t n_orders;
    uint64_t order_epoch;
    uint64_t kill_epoch;
    bool quit;
    struct spawner_event events[SPAWNER_MAX_EVENTS];
    size_t n_events;
    size_t n_taken;

    uint64_t posted_epoch; /* the supervisor's thread: the last one posted */
    bool busy;             /* its ALL_REAPED is not taken */

    uint64_t epoch; /* the spawner's thread: the last one started */
    uint32_t n_ranks;
    uint32_t n_alive;
    struct spawner_child children[SPAWNER_MAX_RANKS]; /* [n_ranks] */
};

/* What the child needs, all of it made before the fork. Every descriptor is CLOEXEC. */
struct spawner_exec {
    const char *program;
    char *const *argv;
    int fds[SPAWNER_FD_FIRST + SPAWNER_MAX_FDS]; /* [i] becomes descriptor i of the rank */
    int n_fds;
    int report_fd; /* an int with errno is written here if the rank cannot be started */
    pid_t leader;
    char oom_score_adj[8]; /* digits */
};

/* In the child: becomes the rank, or reports why not and exits. */
NORETURN void spawner_exec_child(const struct spawner_exec *exec);

/* The spawner's thread; arg is the struct spawner_local. Ends after quit, with no rank alive. */
void *spawner_local_run(void *arg);

/* Closes a descriptor unless it is -1, and makes it -1. */
void spawner_close_fd(int *fd);

/* Makes an eventfd readable, and not readable. */
void spawner_ring(int event_fd);
void spawner_hush(int event_fd);

void spawner_free_orders(struct spawner_order *orders, uint32_t n);
