/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep bench comm. Each world of ranks runs the loop of cmd/comm_loop.h once. Where mpirun and
 * the program bench_comm_mpi are there, they start the ranks, which then measure MPI_Allreduce in
 * turn with ours; otherwise the ranks are forked, and the output says what is missing. This process
 * only waits, and no rank outlives it.
 */
#include "cmd/bench.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/comm_loop.h"
#include "cmd/host.h"
#include "cmd/stats.h"
#include "json/json.h"

enum {
    ROUNDS_A_REP = 400,
    MAX_WORLDS = 2,
    NOT_EXECUTED = 127, /* exit status, as a shell's */
    MPI_START_S = 30,   /* time for mpirun: to start its ranks, and */
    MPI_ROUNDS_A_S = 5,
};

struct timing { /* microseconds */
    double p50;
    double p99;
    double mean;
};

struct world_result {
    uint32_t n_ranks;
    bool with_mpi;
    struct timing timings[COMM_LOOP_FIGURES][COMM_LOOP_SIZES];
};

struct bench_comm {
    uint32_t rounds;
    struct host host;
    double load;            /* of the machine, the last minute before we began */
    char program[PATH_MAX]; /* bench_comm_mpi */
    struct err no_mpi;      /* why Open MPI is not measured, if it is not */
    uint32_t n_worlds;
    struct world_result worlds[MAX_WORLDS];
};

/* yardstick: the figure with which it is compared, or itself. */
static const struct {
    const char *label;
    const char *name; /* in JSON */
    enum comm_loop_figure yardstick;
} figures[COMM_LOOP_FIGURES] = {
    [COMM_LOOP_BARRIER] = {"barrier", "barrier", COMM_LOOP_SLEEPING},
    [COMM_LOOP_SLEEPING] = {"sleeping barrier", "sleeping_barrier", COMM_LOOP_SLEEPING},
    [COMM_LOOP_SUM_TREE] = {"sum_tree", "sum_tree", COMM_LOOP_OTHER},
    [COMM_LOOP_ALL_REDUCE] = {"all_reduce", "all_reduce", COMM_LOOP_OTHER},
    [COMM_LOOP_OTHER] = {"MPI_Allreduce", "mpi_allreduce", COMM_LOOP_OTHER},
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

NORETURN static void exec_mpirun(const struct bench_comm *b, pid_t creator,
                                 const struct comm_loop *loop)
{
    char ranks[16];
    char file[64];
    const char *arguments[10] = {"mpirun"};
    size_t n = 1;

    snprintf(ranks, sizeof(ranks), "%u", comm_loop_ranks(loop));
    snprintf(file, sizeof(file), "/proc/%d/fd/%d", (int)creator, loop->fd);
    if (geteuid() == 0) {
        arguments[n++] = "--allow-run-as-root"; /* it refuses otherwise */
    }
    arguments[n++] = "--oversubscribe";
    arguments[n++] = "--bind-to"; /* the loop binds */
    arguments[n++] = "none";
    arguments[n++] = "-np";
    arguments[n++] = ranks;
    arguments[n++] = b->program;
    arguments[n++] = file;
    ENSURE_OP(n, <, ARRAY_LEN(arguments));
    dup2(STDERR_FILENO, STDOUT_FILENO);              /* ours is for the results */
    alarm(MPI_START_S + b->rounds / MPI_ROUNDS_A_S); /* stays across exec */
    execvp(arguments[0], (char *const *)arguments);
    _exit(NOT_EXECUTED);
}

/* Ranks started by mpirun. */
static enum status run_mpi(const struct bench_comm *b, const struct comm_loop *loop,
                           struct err *err)
{
    pid_t creator = getpid();
    pid_t pid = fork_bound(SIGTERM); /* on which mpirun ends its ranks */
    int code;

    if (pid == 0) {
        exec_mpirun(b, creator, loop);
    }
    code = pid > 0 ? wait_for(pid) : NOT_EXECUTED;
    if (code == NOT_EXECUTED) {
        return err_set(err, STATUS_NOT_FOUND, "mpirun cannot be run");
    }
    return code == 0 ? STATUS_OK : err_set(err, STATUS_LINK, "mpirun ended with status %d", code);
}

/* Sorts the samples. */
static struct timing timing_of(double *samples, uint32_t n)
{
    struct timing timing = {.p50 = stats_of(samples, n).median};

    for (uint32_t i = 0; i < n; i++) {
        timing.mean += samples[i] / n;
    }
    timing.p99 = samples[(size_t)n * 99 / 100];
    return timing;
}

static enum status run_world(struct bench_comm *b, uint32_t n_ranks, bool with_mpi, struct err *err)
{
    struct world_result *result = &b->worlds[b->n_worlds];
    struct comm_loop loop;
    enum status status = comm_loop_create(n_ranks, b->rounds, &loop, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = with_mpi ? run_mpi(b, &loop, err) : run_forked(&loop, err);
    if (status == STATUS_OK) {
        *result = (struct world_result){.n_ranks = n_ranks, .with_mpi = with_mpi};
        for (unsigned f = 0; f < COMM_LOOP_FIGURES; f++) {
            for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
                result->timings[f][size] =
                    timing_of(comm_loop_samples(&loop, (enum comm_loop_figure)f, size), b->rounds);
            }
        }
        b->n_worlds++;
    }
    comm_loop_release(&loop);
    return status;
}

/* With Open MPI if that works, else without. */
static enum status measure(struct bench_comm *b, uint32_t n_ranks, struct err *err)
{
    if (b->no_mpi.status == STATUS_OK && run_world(b, n_ranks, true, &b->no_mpi) == STATUS_OK) {
        return STATUS_OK;
    }
    return run_world(b, n_ranks, false, err);
}

/* How long a figure takes beside its yardstick, at the median; 0 if it has none. */
static double ratio(const struct world_result *world, enum comm_loop_figure figure, uint32_t size)
{
    enum comm_loop_figure yardstick = figures[figure].yardstick;

    if (yardstick == figure || (yardstick == COMM_LOOP_OTHER && !world->with_mpi)) {
        return 0;
    }
    return world->timings[figure][size].p50 / world->timings[yardstick][size].p50;
}

static enum comm_loop_figure last_figure(const struct world_result *world)
{
    return world->with_mpi ? COMM_LOOP_OTHER : COMM_LOOP_ALL_REDUCE;
}

static void print_line(const struct world_result *world, enum comm_loop_figure figure,
                       uint32_t size)
{
    const struct timing *t = &world->timings[figure][size];
    double beside = ratio(world, figure, size);

    printf("%-16s %10.2f %10.2f %10.2f", figures[figure].label, t->p50, t->p99, t->mean);
    if (beside > 0) {
        printf("   %.2f x %s", beside, figures[figures[figure].yardstick].label);
    }
    printf("\n");
}

static void print_world(const struct world_result *world, uint32_t cores)
{
    printf("\n%2u ranks, %2u cores, us %18s %10s %10s\n", world->n_ranks,
           MIN(world->n_ranks, cores), "p50", "p99", "mean");
    for (unsigned f = COMM_LOOP_BARRIER; f <= COMM_LOOP_SLEEPING; f++) {
        printf("%13s", "");
        print_line(world, (enum comm_loop_figure)f, 0);
    }
    for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
        for (unsigned f = COMM_LOOP_SUM_TREE; f <= last_figure(world); f++) {
            printf("%5zu floats ", comm_loop_sizes[size]);
            print_line(world, (enum comm_loop_figure)f, size);
        }
    }
}

static void print_table(const struct bench_comm *b)
{
    printf("%s, load average %.2f, %u rounds\n", b->host.cpu, b->load, b->rounds);
    for (uint32_t w = 0; w < b->n_worlds; w++) {
        print_world(&b->worlds[w], b->host.cpus_bound);
    }
    if (b->no_mpi.status != STATUS_OK) {
        printf("\nwithout Open MPI: %s\n", b->no_mpi.text);
    }
}

static json_t *timing_json(const struct world_result *world, enum comm_loop_figure figure,
                           uint32_t size)
{
    const struct timing *t = &world->timings[figure][size];
    double beside = ratio(world, figure, size);
    json_t *json =
        json_pack("{s:f, s:f, s:f}", "p50_us", t->p50, "p99_us", t->p99, "mean_us", t->mean);

    if (beside > 0) {
        json_object_set_new(json, "ratio", json_real(beside));
    }
    return json;
}

static json_t *world_json(const struct world_result *world)
{
    json_t *json = json_pack("{s:i}", "ranks", (int)world->n_ranks);
    json_t *sizes = json_array();

    for (unsigned f = COMM_LOOP_BARRIER; f <= COMM_LOOP_SLEEPING; f++) {
        json_object_set_new(json, figures[f].name, timing_json(world, (enum comm_loop_figure)f, 0));
    }
    for (uint32_t size = 0; size < COMM_LOOP_SIZES; size++) {
        json_t *one = json_pack("{s:I}", "floats", (json_int_t)comm_loop_sizes[size]);

        for (unsigned f = COMM_LOOP_SUM_TREE; f <= last_figure(world); f++) {
            json_object_set_new(one, figures[f].name,
                                timing_json(world, (enum comm_loop_figure)f, size));
        }
        json_array_append_new(sizes, one);
    }
    json_object_set_new(json, "sizes", sizes);
    return json;
}

static void print_json(const struct bench_comm *b)
{
    const char *no_mpi = b->no_mpi.status == STATUS_OK ? NULL : b->no_mpi.text;
    json_t *worlds = json_array();
    struct buf text = {0};
    json_t *all;

    for (uint32_t w = 0; w < b->n_worlds; w++) {
        json_array_append_new(worlds, world_json(&b->worlds[w]));
    }
    all = json_pack("{s:s, s:i, s:f, s:i, s:s?, s:o}", "cpu", b->host.cpu, "cores",
                    (int)b->host.cpus_bound, "load_average", b->load, "rounds", (int)b->rounds,
                    "without_mpi", no_mpi, "worlds", worlds);
    ENSURE(all != NULL);
    json_write(&text, all, &(struct json_style){.indent = 2, .item_sep = ",", .key_sep = ": "});
    printf("%s\n", buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

int bench_comm(const struct options *options)
{
    static const uint32_t usual[] = {2, 4};
    uint32_t chosen = (uint32_t)options->tp;
    const uint32_t *n_ranks = options->tp > 0 ? &chosen : usual;
    size_t n = options->tp > 0 ? 1 : ARRAY_LEN(usual);
    struct bench_comm b = {.rounds = (uint32_t)options->reps * ROUNDS_A_REP};
    struct err err = {0};
    enum status status = host_collect(&b.host, &err);

    getloadavg(&b.load, 1);
    find_mpi_program(b.program, sizeof(b.program), &b.no_mpi);
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = measure(&b, n_ranks[i], &err);
    }
    if (status != STATUS_OK) {
        return cmd_fail(&err);
    }
    (options->json ? print_json : print_table)(&b);
    return CMD_OK;
}
