/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner's own thread: forks all ranks, because PR_SET_PDEATHSIG fires when the thread that
 * forked ends, and watches them: a pidfd a rank, the pipes behind its stdout and stderr, and a pipe
 * that tells whether exec succeeded.
 */
#include "world/spawner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"

enum {
    READ_BYTES = 16384,
    DRAIN_READS = 64, /* at most, once the rank is dead: more than a pipe holds */
    FDS_OF_CHILD = 4, /* polled: pidfd, exec report, two streams */
};

static void post(struct spawner_local *local, struct spawner_event event)
{
    event.epoch = local->epoch;
    pthread_mutex_lock(&local->lock);
    ENSURE_OP(local->n_events, <, SPAWNER_MAX_EVENTS);
    local->events[local->n_events++] = event;
    pthread_mutex_unlock(&local->lock);
    spawner_ring(local->base.event_fd);
    if (local->config.alarm != NULL) {
        atomic_fetch_add(local->config.alarm, 1);
        futex_wake_all_shared(local->config.alarm);
    }
}

static void emit_line(void *arg, const char *line)
{
    static const char own[] = "lockstep: "; /* a rank is this program, and its lines begin alike */
    struct spawner_child *child = arg;
    const struct spawner_local_config *config = &child->local->config;

    if (config->line != NULL) {
        config->line(config->arg, child->rank, line);
    } else {
        log_info("rank %u: %s", (unsigned)child->rank,
                 strncmp(line, own, sizeof(own) - 1) == 0 ? line + sizeof(own) - 1 : line);
    }
}

/* A pipe whose ends are CLOEXEC and whose reading end does not block. */
static int make_pipe(int ret_fds[2])
{
    if (pipe2(ret_fds, O_CLOEXEC) < 0) {
        ret_fds[0] = -1;
        ret_fds[1] = -1;
        return errno;
    }
    return fcntl(ret_fds[0], F_SETFL, O_NONBLOCK) < 0 ? errno : 0;
}

/* Forks one rank; 0 or an errno. child is empty, and keeps the reading ends. */
static int start(struct spawner_local *local, struct spawner_child *child,
                 const struct spawner_order *order)
{
    int out[2] = {-1, -1};
    int errors[2] = {-1, -1};
    int report[2] = {-1, -1};
    struct spawner_exec exec = {
        .program = local->config.program == NULL ? "/proc/self/exe" : local->config.program,
        .argv = order->argv,
        .n_fds = (int)(SPAWNER_FD_FIRST + order->n_fds),
        .leader = local->leader,
    };
    int error = 0;

    if ((error = make_pipe(out)) != 0 || (error = make_pipe(errors)) != 0 ||
        (error = make_pipe(report)) != 0) {
        goto out;
    }
    exec.fds[0] = local->null_fd;
    exec.fds[1] = out[1];
    exec.fds[2] = errors[1];
    exec.fds[SPAWNER_FD_DEATH] = local->death_pipe[0];
    for (uint32_t i = 0; i < order->n_fds; i++) {
        exec.fds[SPAWNER_FD_FIRST + i] = order->fds[i];
    }
    exec.report_fd = report[1];
    snprintf(exec.oom_score_adj, sizeof(exec.oom_score_adj), "%d", local->config.oom_score_adj);
    child->pid = fork();
    if (child->pid == 0) {
        spawner_exec_child(&exec);
    }
    if (child->pid < 0) {
        error = errno;
        goto out;
    }
    setpgid(child->pid, child->pid); /* whoever comes first, parent or child */
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pidfd < 0) { /* a kernel before 5.3, or no descriptor left */
        error = errno;
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
        goto out;
    }
    child->streams[0].fd = out[0];
    child->streams[1].fd = errors[0];
    child->report_fd = report[0];
    out[0] = -1;
    errors[0] = -1;
    report[0] = -1;
out:
    for (int i = 0; i < 2; i++) {
        spawner_close_fd(&out[i]);
        spawner_close_fd(&errors[i]);
        spawner_close_fd(&report[i]);
    }
    if (error != 0) {
        child->pid = 0;
    }
    return error;
}

static void finish_epoch(struct spawner_local *local)
{
    if (local->n_alive == 0) {
        post(local, (struct spawner_event){.kind = SPAWNER_ALL_REAPED});
    }
}

static void start_all(struct spawner_local *local, struct spawner_order *orders, uint32_t n_ranks)
{
    local->n_ranks = n_ranks;
    for (uint32_t r = 0; r < n_ranks; r++) {
        struct spawner_child *child = &local->children[r];
        int error;

        *child = (struct spawner_child){.local = local, .rank = r, .pidfd = -1, .report_fd = -1};
        for (int s = 0; s < SPAWNER_STREAMS; s++) {
            child->streams[s].fd = -1;
            capture_init(&child->streams[s].capture, emit_line, child);
        }
        error = start(local, child, &orders[r]);
        if (error == 0) {
            local->n_alive++;
        } else {
            post(local,
                 (struct spawner_event){.kind = SPAWNER_SPAWN_FAILED, .rank = r, .error = error});
        }
    }
    spawner_free_orders(orders, n_ranks);
    finish_epoch(local);
}

static void kill_all(struct spawner_local *local)
{
    for (uint32_t r = 0; r < local->n_ranks; r++) {
        struct spawner_child *child = &local->children[r];

        if (child->pid != 0) {
            syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
            kill(-child->pid, SIGKILL); /* what it may have started itself */
        }
    }
}

/* Carries out what was posted, in order. Returns false when it is time to leave. */
static bool obey(struct spawner_local *local)
{
    struct spawner_order *orders;
    uint32_t n_orders;
    uint64_t kill_epoch;
    bool quit;

    spawner_hush(local->command_fd);
    pthread_mutex_lock(&local->lock);
    orders = local->orders;
    n_orders = local->n_orders;
    local->orders = NULL;
    if (orders != NULL) {
        local->epoch = local->order_epoch;
    }
    kill_epoch = local->kill_epoch;
    quit = local->quit;
    pthread_mutex_unlock(&local->lock);
    if (orders != NULL && !quit) {
        start_all(local, orders, n_orders);
    } else {
        spawner_free_orders(orders, n_orders);
    }
    if (quit || kill_epoch == local->epoch) {
        kill_all(local);
    }
    return !quit || local->n_alive > 0;
}

/* Reads once; false when there is nothing more now. */
static bool read_stream(struct spawner_stream *stream)
{
    char bytes[READ_BYTES];
    ssize_t n;

    if (stream->fd < 0) {
        return false;
    }
    n = read(stream->fd, bytes, sizeof(bytes));
    if (n > 0) {
        capture_feed(&stream->capture, bytes, (size_t)n, clock_ns());
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        capture_flush(&stream->capture, clock_ns(), true);
        spawner_close_fd(&stream->fd);
    }
    return false;
}

/* Whether exec succeeded: the pipe closes with it, or holds an errno. */
static void read_report(struct spawner_child *child, bool is_dead)
{
    int error = 0;
    ssize_t n = read(child->report_fd, &error, sizeof(error));

    if (n < 0 && !is_dead) {
        return;
    }
    spawner_close_fd(&child->report_fd);
    child->failed = n == sizeof(error);
    if (child->failed) {
        post(child->local, (struct spawner_event){
                               .kind = SPAWNER_SPAWN_FAILED, .rank = child->rank, .error = error});
    } else {
        post(child->local, (struct spawner_event){
                               .kind = SPAWNER_SPAWNED, .rank = child->rank, .pid = child->pid});
    }
}

static void reap(struct spawner_child *child)
{
    struct spawner_local *local = child->local;
    int status = 0;

    kill(-child->pid, SIGKILL); /* its number is still its own: whatever it has left behind */
    if (waitpid(child->pid, &status, WNOHANG) != child->pid) {
        return;
    }
    if (child->report_fd >= 0) {
        read_report(child, true);
    }
    for (int s = 0; s < SPAWNER_STREAMS; s++) {
        struct spawner_stream *stream = &child->streams[s];

        for (int i = 0; i < DRAIN_READS && read_stream(stream); i++) {
        }
        capture_flush(&stream->capture, clock_ns(), true);
        spawner_close_fd(&stream->fd);
    }
    if (!child->failed) {
        post(local, (struct spawner_event){
                        .kind = SPAWNER_DIED,
                        .rank = child->rank,
                        .pid = child->pid,
                        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                        .exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                    });
    }
    spawner_close_fd(&child->pidfd);
    child->pid = 0;
    local->n_alive--;
    finish_epoch(local);
}

/* Poll's time limit until the next line without an end is due. */
static int poll_ms(const struct spawner_local *local)
{
    uint64_t wake = UINT64_MAX;
    uint64_t now;

    for (uint32_t r = 0; r < local->n_ranks; r++) {
        for (int s = 0; local->children[r].pid != 0 && s < SPAWNER_STREAMS; s++) {
            wake = MIN(wake, capture_wake_at(&local->children[r].streams[s].capture));
        }
    }
    if (wake == UINT64_MAX) {
        return -1;
    }
    now = clock_ns();
    return wake <= now ? 0 : (int)((wake - now) / 1000000 + 1);
}

/* Fills one slot of poll for each descriptor of a child; unused ones are -1, which poll skips. */
static void watch(const struct spawner_child *child, struct pollfd *slots)
{
    bool is_alive = child->pid != 0;
    int fds[FDS_OF_CHILD] = {child->pidfd, child->report_fd, child->streams[0].fd,
                             child->streams[1].fd};

    for (int i = 0; i < FDS_OF_CHILD; i++) {
        slots[i] = (struct pollfd){.fd = is_alive ? fds[i] : -1, .events = POLLIN};
    }
}

static void serve(struct spawner_child *child, const struct pollfd *slots)
{
    uint64_t now;

    if (child->pid == 0) {
        return;
    }
    if (slots[1].revents != 0 && child->report_fd >= 0) {
        read_report(child, false);
    }
    for (int s = 0; s < SPAWNER_STREAMS; s++) {
        if (slots[2 + s].revents != 0) {
            read_stream(&child->streams[s]);
        }
    }
    now = clock_ns();
    for (int s = 0; s < SPAWNER_STREAMS; s++) {
        capture_flush(&child->streams[s].capture, now, false);
    }
    if (slots[0].revents != 0) {
        reap(child);
    }
}

void *spawner_local_run(void *arg)
{
    struct spawner_local *local = arg;
    struct pollfd slots[1 + SPAWNER_MAX_RANKS * FDS_OF_CHILD];
    bool stay = true;

    while (stay) {
        slots[0] = (struct pollfd){.fd = local->command_fd, .events = POLLIN};
        for (uint32_t r = 0; r < local->n_ranks; r++) {
            watch(&local->children[r], &slots[1 + r * FDS_OF_CHILD]);
        }
        if (poll(slots, 1 + local->n_ranks * FDS_OF_CHILD, poll_ms(local)) < 0) {
            ENSURE_OP(errno, ==, EINTR);
            continue;
        }
        for (uint32_t r = 0; r < local->n_ranks; r++) {
            serve(&local->children[r], &slots[1 + r * FDS_OF_CHILD]);
        }
        stay = obey(local);
    }
    return NULL;
}
