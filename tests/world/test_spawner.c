/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes on this host: this program started again as ranks. What they inherit, how they end,
 * what they write, and that nothing of them is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "world/capture.h"
#include "world/roles.h"

/* What came of one epoch. */
struct outcome {
    uint32_t n_spawned;
    uint32_t n_failed;
    uint32_t n_died;
    struct spawner_event last; /* DIED or SPAWN_FAILED */
    pid_t pids[SPAWNER_MAX_RANKS];
};

/* Lines, written by the spawner's thread. */
struct lines {
    pthread_mutex_t lock;
    struct buf text;
    size_t n;
    size_t longest;
};

static void take_line(void *arg, uint32_t rank, const char *line)
{
    struct lines *lines = arg;

    pthread_mutex_lock(&lines->lock);
    if (lines->text.len < 1 << 20) {
        buf_printf(&lines->text, "%u:%s\n", (unsigned)rank, line);
    }
    lines->n++;
    lines->longest = MAX(lines->longest, strlen(line));
    pthread_mutex_unlock(&lines->lock);
}

static struct spawner *create(struct lines *lines, const char *program)
{
    const struct spawner_local_config config = {
        .program = program, .oom_score_adj = 321, .line = take_line, .arg = lines};
    struct spawner *spawner = NULL;

    *lines = (struct lines){.lock = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(spawner_local_create(&config, &spawner, NULL), STATUS_OK);
    return spawner;
}

/* Destroys the spawner first: afterwards nobody writes lines. */
static void finish(struct spawner **spawner, struct lines *lines)
{
    spawner_destroy(spawner);
    assert_null(*spawner);
    buf_release(&lines->text);
}

/* Takes events until n ranks are up (n > 0) or all are reaped (n == 0). */
static void follow(struct spawner *spawner, uint64_t epoch, uint32_t n, struct outcome *outcome)
{
    struct spawner_event event;

    while (n == 0 || outcome->n_spawned < n) {
        assert_true(role_next(spawner, &event));
        assert_int_equal(event.epoch, epoch);
        if (event.kind == SPAWNER_ALL_REAPED) {
            assert_int_equal(n, 0);
            assert_int_equal(outcome->n_died, outcome->n_spawned);
            return;
        }
        if (event.kind == SPAWNER_SPAWNED) {
            outcome->pids[event.rank] = event.pid;
            outcome->n_spawned++;
            continue;
        }
        outcome->n_died += event.kind == SPAWNER_DIED;
        outcome->n_failed += event.kind == SPAWNER_SPAWN_FAILED;
        outcome->last = event;
    }
}

/* One rank of this role to its end. */
static struct outcome run_one(struct spawner *spawner, uint64_t epoch, const char *role)
{
    struct outcome outcome = {0};

    role_spawn(spawner, epoch, role, NULL, 1);
    follow(spawner, epoch, 0, &outcome);
    assert_int_equal(outcome.n_spawned + outcome.n_failed, 1);
    return outcome;
}

static void test_how_ranks_end(void **state)
{
    static const struct {
        const char *role;
        int signal;
        int exit_code;
    } ends[] = {
        {"exit0", 0, 0},   {"exit1", 0, 1},     {"exit255", 0, 255},
        {"signal9", 9, 0}, {"signal15", 15, 0}, {"signal6", SIGABRT, 0},
    };
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct outcome outcome = run_one(spawner, i + 1, ends[i].role);

        assert_int_equal(outcome.last.kind, SPAWNER_DIED);
        assert_int_equal(outcome.last.signal, ends[i].signal);
        assert_int_equal(outcome.last.exit_code, ends[i].exit_code);
    }
    finish(&spawner, &lines);
}

/* The leader's own signal mask, ignored signals and descriptors stay with it. */
static void test_what_a_rank_inherits(void **state)
{
    struct lines lines;
    struct spawner *spawner;
    int leaky = fcntl(0, F_DUPFD, 100); /* not CLOEXEC: the second net */
    int pair[2];
    struct spawner_rank plain = {.fds = pair, .n_fds = 2};
    struct outcome outcome = {0};

    (void)state;
    assert_true(leaky >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    signal(SIGPIPE, SIG_IGN);
    spawner = create(&lines, NULL);
    role_spawn(spawner, 1, "report", &plain, 2);
    close(pair[0]); /* they were duplicated */
    close(pair[1]);
    follow(spawner, 1, 0, &outcome);
    assert_int_equal(outcome.last.exit_code, 0);
    for (int r = 0; r < 2; r++) {
        char want[200];

        snprintf(want, sizeof(want),
                 "%d:fds 0 1 2 3 4 5; oom 321; blocked 0; sigpipe default; death 9; group own; "
                 "stdin empty\n",
                 r);
        if (strstr(buf_str(&lines.text), want) == NULL) {
            fail_msg("%s", buf_str(&lines.text));
        }
    }
    signal(SIGPIPE, SIG_DFL);
    close(leaky);
    finish(&spawner, &lines);
}

/* Descriptors arrive at their numbers, also where source and target numbers cross. */
static void test_passed_descriptors(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    int pipes[4][2];
    int fds[4];
    struct spawner_rank plain = {.fds = fds, .n_fds = 4};
    struct outcome outcome = {0};

    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pipe2(pipes[i], O_CLOEXEC), 0);
        fds[3 - i] = pipes[i][0]; /* the highest first */
    }
    assert_int_equal(write(pipes[3][1], "hello", 5), 5);
    role_spawn(spawner, 1, "echo", &plain, 1);
    follow(spawner, 1, 0, &outcome);
    assert_string_equal(buf_str(&lines.text), "0:hello from rank\n");
    for (int i = 0; i < 4; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    finish(&spawner, &lines);
}

static void test_exec_failure(void **state)
{
    static const struct {
        const char *program;
        int error;
    } cases[] = {{"/nonexistent/program", ENOENT}, {"/dev/null", EACCES}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct lines lines;
        struct spawner *spawner = create(&lines, cases[i].program);
        struct outcome outcome = {0};

        role_spawn(spawner, 1, "exit0", NULL, 3);
        follow(spawner, 1, 0, &outcome);
        assert_int_equal(outcome.n_failed, 3);
        assert_int_equal(outcome.n_spawned, 0);
        assert_int_equal(outcome.last.error, cases[i].error);
        finish(&spawner, &lines);
    }
}

static void test_no_descriptors_left(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    struct rlimit before;
    struct rlimit tight;
    struct outcome outcome = {0};
    struct spawner_rank bad = {.fds = (int[]){987}, .n_fds = 1};
    struct err err = {0};
    int fd = dup(0);

    (void)state;
    close(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)fd + 3; /* one pipe, not two */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    role_spawn(spawner, 1, "exit0", NULL, 2);
    follow(spawner, 1, 0, &outcome);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(outcome.n_failed, 2);
    assert_int_equal(outcome.last.error, EMFILE);
    outcome = run_one(spawner, 2, "exit7"); /* and well again */
    assert_int_equal(outcome.last.exit_code, 7);

    bad.argv = (char *[]){"rank", "exit0", NULL};
    assert_int_equal(spawner_spawn(spawner, 3, &bad, 1, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "rank 0: descriptor 987"));
    outcome = run_one(spawner, 3, "exit7"); /* nothing was started, no event is left */
    assert_int_equal(outcome.last.exit_code, 7);
    finish(&spawner, &lines);
}

static void test_sixteen_at_once(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);

    (void)state;
    for (uint64_t epoch = 1; epoch <= 2; epoch++) {
        uint64_t began = clock_ns();
        struct outcome outcome = {0};
        uint64_t up;

        role_spawn(spawner, epoch, "sleep", NULL, 16);
        follow(spawner, epoch, 16, &outcome);
        up = clock_ns();
        kill(outcome.pids[3], SIGSTOP); /* a stopped one goes too */
        spawner_kill(spawner);
        follow(spawner, epoch, 0, &outcome);
        assert_int_equal(outcome.n_died, 16);
        assert_int_equal(outcome.last.signal, SIGKILL);
        print_message("16 ranks: up in %.1f ms, killed and reaped in %.1f ms\n",
                      (double)(up - began) / 1e6, (double)(clock_ns() - up) / 1e6);
    }
    spawner_kill(spawner); /* nobody is there */
    finish(&spawner, &lines);
}

/* A kill that comes while the ranks are just being started reaches all of them. */
static void test_kill_while_starting(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);

    (void)state;
    for (uint64_t epoch = 1; epoch <= 10; epoch++) {
        struct outcome outcome = {0};

        role_spawn(spawner, epoch, "sleep", NULL, 5);
        usleep((useconds_t)(epoch * 300));
        spawner_kill(spawner);
        follow(spawner, epoch, 0, &outcome);
        assert_int_equal(outcome.n_died + outcome.n_failed, 5);
    }
    role_spawn(spawner, 11, "sleep", NULL, 5); /* and destroy, without waiting for anything */
    finish(&spawner, &lines);
}

static void test_no_descriptor_leaks(void **state)
{
    int before_all = role_count_fds();
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    struct spawner_rank plain = {.fds = (int[]){0, 1}, .n_fds = 2};
    int before;

    (void)state;
    run_one(spawner, 1, "exit0");
    before = role_count_fds();
    for (uint64_t epoch = 2; epoch <= 26; epoch++) { /* 50 ranks */
        struct outcome outcome = {0};
        bool waits = epoch % 2 == 0;

        role_spawn(spawner, epoch, waits ? "sleep" : "exit3", &plain, 2);
        if (waits) {
            follow(spawner, epoch, 2, &outcome);
            spawner_kill(spawner);
        }
        follow(spawner, epoch, 0, &outcome);
        assert_int_equal(outcome.n_died, 2);
    }
    assert_int_equal(role_count_fds(), before);
    finish(&spawner, &lines);
    assert_int_equal(role_count_fds(), before_all);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie either */
    assert_int_equal(errno, ECHILD);
}

static void test_output(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    struct outcome outcome;

    (void)state;
    run_one(spawner, 1, "partial");
    assert_string_equal(buf_str(&lines.text), "0:no newline\n");
    outcome = run_one(spawner, 2, "flood"); /* 262,144 lines */
    assert_int_equal(outcome.last.exit_code, 5);
    assert_in_range(lines.n, CAPTURE_BURST, CAPTURE_BURST + 60 * CAPTURE_PER_SECOND);
    assert_non_null(strstr(buf_str(&lines.text), "(lines dropped: "));
    lines.n = 0;
    outcome = run_one(spawner, 3, "rubbish"); /* 16 MiB of it */
    assert_int_equal(outcome.last.exit_code, 5);
    assert_true(lines.n >= CAPTURE_BURST);
    assert_in_range(lines.longest, 64, CAPTURE_LINE_BYTES);
    finish(&spawner, &lines);
}

/* What a rank leaves behind holds neither the spawner up nor the rank's last words, and goes too.
 */
static void test_heirs_go_too(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    struct outcome outcome;
    int status = 0;
    pid_t heir = 0;

    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that the heir becomes this process's child */
    outcome = run_one(spawner, 1, "heir");
    assert_string_equal(buf_str(&lines.text), "0:last words\n");
    for (int i = 0; i < 500 && heir == 0; i++) {
        heir = waitpid(-outcome.pids[0], &status, WNOHANG);
        usleep(10000);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    assert_true(heir > 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    finish(&spawner, &lines);
}

static void *busy(void *arg)
{
    const _Atomic bool *stop = arg;
    size_t n = 1;

    while (!*stop) {
        void *memory = malloc(n = n * 7 % 10007 + 1);

        free(memory);
    }
    return NULL;
}

/* Other threads hold the allocator's locks at the time of the fork. */
static void test_with_busy_threads(void **state)
{
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    _Atomic bool stop = false;
    pthread_t threads[3];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, busy, &stop), 0);
    }
    for (uint64_t epoch = 1; epoch <= 20; epoch++) {
        assert_int_equal(run_one(spawner, epoch, "exit4").last.exit_code, 4);
    }
    stop = true;
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    finish(&spawner, &lines);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void test_death_is_seen_at_once(void **state)
{
    enum { N = 21 };
    struct lines lines;
    struct spawner *spawner = create(&lines, NULL);
    uint64_t times[N];

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        struct outcome outcome = {0};
        struct spawner_event event;
        uint64_t began;

        role_spawn(spawner, i + 1, "sleep", NULL, 2);
        follow(spawner, i + 1, 2, &outcome);
        began = clock_ns();
        kill(outcome.pids[1], SIGKILL);
        assert_true(role_next(spawner, &event));
        times[i] = clock_ns() - began;
        assert_int_equal(event.kind, SPAWNER_DIED);
        assert_int_equal(event.rank, 1);
        outcome.n_died = 1;
        spawner_kill(spawner);
        follow(spawner, i + 1, 0, &outcome);
    }
    qsort(times, N, sizeof(times[0]), compare);
    print_message("kill -9 to DIED: p50 %.2f ms, max %.2f ms\n", (double)times[N / 2] / 1e6,
                  (double)times[N - 1] / 1e6);
    assert_true(times[N / 2] < 1000000000ull);
    finish(&spawner, &lines);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_how_ranks_end),
        cmocka_unit_test(test_what_a_rank_inherits),
        cmocka_unit_test(test_passed_descriptors),
        cmocka_unit_test(test_exec_failure),
        cmocka_unit_test(test_no_descriptors_left),
        cmocka_unit_test(test_sixteen_at_once),
        cmocka_unit_test(test_kill_while_starting),
        cmocka_unit_test(test_no_descriptor_leaks),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_heirs_go_too),
        cmocka_unit_test(test_with_busy_threads),
        cmocka_unit_test(test_death_is_seen_at_once),
    };

    if (argc > 1) {
        return role_run(argv);
    }
    world_signals_block();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
