/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of drawing share: logits, slots with every setting, and the tokens that
 * sampler_token draws of them, which all ranks must draw.
 */
#pragma once

#include "comm/world.h"

#include <math.h>

#include "base/mem.h"
#include "engine/draw.h"
#include "sample/helpers.h"
#include "sample/sampler.h"
#include "tensor/shard.h"

enum { N_SLOTS = 5, N_STEPS = 6, N_TABLES = 2, N_PROMPT = 40, N_HISTORY = 3, MAX_RANKS = 8 };
enum { TIMEOUT_MS = 60 * 1000 };

static const struct sample_bias biases[] = {{3, 4.0f}, {0, -100.0f}, {6, 4.5f}, {3, 1.0f}};
static const struct sample_bias phrases[] = {{3, 30}, {6, 30}, {3, 0}, {6, -100}}; /* no 3, 6 */

/* Every way of choosing, alone and together. */
static const struct sample_params settings[] = {
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
    {.temperature = 0.7f, .top_p = 0.95f, .repetition_penalty = 1, .top_k = 40},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1.3f},
    {.temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .frequency_penalty = 3},
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .min_p = 0.05f},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .bias = biases, .n_bias = 4},
    {.temperature = 1.2f, .top_p = 0.95f, .repetition_penalty = 1}, /* several rounds */
    {.temperature = 1.5f, .top_p = 1, .repetition_penalty = 1, .presence_penalty = 2},
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 1600},
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 1},
    {.temperature = 2,
     .top_p = 0.9f,
     .repetition_penalty = 1.1f,
     .min_p = 0.01f,
     .top_k = 50,
     .presence_penalty = 0.5f,
     .frequency_penalty = 0.5f,
     .bias = biases,
     .n_bias = 4},
    {.temperature = 3, .top_p = 1, .repetition_penalty = 1, .bias = biases, .n_bias = 4},
    {1, 0, 1, 0, 1, 0, 0, biases, 4, .n_min = 2, .n_min_bias = 1, .allow = true},
    {1, 0, 1, 0, 1, 0, 0, phrases, 4, .n_phrase_bias = 2},
};

enum { N_SETTINGS = ARRAY_LEN(settings) };

/* What all ranks read: the logits of the whole vocabulary and the tokens that they must draw. */
struct plan {
    uint32_t vocab;
    struct shard_cut cut; /* row bounds of the ranks */
    float *tables;        /* [N_SLOTS][N_TABLES][vocab] */
    int32_t prompt[N_PROMPT];
    int32_t history[N_HISTORY];
    int32_t expected[N_SETTINGS][2][N_STEPS][N_SLOTS]; /* with one slot, with all */
};

static inline const float *table_of(const struct plan *plan, uint32_t slot, uint32_t step)
{
    return plan->tables + ((size_t)slot * N_TABLES + step / 3 % N_TABLES) * plan->vocab;
}

/* Slots miss some steps, so that they are at different positions. */
static inline bool takes_part(uint32_t slot, uint32_t step)
{
    return (slot + step) % 4 != 3;
}

/* Slots 3 and 4 go on where another world stopped. */
static inline struct draw_slot slot_of(const struct plan *plan, uint32_t setting, uint32_t slot)
{
    return (struct draw_slot){
        .params = settings[(setting + slot) % N_SETTINGS],
        .key = {.seed = 1000 + setting, .prompt = slot, .choice = slot % 2},
        .prompt = plan->prompt,
        .n_prompt = slot * N_PROMPT / N_SLOTS,
        .generated = plan->history,
        .n_generated = slot >= 3 ? N_HISTORY : 0,
    };
}

static inline void expect_tokens(struct plan *plan, uint32_t setting, bool many)
{
    int32_t generated[N_SLOTS][N_HISTORY + N_STEPS];
    uint32_t n_generated[N_SLOTS];
    float *logits = xcalloc(plan->vocab, sizeof(*logits));
    struct sampler sampler;

    assert_int_equal(sampler_init(&sampler, plan->vocab), STATUS_OK);
    for (uint32_t slot = 0; slot < (many ? N_SLOTS : 1); slot++) {
        struct draw_slot from = slot_of(plan, setting, slot);

        memcpy(generated[slot], plan->history, sizeof(plan->history));
        n_generated[slot] = from.n_generated;
        for (uint32_t step = 0; step < N_STEPS; step++) {
            struct sample_request request = {
                .params = &from.params,
                .key = from.key,
                .prompt = from.prompt,
                .n_prompt = from.n_prompt,
                .generated = generated[slot],
                .n_generated = n_generated[slot],
            };
            uint32_t token;

            if (!takes_part(slot, step)) {
                continue;
            }
            request.key.position = n_generated[slot];
            memcpy(logits, table_of(plan, slot, step), plan->vocab * sizeof(*logits));
            assert_int_equal(sampler_token(&sampler, &request, logits, &token, NULL), STATUS_OK);
            generated[slot][n_generated[slot]++] = (int32_t)token;
            plan->expected[setting][many][step][slot] = (int32_t)token;
        }
    }
    sampler_release(&sampler);
    free(logits);
}

/* Table 0 of a slot is smooth, table 1 has ties and impossible tokens. */
static inline struct plan *plan_create(uint32_t vocab)
{
    struct plan *plan = xalloc(sizeof(*plan));
    uint64_t random = vocab;

    plan->vocab = vocab;
    plan->tables = xcalloc((size_t)N_SLOTS * N_TABLES * vocab, sizeof(float));
    for (size_t i = 0; i < (size_t)N_SLOTS * N_TABLES * vocab; i++) {
        double value = (test_uniform(&random) + test_uniform(&random) - 1.0) * 12.0;
        bool rough = i / vocab % N_TABLES == 1;

        value = rough ? floor(value * 2.0) / 2.0 : value;
        plan->tables[i] = rough && i % vocab > 0 && i % 4 == 0 ? -INFINITY : (float)value;
    }
    for (size_t i = 0; i < N_PROMPT; i++) {
        plan->prompt[i] = (int32_t)(test_random(&random) % vocab);
    }
    for (size_t i = 0; i < N_HISTORY; i++) {
        plan->history[i] = (int32_t)(test_random(&random) % vocab);
    }
    for (uint32_t setting = 0; setting < N_SETTINGS; setting++) {
        expect_tokens(plan, setting, false);
        expect_tokens(plan, setting, true);
    }
    return plan;
}

static inline void plan_destroy(struct plan *plan)
{
    free(plan->tables);
    free(plan);
}

static inline void cut_rows(struct plan *plan, uint32_t n_ranks, const uint32_t *weights)
{
    struct shard_world world = {.n_ranks = n_ranks, .weights = weights};

    assert_int_equal(shard_blocks(&world, plan->vocab, SAMPLE_BLOCK_ROWS, &plan->cut, NULL),
                     STATUS_OK);
}

static inline struct draw *create(struct comm *comm, const struct plan *plan,
                                  const struct mass_table *masses)
{
    struct draw *draw = NULL;
    struct err err = {0};

    if (draw_create(
            &(struct draw_config){
                .comm = comm,
                .vocab = plan->vocab,
                .vocab_begin = plan->cut.bounds[comm->rank],
                .vocab_end = plan->cut.bounds[comm->rank + 1],
                .n_slots = N_SLOTS,
                .masses = masses,
            },
            &draw, &err) != STATUS_OK) {
        print_error("%s\n", err.text);
    }
    return draw;
}

/* A rank's rows of logits that the draw may change, for each slot. */
struct rows {
    uint32_t begin;
    uint32_t n;
    float *logits; /* [N_SLOTS][n] */
};

static inline struct rows rows_create(const struct comm *comm, const struct plan *plan)
{
    struct rows rows = {.begin = plan->cut.bounds[comm->rank]};

    rows.n = plan->cut.bounds[comm->rank + 1] - rows.begin;
    rows.logits = xcalloc((size_t)N_SLOTS * rows.n, sizeof(float));
    return rows;
}

/* A want of the slot with this rank's rows of the logits of that step. */
static inline struct draw_want want_of(const struct plan *plan, const struct rows *rows,
                                       uint32_t slot, uint32_t position, uint32_t step)
{
    float *logits = rows->logits + (size_t)slot * rows->n;

    memcpy(logits, table_of(plan, slot, step) + rows->begin, rows->n * sizeof(*logits));
    return (struct draw_want){
        .slot = slot, .position = position, .logits = logits, .nan_layer = -1, .token = -77};
}

static inline bool check_token(struct draw *draw, const struct draw_want *want, uint32_t step,
                               int32_t expected)
{
    uint64_t last_step = 0;
    int32_t last = -1;

    if (want->token != expected || want->ret_nan_layer != -1) {
        print_error("step %u, slot %u: token %d (layer %d) instead of %d\n", step, want->slot,
                    want->token, want->ret_nan_layer, expected);
        return false;
    }
    if (!draw_slot_last(draw, want->slot, &last_step, &last) || last != expected ||
        last_step != 100 + step) {
        print_error("step %u, slot %u: last is %d\n", step, want->slot, last);
        return false;
    }
    return true;
}

/* Runs fn on every rank of a world; one rank is the back end self. */
static inline void run_world(uint32_t n_ranks, world_fn *fn, void *arg)
{
    struct world world;

    if (n_ranks == 1) {
        struct comm *comm = comm_self_create();

        assert_true(fn(comm, arg));
        comm_destroy(&comm);
        return;
    }
    world_init(&world, n_ranks, TIMEOUT_MS);
    assert_int_equal(world_run(&world, WORLD_THREADS, fn, arg), 0);
    world_release(&world);
}
