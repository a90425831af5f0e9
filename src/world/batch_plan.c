/* SPDX-License-Identifier: Apache-2.0 */
/* From the requests that run to the plan of the next step. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "world/batch_priv.h"

/* What a request can have computed in the next step. */
struct next {
    uint32_t n;  /* positions from run->sent.positions on; 0: nothing now */
    bool by_ref; /* one, and its token is still being sampled */
    bool want;   /* the step samples for it */
};

static bool may_sample(const struct batch_run *run)
{
    return run->entry->n_generated + run->sent.sampling < run->entry->max_generated;
}

static struct next next_of(const struct batch_run *run, uint32_t rows)
{
    uint32_t known = journal_n_known(run->entry);
    struct next next = {0};

    if (run->ended || rows == 0) {
        return next;
    }
    if (run->sent.positions < known) {
        next.n = MIN(known - run->sent.positions, rows);
        next.want =
            run->sent.positions + next.n == known && run->sent.sampling == 0 && may_sample(run);
    } else if (run->sent.positions == known && run->sent.sampling == 1 && may_sample(run)) {
        next = (struct next){.n = 1, .by_ref = true, .want = true};
    }
    return next;
}

static void add_params(struct batch *b, struct step_plan *plan, struct batch_run *run)
{
    struct batch_space *space = &b->space;
    struct plan_params *params = &space->params[plan->n_params++];
    const struct journal_entry *entry = run->entry;
    uint32_t known = journal_n_known(entry);

    *params = batch_params(run);
    params->slot = run->slot;
    params->n_prompt = entry->n_prompt;
    params->n_generated = entry->n_generated;
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
                        const struct next *next)
{
    struct batch_space *space = &b->space;
    const struct batch_slot *slot = &b->slots[run->slot];
    uint32_t need = (uint32_t)div_up(run->sent.positions + next->n, b->config.page_tokens);
    uint32_t n_pages = need - run->sent.n_pages;

    ENSURE_OP(need, <=, slot->n_pages);
    space->segments[plan->n_segments++] = (struct plan_segment){
        .slot = run->slot,
        .n = next->n,
        .pos = run->sent.positions,
        .page_first = run->sent.n_pages,
        .n_pages = n_pages,
    };
    memcpy(space->pages + plan->n_pages, slot->pages + run->sent.n_pages,
           n_pages * sizeof(*space->pages));
    plan->n_pages += n_pages;
    run->sent.n_pages = need;
}

static void add_run(struct batch *b, struct step_plan *plan, struct batch_run *run,
                    const struct next *next)
{
    struct batch_step *step = &b->steps[b->n_steps];
    struct batch_space *space = &b->space;
    struct batch_sent before = run->sent;

    if (!run->sent.params) {
        add_params(b, plan, run);
    }
    if (next->by_ref) {
        space->tokens[plan->n_tokens] = PLAN_TOKEN_REF;
        space->refs[plan->n_refs++] =
            (struct plan_ref){.row = plan->n_tokens, .slot = run->slot, .step = run->sent.sampled};
    } else {
        journal_copy_tokens(run->entry, run->sent.positions, run->sent.positions + next->n,
                            space->tokens + plan->n_tokens);
    }
    add_segment(b, plan, run, next);
    plan->n_tokens += next->n;
    if (next->want) {
        space->wants[plan->n_wants++] = (struct plan_want){
            .row = plan->n_tokens - 1,
            .slot = run->slot,
            .position = run->entry->n_generated + run->sent.sampling,
        };
        run->sent.sampling++;
        run->sent.sampled = supervisor_next_step(b->supervisor);
    }
    space->parts[step->n_parts] =
        (struct world_part){.request = run->entry->request,
                            .again = run->sent.positions + next->n <= run->entry->positions_most};
    step->parts[step->n_parts++] = (struct batch_part){run, next->n, next->want, before};
    run->sent.positions += next->n;
    run->n_steps++;
}

/* A lone request has a step to itself, and nothing before or behind it in the pipeline. */
static bool is_lone_step(struct batch *b, bool *ret_others)
{
    bool lone = false;

    *ret_others = false;
    for (struct batch_run *run = b->runs; run != NULL; run = run->next) {
        if (next_of(run, 1).n > 0) {
            lone = lone || run->alone;
            *ret_others = *ret_others || !run->alone;
        }
    }
    return lone;
}

/* Decodes first (single rows), then what is left of the rows for prompts. */
static void choose(struct batch *b, struct step_plan *plan, bool lone)
{
    for (int prefill = 0; prefill <= 1; prefill++) {
        for (struct batch_run *run = b->runs; run != NULL; run = run->next) {
            struct next next = next_of(run, b->config.max_rows - plan->n_tokens);

            if (next.n == 0 || run->alone != lone || (next.n > 1) != (prefill == 1)) {
                continue;
            }
            if (lone && plan->n_segments > 0) {
                return;
            }
            add_run(b, plan, run, &next);
        }
    }
}

/* Takes back what add_run did: the world did not take the plan. */
static void undo(struct batch_step *step)
{
    for (uint32_t i = 0; i < step->n_parts; i++) {
        step->parts[i].run->sent = step->parts[i].before;
        step->parts[i].run->n_steps--;
    }
    step->n_parts = 0;
}

bool batch_issue(struct batch *b)
{
    struct batch_space *space = &b->space;
    struct batch_step *step = &b->steps[b->n_steps];
    struct step_plan plan = {.flags = b->config.hash_state ? PLAN_HASH_STATE : 0};
    struct err err = {0};
    bool others;
    bool lone;
    enum status status;

    if (b->paused || b->n_steps == FLIGHT_MAX_STEPS || !supervisor_can_issue(b->supervisor)) {
        return false;
    }
    lone = is_lone_step(b, &others);
    if (lone && b->n_steps > 0) {
        return false;
    }
    lone = lone && (b->lone_turn || !others);
    step->n_parts = 0;
    choose(b, &plan, lone);
    if (plan.n_tokens == 0) {
        return false;
    }
    plan.tokens = space->tokens;
    plan.refs = space->refs;
    plan.segments = space->segments;
    plan.pages = space->pages;
    plan.wants = space->wants;
    plan.params = space->params;
    plan.bias = space->bias;
    plan.history = space->history;
    status = supervisor_issue(b->supervisor, &plan, space->parts, step->n_parts, &err);
    if (status != STATUS_OK) {
        if (status != STATUS_PENDING) {
            log_error("a step could not be issued: %s", err.text);
        }
        undo(step);
        return false;
    }
    b->lone_turn = !lone;
    step->number = plan.step;
    b->n_steps++;
    return true;
}
