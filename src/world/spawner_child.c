/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From fork to exec. The leader has other threads, which may have held any lock at the fork: only
 * async-signal-safe functions (signal-safety(7)) and plain system calls below, no allocation.
 */
#include "world/spawner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Above every descriptor number of a rank, and far below any limit. */
enum { ASIDE = 64 };

static NORETURN void give_up(int report_fd, int error)
{
    if (write(report_fd, &error, sizeof(error)) < 0) {
        _exit(126); /* the leader is gone */
    }
    _exit(127);
}

/* The leader's mask and dispositions would outlive exec where they block or ignore. */
static void reset_signals(void)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int s = 1; s < NSIG; s++) {
        sigaction(s, &plain, NULL); /* fails for SIGKILL, SIGSTOP and reserved numbers */
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The rank is what the kernel should kill first. Without /proc it stays as it is. */
static void raise_oom_score(const struct spawner_exec *exec)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (write(fd, exec->oom_score_adj, strlen(exec->oom_score_adj)) < 0) {
            errno = 0; /* lower than what it was: not allowed, and not needed */
        }
        close(fd);
    }
}

/* Puts every descriptor at its number. First all are moved aside, because a source may have the
 * number of another's target. */
static int place_fds(const struct spawner_exec *exec, int *report_fd)
{
    int aside[ARRAY_LEN(exec->fds)];

    *report_fd = fcntl(exec->report_fd, F_DUPFD_CLOEXEC, ASIDE);
    if (*report_fd < 0) {
        *report_fd = exec->report_fd;
        return errno;
    }
    for (int i = 0; i < exec->n_fds; i++) {
        aside[i] = fcntl(exec->fds[i], F_DUPFD_CLOEXEC, ASIDE);
        if (aside[i] < 0) {
            return errno;
        }
    }
    for (int i = 0; i < exec->n_fds; i++) {
        if (dup2(aside[i], i) < 0) {
            return errno;
        }
    }
    /* The second net: nothing else survives exec, whoever opened it (before Linux 5.11 the first
     * net, CLOEXEC everywhere, must do). */
    syscall(SYS_close_range, (unsigned)exec->n_fds, ~0u, CLOSE_RANGE_CLOEXEC);
    return 0;
}

void spawner_exec_child(const struct spawner_exec *exec)
{
    extern char **environ;
    int report_fd = exec->report_fd;
    int error;

    setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        give_up(report_fd, errno);
    }
    if (getppid() != exec->leader) { /* it died before prctl */
        _exit(126);
    }
    reset_signals();
    raise_oom_score(exec);
    error = place_fds(exec, &report_fd);
    if (error != 0) {
        give_up(report_fd, error);
    }
    execve(exec->program, exec->argv, environ);
    give_up(report_fd, errno);
}
