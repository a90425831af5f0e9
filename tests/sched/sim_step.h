/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of the simulation: issued and carried out, committed, checked. */
#pragma once

#include "sim.h"

/* Nobody else has the page. */
static inline void sim_expect_private(const struct sim *sim, const struct sim_step *step,
                                      const struct sched_seq *seq, uint32_t page)
{
    for (uint32_t i = 0; i < step->n; i++) {
        const struct sched_seq *other = step->parts[i].seq;

        for (uint32_t k = 0; other != seq && k < other->kv.n_pages; k++) {
            assert_int_not_equal(other->kv.pages[k], page);
        }
    }
    assert_true(page < sim->config.n_pages);
}

/* Writes a part's rows, and samples if it wants that. */
static inline int32_t sim_compute(struct sim *sim, const struct sim_step *step,
                                  const struct sched_part *part, struct sim_request *request)
{
    const struct sched_seq *seq = part->seq;
    int32_t seen[SIM_CONTEXT];

    for (uint32_t pos = part->begin; pos < part->begin + part->n; pos++) {
        uint32_t page = seq->kv.pages[pos / SIM_PAGE];

        sim_expect_private(sim, step, seq, page);
        assert_true(part->by_ref == (pos >= request->n_known));
        sim->pages[page * SIM_PAGE + pos % SIM_PAGE] =
            part->by_ref ? request->ahead : request->tokens[pos];
    }
    for (uint32_t pos = 0; pos < part->begin + part->n; pos++) {
        seen[pos] = sim->pages[seq->kv.pages[pos / SIM_PAGE] * SIM_PAGE + pos % SIM_PAGE];
    }
    assert_memory_equal(seen, request->tokens,
                        MIN(part->begin + part->n, request->n_known) * sizeof(*seen));
    return sim_token(seen, part->begin + part->n);
}

/* Budgets, and nobody twice; who decodes is not left out for a prompt. */
static inline void sim_check_step(const struct sim *sim, const struct sim_step *step)
{
    uint32_t rows = 0;
    uint32_t score = 0;
    uint32_t prompt_rows = 0;

    for (uint32_t i = 0; i < step->n; i++) {
        const struct sched_part *part = &step->parts[i];

        assert_true(part->n > 0 && part->seq->running);
        assert_int_equal(part->begin, part->seq->sent);
        rows += part->n;
        score += part->n_score;
        prompt_rows += part->seq->n_known > part->begin + 1 ? part->n : 0;
        for (uint32_t k = 0; k < i; k++) {
            assert_ptr_not_equal(step->parts[k].seq, part->seq);
        }
    }
    assert_true(rows <= sim->config.max_rows && score <= sim->config.max_score_rows);
    assert_true(prompt_rows == 0 || rows - prompt_rows < sim->config.max_rows);
}

static inline void sim_start(struct sim *sim, struct sim_request *request)
{
    if (!request->started) {
        request->started = true;
        request->n_cached = request->seq->n_cached;
        request->number = ++sim->n_admitted;
    }
}

/* The next step, if there is room in flight. Returns its parts. */
static inline uint32_t sim_issue(struct sim *sim, bool alone)
{
    struct sim_step *step = &sim->steps[sim->n_steps];

    if (sim->n_steps == SIM_FLIGHT) {
        return 0;
    }
    sched_admit(sim->s);
    sched_audit(sim->s);
    step->n = sched_pick(sim->s, alone, step->parts);
    sched_audit(sim->s);
    sim_check_step(sim, step);
    for (uint32_t i = 0; i < step->n; i++) {
        step->requests[i] = step->parts[i].seq->owner;
        sim_start(sim, step->requests[i]);
        step->sampled[i] = sim_compute(sim, step, &step->parts[i], step->requests[i]);
        sim->n_rows += step->parts[i].n;
    }
    for (uint32_t i = 0; i < step->n; i++) {
        sched_issued(sim->s, &step->parts[i]);
        if (step->parts[i].want) {
            step->requests[i]->ahead = step->sampled[i];
        }
    }
    sched_audit(sim->s);
    sim->n_steps += step->n > 0;
    return step->n;
}

static inline void sim_commit_part(struct sim *sim, const struct sim_step *step, uint32_t i)
{
    struct sim_request *request = step->requests[i];
    const struct sched_part *part = &step->parts[i];

    if (!sched_is_current(part, request->seq)) {
        return;
    }
    if (part->want) { /* what it says when it is alone with its tokens */
        assert_int_equal(step->sampled[i], sim_token(request->tokens, request->n_known));
        request->tokens[request->n_known++] = step->sampled[i];
        sched_know(sim->s, request->seq, request->tokens, request->n_known);
    }
    if (part->n_score > 0) { /* each once, in order */
        assert_int_equal(part->score_begin, request->n_scored);
        request->n_scored += part->n_score;
    }
    sched_commit(sim->s, part);
    if (request->n_known == request->asked.n_prompt + request->asked.max_generated) {
        request->done = true;
        sim_remove(sim, request);
    }
}

static inline void sim_commit(struct sim *sim)
{
    struct sim_step step = sim->steps[0];

    if (sim->n_steps > 0) {
        memmove(sim->steps, sim->steps + 1, (SIM_FLIGHT - 1) * sizeof(step));
        sim->n_steps--;
        for (uint32_t i = 0; i < step.n; i++) {
            sim_commit_part(sim, &step, i);
        }
        sched_audit(sim->s);
    }
}

/* One step issued and the one before it committed. */
static inline void sim_turn(struct sim *sim)
{
    (void)sim_issue(sim, false);
    if (sim->n_steps == SIM_FLIGHT || sched_counts(sim->s).running > 0) {
        sim_commit(sim);
    }
}

/* Until nothing is left of these; at most so many turns. */
static inline void sim_run(struct sim *sim, const struct sim_request *requests, uint32_t n,
                           uint32_t n_turns)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t t = 0; requests[i].seq != NULL; t++) {
            if (t == n_turns) {
                fail_msg("request %u does not end", i);
            }
            sim_turn(sim);
        }
    }
}

static inline void sim_close(struct sim *sim)
{
    struct sched_counts counts;

    while (sim->n_steps > 0) {
        sim_commit(sim);
    }
    counts = sched_counts(sim->s);
    assert_int_equal(counts.running + counts.waiting, 0);
    assert_int_equal(counts.kv.used, 0);
    sched_drop_cached(sim->s);
    assert_int_equal(sched_counts(sim->s).kv.free, sim->config.n_pages);
    sched_destroy(&sim->s);
    assert_null(sim->s);
}
