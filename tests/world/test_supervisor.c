/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a world under its supervisor, with fake ranks: up, down and up again, ended in every
 * state, refused loads, failed worlds and their probes, questions and long plans. What single
 * misbehaving ranks do to it is test_supervisor_faults.c.
 */
#include <sys/resource.h>

#include "fake_sequence.h"

/* The kinds of error have the same numbers in the state machine as on the wire. */
static void test_kinds(void **state)
{
    (void)state;
    assert_int_equal((int)WORLD_ERROR_USER, (int)ERROR_USER);
    assert_int_equal((int)WORLD_ERROR_MEMORY, (int)ERROR_MEMORY);
    assert_int_equal((int)WORLD_ERROR_DEVICE, (int)ERROR_DEVICE);
    assert_int_equal((int)WORLD_ERROR_LINK, (int)ERROR_LINK);
    assert_int_equal((int)WORLD_ERROR_BUG, (int)ERROR_BUG);
}

static void test_create_refused(void **state)
{
    static const uint32_t sizes[] = {0, SUPERVISOR_MAX_RANKS + 1};
    int n_fds = fake_count_fds();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct supervisor_config config = fake_config(sizes[i]);
        struct supervisor *s = NULL;
        struct err err = {0};

        assert_int_equal(supervisor_create(&config, &s, &err), STATUS_INVALID);
        assert_non_null(strstr(err.text, "1 to 16 ranks"));
        assert_null(s);
    }
    supervisor_destroy(&(struct supervisor *){NULL});
    fake_expect_nothing_left(n_fds);
}

/* --- Up and down --- */

static void test_life(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, SUPERVISOR_MAX_RANKS};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct fake_world w;

        fake_start(&w, sizes[i], NULL);
        assert_int_equal(supervisor_state(w.s), WORLD_SPAWNING);
        fake_generate(&w, 5);
        for (uint32_t r = 0; r < sizes[i]; r++) {
            const json_t *sum = supervisor_answer(w.s, MESSAGE_SANITY_RESULT, r);

            assert_int_equal(message_uint(sum, "observed_sum", 0), sizes[i]);
            assert_int_equal(kill(supervisor_pid(w.s, r), 0), 0);
        }
        assert_int_equal(supervisor_pid(w.s, sizes[i]), 0);
        assert_null(supervisor_answer(w.s, MESSAGE_SANITY_RESULT, sizes[i]));
        assert_int_equal(supervisor_rebuilds(w.s), 0);
        assert_int_equal(supervisor_fault_ns(w.s), 0);
        assert_string_equal(supervisor_why(w.s), "");
        supervisor_stop(w.s);
        fake_wait(&w, WORLD_DOWN);
        assert_true(w.failed_all); /* whoever had not ended */
        assert_int_equal(w.s->kept.weights[0], -1);
        assert_int_equal(w.s->kept.kv[0], -1);
        assert_int_equal(w.s->kept.host, -1);
        assert_false(supervisor_can_issue(w.s));

        supervisor_start(w.s); /* a new life: nothing is kept, and numbers go on */
        fake_generate(&w, 5);
        assert_int_equal(w.s->machine.epoch, 2);
        assert_false(w.resume_kept);
        fake_expect_load(&w, "keep_weights", false);
        fake_stop(&w);
    }
}

/* Without a model only the communicator is proved. */
static void test_smoke(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct supervisor *s;
    struct fake_world w = {.n_fds = fake_count_fds()};

    (void)state;
    setenv(FAKE_SCRIPT_VARIABLE, "", 1);
    assert_int_equal(supervisor_create(&config, &s, NULL), STATUS_OK);
    fake_left = w.s = s;
    supervisor_start(s);
    fake_wait(&w, WORLD_READY);
    assert_int_equal(
        message_uint(supervisor_answer(s, MESSAGE_SANITY_RESULT, 1), "observed_sum", 0), 2);
    fake_stop(&w);
}

/* Scripts whose worlds come as far as a state and stay there. */
struct stay {
    enum world_state state;
    const char *script;
};

static const struct stay stays[] = {
    {WORLD_SPAWNING, NULL},
    {WORLD_HELLO, "mute:hello/1/0/0"},
    {WORLD_COMM_INIT, "deaf:hello/1/0/0"},
    {WORLD_SANITY, "mute:sanity/1/0/0"},
    {WORLD_LOADING, "hang:load/1/0/0"},
    {WORLD_READY, NULL},
    {WORLD_REBUILDING, "kill:load/1/0/0"},
    {WORLD_FAILED, "build:hello/1/0/0"},
};

/* From every state a world that is to end is down soon, and leaves nothing behind; ended or not, so
 * is one that is destroyed. */
static void test_end_in_every_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(stays); i++) {
        struct fake_world w;

        fake_start(&w, 2, stays[i].script);
        fake_wait(&w, stays[i].state);
        fake_close(&w);

        fake_start(&w, 2, stays[i].script);
        fake_wait(&w, stays[i].state);
        supervisor_stop(w.s);
        supervisor_stop(w.s); /* once more changes nothing */
        fake_wait(&w, WORLD_DOWN);
        assert_int_equal(supervisor_pid(w.s, 0), 0);
        supervisor_stop(w.s);
        assert_int_equal(supervisor_state(w.s), WORLD_DOWN);
        fake_close(&w);

        fake_start(&w, 2, stays[i].script);
        fake_wait(&w, stays[i].state);
        supervisor_stop(w.s);
        fake_close(&w); /* stopping, most of them */
    }
}

/* A step is under way, and a rank that never hears of the end is killed after its time. */
static void test_stop_busy(void **state)
{
    struct fake_world w;
    uint64_t start;

    (void)state;
    fake_start(&w, 2, "hang:plan/1/0/3");
    fake_generate(&w, 2);
    fake_issue(&w);
    assert_int_equal(w.s->n_steps, 1);
    start = clock_ns();
    supervisor_stop(w.s);
    assert_true(w.failed_all);
    fake_wait(&w, WORLD_DOWN);
    assert_true(clock_ns() - start >= 900 * FAKE_MS); /* stop_ms, and no hang was reported */
    assert_int_equal(w.last_step, 2);
    fake_close(&w);
}

/* --- Loads that are refused --- */

struct refusal {
    const char *script;
    const char *why;
    const char *also; /* NULL: why is the whole text */
};

static const struct refusal refusals[] = {
    {"user:load/1/1/0", "rank 1: the file has no such tensor", ""},
    {"user:load/99/1/0", "the file has no such tensor", NULL},
    {"own:load/99/1/0", "rank 0: shard 0 is bad", "rank 2: shard 2 is bad"},
    {"memory:load/2/1/0", "rank 2: no memory is left here", ""},
    {"user:comm_init/1/1/0", "rank 1: the file has no such tensor", ""},
    /* the one that the user can do something about, whoever is first */
    {"link:load/0/1/0 slow:load/1/1/0 user:load/1/1/0 user:load/2/1/0", "no such tensor", "rank 2"},
    {"hang:load/0/1/0 user:load/1/1/0", "rank 1: the file has no such tensor", ""},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct fake_world w;

        fake_start(&w, 3, refusals[i].script);
        fake_wait(&w, WORLD_DOWN);
        assert_true(supervisor_refused(w.s));
        assert_int_equal(supervisor_rebuilds(w.s), 0);
        fake_expect_why(&w, refusals[i].why);
        if (refusals[i].also == NULL) {
            assert_string_equal(supervisor_why(w.s), refusals[i].why);
        } else {
            fake_expect_why(&w, refusals[i].also);
        }
        for (uint32_t r = 0; r < 3; r++) {
            assert_int_equal(w.s->kept.weights[r], -1);
        }
        fake_expect_nothing_left(fake_count_fds()); /* no child */
        supervisor_start(w.s);                      /* nothing of it is in the way of the next */
        fake_generate(&w, 2);
        assert_false(supervisor_refused(w.s));
        fake_stop(&w);
    }
}

/* Two ranks with their own words, the second a while after the first, in a load that took long. */
static void test_refused_slowly(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "slow:load/0/1/0 slower:load/1/1/0 own:load/99/1/0");
    fake_wait(&w, WORLD_DOWN);
    fake_expect_why(&w, "rank 0: shard 0 is bad");
    fake_expect_why(&w, "rank 1: shard 1 is bad");
    fake_close(&w);
}

/* Kept weights that a rank cannot use are read anew; a load that is refused even then ends a world
 * that had worked, until a probe succeeds. */
static void test_refused_later(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct fake_world w;

    (void)state;
    config.world.probe_ms = 300;
    fake_open(&w, &config,
              "kill:plan/0/1/3 user:load/1/2/0 kill:plan/0/3/6 user:load/1/4/0 user:load/1/5/0");
    supervisor_start(w.s);
    fake_generate(&w, 5);
    assert_int_equal(w.s->machine.epoch, 3);
    fake_expect_load(&w, "keep_weights", false);
    fake_expect_load(&w, "keep_kv", false);
    assert_false(w.failed_all);
    while (w.s->machine.epoch < 5) {
        fake_issue(&w);
        fake_turn(&w);
    }
    fake_wait(&w, WORLD_FAILED);
    assert_true(w.failed_all);
    assert_true(supervisor_refused(w.s));
    fake_expect_why(&w, "rank 1: the file has no such tensor");
    fake_wait(&w, WORLD_READY); /* the probe */
    assert_int_equal(w.s->machine.epoch, 6);
    assert_false(w.resume_kept);
    fake_generate(&w, 3);
    fake_stop(&w);
}

/* --- Worlds that fail --- */

static void test_another_build(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct fake_world w;

    (void)state;
    config.world.probe_ms = 300;
    fake_open(&w, &config, "build:hello/1/1/0");
    supervisor_start(w.s);
    fake_wait(&w, WORLD_FAILED);
    assert_false(supervisor_refused(w.s));
    fake_expect_why(&w, "rank 1");
    fake_expect_why(&w, "another build");
    fake_expect_why(&w, FAKE_BUILD);
    fake_wait(&w, WORLD_READY);
    fake_generate(&w, 2);
    fake_stop(&w);
}

static void test_budget(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct fake_world w;

    (void)state;
    config.world.probe_ms = 300;
    fake_open(&w, &config,
              "exit:load/0/1/0 kill:sanity/1/2/0 exit:hello/0/3/0 kill:load/1/4/0 kill:load/0/5/0");
    supervisor_start(w.s);
    fake_wait(&w, WORLD_FAILED);
    assert_int_equal(w.s->machine.epoch, 4);
    fake_expect_why(&w, "rank 1 died of signal 9");
    while (w.s->machine.epoch < 5) { /* a probe has one try */
        fake_turn(&w);
    }
    fake_wait(&w, WORLD_FAILED);
    fake_expect_why(&w, "rank 0 died of signal 9");
    assert_int_equal(w.s->machine.epoch, 5);
    fake_generate(&w, 2);
    assert_int_equal(w.s->machine.epoch, 6);
    fake_stop(&w);
}

/* A request that kills whoever computes it is given up, and the world lives. */
static void test_request_that_kills(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "kill:plan/1/0/3");
    fake_generate(&w, 2);
    while (w.n_failed == 0) {
        fake_issue(&w);
        fake_turn(&w);
    }
    assert_int_equal(w.n_failed, 1);
    assert_false(w.failed_all);
    assert_int_equal(supervisor_rebuilds(w.s), 3);
    fake_wait(&w, WORLD_READY);
    assert_int_equal(supervisor_next_step(w.s), 3);
    fake_stop(&w);
}

/* Ranks that somebody outside kills. */
static void test_killed_from_outside(void **state)
{
    static const int signals[] = {SIGKILL, SIGSEGV, SIGTERM};
    struct fake_world w;

    (void)state;
    fake_start(&w, 3, NULL);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        char text[32];

        fake_generate(&w, 3);
        assert_int_equal(kill(supervisor_pid(w.s, 1), signals[i]), 0);
        fake_wait_rebuilt(&w, i + 1); /* idle: no step is needed to see it */
        snprintf(text, sizeof(text), "rank 1 died of signal %d", signals[i]);
        fake_expect_why(&w, text);
        assert_true(w.resume_kept == (signals[i] == SIGKILL));
    }
    fake_generate(&w, 3);
    kill(supervisor_pid(w.s, 2), SIGSTOP); /* a hang, as soon as there is something to do */
    fake_generate(&w, 3);
    assert_int_equal(supervisor_rebuilds(w.s), 4);
    fake_expect_why(&w, "rank 2 ");
    assert_true(w.resume_kept);
    fake_stop(&w);
}

/* Too few descriptors to start anything: no rank, no leak, and the reason is told. */
static void test_no_descriptors(void **state)
{
    struct fake_world w;
    struct supervisor_config config = fake_config(3);
    struct rlimit before;
    struct rlimit few;

    (void)state;
    config.world.probe_ms = 300;
    fake_open(&w, &config, NULL);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)fake_count_fds() + 4;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    supervisor_start(w.s);
    fake_wait(&w, WORLD_FAILED);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    fake_expect_why(&w, "Too many open files");
    fake_wait(&w, WORLD_READY);
    fake_generate(&w, 2);
    fake_stop(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_create_refused),
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_smoke),
        cmocka_unit_test(test_end_in_every_state),
        cmocka_unit_test(test_stop_busy),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_slowly),
        cmocka_unit_test(test_refused_later),
        cmocka_unit_test(test_another_build),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_request_that_kills),
        cmocka_unit_test(test_killed_from_outside),
        cmocka_unit_test(test_no_descriptors),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(getenv("LOCKSTEP_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
