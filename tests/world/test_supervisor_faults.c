/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that misbehave in every way, one at a time, while the world comes up and while it computes:
 * it is rebuilt once, says which rank it was and why, and the sequence goes on with the tokens that
 * would have come; KV pages are kept only where every rank was killed or hung.
 */
#include "fake_sequence.h"

enum { N_RANKS = 3 };

struct row {
    const char *script;
    const char *why; /* one part */
    const char *also;
    bool kept; /* KV pages, after a fault in a step */
};

static void expect_one_rebuild(struct fake_world *w, const struct row *row)
{
    if (supervisor_rebuilds(w->s) != 1) {
        fail_msg("%s: %d rebuilds: %s", row->script, (int)supervisor_rebuilds(w->s),
                 supervisor_why(w->s));
    }
    fake_expect_why(w, row->why);
    fake_expect_why(w, row->also);
    assert_int_equal(w->s->machine.epoch, 2);
    assert_false(w->failed_all);
    assert_int_equal(w->n_failed, 0);
    assert_true(supervisor_fault_ns(w->s) > 0);
}

/* --- While the world comes up --- */

static const struct row starting[] = {
    {"kill:hello/1/1/0", "rank 1", "signal 9"},
    {"exit:hello/2/1/0", "rank 2", "3"},
    {"close:hello/0/1/0", "rank 0", "closed the channel"},
    {"rubbish:hello/1/1/0", "rank 1", "rubbish"},
    {"flood:hello/1/1/0", "rank 1", "floods"},
    {"wrong:hello/1/1/0", "rank 1", "sent pong where hello is due"},
    {"bug:hello/1/1/0", "rank 1", "this cannot be"},
    {"kill:comm_init/0/1/0", "rank 0", "signal 9"},
    {"exit0:comm_init/1/1/0", "rank 1", "0"},
    {"close:comm_init/1/1/0", "rank 1", "closed the channel"},
    {"rubbish:comm_init/2/1/0", "rank 2", "rubbish"},
    {"wrong:comm_init/1/1/0", "rank 1", "sent pong where init_ok is due"},
    {"link:comm_init/1/1/0", "rank 1", "a peer has left"},
    {"kill:sanity/2/1/0", "rank 2", "signal 9"},
    {"exit:sanity/1/1/0", "rank 1", "3"},
    {"wrong:sanity/1/1/0", "rank 1", "sent pong where sanity_result is due"},
    {"sum:sanity/1/1/0", "rank 1", "4"},
    {"link:sanity/1/1/0", "rank 1", "a peer has left"},
    {"kill:load/1/1/0", "rank 1", "signal 9"},
    {"exit:load/0/1/0", "rank 0", "3"},
    {"close:load/1/1/0", "rank 1", "closed the channel"},
    {"flood:load/1/1/0", "rank 1", "floods"},
    {"wrong:load/1/1/0", "rank 1", "sent pong where load_ok is due"},
    {"device:load/1/1/0", "rank 1", "the device is in the woods"},
    {"link:load/1/1/0", "rank 1", "a peer has left"},
    {"bug:load/1/1/0", "rank 1", "this cannot be"},
};

static void test_starting(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(starting); i++) {
        struct fake_world w;

        fake_start(&w, N_RANKS, starting[i].script);
        fake_wait(&w, WORLD_READY);
        expect_one_rebuild(&w, &starting[i]);
        assert_int_equal(w.n_resumes, 1); /* it never was ready before */
        assert_false(w.resume_kept);
        fake_expect_load(&w, "keep_weights", false);
        fake_expect_load(&w, "keep_kv", false);
        fake_generate(&w, 2);
        fake_stop(&w);
    }
}

/* A rank that says nothing in time is named, with the state it kept the others waiting in. */
static void test_late(void **state)
{
    static const struct row rows[] = {
        {"mute:hello/1/1/0", "rank 1", "hello"},
        {"deaf:hello/2/1/0", "rank 2", "comm_init"},
        {"mute:sanity/0/1/0", "rank 0", "sanity"},
        {"hang:load/1/1/0", "rank 1", "load"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct supervisor_config config = fake_config(N_RANKS);
        struct fake_world w;

        config.world.hello_ms = i == 0 ? 1500 : 10000;
        config.world.comm_init_ms = i == 1 ? 1500 : 10000;
        config.world.sanity_ms = i == 2 ? 1500 : 10000;
        config.world.load_ms = i == 3 ? 1500 : 10000;
        fake_open(&w, &config, rows[i].script);
        supervisor_start(w.s);
        fake_wait(&w, WORLD_READY);
        expect_one_rebuild(&w, &rows[i]);
        fake_generate(&w, 1);
        fake_stop(&w);
    }
}

/* --- While it computes --- */

static const struct row computing[] = {
    {"kill:plan/1/1/4", "rank 1", "signal 9", true},
    {"kill:plan/99/1/4", "rank ", "signal 9", true},
    {"hang:plan/2/1/4", "rank 2", "step 4", true},
    {"mute:plan/1/1/4", "rank 1", "step 4", true},
    {"exit0:plan/1/1/4", "rank 1", "0", false},
    {"exit:plan/0/1/4", "rank 0", "3", false},
    {"close:plan/1/1/4", "rank 1", "closed the channel", false},
    {"rubbish:plan/1/1/4", "rank 1", "rubbish", false},
    {"flood:plan/1/1/4", "rank 1", "floods", false},
    {"hash:plan/1/1/4", "rank 1", "disagrees on the plan of step 4", false},
    {"number:plan/1/1/4", "rank 1", "disagrees on the plan of step 4", false},
    {"state:plan/2/1/4", "disagrees on the residual stream of step 4", "rank ", false},
    {"token:plan/2/1/4", "disagrees on what was sampled of step 4", "rank ", false},
    {"junk:plan/1/1/4", "rank 1", "rubbish in the place of a result", false},
    {"other:plan/1/1/4", "rank 1", "bug", false},
    {"twice:plan/1/1/4", "rank 1", "", false},
    {"link:plan/1/1/4", "rank 1", "a peer has left", false},
    {"memory:plan/1/1/4", "rank 1", "no memory is left here", false},
    {"device:plan/1/1/4", "rank 1", "the device is in the woods", false},
    {"bug:plan/1/1/4", "rank 1", "this cannot be", false},
    {"user:plan/1/1/4", "rank 1", "the file has no such tensor", false},
    /* a second death, of another kind, before all are reaped */
    {"kill:plan/0/1/4 exit:plan/1/1/4", "rank ", "", false},
};

static void test_computing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(computing); i++) {
        const struct row *row = &computing[i];
        bool either = strchr(row->script, ' ') != NULL; /* SIGKILL may be faster than the exit */
        struct fake_world w;

        fake_start(&w, N_RANKS, row->script);
        fake_generate(&w, 5);
        fake_wait_rebuilt(&w, 1); /* some faults show after the step */
        fake_generate(&w, 3);
        expect_one_rebuild(&w, row);
        assert_int_equal(w.n_resumes, 2);
        assert_true(either || w.resume_kept == row->kept);
        fake_expect_load(&w, "keep_weights", true);
        fake_expect_load(&w, "sealed", true);
        fake_expect_load(&w, "host_sealed", true);
        fake_expect_load(&w, "keep_kv", w.resume_kept);
        fake_stop(&w);
    }
}

/* Without kept memory everything is made anew, whatever the fault. */
static void test_nothing_kept(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct fake_world w;

    (void)state;
    config.world.keeps_kv = false;
    config.world.keeps_weights = false;
    fake_open(&w, &config, "kill:plan/1/1/4");
    supervisor_start(w.s);
    fake_generate(&w, 8);
    assert_false(w.resume_kept);
    fake_expect_load(&w, "keep_weights", false);
    fake_expect_load(&w, "keep_kv", false);
    fake_expect_load(&w, "sealed", false);
    fake_stop(&w);
}

/* KV pages are not kept over two faults of which the first was no kill, and are again later on. */
static void test_trust(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2,
               "exit:plan/1/1/4 kill:load/0/2/0 kill:plan/1/3/8 exit:load/1/4/0 kill:plan/0/5/12");
    fake_generate(&w, 4);
    assert_int_equal(w.s->machine.epoch, 3);
    fake_expect_load(&w, "keep_kv", false); /* the kill came before any page was right again */
    fake_generate(&w, 6);
    assert_int_equal(w.s->machine.epoch, 5);
    fake_expect_load(&w, "keep_kv", false); /* killed, but then one exited in the load */
    fake_expect_load(&w, "keep_weights", true);
    fake_generate(&w, 4);
    assert_int_equal(w.s->machine.epoch, 6);
    fake_expect_load(&w, "keep_kv", true);
    fake_stop(&w);
}

/* Frames that nobody asked for, a few of them, change nothing and are counted. */
static void test_stale_frames(void **state)
{
    struct fake_world w;
    const struct channel_counters *c;

    (void)state;
    fake_start(&w, 2,
               "old:hello/0/1/0 old:sanity/0/1/0 stray:comm_init/0/1/0 stray:load/0/1/0 "
               "twice:hello/0/1/0 old:plan/0/1/3");
    fake_generate(&w, 5);
    assert_int_equal(supervisor_rebuilds(w.s), 0);
    c = &w.s->members[0].channel.counters;
    assert_int_equal(c->dropped_epoch, 3);
    assert_int_equal(c->dropped_seq, 3);
    c = &w.s->members[1].channel.counters;
    assert_int_equal(c->dropped_epoch + c->dropped_seq, 0);
    fake_stop(&w);
}

/* What ranks print is no message, whatever it looks like: nothing is disturbed or even dropped. */
static void test_output_is_no_message(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2,
               "shout:hello/0/1/0 shout:comm_init/1/1/0 shout:sanity/1/1/0 shout:load/0/1/0 "
               "shout:plan/1/1/3 shout:plan/0/1/4");
    fake_generate(&w, 5);
    assert_int_equal(supervisor_rebuilds(w.s), 0);
    for (uint32_t r = 0; r < 2; r++) {
        const struct channel_counters *c = &w.s->members[r].channel.counters;

        assert_int_equal(c->dropped_epoch + c->dropped_seq, 0);
    }
    fake_stop(&w);
}

/* A rank that floods the leader with signs of life is cut off in the end, and keeps nobody from
 * being heard meanwhile. */
static void test_flood_of_progress(void **state)
{
    struct fake_world w;

    (void)state;
    fake_start(&w, 2, "progress:load/1/1/0");
    fake_wait(&w, WORLD_READY);
    fake_expect_why(&w, "rank 1");
    fake_expect_why(&w, "floods the channel with load_progress");
    fake_generate(&w, 1);
    fake_stop(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starting),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_computing),
        cmocka_unit_test(test_nothing_kept),
        cmocka_unit_test(test_trust),
        cmocka_unit_test(test_stale_frames),
        cmocka_unit_test(test_output_is_no_message),
        cmocka_unit_test(test_flood_of_progress),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
