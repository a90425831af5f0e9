/* SPDX-License-Identifier: Apache-2.0 */
#include "world/guard.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void *watch_leader(void *arg)
{
    struct pollfd slot = {.fd = (int)(intptr_t)arg, .events = POLLIN};

    /* Nobody writes: whatever comes is the end of the writing side. */
    while (poll(&slot, 1, -1) <= 0 || slot.revents == 0) {
    }
    if (getpgrp() == getpid()) {
        kill(0, SIGKILL); /* its own group, with what it has started */
    }
    kill(getpid(), SIGKILL);
    return NULL;
}

enum status world_child_guard(pid_t leader, int death_fd, struct err *err)
{
    pthread_attr_t attr;
    pthread_t thread;
    int error;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        return err_set(err, STATUS_UNSUPPORTED, "no parent-death signal: %s", strerror(errno));
    }
    if (getppid() != leader) {
        return err_set(err, STATUS_CANCELLED, "the leader (process %d) is gone", (int)leader);
    }
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attr, watch_leader, (void *)(intptr_t)death_fd);
    pthread_attr_destroy(&attr);
    if (error != 0) {
        return err_set(err, STATUS_NO_MEMORY, "no thread to watch the leader: %s", strerror(error));
    }
    return STATUS_OK;
}

void world_signals_block(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t set;

    sigfillset(&set);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        sigdelset(&set, faults[i]);
    }
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

enum status world_signals_open(int *ret_fd, struct err *err)
{
    static const int wanted[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
    sigset_t set;
    int fd;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        sigaddset(&set, wanted[i]);
    }
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return err_set(err, STATUS_IO, "no descriptor for signals: %s", strerror(errno));
    }
    *ret_fd = fd;
    return STATUS_OK;
}

int world_signals_take(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}
