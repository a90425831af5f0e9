/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A supervisor over fake ranks, and one sequence that is computed on it step by step, each token
 * compared with the model's. Closing a world checks that nothing is left of it.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/wait.h>

#include "base/log.h"
#include "fake_rank.h"
#include "world/supervisor.h"
#include "world/supervisor_priv.h"

enum { FAKE_WAIT_MS = 30000, FAKE_MAX_RANKS = 4, FAKE_PROMPT = 7, FAKE_PAGES = 48 };

#define FAKE_MS UINT64_C(1000000)

struct fake_world {
    struct supervisor *s;
    int n_fds; /* open before */

    int32_t tokens[FAKE_CONTEXT]; /* of the sequence: a prompt, then what was sampled */
    uint32_t n_tokens;
    uint32_t positions; /* committed */
    uint32_t in_flight; /* positions of the step that is under way */
    bool told;          /* the ranks have its parameters */
    uint64_t last_step;
    uint32_t max_rows;

    uint32_t n_commits;
    uint32_t n_resumes;
    bool resume_kept; /* the last one's keep_kv */
    uint32_t n_failed;
    bool failed_all;
};

static struct supervisor *fake_left; /* of a test that failed */

static inline int fake_count_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = -1; /* its own */

    assert_non_null(folder);
    while (readdir(folder) != NULL) {
        n++;
    }
    closedir(folder);
    return n;
}

static inline struct plan_params fake_params(void)
{
    return (struct plan_params){.seed = 42, .temperature = 0.5f, .repetition_penalty = 1};
}

static inline void fake_on_commit(void *arg, const struct step_result *result)
{
    struct fake_world *w = arg;
    struct plan_params params = fake_params();

    w->n_commits++;
    assert_int_equal(result->step, w->last_step + 1);
    w->last_step = result->step;
    w->positions += w->in_flight;
    w->in_flight = 0;
    if (result->n_tokens > 0) {
        assert_int_equal(result->tokens[0].token,
                         fake_token(fake_key(&params, NULL), w->tokens, w->n_tokens));
        w->tokens[w->n_tokens++] = result->tokens[0].token;
    }
}

static inline void fake_on_resume(void *arg, bool keep_kv, UNUSED const uint64_t *alone,
                                  UNUSED size_t n_alone)
{
    struct fake_world *w = arg;

    w->n_resumes++;
    w->resume_kept = keep_kv;
    w->positions = keep_kv ? w->positions : 0;
    w->in_flight = 0;
    w->told = false;
}

static inline void fake_on_fail(void *arg, bool all, UNUSED const uint64_t *ids, size_t n_ids)
{
    struct fake_world *w = arg;

    w->failed_all = w->failed_all || all;
    w->n_failed += (uint32_t)n_ids;
}

static inline json_t *fake_load_body(uint32_t max_rows, uint32_t n_pages)
{
    return json_pack("{s:s, s:{s:I, s:I}}", "model", "fake", "options", "max_rows",
                     (json_int_t)max_rows, "n_pages", (json_int_t)n_pages);
}

/* Short limits, so that a test of each costs little; long ones for what a busy machine may delay.
 */
static inline struct supervisor_config fake_config(uint32_t n_ranks)
{
    struct supervisor_config config = {
        .n_ranks = n_ranks,
        .hang_ms = 600,
        .build = FAKE_BUILD,
        .layout = 1,
        .max_rows = 16,
        .n_slots = FAKE_SLOTS,
        .n_layers = FAKE_LAYERS,
        .vocab = FAKE_VOCAB,
    };

    world_config_init(&config.world);
    config.world.stop_ms = 1000;
    return config;
}

/* Makes the world; config->load is set here. script: of fake_model.h, NULL for none. */
static inline void fake_open(struct fake_world *w, struct supervisor_config *config,
                             const char *script)
{
    json_t *load = fake_load_body(config->max_rows, FAKE_PAGES);
    struct err err = {0};

    supervisor_destroy(&fake_left);
    *w = (struct fake_world){.n_fds = fake_count_fds(), .max_rows = config->max_rows};
    for (w->n_tokens = 0; w->n_tokens < FAKE_PROMPT; w->n_tokens++) {
        w->tokens[w->n_tokens] = (int32_t)(100 + w->n_tokens);
    }
    setenv(FAKE_SCRIPT_VARIABLE, script == NULL ? "" : script, 1);
    config->load = load;
    config->on = (struct supervisor_handlers){
        .arg = w, .commit = fake_on_commit, .resume = fake_on_resume, .fail = fake_on_fail};
    assert_int_equal(supervisor_create(config, &w->s, &err), STATUS_OK);
    fake_left = w->s;
    json_decref(load);
}

/* A world that is asked for. */
static inline void fake_start(struct fake_world *w, uint32_t n_ranks, const char *script)
{
    struct supervisor_config config = fake_config(n_ranks);

    fake_open(w, &config, script);
    supervisor_start(w->s);
}

static inline void fake_turn(struct fake_world *w)
{
    supervisor_turn(w->s, clock_ns() + 100 * FAKE_MS, NULL, 0);
}

/* Until the world is in this state, with all ranks alive or none. */
static inline void fake_wait(struct fake_world *w, enum world_state state)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;

    while (supervisor_state(w->s) != state) {
        if (clock_ns() >= end) {
            fail_msg("it is %s and not %s: %s", world_state_text(supervisor_state(w->s)),
                     world_state_text(state), supervisor_why(w->s));
        }
        fake_turn(w);
    }
}

/* Until it was rebuilt so often. */
static inline void fake_wait_rebuilt(struct fake_world *w, uint64_t n)
{
    uint64_t end = clock_ns() + FAKE_WAIT_MS * FAKE_MS;

    while (supervisor_rebuilds(w->s) < n && clock_ns() < end) {
        fake_turn(w);
    }
    fake_wait(w, WORLD_READY);
}

static inline void fake_expect_nothing_left(int n_fds)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1); /* no child, not even a dead one */
    assert_int_equal(errno, ECHILD);
    assert_int_equal(fake_count_fds(), n_fds);
}

/* Destroys the world as it is. */
static inline void fake_close(struct fake_world *w)
{
    supervisor_destroy(&w->s);
    fake_left = NULL;
    fake_expect_nothing_left(w->n_fds);
}

/* Ends it politely, then destroys it. */
static inline void fake_stop(struct fake_world *w)
{
    supervisor_stop(w->s);
    fake_wait(w, WORLD_DOWN);
    fake_close(w);
}
