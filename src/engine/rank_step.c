/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a plan to a result:
 *
 *   cleared, params ─▶ slots;  tokens (refs looked up) ─┐
 *   segments ─▶ block tables, fresh pages zeroed ───────┴▶ engine_forward ─▶ draw_tokens ─▶ result
 */
#include "base/float_env.h"
#include "base/mem.h"
#include "engine/rank_priv.h"
#include "rpc/result.h"

static enum status set_slots(struct rank *rank, const struct step_plan *plan, struct err *err)
{
    const struct plan_bias *bias = plan->bias;
    const int32_t *history = plan->history;

    for (uint32_t i = 0; i < plan->n_cleared; i++) {
        draw_slot_clear(rank->draw, plan->cleared[i]);
        rank->slots[plan->cleared[i]].n_pages = 0;
        rank->slots[plan->cleared[i]].lost = false;
    }
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_params *p = &plan->params[i];
        const struct draw_slot slot = {
            .params =
                {
                    .temperature = p->temperature,
                    .top_k = p->top_k,
                    .top_p = p->top_p,
                    .min_p = p->min_p,
                    .repetition_penalty = p->repetition_penalty,
                    .presence_penalty = p->presence_penalty,
                    .frequency_penalty = p->frequency_penalty,
                    .bias = (const struct sample_bias *)bias, /* the same two fields */
                    .n_bias = p->n_bias,
                    .n_min = p->n_min,
                    .n_min_bias = p->n_min_bias,
                    .n_phrase_bias = p->n_phrase_bias,
                    .allow = (p->flags & PLAN_PARAMS_ALLOW) != 0,
                },
            .key = {.seed = p->seed, .prompt = p->prompt_index, .choice = p->choice},
            .prompt = history,
            .n_prompt = p->n_prompt,
            .generated = history + p->n_prompt,
            .n_generated = p->n_generated,
        };
        enum status status = draw_slot_set(rank->draw, p->slot, &slot, err);

        if (status != STATUS_OK) {
            return status;
        }
        rank->slots[p->slot].lost = false;
        bias += p->n_bias;
        history += p->n_prompt + p->n_generated;
    }
    return STATUS_OK;
}

/* The tokens of all rows; those that an earlier step sampled are looked up. */
static enum status find_tokens(struct rank *rank, const struct step_plan *plan, struct err *err)
{
    memcpy(rank->step_tokens, plan->tokens, plan->n_tokens * sizeof(*plan->tokens));
    for (uint32_t i = 0; i < plan->n_refs; i++) {
        const struct plan_ref *ref = &plan->refs[i];
        uint64_t step;
        int32_t token;

        if (!draw_slot_last(rank->draw, ref->slot, &step, &token) || step < ref->step) {
            /* It was not a number, so there is nothing to go on with; the leader, which will learn
             * that from the step before, throws this row away. */
            rank->slots[ref->slot].lost = true;
            token = 0;
        } else if (step > ref->step) {
            return err_set(err, STATUS_BUG, "row %u: slot %u sampled in step %llu, not %llu",
                           ref->row, ref->slot, (unsigned long long)step,
                           (unsigned long long)ref->step);
        }
        rank->step_tokens[ref->row] = token;
    }
    for (uint32_t i = 0; i < plan->n_tokens; i++) {
        if (rank->step_tokens[i] < 0 || (uint32_t)rank->step_tokens[i] >= rank->limits.vocab) {
            return err_set(err, STATUS_BUG, "row %u: token %d is not in the vocabulary", i,
                           rank->step_tokens[i]);
        }
    }
    return STATUS_OK;
}

/* Brings the block tables up to date; pages that a segment begins are zeroed. */
static enum status map_pages(struct rank *rank, const struct step_plan *plan, struct err *err)
{
    const uint32_t *pages = plan->pages;
    uint32_t row = 0;

    for (uint32_t i = 0; i < plan->n_segments; i++) {
        const struct plan_segment *segment = &plan->segments[i];
        struct rank_slot *slot = &rank->slots[segment->slot];

        if (segment->page_first > slot->n_pages) {
            return err_set(err, STATUS_BUG, "slot %u: its pages from %u on, but it has %u",
                           segment->slot, segment->page_first, slot->n_pages);
        }
        memcpy(slot->pages + segment->page_first, pages, segment->n_pages * sizeof(*pages));
        slot->n_pages = segment->page_first + segment->n_pages;
        for (uint32_t page = (uint32_t)div_up(segment->pos, OPS_PAGE_TOKENS);
             page * OPS_PAGE_TOKENS < segment->pos + segment->n; page++) {
            enum status status = engine_page_clear(rank->engine, slot->pages[page], err);

            if (status != STATUS_OK) {
                return status;
            }
        }
        rank->segments[i] = (struct ops_segment){
            .row = row, .n = segment->n, .pos = segment->pos, .pages = slot->pages};
        row += segment->n;
        pages += segment->n_pages;
    }
    return STATUS_OK;
}

static void watch_layer(void *arg, uint32_t layer)
{
    struct rank *rank = arg;

    watched_comm_layer(rank->watched, layer);
}

static enum status forward(struct rank *rank, const struct step_plan *plan, struct err *err)
{
    for (uint32_t i = 0; i < plan->n_wants; i++) {
        rank->model_wants[i] = (struct model_want){.row = plan->wants[i].row, .nan_layer = -1};
    }
    return engine_forward(rank->engine,
                          &(struct model_step){
                              .tokens = rank->step_tokens,
                              .n_tokens = plan->n_tokens,
                              .segments = rank->segments,
                              .n_segments = plan->n_segments,
                              .wants = rank->model_wants,
                              .n_wants = plan->n_wants,
                              .watch = watch_layer,
                              .watch_arg = rank,
                          },
                          err);
}

/* Logits of the wanted rows into shared memory, instead of tokens. */
static enum status hand_out_logits(struct rank *rank, const struct step_plan *plan,
                                   struct step_result *result, struct err *err)
{
    const struct shard_slice *slice = model_slice(engine_model(rank->engine));
    size_t columns = slice->vocab_end - slice->vocab_begin;

    if (columns > 0 && rank->logits == NULL) {
        return err_set(err, STATUS_BUG, "the plan wants logits, and there is no memory for them");
    }
    for (uint32_t i = 0; i < plan->n_wants; i++) {
        int32_t layer = rank->model_wants[i].nan_layer;

        if (columns > 0) {
            memcpy(rank->logits + i * columns, rank->model_wants[i].logits,
                   columns * sizeof(float));
        }
        rank->tokens[i] = (struct result_token){
            .slot = plan->wants[i].slot,
            .token = -1,
            .flags = RESULT_NAN,
            .nan_layer = layer >= 0 ? layer : (int32_t)engine_config(rank->engine)->n_layers,
        };
        if (layer < 0) {
            rank->tokens[i] =
                (struct result_token){.slot = plan->wants[i].slot, .token = 0, .nan_layer = -1};
        }
    }
    result->tokens = rank->tokens;
    result->n_tokens = plan->n_wants;
    return STATUS_OK;
}

/* Fills in the wants of draw_tokens; returns their number. */
static uint32_t ask(struct rank *rank, const struct step_plan *plan)
{
    struct sample_logprob *tops = rank->tops;
    uint32_t n = 0;

    for (uint32_t i = 0; i < plan->n_wants; i++) {
        const struct plan_want *want = &plan->wants[i];
        bool score = (want->flags & PLAN_WANT_SCORE) != 0;

        if (rank->slots[want->slot].lost) { /* the same on all ranks */
            continue;
        }
        rank->wants[n++] = (struct draw_want){
            .slot = want->slot,
            .position = score ? 0 : want->position,
            .logits = rank->model_wants[i].logits,
            .nan_layer = rank->model_wants[i].nan_layer,
            .score = score,
            .logprob = (want->flags & PLAN_WANT_LOGPROB) != 0,
            .n_top = want->n_top,
            .token = score ? (int32_t)want->token : -1,
            .tops = tops,
        };
        tops += want->n_top;
    }
    return n;
}

/* What came of one want. */
static void answer(struct rank *rank, const struct draw_want *want, struct result_token *ret_token,
                   uint32_t *n_tops)
{
    ret_token->token = want->token;
    ret_token->nan_layer = want->ret_nan_layer;
    if (want->token < 0) {
        return;
    }
    ret_token->logprob = want->ret_logprob;
    ret_token->n_top = want->ret_n_top;
    for (uint32_t i = 0; i < want->ret_n_top; i++) { /* closes the gaps of those before */
        rank->result_tops[(*n_tops)++] =
            (struct result_top){want->tops[i].token, want->tops[i].logprob};
    }
}

static enum status draw(struct rank *rank, const struct step_plan *plan, struct step_result *result,
                        struct err *err)
{
    int32_t layers = (int32_t)engine_config(rank->engine)->n_layers;
    const struct draw_want *want = rank->wants;
    uint32_t n = ask(rank, plan);
    struct float_env saved;
    enum status status;

    float_env_enter(&saved);
    status = draw_tokens(rank->draw, plan->step, rank->wants, n, err);
    float_env_leave(&saved);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < plan->n_wants; i++) {
        struct result_token *token = &rank->tokens[i];

        *token = (struct result_token){.slot = plan->wants[i].slot, .token = -1, .nan_layer = -1};
        if (!rank->slots[token->slot].lost) {
            answer(rank, want++, token, &result->n_tops);
        }
        if (token->token < 0) {
            token->flags = RESULT_NAN;
            token->nan_layer = token->nan_layer < 0 ? layers : token->nan_layer;
        }
    }
    result->tokens = rank->tokens;
    result->n_tokens = plan->n_wants;
    result->tops = rank->result_tops;
    return STATUS_OK;
}

static enum status compute(struct rank *rank, const struct step_plan *plan,
                           struct step_result *result, struct err *err)
{
    enum status status;

    if ((status = set_slots(rank, plan, err)) != STATUS_OK ||
        (status = find_tokens(rank, plan, err)) != STATUS_OK ||
        (status = map_pages(rank, plan, err)) != STATUS_OK) {
        return status;
    }
    if (plan->n_tokens == 0) {
        return STATUS_OK;
    }
    status = forward(rank, plan, err);
    if (status == STATUS_OK && (plan->flags & PLAN_HASH_STATE) != 0) {
        result->state_hash = engine_state_hash(rank->engine, plan->n_tokens);
    }
    if (status != STATUS_OK || plan->n_wants == 0) {
        return status;
    }
    return (plan->flags & PLAN_LOGITS) != 0 ? hand_out_logits(rank, plan, result, err)
                                            : draw(rank, plan, result, err);
}

static enum status_phase phase_of(const struct step_plan *plan)
{
    return plan->n_tokens > plan->n_segments ? STATUS_PHASE_PREFILL : STATUS_PHASE_DECODE;
}

static void begin(struct rank *rank, const struct step_plan *plan)
{
    enum status_phase phase = phase_of(plan);

    if (rank->wiring.status.phase != phase) {
        status_page_phase(&rank->wiring.status, phase);
    }
    status_page_event(&rank->wiring.status, STATUS_EVENT_STEP_BEGIN, plan->n_tokens, plan->step);
    watched_comm_step(rank->watched, plan->step);
    faults_at_phase(&rank->faults, phase);
    faults_at_step(&rank->faults, plan->step);
}

enum status rank_step(struct rank *rank, const void *bytes, size_t n, size_t *ret_bytes,
                      struct err *err)
{
    struct step_result result = {.rank = rank->args->rank};
    struct step_plan plan;
    struct err why = {0};
    enum status status;

    if (rank->engine == NULL) {
        return err_set(err, STATUS_BUG, "a plan before a model is loaded");
    }
    status = plan_decode(bytes, n, &rank->limits, &plan, &result.plan_hash, &why);
    if (status == STATUS_OK) {
        result.step = plan.step;
        begin(rank, &plan);
        status = faults_take_device(&rank->faults)
                     ? err_set(&why, STATUS_DEVICE, "the device has failed, as injected")
                     : compute(rank, &plan, &result, &why);
        faults_alloc(&rank->faults);
        watched_comm_step_end(
            rank->watched, phase_of(&plan) == STATUS_PHASE_PREFILL ? TRACE_PREFILL : TRACE_DECODE,
            plan.n_tokens);
        status_page_event(&rank->wiring.status, STATUS_EVENT_STEP_END, (uint32_t)-status,
                          plan.step);
        status_page_count(&rank->wiring.status, STATUS_COUNTER_STEPS, 1);
        status_page_count(&rank->wiring.status, STATUS_COUNTER_ROWS, plan.n_tokens);
    } else if (status == STATUS_CORRUPT) {
        status = STATUS_BUG; /* the leader's, not a user's */
    }
    if (status != STATUS_OK) {
        status_page_error(&rank->wiring.status, why.text);
        result.n_tokens = 0;
        result.n_tops = 0;
        result.text = why.text;
        result.n_text = (uint32_t)strlen(why.text);
    }
    result.status = (int32_t)status;
    *ret_bytes = result_bytes(&result);
    return result_encode(&result, rank->result, RANK_RESULT_BYTES, err);
}
