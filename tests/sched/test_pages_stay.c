/* SPDX-License-Identifier: Apache-2.0 */
/* Who joins or leaves a batch touches nobody else's pages: they stay where they are, and grow. */
#include "sched/sched_priv.h"
#include "sim_step.h"

enum { N_PROMPT = 10, N_GENERATED = 60, N_ROUNDS = 12 };

/* The pages of a sequence as they were. */
struct held {
    uint32_t pages[SIM_CONTEXT / SIM_PAGE];
    uint32_t n;
};

static struct held held_by(const struct sim_request *request)
{
    struct held held = {.n = request->seq->kv.n_pages};

    assert_in_range(held.n, 1, ARRAY_LEN(held.pages));
    memcpy(held.pages, request->seq->kv.pages, held.n * sizeof(held.pages[0]));
    return held;
}

static void expect_stays(const struct sim_request *request, const struct held *before)
{
    assert_true(request->seq->kv.n_pages >= before->n);
    assert_memory_equal(request->seq->kv.pages, before->pages, before->n * sizeof(uint32_t));
    assert_int_equal(request->seq->lives, 0); /* nor computed again */
}

static void test_joining_and_leaving(void **state)
{
    struct sim sim = {0};
    struct sim_request stays = sim_ask(1, 0, N_PROMPT, N_GENERATED);
    struct sim_request comes[2];
    struct held held;

    (void)state;
    sim_open(&sim, &(struct sched_config){.max_running = 4,
                                          .max_queue = 10,
                                          .max_rows = 16,
                                          .max_score_rows = 4,
                                          .n_pages = 100});
    sim_must_add(&sim, &stays);
    sim_turn(&sim);
    held = held_by(&stays);
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        uint64_t rows;

        for (int i = 0; i < 2; i++) {
            comes[i] = sim_ask(2, (int32_t)(100 * (2 * round + (uint32_t)i + 1)), 7, 50);
            sim_must_add(&sim, &comes[i]);
        }
        sim_turn(&sim);
        assert_true(comes[0].seq->running && comes[1].seq->running);
        expect_stays(&stays, &held);
        held = held_by(&stays);
        sim_remove(&sim, &comes[round % 2]);
        expect_stays(&stays, &held);
        rows = sim.n_rows;
        assert_true(sim_issue(&sim, false) > 0);
        assert_true(sim.n_rows - rows <= 2 * sim.config.max_running);
        sim_commit(&sim);
        sim_remove(&sim, &comes[(round + 1) % 2]);
        expect_stays(&stays, &held);
        held = held_by(&stays);
    }
    sim_run(&sim, &stays, 1, 200);
    assert_true(stays.done);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joining_and_leaving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
