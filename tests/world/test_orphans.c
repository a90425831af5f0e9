/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No rank outlives its leader, however that ends; and signals of the terminal reach the leader
 * only. This program plays test, leader and ranks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "world/roles.h"

enum { N_RANKS = 3, GONE_MS = 2000 };

struct leader {
    pid_t pid;
    int out; /* what it says */
    pid_t ranks[N_RANKS];
    int pidfds[N_RANKS];
};

/* Tells the leader's parent when the ranks are guarded. */
static void line_up(void *arg, uint32_t rank, const char *line)
{
    int pipe_fd = *(int *)arg;

    if (strcmp(line, "up") == 0 && write(pipe_fd, &rank, sizeof(rank)) < 0) {
        _exit(97);
    }
}

/* Ranks of the role, their pids on stdout, then signals on stdout until SIGTERM. */
static int run_leader(const char *role)
{
    struct spawner_local_config config = {.oom_score_adj = 100, .line = line_up};
    struct spawner *spawner = NULL;
    struct spawner_event event;
    pid_t pids[N_RANKS] = {0};
    uint32_t rank;
    int ups[2];
    int signals = -1;
    int got = 0;

    world_signals_block();
    if (pipe2(ups, O_CLOEXEC) < 0 || world_signals_open(&signals, NULL) != STATUS_OK) {
        return 1;
    }
    config.arg = &ups[1];
    if (spawner_local_create(&config, &spawner, NULL) != STATUS_OK) {
        return 1;
    }
    role_spawn(spawner, 1, role, NULL, N_RANKS);
    for (int i = 0; i < N_RANKS; i++) {
        if (!role_next(spawner, &event) || event.kind != SPAWNER_SPAWNED ||
            read(ups[0], &rank, sizeof(rank)) != sizeof(rank)) {
            return 1;
        }
        pids[event.rank] = event.pid;
    }
    if (write(STDOUT_FILENO, pids, sizeof(pids)) < 0) {
        return 1;
    }
    while (got != SIGTERM) {
        struct pollfd slot = {.fd = signals, .events = POLLIN};

        poll(&slot, 1, -1);
        got = world_signals_take(signals);
        if (got != 0 && write(STDOUT_FILENO, &got, sizeof(got)) < 0) {
            return 1;
        }
    }
    spawner_destroy(&spawner);
    return 0;
}

static void start_leader(struct leader *leader, const char *role)
{
    int out[2];

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    leader->pid = fork();
    if (leader->pid == 0) {
        setpgid(0, 0);
        dup2(out[1], STDOUT_FILENO);
        execl("/proc/self/exe", "leader", "leader", role, (char *)NULL);
        _exit(96);
    }
    setpgid(leader->pid, leader->pid);
    close(out[1]);
    leader->out = out[0];
    assert_int_equal(read(leader->out, leader->ranks, sizeof(leader->ranks)),
                     sizeof(leader->ranks));
    for (int r = 0; r < N_RANKS; r++) {
        leader->pidfds[r] = (int)syscall(SYS_pidfd_open, leader->ranks[r], 0);
        assert_true(leader->pidfds[r] >= 0);
    }
}

/* Ranks that have ended within ms. */
static int count_gone(const struct leader *leader, int ms)
{
    uint64_t end = clock_ns() + (uint64_t)ms * 1000000;
    int n = 0;

    for (int r = 0; r < N_RANKS; r++) {
        uint64_t now = clock_ns();
        struct pollfd slot = {.fd = leader->pidfds[r], .events = POLLIN};

        n += poll(&slot, 1, now < end ? (int)((end - now) / 1000000) : 0) > 0;
    }
    return n;
}

static void finish(struct leader *leader)
{
    close(leader->out);
    for (int r = 0; r < N_RANKS; r++) {
        close(leader->pidfds[r]);
    }
}

static void kill_leader(struct leader *leader)
{
    kill(leader->pid, SIGKILL);
    assert_int_equal(waitpid(leader->pid, NULL, 0), leader->pid);
    assert_int_equal(count_gone(leader, GONE_MS), N_RANKS);
    finish(leader);
}

static void test_leader_killed(void **state)
{
    struct leader leader;

    (void)state;
    start_leader(&leader, "sleep");
    assert_int_equal(count_gone(&leader, 50), 0);
    kill_leader(&leader);
}

/* Stopped ranks run no code: the kernel's signal reaches them all the same. */
static void test_ranks_stopped(void **state)
{
    struct leader leader;

    (void)state;
    start_leader(&leader, "sleep");
    for (int r = 0; r < N_RANKS; r++) {
        kill(leader.ranks[r], SIGSTOP);
    }
    kill_leader(&leader);
}

static void test_leader_stopped(void **state)
{
    struct leader leader;

    (void)state;
    start_leader(&leader, "sleep");
    kill(leader.pid, SIGSTOP);
    kill_leader(&leader);
}

/* The second net alone: ranks that have lost their parent-death signal. */
static void test_death_pipe(void **state)
{
    struct leader leader;

    (void)state;
    start_leader(&leader, "pipe-only");
    kill_leader(&leader);
}

/* Ctrl-C goes to the terminal's foreground group; the ranks are not in it. */
static void test_signals_reach_the_leader_only(void **state)
{
    static const int sent[] = {SIGINT, SIGHUP, SIGQUIT, SIGTSTP};
    struct leader leader;
    int status;
    int got;

    (void)state;
    start_leader(&leader, "sleep");
    for (size_t i = 0; i < ARRAY_LEN(sent); i++) {
        kill(-leader.pid, sent[i]);
        assert_int_equal(read(leader.out, &got, sizeof(got)), sizeof(got));
        assert_int_equal(got, sent[i]);
    }
    assert_int_equal(count_gone(&leader, 100), 0);
    kill(leader.pid, SIGTERM);
    assert_int_equal(waitpid(leader.pid, &status, 0), leader.pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(count_gone(&leader, 0), N_RANKS); /* it reaped them before it left */
    finish(&leader);
}

/* A rank whose leader died before the rank could ask for the signal. */
static void test_wrong_parent(void **state)
{
    struct err err = {0};

    (void)state;
    assert_int_equal(world_child_guard(getpid(), 0, &err), STATUS_CANCELLED);
    assert_non_null(strstr(err.text, "is gone"));
    prctl(PR_SET_PDEATHSIG, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leader_killed),
        cmocka_unit_test(test_ranks_stopped),
        cmocka_unit_test(test_leader_stopped),
        cmocka_unit_test(test_death_pipe),
        cmocka_unit_test(test_signals_reach_the_leader_only),
        cmocka_unit_test(test_wrong_parent),
    };

    if (argc > 2 && strcmp(argv[1], "leader") == 0) {
        return run_leader(argv[2]);
    }
    if (argc > 1) {
        return role_run(argv);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
