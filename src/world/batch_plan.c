/* SPDX-License-Identifier: Apache-2.0 */
/* From what the scheduler picks to the plan of the next step. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "world/batch_priv.h"

static void add_params(struct batch *b, struct step_plan *plan, struct batch_run *run)
{
    struct batch_space *space = &b->space;
    struct plan_params *params = &space->params[plan->n_params++];
    const struct journal_entry *entry = run->entry;
    uint32_t known = journal_n_known(entry);

    *params = batch_params(run);
    params->slot = run->seq->slot;
    params->n_prompt = entry->n_prompt - run->request.n_answered;
    params->n_generated = entry->n_generated + run->request.n_answered;
    if (plan->n_bias + params->n_bias > space->bias_cap) {
        space->bias_cap = plan->n_bias + params->n_bias;
        space->bias = xrealloc(space->bias, space->bias_cap, sizeof(*space->bias));
    }
    if (params->n_bias > 0) {
        memcpy(space->bias + plan->n_bias, batch_bias(run), params->n_bias * sizeof(*space->bias));
    }
    plan->n_bias += params->n_bias;
    if (plan->n_history + known > space->history_cap) {
        space->history_cap = 2 * (plan->n_history + (size_t)known);
        space->history = xrealloc(space->history, space->history_cap, sizeof(*space->history));
    }
    journal_copy_tokens(entry, 0, known, space->history + plan->n_history);
    plan->n_history += known;
    run->sent.params = true;
}

static void add_segment(struct batch *b, struct step_plan *plan, struct batch_run *run,
                        const struct sched_part *part)
{
    struct batch_space *space = &b->space;
    uint32_t need = (uint32_t)div_up((size_t)part->begin + part->n, b->config.page_tokens);
    uint32_t n_pages = need - run->sent.n_pages;

    ENSURE_OP(need, <=, run->seq->kv.n_pages);
    space->segments[plan->n_segments++] = (struct plan_segment){
        .slot = run->seq->slot,
        .n = part->n,
        .pos = part->begin,
        .page_first = run->sent.n_pages,
        .n_pages = n_pages,
    };
    if (plan->n_pages + (size_t)n_pages > space->pages_cap) {
        space->pages_cap = 2 * (plan->n_pages + (size_t)n_pages);
        space->pages = xrealloc(space->pages, space->pages_cap, sizeof(*space->pages));
    }
    if (n_pages > 0) {
        memcpy(space->pages + plan->n_pages, run->seq->kv.pages + run->sent.n_pages,
               n_pages * sizeof(*space->pages));
    }
    plan->n_pages += n_pages;
    run->sent.n_pages = need;
}

/* Scores of a prompt's tokens by the rows before them, then the sampling. */
static void add_wants(struct batch *b, struct step_plan *plan, struct batch_run *run,
                      const struct sched_part *part)
{
    const struct batch_request *request = &run->request;
    struct plan_want *wants = b->space.wants;
    uint32_t row = plan->n_tokens; /* of the part's first position */

    for (uint32_t i = 0; i < part->n_score; i++) {
        uint32_t position = part->score_begin + i;

        wants[plan->n_wants++] = (struct plan_want){
            .row = row + position - part->begin,
            .slot = run->seq->slot,
            .n_top = request->n_prompt_top,
            .flags = PLAN_WANT_SCORE | PLAN_WANT_LOGPROB,
            .token = (uint32_t)run->entry->tokens[position + 1],
        };
    }
    if (part->want) {
        wants[plan->n_wants++] = (struct plan_want){
            .row = row + part->n - 1,
            .slot = run->seq->slot,
            .position = request->n_answered + run->entry->n_generated + run->seq->sampling,
            .n_top = request->n_top,
            .flags = request->logprobs || request->n_top > 0 ? PLAN_WANT_LOGPROB : 0,
        };
        run->sent.sampled = supervisor_next_step(b->supervisor);
    }
}

static void add_tokens(struct batch *b, struct step_plan *plan, const struct batch_run *run,
                       const struct sched_part *part)
{
    struct batch_space *space = &b->space;

    if (part->by_ref) {
        space->tokens[plan->n_tokens] = PLAN_TOKEN_REF;
        space->refs[plan->n_refs++] = (struct plan_ref){
            .row = plan->n_tokens, .slot = run->seq->slot, .step = run->sent.sampled};
    } else {
        journal_copy_tokens(run->entry, part->begin, part->begin + part->n,
                            space->tokens + plan->n_tokens);
    }
}

static void add_run(struct batch *b, struct step_plan *plan, const struct sched_part *part)
{
    struct batch_run *run = part->seq->owner;
    struct batch_step *step = &b->steps[b->n_steps];
    struct batch_sent before;

    if (!run->placed || run->lives != part->lives) { /* other pages, and perhaps another slot */
        run->placed = true;
        run->lives = part->lives;
        run->sent = (struct batch_sent){0};
        journal_place(run->entry, run->seq->done);
    }
    before = run->sent;
    if (!run->sent.params) {
        add_params(b, plan, run);
    }
    add_tokens(b, plan, run, part);
    add_segment(b, plan, run, part);
    add_wants(b, plan, run, part);
    plan->n_tokens += part->n;
    b->space.parts[step->n_parts] =
        (struct world_part){.request = run->entry->request,
                            .again = part->begin + part->n <= run->entry->positions_most};
    step->parts[step->n_parts++] = (struct batch_part){run, *part, before};
}

/* Room in the journals for what the step samples, so that its commit needs none. Those for which
 * there is none end. False: one did, and what was picked is void. */
static bool reserve(struct batch *b, const struct sched_part *picked, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct batch_run *run = picked[i].seq->owner;
        uint32_t sampling = run->seq->sampling + picked[i].want;

        if (journal_reserve(&b->journal, run->entry, sampling) != STATUS_OK) {
            uint64_t id = run->entry->request;

            batch_end(b, run, BATCH_FAILED, STATUS_NO_MEMORY,
                      "no memory for the rest of the answer");
            batch_cancel(b, id); /* if it is still there: nothing may be in flight for it */
            return false;
        }
        sched_know(b->sched, run->seq, run->entry->tokens, journal_n_known(run->entry));
    }
    return true;
}

/* The plan was issued: it counts from now on. */
static void note_issued(struct batch *b, struct batch_step *step)
{
    for (uint32_t i = 0; i < step->n_parts; i++) {
        sched_issued(b->sched, &step->parts[i].sched);
        step->parts[i].run->n_steps++;
    }
    for (uint32_t i = 0; i < step->n_parts; i++) { /* its client may do anything */
        struct batch_run *run = step->parts[i].run;

        if (!run->started && !run->ended) {
            run->started = true;
            if (run->request.started != NULL) {
                run->request.started(run->request.arg, run->seq->n_cached);
            }
        }
    }
}

/* Which of the requests may be in the next step: those that must be alone and the others take
 * turns. False: not now, a lone one has nothing before or behind it in the pipeline. */
static bool choose_kind(struct batch *b, bool *ret_lone)
{
    bool others;
    bool lone = sched_has_alone(b->sched, &others);

    if (lone && b->n_steps > 0) {
        return false;
    }
    *ret_lone = lone && (b->lone_turn || !others);
    return true;
}

static enum status issue(struct batch *b, struct step_plan *plan, struct batch_step *step)
{
    const struct batch_space *space = &b->space;
    struct err err = {0};
    enum status status;

    plan->tokens = space->tokens;
    plan->refs = space->refs;
    plan->segments = space->segments;
    plan->pages = space->pages;
    plan->wants = space->wants;
    plan->params = space->params;
    plan->bias = space->bias;
    plan->history = space->history;
    status = supervisor_issue(b->supervisor, plan, space->parts, step->n_parts, &err);
    if (status != STATUS_OK && status != STATUS_PENDING) {
        log_error("a step could not be issued: %s", err.text);
    }
    return status;
}

bool batch_issue(struct batch *b)
{
    struct batch_step *step = &b->steps[b->n_steps];
    struct step_plan plan = {.flags = b->config.hash_state ? PLAN_HASH_STATE : 0};
    bool lone;
    uint32_t n;

    if (b->paused || b->n_steps == FLIGHT_MAX_STEPS || !supervisor_can_issue(b->supervisor)) {
        return false;
    }
    sched_admit(b->sched);
    if (!choose_kind(b, &lone)) {
        return false;
    }
    n = sched_pick(b->sched, lone, b->space.picked);
    if (n == 0) {
        return false;
    }
    if (!reserve(b, b->space.picked, n)) {
        return true; /* there is one request less */
    }
    step->n_parts = 0;
    for (uint32_t i = 0; i < n; i++) {
        add_run(b, &plan, &b->space.picked[i]);
    }
    if (issue(b, &plan, step) != STATUS_OK) {
        for (uint32_t i = 0; i < n; i++) {
            step->parts[i].run->sent = step->parts[i].before;
        }
        step->n_parts = 0;
        return false;
    }
    b->lone_turn = !lone;
    step->number = plan.step;
    step->n_rows = plan.n_tokens;
    b->n_steps++;
    note_issued(b, step);
    return true;
}
