/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/comm_ranks.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "cmd/cmd.h"

enum {
    NOT_EXECUTED = 127, /* exit status, as a shell's */
    MPI_START_S = 30,   /* time for mpirun to start its ranks */
};

/* Looks for bench_comm_mpi beside this program and in the folder bench there. */
static void find_mpi_program(char *ret_path, size_t size, struct err *err)
{
    static const char *const places[] = {"bench_comm_mpi", "bench/bench_comm_mpi"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self));
    const char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;

    for (size_t i = 0; i < ARRAY_LEN(places) && slash != NULL; i++) {
        int used = snprintf(ret_path, size, "%.*s/%s", (int)(slash - self), self, places[i]);

        if (used > 0 && (size_t)used < size && access(ret_path, X_OK) == 0) {
            return;
        }
    }
    err_set(err, STATUS_NOT_FOUND,
            "there is neither %s nor %s beside this program (built where MPI is found)", places[0],
            places[1]);
}

/* The exit status of a child, 128 + n if signal n ended it. */
static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        ENSURE_OP(errno, ==, EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* As fork, with a child that gets this signal when this process dies. */
static pid_t fork_bound(int death_signal)
{
    pid_t parent = getpid();
    pid_t pid;

    fflush(NULL); /* once, not again in the child */
    pid = fork();
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, death_signal) != 0 || getppid() != parent)) {
        _exit(NOT_EXECUTED);
    }
    return pid;
}

/* Ranks as forked processes. */
static enum status run_forked(const struct comm_loop *loop, struct err *err)
{
    uint32_t n_ranks = comm_loop_ranks(loop);
    pid_t *pids = xcalloc(n_ranks, sizeof(*pids));
    enum status status = STATUS_OK;

    for (uint32_t r = 0; r < n_ranks; r++) {
        pids[r] = fork_bound(SIGKILL);
        if (pids[r] == 0) {
            struct err own = {0};

            _exit(comm_loop_run(loop, r, NULL, &own) == STATUS_OK ? CMD_OK : cmd_fail(&own));
        }
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        int code = pids[r] > 0 ? wait_for(pids[r]) : NOT_EXECUTED;

        if (code != 0 && status == STATUS_OK) {
            status =
                err_set(err, STATUS_LINK, "rank %u of %u ended with status %d", r, n_ranks, code);
        }
    }
    free(pids);
    return status;
}

NORETURN static void exec_mpirun(const struct comm_ranks *ranks, pid_t creator,
                                 const struct comm_loop *loop)
{
    char number[16];
    char file[64];
    const char *arguments[10] = {"mpirun"};
    size_t n = 1;

    snprintf(number, sizeof(number), "%u", comm_loop_ranks(loop));
    snprintf(file, sizeof(file), "/proc/%d/fd/%d", (int)creator, loop->fd);
    if (geteuid() == 0) {
        arguments[n++] = "--allow-run-as-root"; /* it refuses otherwise */
    }
    arguments[n++] = "--oversubscribe";
    arguments[n++] = "--bind-to"; /* the loop binds */
    arguments[n++] = "none";
    arguments[n++] = "-np";
    arguments[n++] = number;
    arguments[n++] = ranks->program;
    arguments[n++] = file;
    ENSURE_OP(n, <, ARRAY_LEN(arguments));
    dup2(STDERR_FILENO, STDOUT_FILENO); /* ours is for the results */
    alarm(ranks->limit_s);              /* stays across exec */
    execvp(arguments[0], (char *const *)arguments);
    _exit(NOT_EXECUTED);
}

/* Ranks started by mpirun. */
static enum status run_mpi(const struct comm_ranks *ranks, const struct comm_loop *loop,
                           struct err *err)
{
    pid_t creator = getpid();
    pid_t pid = fork_bound(SIGTERM); /* on which mpirun ends its ranks */
    int code;

    if (pid == 0) {
        exec_mpirun(ranks, creator, loop);
    }
    code = pid > 0 ? wait_for(pid) : NOT_EXECUTED;
    if (code == NOT_EXECUTED) {
        return err_set(err, STATUS_NOT_FOUND, "mpirun cannot be run");
    }
    return code == 0 ? STATUS_OK : err_set(err, STATUS_LINK, "mpirun ended with status %d", code);
}

void comm_ranks_init(struct comm_ranks *ranks, uint32_t measure_s)
{
    *ranks = (struct comm_ranks){.limit_s = MPI_START_S + measure_s};
    find_mpi_program(ranks->program, sizeof(ranks->program), &ranks->no_mpi);
}

enum status comm_ranks_run(const struct comm_ranks *ranks, const struct comm_loop *loop,
                           bool with_mpi, struct err *err)
{
    return with_mpi ? run_mpi(ranks, loop, err) : run_forked(loop, err);
}
