/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said between a ready world and its leader besides plans in the ring: questions and their
 * late or missing answers, faults to be injected, plans too long for the ring, and what the leader
 * tells of itself.
 */
#include "fake_sequence.h"

static void wait_answers(struct fake_world *w)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;

    while (supervisor_asking(w->s) && clock_ns() < end) {
        fake_turn(w);
    }
    assert_false(supervisor_asking(w->s));
}

static void expect_answers(struct fake_world *w, uint32_t n_ranks)
{
    for (uint32_t r = 0; r < n_ranks; r++) {
        const json_t *answer = supervisor_answer(w->s, MESSAGE_QUERY_RESULT, r);

        assert_int_equal(message_uint(json_object_get(answer, "memory"), "rank", 99), r);
    }
}

static void test_query(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 3, NULL);
    supervisor_query(w.s); /* before anybody is there to be asked */
    assert_true(supervisor_asking(w.s));
    wait_answers(&w);
    expect_answers(&w, 3);
    fake_generate(&w, 2);
    fake_issue(&w); /* with a step under way */
    supervisor_query(w.s);
    wait_answers(&w);
    expect_answers(&w, 3);
    fake_generate(&w, 2);
    assert_int_equal(supervisor_rebuilds(w.s), 0);
    fake_stop(&w);
}

/* A rank that dies of the question: it is asked again in the next epoch, or the asking is over. */
static void test_query_kills(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "kill:query/1/1/0");
    fake_generate(&w, 2);
    supervisor_query(w.s);
    wait_answers(&w);
    fake_wait_rebuilt(&w, 1);
    fake_expect_why(&w, "rank 1 died of signal 9");
    assert_true(w.resume_kept);
    supervisor_query(w.s);
    wait_answers(&w);
    expect_answers(&w, 2);
    fake_generate(&w, 2);
    fake_stop(&w);
}

/* Answers that come after the next thing was asked are dropped and counted. */
static void test_late_answer(void **state)
{
    struct fake_world w;
    struct channel *channel;
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;
    struct supervisor_config config = fake_config(2);

    (void)state;
    config.hang_ms = 5000; /* else a pause of the machine makes the slow rank a hanging one */
    config.world.stop_ms = 5000;
    fake_open(&w, &config, "slow:query/1/1/0");
    supervisor_start(w.s);
    fake_generate(&w, 2);
    supervisor_query(w.s);
    while (supervisor_answer(w.s, MESSAGE_QUERY_RESULT, 0) == NULL && clock_ns() < end) {
        fake_turn(&w);
    }
    assert_true(supervisor_asking(w.s));
    supervisor_stop(w.s); /* which asks for the unloading, then for the shutdown */
    channel = &w.s->members[1].channel;
    while (channel->counters.dropped_seq == 0 && supervisor_state(w.s) == WORLD_STOPPING) {
        fake_turn(&w);
    }
    assert_int_equal(channel->counters.dropped_seq, 1);
    fake_wait(&w, WORLD_DOWN);
    fake_close(&w);
}

/* A rank that never answers: every wait has a deadline. */
static void test_no_answer(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "mute:query/1/1/0");
    fake_generate(&w, 2);
    supervisor_query(w.s);
    fake_wait_rebuilt(&w, 1);
    assert_int_equal(supervisor_rebuilds(w.s), 1);
    fake_expect_why(&w, "rank 1");
    fake_expect_why(&w, "query");
    fake_generate(&w, 2);
    fake_stop(&w);
}

/* --- Faults to be injected --- */

/* The ranks are told of one at a time. */
static void expect_all_armed(struct fake_world *w)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;
    uint32_t n = 0;

    while (n < w->s->n_faults && clock_ns() < end) {
        n += w->s->faults[n].armed;
        fake_turn(w);
    }
    for (n = 0; n < w->s->n_faults; n++) {
        assert_true(w->s->faults[n].armed);
        assert_false(w->s->faults[n].fired);
    }
}

static void test_inject(void **state)
{
    struct fault_spec spec = {.kind = FAULT_KILL, .rank = 1, .has_step = true, .step = 1000};
    struct fake_world w;
    struct err err = {0};

    (void)state;
    fake_start(&w, 2, NULL);
    spec.rank = 2;
    assert_int_equal(supervisor_inject(w.s, &spec, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "no rank 2"));
    for (uint32_t i = 0; i < SUPERVISOR_MAX_FAULTS; i++) {
        spec.rank = i % 2;
        assert_int_equal(supervisor_inject(w.s, &spec, &err), STATUS_OK);
    }
    assert_int_equal(supervisor_inject(w.s, &spec, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "64 faults"));
    fake_generate(&w, 5);
    expect_all_armed(&w);
    kill(supervisor_pid(w.s, 0), SIGKILL); /* the next epoch is told of them again */
    fake_wait_rebuilt(&w, 1);
    fake_generate(&w, 5);
    expect_all_armed(&w);
    assert_int_equal(supervisor_rebuilds(w.s), 1);
    fake_stop(&w);
}

/* A rank that will not be told of a fault is no worse than before. */
static void test_inject_refused(void **state)
{
    const struct fault_spec spec = {.kind = FAULT_KILL, .rank = 1, .has_step = true, .step = 1000};
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "user:fault/1/1/0");
    fake_generate(&w, 2);
    assert_int_equal(supervisor_inject(w.s, &spec, NULL), STATUS_OK);
    fake_generate(&w, 10);
    supervisor_query(w.s);
    wait_answers(&w);
    assert_int_equal(supervisor_rebuilds(w.s), 0);
    fake_stop(&w);
}

/* --- Plans too long for the ring --- */

enum { LONG_BIAS = 9000, LONG_SLOT = 3 };

struct long_step {
    struct plan_bias bias[LONG_BIAS];
    int32_t tokens[2];
    uint32_t pages[1];
    struct plan_params params;
    struct plan_segment segment;
    struct plan_want want;
    struct step_plan plan;
};

static void make_long(struct long_step *step, uint32_t n_bias)
{
    *step = (struct long_step){
        .tokens = {5, 6},
        .pages = {0},
        .params = {.seed = 7, .slot = LONG_SLOT, .n_bias = n_bias, .n_prompt = 2},
        .segment = {.slot = LONG_SLOT, .n = 2, .n_pages = 1},
        .want = {.row = 1, .slot = LONG_SLOT},
    };
    for (uint32_t i = 0; i < n_bias; i++) {
        step->bias[i] = (struct plan_bias){.token = i % FAKE_VOCAB, .add = 1};
    }
    step->plan = (struct step_plan){
        .tokens = step->tokens,
        .n_tokens = 2,
        .segments = &step->segment,
        .n_segments = 1,
        .pages = step->pages,
        .n_pages = 1,
        .wants = &step->want,
        .n_wants = 1,
        .params = &step->params,
        .n_params = 1,
        .bias = step->bias,
        .n_bias = n_bias,
        .history = step->tokens,
        .n_history = 2,
    };
}

struct taken {
    struct fake_world world;
    int32_t token;
};

static void take_token(void *arg, const struct step_result *result)
{
    struct taken *taken = arg;

    assert_int_equal(result->n_tokens, 1);
    taken->token = result->tokens[0].token;
    taken->world.last_step = result->step;
}

static void no_resume(UNUSED void *arg, UNUSED bool keep_kv, UNUSED const uint64_t *alone,
                      UNUSED size_t n)
{
}

static void open_taken(struct taken *taken, const char *script)
{
    struct supervisor_config config = fake_config(2);

    fake_open(&taken->world, &config, script);
    taken->world.s->config.on.arg = taken;
    taken->world.s->config.on.commit = take_token;
    taken->world.s->config.on.resume = no_resume;
    supervisor_start(taken->world.s);
    fake_wait(&taken->world, WORLD_READY);
}

/* Issues the plan and waits for its token, issuing it again after a rebuild. */
static void run_plan(struct taken *taken, struct long_step *step)
{
    struct world_part part = {.request = 9};
    uint64_t goal = taken->world.last_step + 1;
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;

    while (taken->world.last_step < goal && clock_ns() < end) {
        struct supervisor *s = taken->world.s;

        if (s->n_steps == 0 && supervisor_can_issue(s)) {
            enum status status = supervisor_issue(s, &step->plan, &part, 1, NULL);

            assert_true(status == STATUS_OK || status == STATUS_PENDING);
        }
        fake_turn(&taken->world);
    }
    assert_int_equal(taken->world.last_step, goal);
    assert_int_equal(taken->token,
                     fake_token(fake_key(&step->params, step->bias), step->tokens, 2));
}

static void test_long_plans(void **state)
{
    static struct long_step step;
    static struct taken taken;

    (void)state;
    open_taken(&taken, NULL);
    for (uint32_t i = 0; i < 6; i++) {
        make_long(&step, i % 3 == 2 ? 3 : LONG_BIAS);
        if (i >= 3) {
            supervisor_query(taken.world.s); /* the channel has something else to carry */
        }
        run_plan(&taken, &step);
    }
    assert_int_equal(supervisor_rebuilds(taken.world.s), 0);
    fake_stop(&taken.world);
}

/* While it is under way nothing else is issued, and what goes wrong with it is found as with any.
 */
static void test_long_plan_alone(void **state)
{
    static struct long_step step;
    static struct taken taken;
    struct world_part part = {.request = 9};

    (void)state;
    open_taken(&taken, NULL);
    make_long(&step, LONG_BIAS);
    assert_int_equal(supervisor_issue(taken.world.s, &step.plan, &part, 1, NULL), STATUS_OK);
    assert_false(supervisor_can_issue(taken.world.s));
    make_long(&step, 1);
    assert_int_equal(supervisor_issue(taken.world.s, &step.plan, &part, 1, NULL), STATUS_PENDING);
    while (taken.world.last_step == 0) {
        fake_turn(&taken.world);
    }
    run_plan(&taken, &step);
    /* a short one in flight: the long one waits */
    assert_int_equal(supervisor_issue(taken.world.s, &step.plan, &part, 1, NULL), STATUS_OK);
    make_long(&step, LONG_BIAS);
    assert_int_equal(supervisor_issue(taken.world.s, &step.plan, &part, 1, NULL), STATUS_PENDING);
    while (taken.world.last_step == 2) {
        fake_turn(&taken.world);
    }
    fake_stop(&taken.world);
}

static void test_long_plan_faults(void **state)
{
    static const char *const scripts[] = {
        "kill:plan/1/1/2", "mute:step/1/1/2", "user:step/1/1/2",  "bug:step/1/1/2",
        "junk:plan/1/1/2", "hash:plan/1/1/2", "close:step/1/1/2",
    };
    static struct long_step step;
    static struct taken taken;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        open_taken(&taken, scripts[i]);
        make_long(&step, LONG_BIAS);
        run_plan(&taken, &step);
        run_plan(&taken, &step);
        run_plan(&taken, &step);
        if (supervisor_rebuilds(taken.world.s) != 1) {
            fail_msg("%s: %d rebuilds", scripts[i], (int)supervisor_rebuilds(taken.world.s));
        }
        fake_expect_why(&taken.world, "rank 1");
        fake_stop(&taken.world);
    }
}

/* --- What it tells, and waits for --- */

static void test_describe(void **state)
{
    struct fake_world w;
    json_t *told;
    json_t *ranks;

    (void)state;
    fake_start(&w, 2, "old:sanity/1/2/0 kill:plan/1/1/2");
    fake_generate(&w, 3);
    told = supervisor_describe(w.s);
    ranks = json_object_get(told, "ranks");
    assert_string_equal(message_text(told, "state", ""), "ready");
    assert_int_equal(message_uint(told, "epoch", 0), 2);
    assert_int_equal(message_uint(told, "rebuilds", 0), 1);
    assert_int_equal(message_uint(told, "next_step", 0), 4);
    assert_non_null(strstr(message_text(told, "why", ""), "rank 1 died of signal 9"));
    assert_int_equal(json_array_size(ranks), 2);
    assert_int_equal(message_uint(json_array_get(ranks, 1), "pid", 0), supervisor_pid(w.s, 1));
    assert_int_equal(message_uint(json_array_get(ranks, 1), "frames_dropped_epoch", 0), 1);
    json_decref(told);
    supervisor_stop(w.s);
    fake_wait(&w, WORLD_DOWN);
    told = supervisor_describe(w.s);
    assert_string_equal(message_text(told, "state", ""), "down");
    json_decref(told);
    fake_close(&w);
}

/* The caller's own descriptors are watched, idle and with a step under way. */
static void test_extra_descriptors(void **state)
{
    struct fake_world w;
    int ends[2];
    uint64_t start;

    (void)state;
    fake_start(&w, 2, "slow:plan/1/1/2");
    fake_generate(&w, 1);
    assert_int_equal(pipe(ends), 0);
    for (int busy = 0; busy < 2; busy++) {
        struct pollfd extra = {.fd = ends[0], .events = POLLIN};

        if (busy) {
            fake_issue(&w);
        }
        assert_int_equal(write(ends[1], "x", 1), 1);
        start = clock_ns();
        while (extra.revents == 0 && clock_ns() - start < 2000 * FAKE_MS) {
            supervisor_turn(w.s, clock_ns() + 5000 * FAKE_MS, &extra, 1);
        }
        assert_int_equal(extra.revents, POLLIN);
        assert_int_equal(read(ends[0], &(char){0}, 1), 1);
    }
    fake_generate(&w, 2);
    close(ends[0]);
    close(ends[1]);
    fake_stop(&w);
}

/* While a step takes its time the leader sleeps, also after an idle while. */
static void test_sleeps(void **state)
{
    struct fake_world w;
    uint32_t n_turns = 0;

    (void)state;
    fake_start(&w, 2, "slow:plan/1/1/2");
    fake_generate(&w, 1);
    fake_issue(&w);
    while (w.last_step < 2) {
        supervisor_turn(w.s, clock_ns() + 5000 * FAKE_MS, NULL, 0);
        n_turns++;
    }
    print_message("%u turns in a step of %d ms\n", n_turns, FAKE_SLOW_MS);
    assert_true(n_turns <= FAKE_SLOW_MS); /* one takes 1.5 ms */
    fake_stop(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),           cmocka_unit_test(test_query_kills),
        cmocka_unit_test(test_late_answer),     cmocka_unit_test(test_inject),
        cmocka_unit_test(test_inject_refused),  cmocka_unit_test(test_long_plans),
        cmocka_unit_test(test_long_plan_alone), cmocka_unit_test(test_long_plan_faults),
        cmocka_unit_test(test_describe),        cmocka_unit_test(test_extra_descriptors),
        cmocka_unit_test(test_no_answer),       cmocka_unit_test(test_sleeps),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(getenv("LOCKSTEP_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
