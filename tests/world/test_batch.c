/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on a world, one property or kind of end at a time. Random mixes of all of it are
 * test_batch_random.c.
 */
#include "batch_scene.h"

static void expect_end(const struct asked *asked, enum batch_end end)
{
    assert_true(asked->ended);
    if (asked->end != end) {
        fail_msg("it ended by %d, not %d: %s", (int)asked->end, (int)end, asked->why);
    }
}

/* Added before the ranks are there; chunked prompts, one token and many, the end of the context. */
static void test_ends(void **state)
{
    struct asked asked[] = {
        scene_ask(1, 1, 1),
        scene_ask(100, 40, 5),
        scene_ask(300, 16, 30),
        scene_ask(500, 3, 8),
    };
    struct asked full = scene_ask(700, FAKE_CONTEXT - 3, 50);
    struct asked last = scene_ask(700, FAKE_CONTEXT - 1, 50);
    struct scene scene;

    (void)state;
    asked[3].stop_at = 4;
    asked[1].params.n_bias = SCENE_BIAS;
    asked[1].bias[0].token = 17;
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        scene_add(&scene, &asked[i]);
    }
    assert_int_equal(batch_waiting(scene.b), 4);
    scene_run(&scene, asked, 4);
    for (int i = 0; i < 3; i++) {
        expect_end(&asked[i], BATCH_LENGTH);
        assert_int_equal(asked[i].n_got, asked[i].max_generated);
    }
    expect_end(&asked[3], BATCH_STOP);
    assert_int_equal(asked[3].n_got, 5);
    scene_add(&scene, &full);
    scene_run(&scene, &full, 1);
    assert_int_equal(full.n_got, 4); /* the last one needs no place in the context */
    scene_add(&scene, &last);
    scene_run(&scene, &last, 1);
    assert_int_equal(last.n_got, 2);
    assert_int_equal(last.n_cached, FAKE_CONTEXT - 4); /* full pages that it shares with full */
    scene_close(&scene);
}

/* A request that goes on with an answer: its tokens, and their positions, are as if it were one. */
static void test_answered(void **state)
{
    struct asked whole = scene_ask(100, 20, 9);
    struct asked rest = scene_ask(100, 20, 5);
    struct asked nan;
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &whole);
    scene_run(&scene, &whole, 1);
    expect_end(&whole, BATCH_LENGTH);
    memcpy(rest.prompt + 20, whole.got, 4 * sizeof(*whole.got));
    rest.n_prompt = 24;
    rest.n_answered = 4;
    nan = rest;
    nan.params.top_k = 6 + 1; /* there is no number for token 6 */
    scene_add(&scene, &rest);
    scene_add(&scene, &nan);
    scene_run(&scene, &rest, 1);
    scene_run(&scene, &nan, 1);
    expect_end(&rest, BATCH_LENGTH);
    assert_int_equal(rest.n_got, 5);
    assert_memory_equal(rest.got, whole.got + 4, 5 * sizeof(*whole.got));
    expect_end(&nan, BATCH_FAILED);
    assert_int_equal(nan.n_got, 2);
    scene_close(&scene);
}

static void test_refused(void **state)
{
    struct asked none = scene_ask(1, 0, 1);
    struct asked nothing = scene_ask(1, 5, 0);
    struct asked strange = scene_ask(1, 5, 1);
    struct asked negative = scene_ask(1, 5, 1);
    struct asked endless = scene_ask(1, FAKE_CONTEXT, 1);
    struct asked topped = scene_ask(1, 5, 1);
    struct asked fit[2 * FAKE_SLOTS + 1];
    struct scene scene;
    struct err err = {0};

    (void)state;
    strange.prompt[4] = FAKE_VOCAB;
    negative.prompt[0] = -1;
    scene_open(&scene, NULL, NULL, NULL);
    assert_int_equal(scene_try_add(&scene, &none, &err), STATUS_INVALID);
    assert_int_equal(scene_try_add(&scene, &nothing, &err), STATUS_INVALID);
    assert_int_equal(scene_try_add(&scene, &strange, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "991"));
    assert_int_equal(scene_try_add(&scene, &negative, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "-1"));
    assert_int_equal(scene_try_add(&scene, &endless, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "96 prompt tokens"));
    topped.n_top = 21;
    assert_int_equal(scene_try_add(&scene, &topped, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "21 likeliest"));
    for (int i = 0; i <= 2 * FAKE_SLOTS; i++) {
        fit[i] = scene_ask(10 * i, 5, 3);
    }
    for (int i = 0; i < 2 * FAKE_SLOTS; i++) {
        scene_add(&scene, &fit[i]);
    }
    assert_int_equal(scene_try_add(&scene, &fit[2 * FAKE_SLOTS], &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "8 wait"));
    scene_check(&scene);
    scene_run(&scene, fit, 2 * FAKE_SLOTS);
    scene_close(&scene);
}

/* Pages run out before slots do: some wait, some lose theirs, and all get their text. */
static void test_pages_run_out(void **state)
{
    struct asked asked[] = {
        scene_ask(1, 40, 57),
        scene_ask(100, 40, 57),
        scene_ask(200, 5, 60),
        scene_ask(300, 30, 3),
    };
    struct batch_stats stats;
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        scene_add(&scene, &asked[i]);
    }
    scene_run(&scene, asked, 4);
    batch_stats(scene.b, &stats);
    assert_true(stats.preemptions > 0);
    assert_int_equal(stats.kv_used, 0);
    assert_int_equal(stats.kv_total, FAKE_PAGES);
    assert_int_equal(stats.kv_cached + stats.kv_free, FAKE_PAGES);
    assert_int_equal(stats.prompt_tokens, 40 + 40 + 5 + 30);
    assert_int_equal(stats.generated_tokens, 57 + 57 + 60 + 3);
    assert_int_equal(stats.prefix_queries, 40 + 40 + 5 + 30);
    assert_int_equal(stats.prefix_hits, 0);
    assert_true(stats.step_rows > stats.steps && stats.steps > 57);
    scene_close(&scene);
}

/* --- What was computed is not computed again --- */

static void test_prefix(void **state)
{
    struct asked first = scene_ask(1, 30, 10);
    struct asked same = scene_ask(1, 30, 10);
    struct asked longer = scene_ask(1, 50, 4);
    struct asked shorter = scene_ask(1, 13, 4);
    struct asked other = scene_ask(2, 30, 4);
    struct asked chat = scene_ask(1, 30, 6);
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &first);
    scene_run(&scene, &first, 1);
    scene_add(&scene, &same);
    scene_run(&scene, &same, 1);
    assert_int_equal(same.n_cached, 28); /* full pages; the last token gives the first answer */
    assert_memory_equal(same.got, first.got, sizeof(first.got));
    memcpy(chat.prompt + 30, same.got, 10 * sizeof(*same.got)); /* prompt, answer, and more */
    chat.n_prompt = 45;
    scene_add(&scene, &chat);
    scene_add(&scene, &longer); /* both have the same pages */
    scene_run(&scene, &chat, 1);
    scene_run(&scene, &longer, 1);
    assert_int_equal(chat.n_cached, 36);
    assert_int_equal(longer.n_cached, 28);
    scene_add(&scene, &shorter);
    scene_add(&scene, &other);
    scene_run(&scene, &shorter, 1);
    scene_run(&scene, &other, 1);
    assert_int_equal(shorter.n_cached, 12);
    assert_int_equal(other.n_cached, 0);
    scene_close(&scene);
}

/* Cached pages live through a rebuild if the KV pages do. */
static void test_prefix_after_rebuild(void **state)
{
    static const int signals[] = {SIGKILL, SIGSEGV};
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        struct asked before = scene_ask(1, 30, 3);
        struct asked after = scene_ask(1, 30, 3);

        scene_add(&scene, &before);
        scene_run(&scene, &before, 1);
        for (int k = 0; k < 10; k++) {
            scene_turn(&scene); /* the step ahead */
        }
        kill(supervisor_pid(scene.world.s, 1), signals[i]);
        fake_wait_rebuilt(&scene.world, (uint64_t)i + 1);
        scene_add(&scene, &after);
        scene_run(&scene, &after, 1);
        assert_int_equal(after.n_cached, i == 0 ? 28 : 0);
    }
    scene_close(&scene);
}

/* What is cached can be given up at once, and nothing that runs with it. */
static void test_drop_cache(void **state)
{
    struct asked before = scene_ask(1, 30, 3);
    struct asked running = scene_ask(400, 30, 30);
    struct asked after = scene_ask(1, 30, 3);
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &before);
    scene_run(&scene, &before, 1);
    scene_add(&scene, &running);
    while (running.n_got < 3) {
        scene_turn(&scene);
    }
    scene.on.drop_cache(scene.on.arg);
    scene_check(&scene);
    scene_add(&scene, &after);
    scene_run(&scene, &running, 1);
    scene_run(&scene, &after, 1);
    assert_int_equal(after.n_cached, 0);
    scene_close(&scene);
}

/* A request that the journal has no room for leaves nothing behind. */
static void test_journal_full(void **state)
{
    struct batch_config small = {
        .n_slots = FAKE_SLOTS,
        .max_rows = 16,
        .n_pages = FAKE_PAGES,
        .page_tokens = FAKE_PAGE_TOKENS,
        .max_context = FAKE_CONTEXT,
        .vocab = FAKE_VOCAB,
        .journal_bytes = sizeof(struct journal_entry) + sizeof(struct plan_params) +
                         (JOURNAL_FIRST_ROOM + 4) * sizeof(int32_t),
    };
    struct asked first = scene_ask(1, 40, 2);
    struct asked large = scene_ask(400, 5, 90);
    struct asked again = scene_ask(1, 40, 2);
    struct scene scene;
    struct err err = {0};

    (void)state;
    scene_open(&scene, NULL, &small, NULL);
    scene_add(&scene, &first);
    scene_run(&scene, &first, 1);
    for (int i = 0; i < 10; i++) {
        scene_turn(&scene);
    }
    assert_int_equal(scene_try_add(&scene, &large, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "journal"));
    scene_check(&scene);
    assert_int_equal(scene_n_left(&scene), 0);
    scene_add(&scene, &again);
    scene_run(&scene, &again, 1);
    scene_close(&scene);
}

/* Memory for the rest of an answer is taken before it is computed; without it that request ends,
 * and no other. */
static void test_no_memory_for_answer(void **state)
{
    struct asked asked[] = {scene_ask(1, 4, 90), scene_ask(100, 4, 90)};
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked[0]);
    while (asked[0].n_got < 30) {
        scene_turn(&scene);
    }
    scene_add(&scene, &asked[1]);
    mem_fail_next(200);
    scene_run(&scene, asked, 2);
    expect_end(&asked[0], BATCH_FAILED);
    assert_int_equal(asked[0].status, STATUS_NO_MEMORY);
    assert_true(asked[0].n_got >= JOURNAL_FIRST_ROOM - 2);
    expect_end(&asked[1], BATCH_LENGTH);
    scene_close(&scene);
}

/* --- Order --- */

/* More requests than slots: they take their turns, the urgent ones first; each is told once when it
 * begins. */
static void test_queue(void **state)
{
    struct asked asked[2 * FAKE_SLOTS];
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 2 * FAKE_SLOTS; i++) {
        asked[i] = scene_ask(100 * i, 5, 12);
        asked[i].priority = -i;
        scene_add(&scene, &asked[i]);
    }
    while (asked[FAKE_SLOTS].n_got < 2) {
        scene_turn(&scene);
    }
    assert_int_equal(batch_running(scene.b), FAKE_SLOTS);
    assert_int_equal(batch_waiting(scene.b), FAKE_SLOTS);
    for (int i = 0; i < 2 * FAKE_SLOTS; i++) {
        assert_int_equal(asked[i].n_started, i >= FAKE_SLOTS);
    }
    batch_cancel(scene.b, asked[0].id); /* while it waits */
    expect_end(&asked[0], BATCH_CANCELLED);
    assert_int_equal(batch_waiting(scene.b), FAKE_SLOTS - 1);
    scene_run(&scene, asked, 2 * FAKE_SLOTS);
    assert_int_equal(asked[0].n_started, 0);
    for (int i = 1; i < 2 * FAKE_SLOTS; i++) {
        assert_int_equal(asked[i].n_started, 1);
        expect_end(&asked[i], BATCH_LENGTH);
    }
    scene_close(&scene);
}

/* Plans that are too long for the ring go over the channels, with nothing else in flight: they are
 * refused until then, and that leaves no trace. */
static void test_long_plan(void **state)
{
    enum { N = 9000 };
    struct plan_bias *biases = xcalloc(N, sizeof(*biases));
    struct asked asked[] = {scene_ask(1, 5, 30), scene_ask(100, 5, 10), scene_ask(300, 5, 10)};
    struct scene scene;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        biases[i].token = i % FAKE_VOCAB;
    }
    asked[1].biases = biases;
    asked[1].params.n_bias = N;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked[0]);
    while (asked[0].n_got < 5) {
        scene_turn(&scene);
    }
    scene_add(&scene, &asked[1]);
    scene_add(&scene, &asked[2]);
    scene_run(&scene, asked, 3);
    assert_int_equal(supervisor_rebuilds(scene.world.s), 0);
    scene_close(&scene);
    free(biases);
}

/* While it is paused, what is in flight ends, and nothing follows. */
static void test_pause(void **state)
{
    struct asked asked = scene_ask(1, 5, 40);
    struct scene scene;
    uint32_t n;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    assert_false(batch_has_work(scene.b));
    scene_add(&scene, &asked);
    assert_true(batch_has_work(scene.b));
    while (asked.n_got < 5) {
        scene_turn(&scene);
    }
    batch_pause(scene.b, true);
    while (!batch_idle(scene.b)) {
        scene_turn(&scene);
    }
    n = asked.n_got;
    for (int i = 0; i < 5; i++) {
        scene_turn(&scene);
    }
    assert_int_equal(asked.n_got, n);
    assert_true(batch_has_work(scene.b));
    batch_pause(scene.b, false);
    scene_run(&scene, &asked, 1);
    scene_close(&scene);
}

/* Log-probabilities of what is generated, with and without the likeliest, beside requests that want
 * none. */
static void test_logprobs(void **state)
{
    struct asked asked[] = {scene_ask(1, 20, 12), scene_ask(100, 5, 12), scene_ask(300, 5, 12),
                            scene_ask(1, 20, 12)};
    struct scene scene;

    (void)state;
    asked[0].logprobs = true;
    asked[1].n_top = 3;
    asked[3].logprobs = true;
    asked[3].n_top = 1;
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        scene_add(&scene, &asked[i]);
    }
    scene_run(&scene, asked, 4);
    scene_close(&scene);
}

/* The prompt's tokens: each once and in order, whatever happens to the ranks; nothing of them is
 * taken from the cache. */
static void test_prompt_logprobs(void **state)
{
    struct asked before = scene_ask(1, 42, 3);
    struct asked asked[] = {scene_ask(1, 42, 5), scene_ask(400, 33, 5), scene_ask(1, 42, 5),
                            scene_ask(700, 1, 5)};
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, "kill:plan/1/1/8 exit:plan/0/2/13");
    scene_add(&scene, &before);
    scene_run(&scene, &before, 1);
    for (int i = 0; i < 4; i++) {
        asked[i].prompt_logprobs = i != 2;
        asked[i].n_prompt_top = i != 2 ? (uint32_t)i : 0;
        asked[i].n_top = 2;
        scene_add(&scene, &asked[i]);
    }
    scene_run(&scene, asked, 4);
    assert_int_equal(supervisor_rebuilds(scene.world.s), 2);
    assert_int_equal(asked[0].n_scored, 41);
    assert_int_equal(asked[0].n_cached, 0);
    assert_int_equal(asked[1].n_scored, 32);
    scene_close(&scene);
}

static void cancel_at_start(struct asked *asked)
{
    batch_cancel(asked->scene->b, asked->id);
}

/* Nothing more is issued for it from then on. */
static void test_cancel_at_start(void **state)
{
    struct asked asked = scene_ask(1, 60, 40);
    struct asked beside = scene_ask(100, 20, 10);
    struct batch_stats stats;
    struct scene scene;

    (void)state;
    asked.on_start = cancel_at_start;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked);
    scene_run(&scene, &asked, 1);
    expect_end(&asked, BATCH_CANCELLED);
    while (batch_has_work(scene.b)) {
        scene_turn(&scene);
    }
    batch_stats(scene.b, &stats);
    assert_int_equal(stats.steps, 1);
    assert_int_equal(stats.kv_used, 0);
    scene_add(&scene, &beside);
    scene_run(&scene, &beside, 1);
    scene_close(&scene);
}

/* --- Requests that go wrong --- */

static void test_not_a_number(void **state)
{
    struct asked asked[] = {scene_ask(1, 20, 9), scene_ask(100, 20, 30), scene_ask(300, 5, 9)};
    struct scene scene;

    (void)state;
    asked[0].params.top_k = 5; /* at its fifth token */
    asked[2].params.top_k = 1; /* at its first */
    scene_open(&scene, NULL, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        scene_add(&scene, &asked[i]);
    }
    scene_run(&scene, asked, 3);
    expect_end(&asked[0], BATCH_FAILED);
    assert_int_equal(asked[0].status, STATUS_NUMERIC);
    assert_int_equal(asked[0].n_got, 4);
    assert_non_null(strstr(asked[0].why, "layer 3"));
    assert_non_null(strstr(asked[0].why, "position 23"));
    expect_end(&asked[1], BATCH_LENGTH);
    expect_end(&asked[2], BATCH_FAILED);
    assert_int_equal(asked[2].n_got, 0);
    assert_int_equal(supervisor_rebuilds(scene.world.s), 0); /* nobody else has noticed */
    scene_close(&scene);
}

/* One that kills the ranks every time is given up, the others are not; one that kills twice is run
 * alone and gets its answer. */
static void test_requests_that_kill(void **state)
{
    (void)state;
    for (uint32_t n_kills = 2; n_kills <= 3; n_kills++) {
        struct asked asked[] = {scene_ask(1, 20, 12), scene_ask(100, 20, 12),
                                scene_ask(300, 20, 12)};
        struct scene scene;

        asked[1].params.choice = FAKE_POISON;
        asked[1].params.prompt_index = n_kills;
        scene_open(&scene, NULL, NULL, NULL);
        for (int i = 0; i < 3; i++) {
            scene_add(&scene, &asked[i]);
        }
        scene_run(&scene, asked, 3);
        assert_int_equal(supervisor_rebuilds(scene.world.s), n_kills);
        expect_end(&asked[0], BATCH_LENGTH);
        expect_end(&asked[2], BATCH_LENGTH);
        if (n_kills == 2) {
            assert_true(scene.n_alone_steps > 0);
            expect_end(&asked[1], BATCH_LENGTH);
        } else { /* its lone step is the one that kills; the others need not have been suspects */
            expect_end(&asked[1], BATCH_FAILED);
            assert_int_equal(asked[1].status, STATUS_LINK);
            assert_non_null(strstr(asked[1].why, "rank 0 died of signal 9"));
        }
        scene_close(&scene);
    }
}

/* A world that gives up ends every request, once, with the reason; the next one starts empty. */
static void test_world_fails(void **state)
{
    struct supervisor_config config = fake_config(2);
    struct asked asked[] = {scene_ask(1, 20, 40), scene_ask(100, 20, 40)};
    struct asked after = scene_ask(1, 20, 5);
    struct scene scene;

    (void)state;
    config.world.probe_ms = 300;
    scene_open(&scene, &config, NULL,
               "exit:plan/0/1/5 exit:hello/0/2/0 exit:hello/0/3/0 exit:load/1/4/0");
    scene_add(&scene, &asked[0]);
    scene_add(&scene, &asked[1]);
    scene_run(&scene, asked, 2);
    assert_int_equal(supervisor_state(scene.world.s), WORLD_STOPPING);
    for (int i = 0; i < 2; i++) {
        expect_end(&asked[i], BATCH_FAILED);
        assert_int_equal(asked[i].status, STATUS_LINK);
        assert_non_null(strstr(asked[i].why, "rank 1 exited with status 3"));
    }
    assert_int_equal(scene_n_left(&scene), 0);
    assert_int_equal(scene.b->journal.n, 0);
    scene_add(&scene, &after); /* waits for the probe */
    scene_run(&scene, &after, 1);
    expect_end(&after, BATCH_LENGTH);
    scene_close(&scene);
}

/* Requests that wait for a world which never comes. */
static void test_no_world(void **state)
{
    static const char *const scripts[] = {"user:load/1/0/0", "hang:load/1/0/0"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct asked asked = scene_ask(1, 20, 4);
        struct scene scene;

        scene_open(&scene, NULL, NULL, scripts[i]);
        scene_add(&scene, &asked);
        if (i == 1) { /* nobody waits any longer */
            fake_wait(&scene.world, WORLD_LOADING);
            supervisor_stop(scene.world.s);
        }
        scene_run(&scene, &asked, 1);
        expect_end(&asked, BATCH_FAILED);
        assert_int_equal(supervisor_state(scene.world.s), WORLD_DOWN);
        assert_true(i == 1 || strstr(asked.why, "no such tensor") != NULL);
        scene_close(&scene);
    }
}

/* --- Cancelling --- */

static void test_cancel(void **state)
{
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, "kill:plan/1/1/6");
    for (uint32_t when = 0; when < 40; when++) { /* from before the world is up on */
        struct asked asked = scene_ask(1, 40, 30);
        struct asked beside = scene_ask(500, 3, 4);

        scene_add(&scene, &asked);
        scene_add(&scene, &beside);
        for (uint32_t i = 0; i < when && !asked.ended; i++) {
            scene_turn(&scene);
        }
        if (!asked.ended) {
            batch_cancel(scene.b, asked.id);
            scene_check(&scene);
            expect_end(&asked, BATCH_CANCELLED);
            assert_int_equal(asked.status, STATUS_CANCELLED);
        }
        batch_cancel(scene.b, asked.id); /* nothing happens */
        batch_cancel(scene.b, 123456);
        scene_run(&scene, &beside, 1);
        scene_expect_exact(&asked);
        if (scene_n_left(&scene) != 0) {
            fail_msg("still running at %u", when);
        }
    }
    scene_close(&scene);
}

static void cancel_self(struct asked *asked)
{
    if (asked->n_got == 3) {
        batch_cancel(asked->scene->b, asked->id);
    }
}

static void cancel_other(struct asked *asked)
{
    if (asked->n_got == 3) {
        batch_cancel(asked->scene->b, asked->other->id);
    }
}

static void cancel_other_at_end(struct asked *asked)
{
    batch_cancel(asked->scene->b, asked->other->id);
}

/* Callbacks may cancel: themselves, those before and those behind them in the same step. */
static void test_cancel_in_callbacks(void **state)
{
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    for (int kind = 0; kind < 6; kind++) {
        struct asked asked[] = {scene_ask(1, 4, 10), scene_ask(100, 4, 10)};
        struct asked *acts = &asked[kind % 2];
        struct asked *suffers = &asked[1 - kind % 2];

        acts->other = suffers;
        if (kind < 2) {
            acts->on_token = cancel_self;
        } else if (kind < 4) {
            acts->on_token = cancel_other;
        } else {
            acts->on_end = cancel_other_at_end;
            acts->max_generated = 4;
        }
        scene_add(&scene, &asked[0]);
        scene_add(&scene, &asked[1]);
        scene_run(&scene, asked, 2);
        expect_end(acts, kind < 2 ? BATCH_CANCELLED : BATCH_LENGTH);
        expect_end(suffers, kind < 2 ? BATCH_LENGTH : BATCH_CANCELLED);
    }
    scene_close(&scene);
}

/* A request that ends by its last token, of a batch with nothing ahead, cancels itself. */
static void test_cancel_self_at_last(void **state)
{
    struct asked asked = scene_ask(1, 4, 3);
    struct scene scene;

    (void)state;
    asked.on_token = cancel_self;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked);
    scene_run(&scene, &asked, 1);
    expect_end(&asked, BATCH_CANCELLED);
    scene_close(&scene);
}

static void add_other(struct asked *asked)
{
    scene_add(asked->scene, asked->other);
}

/* They may add as well. */
static void test_add_in_callbacks(void **state)
{
    struct asked asked[] = {scene_ask(1, 4, 5), scene_ask(100, 4, 5), scene_ask(200, 4, 5)};
    struct scene scene;

    (void)state;
    asked[0].on_end = add_other;
    asked[0].other = &asked[1];
    asked[1].on_end = add_other;
    asked[1].other = &asked[2];
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked[0]);
    scene_run(&scene, asked, 3);
    scene_close(&scene);
}

/* Callbacks that cancel while a whole world fails. */
static void test_cancel_while_failing(void **state)
{
    struct asked asked[] = {scene_ask(1, 4, 50), scene_ask(100, 4, 50)};
    struct scene scene;

    (void)state;
    for (int i = 0; i < 2; i++) {
        asked[i].on_end = cancel_other_at_end;
        asked[i].other = &asked[1 - i];
    }
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked[0]);
    scene_add(&scene, &asked[1]);
    while (asked[1].n_got < 3) {
        scene_turn(&scene);
    }
    scene_close(&scene);
    expect_end(&asked[0], BATCH_FAILED);
    assert_true(asked[1].ended);
}

/* Destroyed with requests that run: nobody is called any more, nothing leaks. */
static void test_destroy_running(void **state)
{
    struct asked asked = scene_ask(1, 30, 50);
    struct scene scene;

    (void)state;
    scene_open(&scene, NULL, NULL, NULL);
    scene_add(&scene, &asked);
    while (asked.n_got < 3) {
        scene_turn(&scene);
    }
    fake_close(&scene.world);
    batch_destroy(&scene.b);
    batch_destroy(&scene.b);
    assert_false(asked.ended);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_answered),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pages_run_out),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_prefix_after_rebuild),
        cmocka_unit_test(test_drop_cache),
        cmocka_unit_test(test_journal_full),
        cmocka_unit_test(test_no_memory_for_answer),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_long_plan),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_cancel_at_start),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_requests_that_kill),
        cmocka_unit_test(test_world_fails),
        cmocka_unit_test(test_no_world),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_in_callbacks),
        cmocka_unit_test(test_cancel_self_at_last),
        cmocka_unit_test(test_add_in_callbacks),
        cmocka_unit_test(test_cancel_while_failing),
        cmocka_unit_test(test_destroy_running),
    };

    if (argc > 1 && strcmp(argv[1], "rank") == 0) {
        return fake_rank_main(argc, argv);
    }
    log_set_level(getenv("LOCKSTEP_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
