/* SPDX-License-Identifier: Apache-2.0 */
/* A fake rank's way from a plan to a result. */
#pragma once

#include "fake_report.h"
#include "fake_tell.h"

static inline void fake_set_slots(struct fake_rank *f, const struct step_plan *plan)
{
    const struct plan_bias *bias = plan->bias;
    const int32_t *history = plan->history;

    for (uint32_t i = 0; i < plan->n_cleared; i++) {
        f->slots[plan->cleared[i]] = (struct fake_slot){0};
    }
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_params *p = &plan->params[i];
        struct fake_slot *slot = &f->slots[p->slot];

        slot->params = *p;
        slot->key = fake_key(p, bias);
        slot->last_step = 0;
        slot->lost = false;
        slot->n_tokens = p->n_prompt + p->n_generated;
        memcpy(slot->tokens, history, slot->n_tokens * sizeof(*history));
        bias += p->n_bias;
        history += slot->n_tokens;
    }
}

/* Writes the rows of a segment into the slot's pages. */
static inline enum status fake_rows(struct fake_rank *f, const struct step_plan *plan,
                                    const struct plan_segment *segment, uint32_t row,
                                    const uint32_t *pages, struct err *err)
{
    struct fake_slot *slot = &f->slots[segment->slot];

    if (segment->page_first > slot->n_pages) {
        return err_set(err, STATUS_BUG, "slot %u has no page before %u", segment->slot,
                       segment->page_first);
    }
    memcpy(slot->pages + segment->page_first, pages, segment->n_pages * sizeof(*pages));
    slot->n_pages = segment->page_first + segment->n_pages;
    for (uint32_t page = (uint32_t)div_up(segment->pos, FAKE_PAGE_TOKENS); page < slot->n_pages;
         page++) {
        memset(f->kv + slot->pages[page] * FAKE_PAGE_TOKENS, 0, FAKE_PAGE_TOKENS * sizeof(*f->kv));
    }
    for (uint32_t i = 0; i < segment->n; i++) {
        uint32_t pos = segment->pos + i;
        int32_t token = plan->tokens[row + i];

        for (uint32_t k = 0; k < plan->n_refs; k++) {
            const struct plan_ref *ref = &plan->refs[k];
            const struct fake_slot *from = &f->slots[ref->slot];

            if (ref->row != row + i) {
                continue;
            }
            if (from->last_step > ref->step) {
                return err_set(err, STATUS_BUG, "a token of step %llu is asked for too late",
                               (unsigned long long)ref->step);
            }
            slot->lost = from->last_step != ref->step; /* it was not a number */
            token = slot->lost ? 0 : from->tokens[from->n_tokens - 1];
        }
        f->kv[slot->pages[pos / FAKE_PAGE_TOKENS] * FAKE_PAGE_TOKENS + pos % FAKE_PAGE_TOKENS] =
            token + 1;
    }
    return STATUS_OK;
}

/* Samples for one slot, whose pages hold n positions. */
static inline enum status fake_sample(struct fake_rank *f, const struct plan_want *want, uint32_t n,
                                      struct result_token *ret_token, struct err *err)
{
    struct fake_slot *slot = &f->slots[want->slot];
    int32_t tokens[FAKE_CONTEXT];

    *ret_token = (struct result_token){.slot = want->slot, .token = -1, .nan_layer = -1};
    if (slot->lost) { /* the leader throws this one away */
        ret_token->flags = RESULT_NAN;
        ret_token->nan_layer = FAKE_LAYERS;
        return STATUS_OK;
    }
    if (slot->n_tokens != slot->params.n_prompt + want->position) {
        return err_set(err, STATUS_BUG, "slot %u is at %u + %u, not at %u", want->slot,
                       slot->params.n_prompt, want->position, slot->n_tokens);
    }
    if (fake_is_nan(&slot->params, want->position)) {
        ret_token->flags = RESULT_NAN;
        ret_token->nan_layer = FAKE_NAN_LAYER;
        return STATUS_OK;
    }
    fake_read_pages(f, want->slot, n, tokens);
    ret_token->token = fake_token(slot->key, tokens, n);
    if (n != slot->n_tokens || memcmp(tokens, slot->tokens, n * sizeof(*tokens)) != 0) {
        ret_token->token = (ret_token->token + 1) % FAKE_VOCAB; /* shows as another token */
    }
    fake_report(f, want, tokens, n, ret_token);
    slot->tokens[slot->n_tokens++] = ret_token->token;
    slot->last_step = f->step;
    return STATUS_OK;
}

static inline enum status fake_wants(struct fake_rank *f, const struct step_plan *plan,
                                     struct err *err)
{
    f->n_tops = 0;
    ENSURE_OP(plan->n_wants, <=, FAKE_MAX_WANTS);
    for (uint32_t i = 0; i < plan->n_wants; i++) {
        const struct plan_want *want = &plan->wants[i];
        const struct plan_segment *segment = plan->segments;
        uint32_t row = 0; /* the segment's first */
        enum status status = STATUS_OK;

        while (segment->slot != want->slot) {
            row += segment->n;
            segment++;
        }
        if ((want->flags & PLAN_WANT_SCORE) != 0) {
            fake_score(f, want, segment->pos + want->row - row + 1, &f->tokens[i]);
        } else {
            status = fake_sample(f, want, segment->pos + segment->n, &f->tokens[i], err);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static inline enum status fake_compute(struct fake_rank *f, const struct step_plan *plan,
                                       struct step_result *result, struct err *err)
{
    const uint32_t *pages = plan->pages;
    uint32_t row = 0;
    enum status status;

    fake_set_slots(f, plan);
    for (uint32_t i = 0; i < plan->n_segments; i++) {
        const struct plan_segment *segment = &plan->segments[i];
        const struct plan_params *params = &f->slots[segment->slot].params;
        int32_t tokens[FAKE_CONTEXT];

        if (params->choice == FAKE_POISON && f->rank == 0 && f->epoch <= params->prompt_index) {
            kill(getpid(), SIGKILL);
        }
        status = fake_rows(f, plan, segment, row, pages, err);
        if (status != STATUS_OK) {
            return status;
        }
        fake_read_pages(f, segment->slot, segment->pos + segment->n, tokens);
        result->state_hash =
            fake_hash(fake_mix(result->state_hash, i), tokens, segment->pos + segment->n);
        row += segment->n;
        pages += segment->n_pages;
    }
    status = fake_wants(f, plan, err);
    if (status != STATUS_OK) {
        return status;
    }
    result->tops = f->tops;
    result->n_tops = f->n_tops;
    result->tokens = f->tokens;
    result->n_tokens = plan->n_wants;
    return STATUS_OK;
}

/* Fills f->result; returns its length. */
static inline size_t fake_step(struct fake_rank *f, const void *bytes, size_t n)
{
    struct step_result result = {.rank = f->rank};
    struct step_plan plan;
    struct err why = {0};
    uint64_t start = clock_ns();
    bool traced = trace_is_asked(&f->wiring.trace);
    enum status status = plan_decode(bytes, n, &f->limits, &plan, &result.plan_hash, &why);

    if (status == STATUS_OK) {
        f->step = result.step = plan.step;
        status_page_progress(&f->wiring.status, &(struct status_progress){.step = plan.step});
        fake_misbehave(f, "plan");
        status = fake_error(f, "plan", &why);
    }
    if (status == STATUS_OK) {
        status = fake_compute(f, &plan, &result, &why);
        fake_tell(f, &plan, start, traced);
    }
    if (status != STATUS_OK) {
        fake_scribble(f);
        result.n_tokens = 0;
        result.n_tops = 0;
        result.text = why.text;
        result.n_text = (uint32_t)strlen(why.text);
    }
    result.status = (int32_t)status;
    result.plan_hash += fake_is(f, "hash", "plan");
    result.state_hash += fake_is(f, "state", "plan");
    result.step += fake_is(f, "number", "plan");
    if (fake_is(f, "token", "plan") && result.n_tokens > 0) {
        f->tokens[0].token = (f->tokens[0].token + 1) % FAKE_VOCAB;
    }
    n = result_bytes(&result);
    ENSURE_OP(result_encode(&result, f->result, sizeof(f->result), NULL), ==, STATUS_OK);
    if (fake_is(f, "junk", "plan")) {
        f->result[n / 2] ^= 1;
    }
    return n;
}

static inline void fake_publish(struct fake_rank *f, size_t n)
{
    uint64_t number;

    if (fake_is(f, "mute", "plan")) {
        return;
    }
    for (int i = 0; i <= fake_is(f, "twice", "plan"); i++) {
        ENSURE_OP(ring_publish(&f->wiring.results,
                               fake_is(f, "other", "plan") ? RING_CONTROL : RING_RESULT, f->result,
                               n, &number, NULL),
                  ==, STATUS_OK);
    }
}
