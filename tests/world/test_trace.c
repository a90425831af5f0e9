/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recordings: their text, and what a supervisor over fake ranks puts into them, over rebuilds too;
 * and the ranks' counters, which are added up over epochs.
 */
#include "fake_sequence.h"

#include "world/trace.h"

/* The text as JSON; fails if it is none. */
static json_t *parse(const struct trace *trace, const char *model)
{
    struct buf text = {0};
    json_error_t error;
    json_t *json;

    trace_append_json(trace, model, &text);
    json = json_loads(buf_str(&text), JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        fail_msg("line %d: %s: %s", error.line, error.text, buf_str(&text));
    }
    buf_release(&text);
    return json;
}

static const char *str(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    assert_non_null(text);
    return text;
}

static uint64_t arg(const json_t *event, const char *key)
{
    const json_t *value = json_object_get(json_object_get(event, "args"), key);

    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static double number(const json_t *event, const char *key)
{
    const json_t *value = json_object_get(event, key);

    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* The events of a process and thread (0: any) whose category is cat; *ret_last is the last of them.
 */
static uint32_t count(const json_t *json, uint32_t pid, uint32_t tid, const char *cat,
                      const json_t **ret_last)
{
    const json_t *events = json_object_get(json, "traceEvents");
    uint32_t n = 0;

    assert_true(json_is_array(events));
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);

        if (strcmp(str(event, "ph"), "X") == 0 && number(event, "pid") == pid &&
            (tid == 0 || number(event, "tid") == tid) && strcmp(str(event, "cat"), cat) == 0) {
            if (ret_last != NULL) {
                *ret_last = event;
            }
            n++;
        }
    }
    return n;
}

static void test_text(void **state)
{
    const uint64_t base = (UINT64_C(7) << 32) + 1; /* the low half has just begun anew */
    const struct trace_record records[] = {
        {999, 5, TRACE_STEP, TRACE_DECODE, 0, 1, 0}, /* began before */
        {2000, 1500, TRACE_COLLECTIVE, TRACE_ALL_GATHER, 2, 3, 17},
        {1500, 2501, TRACE_LAYER, TRACE_DECODE, 2, 3, 0},
        {4001, 99, TRACE_LAYER, TRACE_DECODE, 2, 4, 0},
        {1000, 4000, TRACE_STEP, TRACE_PREFILL, UINT32_MAX, 33, 0},
    };
    struct trace *trace = trace_create(
        &(struct trace_config){.n_ranks = 2, .n_layers = 4, .next_step = base, .begin_ns = 1000});
    const json_t *event = NULL;
    json_t *json;

    (void)state;
    trace_add(trace, 1, records, ARRAY_LEN(records), 3);
    trace_add_step(trace, &(struct trace_leader_step){base + 1, 1000, 9000, 33, true});
    trace_add_step(trace, &(struct trace_leader_step){base + 2, 2000, 9500, 1, false});
    trace_add_step(trace, &(struct trace_leader_step){base, 10, 9500, 1, true}); /* before */
    trace_add_rebuild(trace, 10, 8000, 5);
    json = parse(trace, "a \"model\"\n\xc3\xa9");
    assert_string_equal(str(json_object_get(json, "otherData"), "model"), "a \"model\"\n\xc3\xa9");
    assert_int_equal(number(json_object_get(json, "otherData"), "lost_records"), 3);
    assert_int_equal(trace_n_lost(trace), 3);

    assert_int_equal(count(json, 3, 3, "collective", &event), 1);
    assert_string_equal(str(event, "name"), "all_gather");
    assert_true(number(event, "ts") == 1.0 && number(event, "dur") == 1.5);
    assert_int_equal(arg(event, "number"), 17);
    assert_int_equal(arg(event, "layer"), 3);
    assert_int_equal(arg(event, "step"), base + 1);
    assert_int_equal(count(json, 3, 2, "layer", &event), 2);
    assert_string_equal(str(event, "name"), "head");
    assert_true(number(event, "ts") == 3.001 && number(event, "dur") == 0.099);
    assert_int_equal(count(json, 3, 1, "prefill", &event), 1);
    assert_int_equal(arg(event, "step"), base - 2); /* before the low half began anew */
    assert_int_equal(arg(event, "rows"), 33);
    assert_int_equal(count(json, 3, 1, "decode", NULL), 0);
    assert_int_equal(count(json, 2, 0, "layer", NULL), 0);
    assert_int_equal(count(json, 1, 2 + (base + 1) % 2, "committed", &event), 1);
    assert_int_equal(count(json, 1, 0, "committed", NULL), 1);
    assert_int_equal(count(json, 1, 2 + base % 2, "void", &event), 1);
    assert_int_equal(count(json, 1, 1, "world", &event), 1);
    assert_true(number(event, "ts") == 0 && number(event, "dur") == 7);
    json_decref(json);
    json = parse(trace, "\xff"); /* no UTF-8: left out */
    assert_string_equal(str(json_object_get(json, "otherData"), "model"), "");
    json_decref(json);
    trace_destroy(&trace);
    assert_null(trace);
    trace_destroy(&trace);
}

static void test_empty(void **state)
{
    struct trace *trace = trace_create(&(struct trace_config){0});
    json_t *json = parse(trace, "m");

    (void)state;
    assert_int_equal(number(json_object_get(json, "otherData"), "ranks"), 0);
    json_decref(json);
    trace_destroy(&trace);
}

static void test_full(void **state)
{
    struct trace_record record = {.start_ns = 1, .kind = TRACE_STEP};
    struct trace *trace = trace_create(&(struct trace_config){.n_ranks = 1});

    (void)state;
    for (uint32_t i = 0; i < TRACE_MAX_RECORDS + 7; i++) {
        trace_add(trace, 0, &record, 1, 0);
    }
    assert_int_equal(trace_n_lost(trace), 7);
    trace_destroy(&trace);
}

/* Every step of the leader's that was committed has a step of each rank, with all its layers and
 * its collective, within it. */
static void expect_whole(const json_t *json, uint32_t n_ranks, uint32_t n_steps)
{
    assert_int_equal(count(json, 1, 0, "committed", NULL), n_steps);
    for (uint32_t r = 0; r < n_ranks; r++) {
        uint32_t n = count(json, 2 + r, 1, "decode", NULL);

        assert_true(n >= n_steps); /* a step may be done by one rank and void */
        assert_int_equal(count(json, 2 + r, 2, "layer", NULL), n * (FAKE_LAYERS + 1));
        assert_int_equal(count(json, 2 + r, 3, "collective", NULL), n);
    }
}

static void test_recording(void **state)
{
    struct supervisor_counters before;
    struct supervisor_counters after;
    const json_t *event = NULL;
    struct trace *trace;
    struct fake_world w;
    struct err err = {0};
    json_t *json;
    uint32_t n_commits;

    (void)state;
    fake_start(&w, 2, NULL);
    assert_null(supervisor_trace_end(w.s));
    fake_generate(&w, 2);
    assert_int_equal(supervisor_trace_begin(w.s, &err), STATUS_OK);
    assert_true(supervisor_tracing(w.s));
    assert_int_equal(supervisor_trace_begin(w.s, &err), STATUS_PENDING);
    n_commits = w.n_commits;
    fake_generate(&w, 5);
    supervisor_rank_counters(w.s, 1, &before);
    assert_int_equal(before.steps, w.n_commits);
    assert_true(before.step_ns > 0);
    kill(supervisor_pid(w.s, 1), SIGKILL);
    fake_wait_rebuilt(&w, 1);
    supervisor_rank_counters(w.s, 1, &after);
    assert_true(after.steps >= before.steps && after.step_ns >= before.step_ns);
    fake_generate(&w, 5);
    supervisor_rank_counters(w.s, 1, &after);
    assert_int_equal(after.steps, w.n_commits);
    assert_true(after.rows > before.rows);
    supervisor_rank_counters(w.s, 2, &after); /* there is no such rank */
    assert_int_equal(after.steps, 0);
    supervisor_rank_counters(w.s, UINT32_MAX, &after);
    assert_int_equal(after.steps, 0);

    trace = supervisor_trace_end(w.s);
    assert_false(supervisor_tracing(w.s));
    assert_non_null(trace);
    json = parse(trace, "fake");
    expect_whole(json, 2, w.n_commits - n_commits);
    assert_int_equal(count(json, 1, 1, "world", &event), 1);
    assert_int_equal(arg(event, "epoch"), 2);
    assert_int_equal(trace_n_lost(trace), 0);
    json_decref(json);
    trace_destroy(&trace);

    n_commits = w.n_commits;
    fake_generate(&w, 3); /* is not recorded */
    assert_int_equal(supervisor_trace_begin(w.s, &err), STATUS_OK);
    fake_generate(&w, 2);
    trace = supervisor_trace_end(w.s);
    json = parse(trace, "fake");
    expect_whole(json, 2, w.n_commits - n_commits - 3);
    json_decref(json);
    trace_destroy(&trace);

    assert_int_equal(supervisor_trace_begin(w.s, &err), STATUS_OK); /* nobody takes this one */
    fake_stop(&w);
}

/* Asked for while the world is down it begins with the first step; and how late a hang is noticed
 * is known. */
static void test_from_the_start(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct trace *trace;
    struct fake_world w;
    struct err err = {0};
    json_t *json;

    (void)state;
    fake_open(&w, &config, NULL);
    assert_int_equal(supervisor_trace_begin(w.s, &err), STATUS_OK);
    supervisor_start(w.s);
    fake_generate(&w, 3);
    assert_int_equal(supervisor_detection_ns(w.s), 0);
    kill(supervisor_pid(w.s, 0), SIGSTOP);
    fake_generate(&w, 2);
    assert_in_range(supervisor_detection_ns(w.s), config.hang_ms * FAKE_MS * 9 / 10,
                    FAKE_WAIT_MS * FAKE_MS);
    trace = supervisor_trace_end(w.s);
    json = parse(trace, "fake");
    expect_whole(json, 2, w.n_commits);
    assert_int_equal(count(json, 1, 0, "void", NULL), 1);
    json_decref(json);
    trace_destroy(&trace);
    kill(supervisor_pid(w.s, 1), SIGKILL);
    fake_wait_rebuilt(&w, 2);
    assert_in_range(supervisor_detection_ns(w.s), 1, FAKE_WAIT_MS * FAKE_MS);
    fake_stop(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),           cmocka_unit_test(test_empty),
        cmocka_unit_test(test_full),           cmocka_unit_test(test_recording),
        cmocka_unit_test(test_from_the_start),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(getenv("LOCKSTEP_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
