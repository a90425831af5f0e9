/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on a batch over fake ranks: what each gets is compared, token by token, with what the
 * model says it should get, and after every turn the books are checked: each KV page is in exactly
 * one place, lone requests are alone, nothing is called twice.
 */
#pragma once

#include "batch_asked.h"
#include "world/batch_priv.h"

struct scene {
    struct fake_world world; /* its supervisor and baseline; no sequence of its own */
    struct batch *b;
    struct supervisor_handlers on; /* the batch's */
    uint32_t n_alone_steps;        /* committed */
    uint32_t n_resumes;
};

static inline enum status scene_try_add(struct scene *scene, struct asked *asked, struct err *err)
{
    const struct batch_request request = {
        .params = asked->params,
        .bias = scene_bias(asked),
        .prompt = asked->prompt,
        .n_prompt = asked->n_prompt,
        .max_generated = asked->max_generated,
        .tenant = asked->tenant,
        .priority = asked->priority,
        .logprobs = asked->logprobs,
        .n_top = asked->n_top,
        .prompt_logprobs = asked->prompt_logprobs,
        .n_answered = asked->n_answered,
        .n_prompt_top = asked->n_prompt_top,
        .prompt_token = scene_prompt_token,
        .started = scene_started,
        .token = scene_token,
        .end = scene_end,
        .arg = asked,
    };

    asked->scene = scene;
    return batch_add(scene->b, &request, &asked->id, err);
}

static inline void scene_add(struct scene *scene, struct asked *asked)
{
    struct err err = {0};

    if (scene_try_add(scene, asked, &err) != STATUS_OK) {
        fail_msg("not added: %s", err.text);
    }
}

/* Steps in flight of a lone request, which are alone; how many there are. */
static inline uint32_t scene_check_alone(const struct scene *scene)
{
    const struct batch *b = scene->b;
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n_steps; i++) {
        for (uint32_t k = 0; k < b->steps[i].n_parts; k++) {
            const struct sched_seq *seq = b->steps[i].parts[k].run->seq;

            if (seq != NULL && seq->alone) {
                assert_int_equal(b->n_steps, 1);
                assert_int_equal(b->steps[i].n_parts, 1);
                n++;
            }
        }
    }
    return n;
}

/* Every page in its place, lone requests alone. */
static inline void scene_check(struct scene *scene)
{
    const struct batch *b = scene->b;

    sched_audit(b->sched);
    if (supervisor_state(scene->world.s) != WORLD_READY) {
        return; /* the steps are void */
    }
    for (const struct batch_run *run = b->runs; run != NULL; run = run->next) {
        if (run->seq != NULL) {
            assert_true(run->seq->alone ==
                        supervisor_is_alone(scene->world.s, run->entry->request));
            assert_true(!run->placed || run->lives != run->seq->lives || !run->seq->running ||
                        run->seq->done == run->entry->positions);
        }
    }
    scene_check_alone(scene);
}

static inline uint32_t scene_n_left(const struct scene *scene)
{
    return batch_running(scene->b) + batch_waiting(scene->b);
}

static inline void scene_resume(void *arg, bool keep_kv, const uint64_t *alone, size_t n_alone)
{
    struct scene *scene = arg;

    scene->n_resumes++;
    scene->world.resume_kept = keep_kv;
    scene->on.resume(scene->on.arg, keep_kv, alone, n_alone);
}

static inline void scene_commit(void *arg, const struct step_result *result)
{
    struct scene *scene = arg;

    scene->n_alone_steps += scene_check_alone(scene); /* a turn may see it come and go */
    scene->on.commit(scene->on.arg, result);
}

static inline void scene_fail(void *arg, bool all, const uint64_t *ids, size_t n_ids)
{
    struct scene *scene = arg;

    (scene->on.fail)(scene->on.arg, all, ids, n_ids); /* cmocka has a macro of that name */
}

/* config: changed as the test needs it; NULL: two ranks. */
static inline void scene_open(struct scene *scene, const struct supervisor_config *config,
                              const struct batch_config *batch, const char *script)
{
    struct supervisor_config plain = fake_config(2);
    struct batch_config usual = {
        .n_slots = FAKE_SLOTS,
        .max_queue = FAKE_SLOTS,
        .max_rows = 16,
        .n_pages = FAKE_PAGES,
        .page_tokens = FAKE_PAGE_TOKENS,
        .max_context = FAKE_CONTEXT,
        .vocab = FAKE_VOCAB,
        .max_top = PLAN_MAX_TOP,
        .max_score_rows = 5,
        .hash_state = true,
        .journal_bytes = 1 << 20,
    };

    plain = config != NULL ? *config : plain;
    usual = batch != NULL ? *batch : usual;
    plain.max_rows = usual.max_rows;
    *scene = (struct scene){.b = batch_create(&usual)};
    fake_open(&scene->world, &plain, script);
    batch_handle(scene->b, &scene->on);
    scene->world.s->config.on = (struct supervisor_handlers){
        .arg = scene, .commit = scene_commit, .resume = scene_resume, .fail = scene_fail};
    batch_attach(scene->b, scene->world.s);
    supervisor_start(scene->world.s);
}

static inline void scene_turn(struct scene *scene)
{
    batch_turn(scene->b, clock_ns() + 20 * FAKE_MS, NULL, 0);
    scene_check(scene);
}

/* Until all of these have ended. */
static inline void scene_run(struct scene *scene, const struct asked *asked, uint32_t n)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;

    for (uint32_t i = 0; i < n; i++) {
        while (!asked[i].ended) {
            if (clock_ns() >= end) {
                fail_msg("request %d does not end: %s, %s", (int)asked[i].id,
                         world_state_text(supervisor_state(scene->world.s)),
                         supervisor_why(scene->world.s));
            }
            scene_turn(scene);
        }
        scene_expect_exact(&asked[i]);
    }
}

/* Ends the world; no request is left, whatever became of them. */
static inline void scene_close(struct scene *scene)
{
    struct scene *it = scene;

    for (int i = 0; i < 50 && it->b->journal.n > 0 && scene_n_left(it) == 0; i++) {
        scene_turn(it); /* the step that was ahead */
    }
    supervisor_stop(it->world.s);
    fake_wait(&it->world, WORLD_DOWN);
    assert_int_equal(scene_n_left(it), 0);
    assert_int_equal(it->b->journal.n, 0);
    assert_int_equal(it->b->journal.n_refused, 0);
    assert_null(it->b->runs);
    scene_check(it);
    fake_close(&it->world);
    batch_destroy(&it->b);
    assert_null(it->b);
}
