/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's rules, one at a time. Random mixes of all of it are test_sched_walk.c. */
#include "sched/sched_priv.h"
#include "sim_step.h"

static void open_plain(struct sim *sim, uint32_t max_running, uint32_t max_rows, uint32_t n_pages)
{
    sim_open(sim, &(struct sched_config){.max_running = max_running,
                                         .max_queue = 1000,
                                         .max_rows = max_rows,
                                         .max_score_rows = 4,
                                         .n_pages = n_pages});
}

static void expect_refused(struct sim *sim, struct sim_request request, enum status status,
                           const char *words)
{
    struct err err = {0};

    assert_int_equal(sim_add(sim, &request, &err), status);
    if (strstr(err.text, words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    }
}

static void test_refused(void **state)
{
    struct sim sim = {0};
    struct sim_request score = sim_ask(1, 1, 5, 5);
    struct sim_request fit[4] = {sim_ask(1, 1, 90, 7), sim_ask(1, 1, 5, 5), sim_ask(1, 1, 5, 5),
                                 sim_ask(1, 1, 5, 5)};

    (void)state;
    sim_open(&sim, &(struct sched_config){
                       .max_running = 2, .max_queue = 2, .max_rows = 8, .n_pages = 24});
    expect_refused(&sim, sim_ask(1, 1, 96, 1), STATUS_INVALID, "96 prompt tokens and 1 to");
    expect_refused(&sim, sim_ask(1, 1, 90, 8), STATUS_INVALID, "context of 96");
    expect_refused(&sim, sim_ask(1, 1, 1, UINT32_MAX), STATUS_INVALID, "4294967295 to generate");
    expect_refused(&sim, sim_ask(1, 1, 0, 1), STATUS_INVALID, "a prompt");
    expect_refused(&sim, sim_ask(1, 1, 1, 0), STATUS_INVALID, "to generate");
    score.asked.score = true;
    expect_refused(&sim, score, STATUS_INVALID, "not computed here");
    for (int i = 0; i < 4; i++) {
        sim_must_add(&sim, &fit[i]);
    }
    expect_refused(&sim, sim_ask(1, 1, 5, 5), STATUS_LIMIT, "0 requests run and 4 wait");
    sim_turn(&sim);
    expect_refused(&sim, sim_ask(1, 1, 5, 5), STATUS_LIMIT, "wait");
    sim_run(&sim, fit, 4, 1000);
    sim_close(&sim);
    open_plain(&sim, 2, 8, 10);
    expect_refused(&sim, sim_ask(1, 1, 30, 12), STATUS_INVALID, "need 11 KV pages of 4 tokens");
    sim_close(&sim);
}

/* Those that decode have a row each, and a prompt gets what is left. */
static void test_chunks(void **state)
{
    struct sim sim = {0};
    struct sim_request a = sim_ask(1, 1, 3, 40);
    struct sim_request b = sim_ask(1, 100, 50, 2);
    const struct sim_step *step = &sim.steps[0];

    (void)state;
    open_plain(&sim, 4, 10, 100);
    sim_must_add(&sim, &a);
    sim_turn(&sim);
    sim_commit(&sim);
    sim_must_add(&sim, &b);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(sim_issue(&sim, false), 2);
        assert_ptr_equal(step->parts[0].seq, a.seq);
        assert_int_equal(step->parts[0].n, 1);
        assert_true(step->parts[0].want);
        assert_int_equal(step->parts[1].begin, 9 * i);
        assert_int_equal(step->parts[1].n, 9);
        assert_false(step->parts[1].want);
        sim_commit(&sim);
    }
    assert_int_equal(sim_issue(&sim, false), 2);
    assert_int_equal(step->parts[1].n, 5);
    assert_true(step->parts[1].want);
    assert_int_equal(sim_issue(&sim, false), 2); /* one step ahead */
    assert_true(sim.steps[1].parts[0].by_ref && sim.steps[1].parts[1].by_ref);
    assert_int_equal(sim_issue(&sim, false), 0);
    sim_run(&sim, &a, 1, 100);
    assert_null(b.seq);
    sim_close(&sim);
}

/* Fewer rows than sequences that decode: all get on. */
static void test_few_rows(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[6];
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;

    (void)state;
    open_plain(&sim, 6, 4, 100);
    for (int i = 0; i < 6; i++) {
        requests[i] = sim_ask(1, 100 * i, 1, 60);
        sim_must_add(&sim, &requests[i]);
    }
    for (int i = 0; i < 60; i++) {
        (void)sim_issue(&sim, false);
        sim_commit(&sim);
    }
    for (int i = 0; i < 6; i++) {
        least = MIN(least, requests[i].n_known);
        most = MAX(most, requests[i].n_known);
    }
    assert_true(least >= 35 && most - least <= 3);
    sim_run(&sim, requests, 6, 1000);
    sim_close(&sim);
}

/* Requests with equal beginnings at once: it is computed once. */
static void test_prefix_is_awaited(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[8];
    struct sim_request other = sim_ask(1, 500, 10, 1);
    uint32_t n_cached = 0;

    (void)state;
    open_plain(&sim, 9, 16, 200);
    for (int i = 0; i < 8; i++) {
        requests[i] = sim_ask(1, 1, 42, 1);
        sim_must_add(&sim, &requests[i]);
    }
    sim_must_add(&sim, &other); /* waits for none of that */
    sim_turn(&sim);
    assert_true(other.seq->running && requests[0].seq->running && !requests[1].seq->running);
    sim_run(&sim, requests, 8, 1000);
    sim_run(&sim, &other, 1, 1000);
    for (int i = 0; i < 8; i++) {
        n_cached += requests[i].n_cached;
    }
    assert_int_equal(n_cached, 7 * 40);
    assert_int_equal(sim.n_rows, 42 + 7 * 2 + 10);
    assert_int_equal(sched_counts(sim.s).prefix_queries, 8 * 42 + 10);
    assert_int_equal(sched_counts(sim.s).prefix_hits, 7 * 40);
    sim_close(&sim);
}

/* The one who computes it goes: another takes over. */
static void test_awaited_goes(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[3] = {sim_ask(1, 1, 42, 3), sim_ask(1, 1, 42, 3),
                                      sim_ask(1, 1, 42, 3)};

    (void)state;
    open_plain(&sim, 4, 8, 100);
    for (int i = 0; i < 3; i++) {
        sim_must_add(&sim, &requests[i]);
    }
    sim_turn(&sim);
    sim_turn(&sim);
    sim_commit(&sim);
    sim_remove(&sim, &requests[0]);
    sim_run(&sim, requests, 3, 1000);
    assert_int_equal(requests[1].n_cached, 16);
    assert_int_equal(requests[2].n_cached, 40);
    sim_close(&sim);
}

/* Other salts share nothing. */
static void test_salts(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[3] = {sim_ask(1, 1, 42, 1), sim_ask(1, 1, 42, 1),
                                      sim_ask(1, 1, 42, 1)};

    (void)state;
    open_plain(&sim, 4, 100, 100);
    requests[1].asked.salt = 5;
    for (int i = 0; i < 3; i++) {
        sim_must_add(&sim, &requests[i]);
        sim_run(&sim, &requests[i], 1, 100);
    }
    assert_int_equal(requests[1].n_cached, 0);
    assert_int_equal(requests[2].n_cached, 40);
    sim_close(&sim);
}

/* The last token of a prompt is computed, however much of it is cached. */
static void test_last_is_computed(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[2] = {sim_ask(1, 1, 40, 1), sim_ask(1, 1, 40, 1)};

    (void)state;
    open_plain(&sim, 4, 100, 100);
    for (int i = 0; i < 2; i++) {
        sim_must_add(&sim, &requests[i]);
        sim_run(&sim, &requests[i], 1, 100);
    }
    assert_int_equal(requests[1].n_cached, 36);
    sim_close(&sim);
}

/* --- Order --- */

static void test_priorities(void **state)
{
    static const int32_t priorities[] = {5, 0, INT32_MIN, 0, INT32_MAX};
    static const uint64_t order[] = {4, 2, 1, 3, 5};
    struct sim sim = {0};
    struct sim_request requests[5];

    (void)state;
    open_plain(&sim, 1, 100, 100);
    for (int i = 0; i < 5; i++) {
        requests[i] = sim_ask(1, 100 * i, 6, 2);
        requests[i].asked.priority = priorities[i];
        sim_must_add(&sim, &requests[i]);
    }
    sim_run(&sim, requests, 5, 100);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(requests[i].number, order[i]);
    }
    sim_close(&sim);
}

/* Urgent requests without end: the others come about as well, and once they run they stay. */
static void test_age(void **state)
{
    struct sim sim = {0};
    struct sim_request slow[3] = {sim_ask(2, 600, 6, 20), sim_ask(3, 700, 6, 20),
                                  sim_ask(3, 800, 6, 20)};
    struct sim_request urgent[8];
    bool raised = false;

    (void)state;
    open_plain(&sim, 4, 100, 12); /* few pages: somebody is preempted all the time */
    for (int i = 0; i < 8; i++) {
        urgent[i] = sim_ask(1, 0, 6, 20);
        urgent[i].asked.priority = -10;
        sim_must_add(&sim, &urgent[i]);
    }
    for (int i = 0; i < 3; i++) {
        slow[i].asked.priority = 10 + i;
        sim_must_add(&sim, &slow[i]);
    }
    for (int turn = 0; turn < 3000; turn++) {
        sim_turn(&sim);
        for (int i = 0; i < 3; i++) { /* one that was let in for its age is as urgent as they are */
            raised = raised || (slow[i].seq != NULL && slow[i].seq->priority == -10);
        }
        for (int i = 0; i < 8; i++) {
            if (urgent[i].seq == NULL) {
                urgent[i] = sim_ask(1, (int32_t)(turn % 500), 6, 20);
                urgent[i].asked.priority = -10;
                sim_must_add(&sim, &urgent[i]);
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        assert_true(slow[i].done);
        assert_true(slow[i].number <= 4u * (SCHED_AGE_AFTER + 2));
    }
    assert_true(raised);
    assert_true(sched_counts(sim.s).preemptions > 0);
    for (int i = 0; i < 8; i++) {
        sim_remove(&sim, &urgent[i]);
    }
    sim_close(&sim);
}

/* The newest of the lowest priority makes room, and goes on as soon as it can. */
static void test_preemption(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[4];

    (void)state;
    open_plain(&sim, 4, 100, 20);
    for (int i = 0; i < 4; i++) {
        requests[i] = sim_ask(1, 100 * i, 12, 30);
        requests[i].asked.priority = i == 1;
        sim_must_add(&sim, &requests[i]);
    }
    while (sched_counts(sim.s).preemptions == 0) {
        sim_turn(&sim);
    }
    assert_false(requests[1].seq->running);
    while (sched_counts(sim.s).preemptions == 1) {
        sim_turn(&sim);
    }
    assert_true(requests[0].seq->running && requests[2].seq->running);
    assert_false(requests[3].seq->running);
    sim_run(&sim, requests, 4, 1000);
    sim_close(&sim);
}

/* Those that ran go on before others of their priority begin, in the order of their arrival,
 * whatever their tenant has had. */
static void test_those_that_ran_go_first(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[4] = {sim_ask(1, 1, 30, 30), sim_ask(1, 100, 30, 30),
                                      sim_ask(2, 200, 3, 3), sim_ask(2, 300, 3, 3)};

    (void)state;
    open_plain(&sim, 2, 100, 100);
    sim_must_add(&sim, &requests[0]);
    sim_must_add(&sim, &requests[1]);
    sim_turn(&sim);
    sim_must_add(&sim, &requests[2]);
    sim_must_add(&sim, &requests[3]);
    sim_turn(&sim);
    sim.n_steps = 0;
    sched_reset(sim.s);
    assert_ptr_equal(requests[0].seq->queue->first, requests[0].seq);
    assert_ptr_equal(requests[0].seq->next, requests[1].seq);
    sim_turn(&sim);
    assert_true(requests[0].seq->running && requests[1].seq->running);
    sim_run(&sim, requests, 4, 1000);
    sim_close(&sim);
}

/* A large request at the head is not passed by small ones until it starves. */
static void test_large_is_not_passed(void **state)
{
    struct sim sim = {0};
    struct sim_request large = sim_ask(1, 500, 70, 2);
    struct sim_request small[4];
    uint32_t n = 0;

    (void)state;
    open_plain(&sim, 8, 100, 20);
    for (int i = 0; i < 4; i++) { /* never all over at once */
        small[i] = sim_ask(1, 10 * i, 3, 7 + (uint32_t)i);
        sim_must_add(&sim, &small[i]);
    }
    sim_turn(&sim);
    sim_must_add(&sim, &large);
    while (large.seq != NULL) {
        sim_turn(&sim);
        for (int i = 0; i < 4; i++) {
            if (small[i].seq == NULL && n < 100) {
                small[i] = sim_ask(1, 10 * i, 3, 7 + (uint32_t)i);
                sim_must_add(&sim, &small[i]);
                n++;
            }
        }
    }
    assert_true(n < 20);
    sim_run(&sim, small, 4, 1000);
    sim_close(&sim);
}

/* --- Shares --- */

struct side {
    uint64_t tenant;
    uint32_t n_streams;
    uint32_t n_prompt;
    uint32_t max_generated;
    uint64_t tokens; /* that it got */
};

/* Streams that each ask again as soon as they have their answer. */
static void compete(struct side *sides, uint32_t n_sides, uint32_t max_running, uint32_t turns)
{
    enum { MAX_STREAMS = 64 };
    struct sim sim = {.random = 5};
    struct sim_request *streams = xcalloc((size_t)n_sides * MAX_STREAMS, sizeof(*streams));

    open_plain(&sim, max_running, 32, 300);
    for (uint32_t turn = 0; turn < turns; turn++) {
        for (uint32_t i = 0; i < n_sides; i++) { /* the first floods the queue before the second */
            for (uint32_t k = 0; k < sides[i].n_streams; k++) {
                struct sim_request *stream = &streams[i * MAX_STREAMS + k];

                if (stream->seq == NULL) {
                    uint32_t most = 1 + sides[i].max_generated / 2;

                    sides[i].tokens += stream->done ? stream->n_known : 0;
                    *stream = sim_ask(sides[i].tenant, (int32_t)sim_below(&sim, 100000),
                                      sides[i].n_prompt, most + sim_below(&sim, most));
                    sim_must_add(&sim, stream);
                }
            }
        }
        sim_turn(&sim);
    }
    for (uint32_t i = 0; i < n_sides * MAX_STREAMS; i++) {
        sim_remove(&sim, &streams[i]);
    }
    free(streams);
    sim_close(&sim);
}

static void test_shares(void **state)
{
    static const struct side cases[][2] = {
        {{1, 20, 10, 20}, {2, 20, 10, 20}}, {{1, 60, 10, 20}, {2, 12, 10, 20}},
        {{1, 20, 10, 20}, {2, 20, 60, 5}},  {{1, 30, 5, 60}, {2, 30, 40, 10}},
        {{1, 8, 30, 30}, {2, 60, 3, 3}},
    };

    (void)state;
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct side sides[2] = {cases[i][0], cases[i][1]};
        double share;

        compete(sides, 2, 8, 3000);
        share = (double)sides[0].tokens / (double)(sides[0].tokens + sides[1].tokens);
        if (share < 0.45 || share > 0.55) {
            fail_msg("case %u: %.3f", i, share);
        }
    }
}

/* Three, and one with less to ask for than its share. */
static void test_shares_of_three(void **state)
{
    struct side sides[3] = {{1, 30, 10, 20}, {2, 30, 10, 20}, {3, 1, 10, 20}};

    (void)state;
    compete(sides, 3, 8, 3000);
    assert_true(sides[2].tokens * 6 > sides[0].tokens); /* one of eight places */
    assert_true(sides[0].tokens * 20 > sides[1].tokens * 19);
    assert_true(sides[1].tokens * 20 > sides[0].tokens * 19);
}

/* Whoever was away has saved nothing up, and is not punished either. */
static void test_tenant_returns(void **state)
{
    struct sim sim = {0};
    struct sim_request one = sim_ask(1, 1, 10, 60);
    struct sim_request other = sim_ask(2, 200, 10, 2);
    struct sim_request again = sim_ask(2, 300, 10, 2);
    uint64_t charged;

    (void)state;
    open_plain(&sim, 4, 100, 100);
    sim_must_add(&sim, &one);
    sim_must_add(&sim, &other);
    sim_run(&sim, &other, 1, 100);
    for (int i = 0; i < 40; i++) {
        sim_turn(&sim);
    }
    charged = sched_charged(sim.s, 1);
    assert_true(charged > 40);
    sim_must_add(&sim, &again);
    assert_int_equal(sched_charged(sim.s, 2), charged);
    sim_run(&sim, &again, 1, 100);
    sim_run(&sim, &one, 1, 100);
    assert_int_equal(sched_charged(sim.s, 1), 0); /* nobody is left: all begin anew */
    sim_close(&sim);
}

/* --- Alone, scores, faults --- */

static void test_alone(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[3] = {sim_ask(1, 1, 5, 5), sim_ask(1, 100, 5, 5),
                                      sim_ask(1, 200, 5, 5)};
    bool others;

    (void)state;
    open_plain(&sim, 4, 100, 100);
    for (int i = 0; i < 3; i++) {
        sim_must_add(&sim, &requests[i]);
    }
    sched_admit(sim.s);
    assert_false(sched_has_alone(sim.s, &others));
    assert_true(others);
    requests[1].seq->alone = requests[2].seq->alone = true;
    assert_true(sched_has_alone(sim.s, &others));
    assert_int_equal(sim_issue(&sim, false), 1);
    assert_ptr_equal(sim.steps[0].requests[0], &requests[0]);
    sim_commit(&sim);
    assert_int_equal(sim_issue(&sim, true), 1);
    assert_ptr_not_equal(sim.steps[0].requests[0], &requests[0]);
    sim_commit(&sim);
    requests[1].seq->alone = requests[2].seq->alone = false;
    sim_run(&sim, requests, 3, 100);
    sim_close(&sim);
}

/* Every row of the prompt but the last scores the token that follows, so many in a step; none is
 * taken from the cache, and none is scored twice. */
static void test_score(void **state)
{
    struct sim sim = {0};
    struct sim_request plain = sim_ask(1, 1, 31, 1);
    struct sim_request scored = sim_ask(1, 1, 31, 3);

    (void)state;
    open_plain(&sim, 4, 16, 100);
    sim_must_add(&sim, &plain);
    sim_run(&sim, &plain, 1, 100);
    scored.asked.score = true;
    sim_must_add(&sim, &scored);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(sim_issue(&sim, false), 1);
        assert_int_equal(sim.steps[0].parts[0].n, 4);
        assert_int_equal(sim.steps[0].parts[0].n_score, 4);
        sim_commit(&sim);
    }
    sched_reset(sim.s); /* its pages are lost, what was scored is not */
    assert_int_equal(sim_issue(&sim, false), 1);
    assert_int_equal(sim.steps[0].parts[0].n, 16);
    assert_int_equal(sim.steps[0].parts[0].n_score, 0);
    assert_int_equal(sim_issue(&sim, false), 1);
    assert_int_equal(sim.steps[1].parts[0].score_begin, 16);
    assert_int_equal(sim.steps[1].parts[0].n_score, 4);
    sim_run(&sim, &scored, 1, 100);
    assert_int_equal(scored.n_scored, 30);
    assert_int_equal(scored.n_cached, 0);
    sim_close(&sim);
}

static void test_void_and_reset(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[2] = {sim_ask(1, 1, 11, 9), sim_ask(1, 100, 11, 9)};

    (void)state;
    open_plain(&sim, 4, 16, 100);
    sim_must_add(&sim, &requests[0]);
    sim_must_add(&sim, &requests[1]);
    for (int i = 0; i < 4; i++) {
        sim_turn(&sim);
    }
    sim.n_steps = 0;
    sched_void(sim.s);
    assert_int_equal(requests[0].seq->sent, requests[0].seq->done);
    assert_true(requests[0].seq->done >= 11);
    sched_audit(sim.s);
    sim_turn(&sim);
    sim.n_steps = 0;
    sched_reset(sim.s);
    memset(sim.pages, 0, sizeof(sim.pages));
    assert_int_equal(sched_counts(sim.s).waiting, 2);
    assert_int_equal(sched_counts(sim.s).kv.free, 100);
    assert_int_equal(sched_counts(sim.s).preemptions, 0);
    sched_audit(sim.s);
    sim_run(&sim, requests, 2, 100);
    assert_int_equal(requests[0].number, 1);
    sim_close(&sim);
}

/* Destroyed with all that it has. */
static void test_destroy(void **state)
{
    struct sim sim = {0};
    struct sim_request requests[6];

    (void)state;
    open_plain(&sim, 3, 16, 100);
    for (int i = 0; i < 6; i++) {
        requests[i] = sim_ask((uint64_t)i, 100 * i, 11, 9);
        sim_must_add(&sim, &requests[i]);
    }
    sim_turn(&sim);
    sched_destroy(&sim.s);
    sched_destroy(&sim.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_prefix_is_awaited),
        cmocka_unit_test(test_awaited_goes),
        cmocka_unit_test(test_salts),
        cmocka_unit_test(test_last_is_computed),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_age),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_those_that_ran_go_first),
        cmocka_unit_test(test_large_is_not_passed),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_shares_of_three),
        cmocka_unit_test(test_tenant_returns),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_void_and_reset),
        cmocka_unit_test(test_destroy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
