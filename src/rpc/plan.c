/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/plan.h"

#include <math.h>

#include "rpc/record.h"

_Static_assert(sizeof(struct plan_ref) == 16, "no padding");
_Static_assert(sizeof(struct plan_segment) == 20, "no padding");
_Static_assert(sizeof(struct plan_want) == 16, "no padding");
_Static_assert(sizeof(struct plan_params) == 72, "no padding");
_Static_assert(sizeof(struct plan_bias) == 8, "no padding");
_Static_assert(offsetof(struct step_plan, tokens) == 16, "the fixed part is what comes before");

static const struct record_array arrays[] = {
    RECORD_ARRAY(struct step_plan, tokens),   RECORD_ARRAY(struct step_plan, refs),
    RECORD_ARRAY(struct step_plan, segments), RECORD_ARRAY(struct step_plan, pages),
    RECORD_ARRAY(struct step_plan, wants),    RECORD_ARRAY(struct step_plan, params),
    RECORD_ARRAY(struct step_plan, bias),     RECORD_ARRAY(struct step_plan, history),
    RECORD_ARRAY(struct step_plan, cleared),
};

static const struct record_shape shape = {
    .name = "plan",
    .magic = UINT32_C(0x4e4c504c),
    .version = 2,
    .fixed_bytes = offsetof(struct step_plan, tokens),
    .arrays = arrays,
    .n_arrays = ARRAY_LEN(arrays),
};

size_t plan_bytes(const struct step_plan *plan)
{
    return record_bytes(&shape, plan);
}

enum status plan_encode(const struct step_plan *plan, void *out, size_t size, uint64_t *ret_hash,
                        struct err *err)
{
    return record_encode(&shape, plan, out, size, ret_hash, err);
}

enum status plan_decode(const void *bytes, size_t n, const struct plan_limits *limits,
                        struct step_plan *ret_plan, uint64_t *ret_hash, struct err *err)
{
    struct step_plan plan;
    uint64_t hash;
    enum status status = record_decode(&shape, bytes, n, &plan, &hash, err);

    if (status == STATUS_OK) {
        status = plan_check(&plan, limits, err);
    }
    if (status == STATUS_OK) {
        *ret_plan = plan;
        *ret_hash = hash;
    }
    return status;
}

/* ---- checks ---- */

/* The slots that one array has named so far. */
struct slot_set {
    uint64_t bits[PLAN_MAX_SLOTS / 64];
};

/* False if slot is out of range or there already. */
static bool add_slot(struct slot_set *set, uint32_t slot, const struct plan_limits *limits)
{
    uint64_t bit = UINT64_C(1) << (slot % 64);

    if (slot >= limits->n_slots || (set->bits[slot / 64] & bit) != 0) {
        return false;
    }
    set->bits[slot / 64] |= bit;
    return true;
}

static enum status wrong(struct err *err, const char *array, uint32_t i, const char *field,
                         int64_t value)
{
    return err_set(err, STATUS_CORRUPT, "plan: %s[%u]: %s is %lld", array, i, field,
                   (long long)value);
}

static enum status check_tokens(const struct step_plan *plan, const struct plan_limits *limits,
                                struct err *err)
{
    uint32_t ref = 0;

    if (plan->n_tokens > limits->max_rows) {
        return err_set(err, STATUS_CORRUPT, "plan: %u rows, at most %u", plan->n_tokens,
                       limits->max_rows);
    }
    for (uint32_t row = 0; row < plan->n_tokens; row++) {
        int32_t token = plan->tokens[row];

        if (token == PLAN_TOKEN_REF && ref < plan->n_refs && plan->refs[ref].row == row) {
            ref++;
        } else if (token < 0 || (uint32_t)token >= limits->vocab) {
            return wrong(err, "tokens", row, "token", token);
        }
    }
    if (ref < plan->n_refs) {
        return wrong(err, "refs", ref, "row", plan->refs[ref].row);
    }
    for (uint32_t i = 0; i < plan->n_refs; i++) {
        if (plan->refs[i].slot >= limits->n_slots) {
            return wrong(err, "refs", i, "slot", plan->refs[i].slot);
        }
        if (plan->refs[i].step >= plan->step) {
            return wrong(err, "refs", i, "step", (int64_t)plan->refs[i].step);
        }
    }
    return STATUS_OK;
}

static enum status check_segments(const struct step_plan *plan, const struct plan_limits *limits,
                                  struct err *err)
{
    struct slot_set slots = {0};
    uint64_t rows = 0;
    uint64_t pages = 0;

    for (uint32_t i = 0; i < plan->n_segments; i++) {
        const struct plan_segment *segment = &plan->segments[i];
        uint64_t end = (uint64_t)segment->pos + segment->n;

        if (!add_slot(&slots, segment->slot, limits)) {
            return wrong(err, "segments", i, "slot", segment->slot);
        }
        if (segment->n == 0 || segment->n > plan->n_tokens - rows) {
            return wrong(err, "segments", i, "n", segment->n);
        }
        if (end > limits->max_context) {
            return wrong(err, "segments", i, "pos", segment->pos);
        }
        if ((uint64_t)segment->page_first + segment->n_pages !=
                div_up((size_t)end, limits->page_tokens) ||
            segment->n_pages > plan->n_pages - pages) {
            return wrong(err, "segments", i, "n_pages", segment->n_pages);
        }
        rows += segment->n;
        pages += segment->n_pages;
    }
    if (rows != plan->n_tokens || pages != plan->n_pages) {
        return err_set(err, STATUS_CORRUPT, "plan: segments have %llu rows of %u, %llu pages of %u",
                       (unsigned long long)rows, plan->n_tokens, (unsigned long long)pages,
                       plan->n_pages);
    }
    for (uint32_t i = 0; i < plan->n_pages; i++) {
        if (plan->pages[i] >= limits->n_pages) {
            return wrong(err, "pages", i, "page", plan->pages[i]);
        }
    }
    return STATUS_OK;
}

static enum status check_want(const struct step_plan *plan, uint32_t i,
                              const struct plan_limits *limits, struct err *err)
{
    const struct plan_want *want = &plan->wants[i];
    bool is_score = (want->flags & PLAN_WANT_SCORE) != 0;
    bool has_logprob = (want->flags & PLAN_WANT_LOGPROB) != 0;

    if (want->row >= plan->n_tokens) {
        return wrong(err, "wants", i, "row", want->row);
    }
    if ((want->flags & ~(uint32_t)PLAN_WANT_FLAGS) != 0 ||
        (is_score && (!has_logprob || (plan->flags & PLAN_LOGITS) != 0))) {
        return wrong(err, "wants", i, "flags", want->flags);
    }
    if (want->slot >= limits->n_slots) {
        return wrong(err, "wants", i, "slot", want->slot);
    }
    if (!is_score && want->position >= limits->max_context) {
        return wrong(err, "wants", i, "position", want->position);
    }
    if (want->n_top > (has_logprob ? limits->max_top : 0)) {
        return wrong(err, "wants", i, "n_top", want->n_top);
    }
    if (is_score && want->token >= limits->vocab) {
        return wrong(err, "wants", i, "token", want->token);
    }
    return STATUS_OK;
}

static enum status check_wants(const struct step_plan *plan, const struct plan_limits *limits,
                               struct err *err)
{
    struct slot_set slots = {0};

    if (plan->n_wants > limits->max_rows) {
        return err_set(err, STATUS_CORRUPT, "plan: %u wants, at most %u", plan->n_wants,
                       limits->max_rows);
    }

    for (uint32_t i = 0; i < plan->n_wants; i++) {
        enum status status = check_want(plan, i, limits, err);
        bool is_sampled =
            (plan->flags & PLAN_LOGITS) == 0 && (plan->wants[i].flags & PLAN_WANT_SCORE) == 0;

        if (status != STATUS_OK) {
            return status;
        }
        if (is_sampled && !add_slot(&slots, plan->wants[i].slot, limits)) {
            return wrong(err, "wants", i, "slot", plan->wants[i].slot);
        }
    }
    return STATUS_OK;
}

static bool has_nan(const struct plan_params *params)
{
    return isnan(params->temperature) || isnan(params->top_p) || isnan(params->min_p) ||
           isnan(params->repetition_penalty) || isnan(params->presence_penalty) ||
           isnan(params->frequency_penalty);
}

/* The parts that a slot's biases, from the plan's number first on, fall into; the last phrase has
 * an end. */
static bool check_bias_kinds(const struct step_plan *plan, const struct plan_params *params,
                             uint64_t first)
{
    uint64_t others = (uint64_t)params->n_min_bias + params->n_phrase_bias;

    return others <= params->n_bias &&
           ((params->flags & PLAN_PARAMS_ALLOW) == 0 || others < params->n_bias) &&
           (params->n_phrase_bias == 0 || plan->bias[first + params->n_bias - 1].add != 0.0f);
}

static enum status check_params(const struct step_plan *plan, const struct plan_limits *limits,
                                struct err *err)
{
    struct slot_set slots = {0};
    uint64_t bias = 0;
    uint64_t history = 0;

    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_params *params = &plan->params[i];

        if (!add_slot(&slots, params->slot, limits)) {
            return wrong(err, "params", i, "slot", params->slot);
        }
        if (has_nan(params)) {
            return err_set(err, STATUS_CORRUPT, "plan: params[%u]: not a number", i);
        }
        if (params->n_bias > limits->max_bias || params->n_bias > plan->n_bias - bias) {
            return wrong(err, "params", i, "n_bias", params->n_bias);
        }
        if ((params->flags & ~(uint32_t)PLAN_PARAMS_FLAGS) != 0) {
            return wrong(err, "params", i, "flags", params->flags);
        }
        if (!check_bias_kinds(plan, params, bias)) {
            return wrong(err, "params", i, "n_min_bias", params->n_min_bias);
        }
        if ((uint64_t)params->n_prompt + params->n_generated >
            MIN(limits->max_context, plan->n_history - history)) {
            return wrong(err, "params", i, "n_prompt", params->n_prompt);
        }
        bias += params->n_bias;
        history += params->n_prompt + params->n_generated;
    }
    if (bias != plan->n_bias || history != plan->n_history) {
        return err_set(err, STATUS_CORRUPT,
                       "plan: params have %llu biases of %u, %llu tokens of history of %u",
                       (unsigned long long)bias, plan->n_bias, (unsigned long long)history,
                       plan->n_history);
    }
    for (uint32_t i = 0; i < plan->n_bias; i++) {
        if (plan->bias[i].token >= limits->vocab || !(plan->bias[i].add < INFINITY)) {
            return wrong(err, "bias", i, "token", plan->bias[i].token);
        }
    }
    for (uint32_t i = 0; i < plan->n_history; i++) {
        if (plan->history[i] < 0 || (uint32_t)plan->history[i] >= limits->vocab) {
            return wrong(err, "history", i, "token", plan->history[i]);
        }
    }
    return STATUS_OK;
}

enum status plan_check(const struct step_plan *plan, const struct plan_limits *limits,
                       struct err *err)
{
    struct slot_set cleared = {0};
    enum status status;

    ENSURE(limits->n_slots <= PLAN_MAX_SLOTS && limits->page_tokens > 0 &&
           limits->max_top <= PLAN_MAX_TOP);
    if (plan->step == 0 || (plan->flags & ~(uint64_t)PLAN_FLAGS) != 0) {
        return err_set(err, STATUS_CORRUPT, "plan: step %llu with flags %llx",
                       (unsigned long long)plan->step, (unsigned long long)plan->flags);
    }
    for (uint32_t i = 0; i < plan->n_cleared; i++) {
        if (!add_slot(&cleared, plan->cleared[i], limits)) {
            return wrong(err, "cleared", i, "slot", plan->cleared[i]);
        }
    }
    status = check_tokens(plan, limits, err);
    if (status == STATUS_OK) {
        status = check_segments(plan, limits, err);
    }
    if (status == STATUS_OK) {
        status = check_params(plan, limits, err);
    }
    return status == STATUS_OK ? check_wants(plan, limits, err) : status;
}
