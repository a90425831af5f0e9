/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random requests on random worlds whose ranks are killed at random: every request ends exactly
 * once, with exactly the tokens that the model gives when nothing happens, and the books balance
 * after every turn. LOCKSTEP_SEED repeats what was asked; when a kill hits is up to the clock.
 */
#include "batch_scene.h"

enum { N_WORLDS = 6, N_LIVE = 2 * FAKE_SLOTS, N_REQUESTS = 40, N_OLD = 4, MAX_KILLS = 8 };

struct random {
    uint64_t state;
};

static uint32_t below(struct random *random, uint32_t n)
{
    random->state = fake_mix(random->state, 1);
    return (uint32_t)(random->state % n);
}

/* What a world has seen, for the next requests and kills. */
struct mix {
    struct random random;
    struct scene scene;
    struct asked live[N_LIVE];
    bool used[N_LIVE];
    uint32_t cancel_at[N_LIVE]; /* so many tokens */
    struct asked old[N_OLD];    /* ended ones, whose beginnings are used again */
    uint32_t n_started;
    uint32_t n_kills;
    uint64_t n_rebuilds; /* those that were noticed here */
    bool killed;         /* and not yet rebuilt */
    uint32_t n_cached;
    uint64_t n_preempted;
    uint32_t n_ends[BATCH_FAILED + 1];
};

static void make_request(struct mix *mix, struct asked *asked)
{
    struct random *r = &mix->random;
    const struct asked *old = &mix->old[below(r, N_OLD)];
    uint32_t n_old = MIN(old->n_prompt + old->n_got, FAKE_CONTEXT);
    uint32_t n_same = below(r, 3) == 0 ? 0 : below(r, n_old + 1);

    *asked = scene_ask((int32_t)below(r, FAKE_VOCAB), 1 + below(r, 50), 1 + below(r, 40));
    asked->n_prompt = MIN(n_same + asked->n_prompt, FAKE_CONTEXT);
    for (uint32_t i = 0; i < asked->n_prompt; i++) {
        asked->prompt[i] = i >= n_same         ? (int32_t)below(r, FAKE_VOCAB)
                           : i < old->n_prompt ? old->prompt[i]
                                               : old->got[i - old->n_prompt];
    }
    asked->logprobs = below(r, 3) == 0;
    asked->n_top = below(r, 3);
    asked->prompt_logprobs = below(r, 5) == 0;
    asked->n_prompt_top = asked->prompt_logprobs ? below(r, 3) : 0;
    asked->tenant = below(r, 3);
    asked->priority = (int32_t)below(r, 2);
    asked->params.seed = below(r, 1000);
    asked->params.choice = below(r, 3);
    asked->params.temperature = (float)below(r, 4);
    asked->params.top_k = below(r, 12) == 0 ? 1 + below(r, 10) : 0; /* not a number there */
    asked->stop_at = below(r, 3) == 0 ? below(r, 30) : SCENE_NEVER;
    asked->params.n_bias = below(r, SCENE_BIAS + 1);
    for (uint32_t i = 0; i < asked->params.n_bias; i++) {
        asked->bias[i].token = below(r, FAKE_VOCAB);
    }
}

static void add_some(struct mix *mix)
{
    for (uint32_t i = 0; i < N_LIVE; i++) {
        struct asked *asked = &mix->live[i];

        if (!mix->used[i] && mix->n_started < N_REQUESTS && below(&mix->random, 3) == 0) {
            make_request(mix, asked);
            mix->used[i] = scene_try_add(&mix->scene, asked, NULL) == STATUS_OK;
            mix->n_started += mix->used[i];
            mix->cancel_at[i] = below(&mix->random, 8) == 0 ? below(&mix->random, 20) : SCENE_NEVER;
        }
    }
}

static void expect_end(struct mix *mix, const struct asked *asked)
{
    scene_expect_exact(asked);
    mix->n_cached += asked->n_cached;
    mix->n_ends[asked->end]++;
    if (asked->end == BATCH_FAILED) { /* nothing else may end one */
        assert_int_equal(asked->status, STATUS_NUMERIC);
        assert_true(fake_is_nan(&asked->params, asked->n_got));
    }
}

static void take_ended(struct mix *mix)
{
    for (uint32_t i = 0; i < N_LIVE; i++) {
        struct asked *asked = &mix->live[i];

        if (mix->used[i] && !asked->ended && asked->n_got >= mix->cancel_at[i]) {
            batch_cancel(mix->scene.b, asked->id);
            assert_int_equal(asked->end, BATCH_CANCELLED);
        }
        if (mix->used[i] && asked->ended) {
            expect_end(mix, asked);
            mix->old[below(&mix->random, N_OLD)] = *asked;
            mix->used[i] = false;
        }
    }
}

/* Kills a rank now and then, but no request more than twice between two of its tokens: at the third
 * it would be given up. */
static void kill_one(struct mix *mix)
{
    static const int signals[] = {SIGKILL, SIGKILL, SIGKILL, SIGSEGV, SIGTERM};
    struct supervisor *s = mix->scene.world.s;
    pid_t pid = supervisor_pid(s, below(&mix->random, s->config.n_ranks));
    bool allowed = mix->n_kills < MAX_KILLS && pid != 0 && !mix->killed;

    if (supervisor_rebuilds(s) != mix->n_rebuilds) { /* whose steps were lost is blamed */
        mix->n_rebuilds = supervisor_rebuilds(s);
        mix->killed = false;
        for (uint32_t i = 0; i < N_LIVE; i++) {
            mix->live[i].n_blamed++;
        }
    }
    if (below(&mix->random, 15) != 0) {
        return;
    }
    for (uint32_t i = 0; i < N_LIVE; i++) {
        allowed = allowed && (!mix->used[i] || mix->live[i].n_blamed < 2);
    }
    if (!allowed) {
        return;
    }
    if (kill(pid, signals[below(&mix->random, ARRAY_LEN(signals))]) == 0) {
        mix->n_kills++;
        mix->killed = true;
    }
}

static bool is_over(const struct mix *mix)
{
    for (uint32_t i = 0; i < N_LIVE; i++) {
        if (mix->used[i]) {
            return false;
        }
    }
    return mix->n_started == N_REQUESTS;
}

static void run_world(struct mix *mix, uint32_t n_ranks)
{
    struct supervisor_config config = fake_config(n_ranks);
    struct batch_config batch = {
        .n_slots = 1 + below(&mix->random, FAKE_SLOTS),
        .max_queue = below(&mix->random, 2 * FAKE_SLOTS),
        .page_tokens = FAKE_PAGE_TOKENS,
        .n_pages = FAKE_CONTEXT / FAKE_PAGE_TOKENS + below(&mix->random, 25),
        .max_context = FAKE_CONTEXT,
        .vocab = FAKE_VOCAB,
        .max_top = PLAN_MAX_TOP,
        .max_score_rows = 1 + below(&mix->random, 8),
        .hash_state = below(&mix->random, 2) == 0,
        .journal_bytes = 4096,
    };
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;
    struct batch_stats stats;

    batch.max_rows = 1 + below(&mix->random, 16);
    config.hang_ms = 2000;
    config.world.restart_budget = 0;
    scene_open(&mix->scene, &config, &batch, NULL);
    while (!is_over(mix)) {
        if (clock_ns() >= end) {
            fail_msg("not over: %s, %s", world_state_text(supervisor_state(mix->scene.world.s)),
                     supervisor_why(mix->scene.world.s));
        }
        add_some(mix);
        kill_one(mix);
        scene_turn(&mix->scene);
        take_ended(mix);
    }
    batch_stats(mix->scene.b, &stats);
    mix->n_preempted = stats.preemptions;
    scene_close(&mix->scene);
}

static void test_random(void **state)
{
    const char *given = getenv("LOCKSTEP_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : clock_ns();
    uint32_t n_cached = 0;
    uint32_t n_alone = 0;
    uint64_t n_preempted = 0;
    uint32_t n_kills = 0;
    uint32_t n_ends[BATCH_FAILED + 1] = {0};

    (void)state;
    print_message("LOCKSTEP_SEED=%llu\n", (unsigned long long)seed);
    for (uint32_t i = 0; i < N_WORLDS; i++) {
        struct mix *mix = xalloc(sizeof(*mix));

        mix->random.state = seed + i;
        run_world(mix, 1 + i % 3);
        n_cached += mix->n_cached;
        n_alone += mix->scene.n_alone_steps;
        n_preempted += mix->n_preempted;
        n_kills += mix->n_kills;
        for (int k = 0; k <= BATCH_FAILED; k++) {
            n_ends[k] += mix->n_ends[k];
        }
        free(mix);
    }
    print_message("%u kills; ends: %u stop, %u length, %u cancelled, %u not a number; %u positions "
                  "not computed again, %u turns with a lone step, %llu preemptions\n",
                  n_kills, n_ends[BATCH_STOP], n_ends[BATCH_LENGTH], n_ends[BATCH_CANCELLED],
                  n_ends[BATCH_FAILED], n_cached, n_alone, (unsigned long long)n_preempted);
    assert_true(n_kills > N_WORLDS && n_cached > 0);
    for (int k = 0; k <= BATCH_FAILED; k++) {
        assert_true(n_ends[k] > 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(getenv("LOCKSTEP_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
