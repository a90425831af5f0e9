/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test programs become when they are started again as ranks (and, for some tests, as a
 * leader), and how a test takes events with a limit.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "world/guard.h"
#include "world/spawner.h"

enum { ROLE_WAIT_MS = 20000 };

static inline void role_sleep(void)
{
    for (;;) {
        pause();
    }
}

/* argv: program, role, pid of the leader. */
static inline void role_guard(char **argv)
{
    if (world_child_guard((pid_t)strtol(argv[2], NULL, 10), SPAWNER_FD_DEATH, NULL) != STATUS_OK) {
        _exit(99);
    }
}

static inline bool role_fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static inline int role_count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += role_fd_is_open(fd);
    }
    return n;
}

/* One line with all that a rank may have inherited. */
static inline int role_report(void)
{
    char oom[16] = {0};
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    struct sigaction pipe_action;
    sigset_t mask;
    int death = 0;
    int blocked = 0;

    if (fd < 0 || read(fd, oom, sizeof(oom) - 1) <= 0) {
        return 1;
    }
    close(fd);
    oom[strcspn(oom, "\n")] = '\0';
    sigaction(SIGPIPE, NULL, &pipe_action);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int s = 1; s < NSIG; s++) {
        blocked += sigismember(&mask, s) == 1;
    }
    prctl(PR_GET_PDEATHSIG, &death);
    printf("fds");
    for (int i = 0; i < 1024; i++) {
        if (role_fd_is_open(i)) {
            printf(" %d", i);
        }
    }
    printf("; oom %s; blocked %d; sigpipe %s; death %d; group %s; stdin %s\n", oom, blocked,
           pipe_action.sa_handler == SIG_DFL ? "default" : "ignored", death,
           getpgrp() == getpid() ? "own" : "foreign", getchar() == EOF ? "empty" : "something");
    return 0;
}

static inline void role_write(size_t n, bool rubbish)
{
    static char bytes[65536];
    uint32_t x = 1;

    for (size_t done = 0; done < n; done += sizeof(bytes)) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            x = x * 1664525 + 1013904223;
            bytes[i] = rubbish ? (char)(x >> 24) : i % 64 == 63 ? '\n' : 'f';
        }
        if (write(STDOUT_FILENO, bytes, sizeof(bytes)) < 0) {
            _exit(98);
        }
    }
}

static inline int role_run(char **argv)
{
    const char *role = argv[1];

    if (strncmp(role, "exit", 4) == 0) {
        _exit((int)strtol(role + 4, NULL, 10));
    }
    if (strncmp(role, "signal", 6) == 0) {
        kill(getpid(), (int)strtol(role + 6, NULL, 10));
        role_sleep();
    }
    if (strcmp(role, "report") == 0) {
        return role_report();
    }
    if (strcmp(role, "echo") == 0) { /* what comes on the first passed descriptor */
        char text[64] = {0};

        if (read(SPAWNER_FD_FIRST, text, sizeof(text) - 1) > 0) {
            fprintf(stderr, "%s from %s\n", text, argv[0]);
        }
        return 0;
    }
    if (strcmp(role, "flood") == 0 || strcmp(role, "rubbish") == 0) {
        role_write(16 << 20, role[0] == 'r');
        return 5;
    }
    if (strcmp(role, "partial") == 0) {
        fputs("no newline", stdout);
        return 0;
    }
    if (strcmp(role, "heir") == 0) { /* leaves a process behind that holds its pipes */
        if (write(STDOUT_FILENO, "last words", 10) < 0) {
            _exit(98);
        }
        if (fork() == 0) {
            role_sleep();
        }
        _exit(0);
    }
    role_guard(argv);
    if (strcmp(role, "pipe-only") == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
    }
    puts("up"); /* guarded from here on */
    fflush(stdout);
    role_sleep();
    return 0;
}

/* Starts n ranks of one role. */
static inline void role_spawn(struct spawner *spawner, uint64_t epoch, const char *role,
                              const struct spawner_rank *plain, uint32_t n)
{
    struct spawner_rank ranks[SPAWNER_MAX_RANKS] = {{0}};
    char leader[16];
    char *argv[] = {"rank", (char *)role, leader, NULL};

    snprintf(leader, sizeof(leader), "%d", (int)getpid());
    for (uint32_t r = 0; r < n; r++) {
        ranks[r] = plain == NULL ? (struct spawner_rank){0} : *plain;
        ranks[r].argv = argv;
    }
    ENSURE_OP(spawner_spawn(spawner, epoch, ranks, n, NULL), ==, STATUS_OK);
}

/* The next event; false after ROLE_WAIT_MS. */
static inline bool role_next(struct spawner *spawner, struct spawner_event *ret_event)
{
    uint64_t end = clock_ns() + ROLE_WAIT_MS * 1000000ull;

    while (!spawner_next(spawner, ret_event)) {
        struct pollfd slot = {.fd = spawner->event_fd, .events = POLLIN};

        if (clock_ns() >= end) {
            return false;
        }
        poll(&slot, 1, 1000);
    }
    return true;
}
