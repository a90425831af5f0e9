/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random requests of random tenants and priorities, cancelled at random, with faults that lose the
 * steps in flight or all pages: each gets the tokens that it would get alone, nobody waits for
 * ever, and no page is lost. Few hash bits in some walks. LOCKSTEP_SEED repeats one.
 */
#include "base/clock.h"
#include "sim_step.h"

enum { N_WALKS = 12, N_REQUESTS = 150, N_LIVE = 24, N_OLD = 4, MAX_TURNS = 40000 };

struct walk {
    struct sim sim;
    struct sim_request live[N_LIVE];
    bool used[N_LIVE];
    struct sim_request old[N_OLD];
    uint32_t n_added;
    uint32_t n_done;
    uint32_t n_cancelled;
    uint32_t n_refused;
    uint64_t n_preempted;
    uint64_t n_hits;
};

static struct sim_request make_request(struct walk *walk)
{
    struct sim *sim = &walk->sim;
    const struct sim_request *old = &walk->old[sim_below(sim, N_OLD)];
    uint32_t n_same = sim_below(sim, 3) == 0 ? 0 : sim_below(sim, old->n_known + 1);
    uint32_t n_own = 1 + sim_below(sim, 40);
    uint32_t n = MIN(n_same + n_own, SIM_CONTEXT - 1);
    uint32_t room = SIM_CONTEXT + 1 - n;
    uint32_t most = 1 + sim_below(sim, 30);
    struct sim_request request = sim_ask(sim_below(sim, 3), 0, n, MIN(most, room));

    for (uint32_t i = 0; i < n; i++) {
        request.tokens[i] = i < n_same ? old->tokens[i] : (int32_t)sim_below(sim, 1000);
    }
    request.asked.priority = (int32_t)sim_below(sim, 3) - 1;
    request.asked.salt = sim_below(sim, 6) == 0;
    request.asked.score = sim_below(sim, 8) == 0;
    return request;
}

static void add_one(struct walk *walk)
{
    uint32_t i = sim_below(&walk->sim, N_LIVE);

    if (walk->used[i] || walk->n_added == N_REQUESTS) {
        return;
    }
    walk->live[i] = make_request(walk);
    switch (sim_add(&walk->sim, &walk->live[i], NULL)) {
    case STATUS_OK:
        walk->used[i] = true;
        walk->n_added++;
        break;
    case STATUS_LIMIT:
        assert_true(sched_counts(walk->sim.s).waiting >= walk->sim.config.max_queue);
        walk->n_refused++;
        break;
    default:
        assert_true(walk->sim.config.n_pages * SIM_PAGE < SIM_CONTEXT);
        break;
    }
}

static void take_ended(struct walk *walk)
{
    for (uint32_t i = 0; i < N_LIVE; i++) {
        struct sim_request *request = &walk->live[i];

        if (!walk->used[i] || request->seq != NULL) {
            continue;
        }
        walk->used[i] = false;
        if (request->done) {
            walk->n_done++;
            walk->n_hits += request->n_cached;
            assert_true(!request->asked.score || request->n_cached == 0);
            assert_int_equal(request->n_scored,
                             request->asked.score ? request->asked.n_prompt - 1 : 0);
            walk->old[sim_below(&walk->sim, N_OLD)] = *request;
        } else {
            walk->n_cancelled++;
        }
    }
}

static void disturb(struct walk *walk)
{
    struct sim *sim = &walk->sim;
    uint32_t i = sim_below(sim, N_LIVE);

    switch (sim_below(sim, 40)) {
    case 0:
        if (walk->used[i] && walk->live[i].seq != NULL) {
            sim_remove(sim, &walk->live[i]);
        }
        break;
    case 1:
        sim->n_steps = 0;
        sched_void(sim->s);
        break;
    case 2:
        if (sim_below(sim, 4) == 0) {
            sim->n_steps = 0;
            sched_reset(sim->s);
            memset(sim->pages, 0, sizeof(sim->pages));
        }
        break;
    case 3:
        sched_drop_cached(sim->s);
        break;
    case 4:
        if (walk->used[i] && walk->live[i].seq != NULL) {
            walk->live[i].seq->alone = !walk->live[i].seq->alone;
        }
        break;
    default:
        break;
    }
    sched_audit(sim->s);
}

static bool is_over(const struct walk *walk)
{
    for (uint32_t i = 0; i < N_LIVE; i++) {
        if (walk->used[i]) {
            return false;
        }
    }
    return walk->n_added == N_REQUESTS;
}

static void run(struct walk *walk, uint64_t seed, uint32_t number)
{
    struct sim *sim = &walk->sim;
    struct sched_config config = {0};
    uint32_t turns = 0;

    sim->random = seed;
    config.max_running = 1 + sim_below(sim, SIM_MAX_RUNNING);
    config.max_queue = sim_below(sim, 12);
    config.max_rows = 1 + sim_below(sim, 24);
    config.max_score_rows = 1 + sim_below(sim, 10);
    config.n_pages = 20 + sim_below(sim, 50);
    config.hash_bits = number % 3 == 0 ? 3 : 0;
    sim_open(sim, &config);
    while (!is_over(walk)) {
        if (turns++ == MAX_TURNS) {
            fail_msg("somebody waits for ever");
        }
        add_one(walk);
        disturb(walk);
        (void)sim_issue(sim, turns % 4 == 0);
        if (sim_below(sim, 2) == 0 || sim->n_steps == SIM_FLIGHT) {
            sim_commit(sim);
        }
        take_ended(walk);
    }
    walk->n_preempted += sched_counts(sim->s).preemptions;
    sim_close(sim);
}

static void test_walk(void **state)
{
    const char *given = getenv("LOCKSTEP_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : clock_ns();
    uint32_t n_done = 0;
    uint32_t n_cancelled = 0;
    uint32_t n_refused = 0;
    uint64_t n_preempted = 0;
    uint64_t n_hits = 0;

    (void)state;
    print_message("LOCKSTEP_SEED=%llu\n", (unsigned long long)seed);
    for (uint32_t i = 0; i < N_WALKS; i++) {
        struct walk *walk = xalloc(sizeof(*walk));

        run(walk, seed + i, i);
        n_done += walk->n_done;
        n_cancelled += walk->n_cancelled;
        n_refused += walk->n_refused;
        n_preempted += walk->n_preempted;
        n_hits += walk->n_hits;
        free(walk);
    }
    print_message("%u done, %u cancelled, %u refused, %llu preemptions, %llu tokens cached\n",
                  n_done, n_cancelled, n_refused, (unsigned long long)n_preempted,
                  (unsigned long long)n_hits);
    assert_int_equal(n_done + n_cancelled, N_WALKS * N_REQUESTS);
    assert_true(n_done > 0 && n_cancelled > 0 && n_refused > 0 && n_preempted > 0 && n_hits > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
