/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting, watching, ending and reaping the processes of a world. The interface is a table of
 * functions, so that ranks on other hosts can be started by an agent there; spawner_local_create
 * makes the one for this host.
 *
 * Everything is asynchronous: calls post a command, what happens comes out as events, in order, for
 * each epoch:  per rank  SPAWNED [DIED]  or  SPAWN_FAILED;  then ALL_REAPED, exactly once, after
 * the last rank of the epoch is reaped, whatever ended it. Wait for event_fd to be readable, then
 * take events until there are none. One thread calls (the supervisor's).
 */
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include "base/err.h"

struct spawner;

enum spawner_event_kind {
    SPAWNER_SPAWNED,      /* exec has succeeded; pid */
    SPAWNER_SPAWN_FAILED, /* error is an errno; nothing is left of the rank */
    SPAWNER_DIED,         /* and is reaped; signal or exit_code */
    SPAWNER_ALL_REAPED,
};

struct spawner_event {
    enum spawner_event_kind kind;
    uint64_t epoch;
    uint32_t rank;
    pid_t pid;
    int error;
    int signal; /* 0: it exited */
    int exit_code;
};

enum { SPAWNER_MAX_RANKS = 64, SPAWNER_MAX_FDS = 16 };

/* Descriptors in a rank: 0 is /dev/null, 1 and 2 are captured, 3 is the death pipe, fds[i] of its
 * spec is SPAWNER_FD_FIRST + i, and there is no other. */
enum { SPAWNER_FD_DEATH = 3, SPAWNER_FD_FIRST = 4 };

struct spawner_rank {
    char *const *argv; /* NULL-terminated, argv[0] included; copied */
    const int *fds;    /* [n_fds], borrowed for the call (duplicated) */
    uint32_t n_fds;
};

struct spawner_backend {
    const char *name;
    NODISCARD enum status (*spawn)(struct spawner *spawner, uint64_t epoch,
                                   const struct spawner_rank *ranks, uint32_t n_ranks,
                                   struct err *err);
    void (*kill)(struct spawner *spawner);
    bool (*next)(struct spawner *spawner, struct spawner_event *ret_event);
    void (*destroy)(struct spawner **spawner);
};

struct spawner {
    const struct spawner_backend *backend;
    int event_fd; /* readable while there are events */
};

/* Starts rank 0 to n_ranks-1 of a new epoch. Only when the epoch before is all reaped (ENSURE).
 * STATUS_IO or STATUS_INVALID (too many descriptors): nothing was started and no event comes. */
NODISCARD enum status spawner_spawn(struct spawner *spawner, uint64_t epoch,
                                    const struct spawner_rank *ranks, uint32_t n_ranks,
                                    struct err *err);

/* SIGKILL to every process of the present epoch, also to those that are just being started. */
void spawner_kill(struct spawner *spawner);

/* Takes the next event; false if there is none now. */
bool spawner_next(struct spawner *spawner, struct spawner_event *ret_event);

/* Kills and reaps what is left, and waits for that. */
void spawner_destroy(struct spawner **spawner);

/* A line that a rank has written on stdout or stderr: no newline, no zero byte, at most
 * CAPTURE_LINE_BYTES (capture.h) bytes, otherwise whatever the rank wrote. Called on the spawner's
 * own thread; must not block for long. */
typedef void spawner_line_fn(void *arg, uint32_t rank, const char *line);

struct spawner_local_config {
    const char *program;   /* NULL: /proc/self/exe, which is this program even if its file is not */
    int oom_score_adj;     /* of the ranks, 0 to 1000 */
    spawner_line_fn *line; /* NULL: log_info("rank N: ...") */
    void *arg;
    /* NULL, or a word that changes with each event, its sleepers woken (futex_wake_all_shared): for
     * whoever sleeps on a futex and not on event_fd. Outlives the spawner. */
    _Atomic uint32_t *alarm;
};

/* Starts the thread from which all ranks are forked: a rank is killed when it ends. Call it after
 * world_signals_block. */
NODISCARD enum status spawner_local_create(const struct spawner_local_config *config,
                                           struct spawner **ret_spawner, struct err *err);
