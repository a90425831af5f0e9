/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/draw.h"

#include "base/mem.h"
#include "engine/draw_priv.h"

static enum status check_config(const struct draw_config *config, struct err *err)
{
    uint32_t begin = config->vocab_begin;
    uint32_t end = config->vocab_end;
    bool whole = begin == 0 && end == config->vocab;

    ENSURE_OP(config->vocab, >, 0);
    if (begin > end || end > config->vocab ||
        (begin < end && (begin % SAMPLE_BLOCK_ROWS != 0 ||
                         (end % SAMPLE_BLOCK_ROWS != 0 && end != config->vocab)))) {
        return err_set(err, STATUS_INVALID,
                       "rows %u to %u of a vocabulary of %u are not whole blocks of %u", begin, end,
                       config->vocab, SAMPLE_BLOCK_ROWS);
    }
    if (config->comm->n_ranks == 1 && !whole) {
        return err_set(err, STATUS_INVALID, "the only rank has rows %u to %u of a vocabulary of %u",
                       begin, end, config->vocab);
    }
    return STATUS_OK;
}

enum status draw_create(const struct draw_config *config, struct draw **ret_draw, struct err *err)
{
    uint32_t n_rows = config->vocab_end - config->vocab_begin;
    uint32_t n_ranks = config->comm->n_ranks;
    struct draw *draw;
    enum status status = check_config(config, err);

    if (status != STATUS_OK) {
        return status;
    }
    draw = xalloc(sizeof(*draw));
    draw->config = *config;
    draw->slots = mem_alloc(config->n_slots, sizeof(*draw->slots));
    draw->rank_rows = mem_alloc(n_ranks, sizeof(*draw->rank_rows));
    draw->answers = mem_alloc(n_ranks, sizeof(*draw->answers));
    if (draw->slots == NULL || draw->rank_rows == NULL || draw->answers == NULL ||
        sample_part_init(&draw->sampler.part, n_rows > 0 ? config->vocab_begin : 0, n_rows) !=
            STATUS_OK ||
        sample_merge_init(&draw->sampler.merge, config->vocab) != STATUS_OK) {
        draw_destroy(&draw);
        return err_set(err, STATUS_NO_MEMORY, "no memory to sample from %u tokens", config->vocab);
    }
    if (config->masses != NULL) {
        draw->sampler.part.masses = *config->masses;
    }
    draw->config.masses = NULL; /* was for this call */
    if (n_ranks == 1) {
        draw->met = true;
        draw->rank_rows[0] = n_rows;
        draw->max_rows = n_rows;
    }
    *ret_draw = draw;
    return STATUS_OK;
}

static void release_slot(struct draw_sequence *slot)
{
    free(slot->bias);
    free(slot->prompt);
    free(slot->generated);
    *slot = (struct draw_sequence){0};
}

void draw_destroy(struct draw **draw)
{
    struct draw *d = *draw;

    if (d == NULL) {
        return;
    }
    for (uint32_t i = 0; d->slots != NULL && i < d->config.n_slots; i++) {
        release_slot(&d->slots[i]);
    }
    sampler_release(&d->sampler);
    free(d->slots);
    free(d->opens);
    free(d->blocks);
    free(d->rank_rows);
    free(d->answers);
    free(d->words);
    free(d->scores.words);
    free(d->scores.raw);
    free(d);
    *draw = NULL;
}

/* NULL if there is no memory; never for n == 0. */
static void *copy(const void *from, size_t n, size_t bytes)
{
    void *to = mem_alloc(n, bytes);

    if (to != NULL && n > 0) {
        memcpy(to, from, n * bytes);
    }
    return to;
}

enum status draw_slot_set(struct draw *draw, uint32_t slot, const struct draw_slot *from,
                          struct err *err)
{
    struct draw_sequence new = {
        .is_set = true,
        .params = from->params,
        .key = {.seed = from->key.seed, .prompt = from->key.prompt, .choice = from->key.choice},
        .n_prompt = from->n_prompt,
        .n_generated = from->n_generated,
        .cap_generated = from->n_generated,
    };
    enum status status;

    if (slot >= draw->config.n_slots) {
        return err_set(err, STATUS_INVALID, "slot %u, but there are %u", slot,
                       draw->config.n_slots);
    }
    status = sample_params_check(&from->params, draw->config.vocab, err);
    if (status != STATUS_OK) {
        return status;
    }
    new.bias = copy(from->params.bias, from->params.n_bias, sizeof(*new.bias));
    new.prompt = copy(from->prompt, from->n_prompt, sizeof(*new.prompt));
    new.generated = copy(from->generated, from->n_generated, sizeof(*new.generated));
    if (new.bias == NULL || new.prompt == NULL || new.generated == NULL) {
        release_slot(&new);
        return err_set(err, STATUS_NO_MEMORY, "slot %u: no memory for its tokens", slot);
    }
    new.params.bias = new.bias;
    release_slot(&draw->slots[slot]);
    draw->slots[slot] = new;
    return STATUS_OK;
}

void draw_slot_clear(struct draw *draw, uint32_t slot)
{
    ENSURE_OP(slot, <, draw->config.n_slots);
    release_slot(&draw->slots[slot]);
}

bool draw_slot_last(const struct draw *draw, uint32_t slot, uint64_t *ret_step, int32_t *ret_token)
{
    const struct draw_sequence *s;

    if (slot >= draw->config.n_slots || !draw->slots[slot].has_drawn) {
        return false;
    }
    s = &draw->slots[slot];
    *ret_step = s->last_step;
    *ret_token = s->generated[s->n_generated - 1];
    return true;
}

static enum status check_score(const struct draw *draw, const struct draw_want *want,
                               struct err *err)
{
    if (want->slot >= draw->config.n_slots || !want->logprob) {
        return err_set(err, STATUS_BUG, "a score without log-probability, or of slot %u",
                       want->slot);
    }
    if (want->token < 0 || (uint32_t)want->token >= draw->config.vocab) {
        return err_set(err, STATUS_BUG, "slot %u: a score of token %d, but there are %u",
                       want->slot, want->token, draw->config.vocab);
    }
    return STATUS_OK;
}

static enum status check_want(struct draw *draw, const struct draw_want *want, struct err *err)
{
    struct draw_sequence *slot;

    if (want->slot >= draw->config.n_slots || !draw->slots[want->slot].is_set) {
        return err_set(err, STATUS_BUG, "a token is wanted of slot %u, which is not set",
                       want->slot);
    }
    slot = &draw->slots[want->slot];
    if (slot->call == draw->n_calls) {
        return err_set(err, STATUS_BUG, "two tokens are wanted of slot %u in one step", want->slot);
    }
    if (slot->n_generated != want->position) {
        return err_set(err, STATUS_BUG, "token %u of slot %u is wanted, but it has %u",
                       want->position, want->slot, slot->n_generated);
    }
    slot->call = draw->n_calls;
    return STATUS_OK;
}

static enum status check_wants(struct draw *draw, const struct draw_want *wants, uint32_t n,
                               struct err *err)
{
    draw->n_calls++;
    for (uint32_t i = 0; i < n; i++) {
        enum status status =
            wants[i].score ? check_score(draw, &wants[i], err) : check_want(draw, &wants[i], err);

        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* Room for one more generated token. */
static enum status grow_slot(struct draw_sequence *slot)
{
    size_t cap = MAX(64, slot->cap_generated * (size_t)2);
    int32_t *grown;

    if (slot->n_generated < slot->cap_generated) {
        return STATUS_OK;
    }
    grown = cap <= UINT32_MAX ? mem_alloc(cap, sizeof(*grown)) : NULL;
    if (grown == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(grown, slot->generated, slot->n_generated * sizeof(*grown));
    free(slot->generated);
    slot->generated = grown;
    slot->cap_generated = (uint32_t)cap;
    return STATUS_OK;
}

struct sample_request draw_request_of(const struct draw_sequence *slot)
{
    struct sample_key key = slot->key;

    key.position = slot->n_generated;
    return (struct sample_request){
        .params = &slot->params,
        .key = key,
        .prompt = slot->prompt,
        .n_prompt = slot->n_prompt,
        .generated = slot->generated,
        .n_generated = slot->n_generated,
    };
}

/* A world of one: no answer has to go anywhere. */
static void draw_alone(struct draw *draw, struct draw_want *want)
{
    const struct sample_request request = draw_request_of(&draw->slots[want->slot]);
    uint32_t token;

    if (want->nan_layer >= 0) {
        want->ret_nan_layer = want->nan_layer;
    } else if (sampler_token(&draw->sampler, &request, want->logits, &token, NULL) == STATUS_OK) {
        want->token = (int32_t)token;
    }
}

static enum status draw_all(struct draw *draw, struct draw_want *wants, uint32_t n,
                            uint32_t n_drawn, struct err *err)
{
    if (n_drawn == 0) {
        return STATUS_OK;
    }
    if (draw->config.comm->n_ranks > 1) {
        return draw_together(draw, wants, n, err);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!wants[i].score) {
            draw_alone(draw, &wants[i]);
        }
    }
    return STATUS_OK;
}

/* Appends what was drawn to the slots. */
static void append(struct draw *draw, uint64_t step, const struct draw_want *wants, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct draw_sequence *slot = &draw->slots[wants[i].slot];

        if (!wants[i].score && wants[i].token >= 0) {
            slot->generated[slot->n_generated++] = wants[i].token;
            slot->has_drawn = true;
            slot->last_step = step;
        }
    }
}

enum status draw_tokens(struct draw *draw, uint64_t step, struct draw_want *wants, uint32_t n,
                        struct err *err)
{
    enum status status = check_wants(draw, wants, n, err);
    uint32_t n_drawn = 0;
    uint32_t n_reports = 0;

    if (status != STATUS_OK || n == 0) {
        return status;
    }
    for (uint32_t i = 0; i < n; i++) {
        wants[i].ret_nan_layer = -1;
        wants[i].ret_logprob = 0.0f;
        wants[i].ret_n_top = 0;
        n_reports += wants[i].logprob;
        if (wants[i].score) {
            continue;
        }
        n_drawn++;
        wants[i].token = -1;
        if (grow_slot(&draw->slots[wants[i].slot]) != STATUS_OK) {
            return err_set(err, STATUS_NO_MEMORY, "slot %u: no memory for token %u", wants[i].slot,
                           wants[i].position);
        }
    }
    if ((status = draw_meet(draw, err)) != STATUS_OK ||
        (n_reports > 0 && (status = draw_scores_note(draw, wants, n, err)) != STATUS_OK) ||
        (status = draw_all(draw, wants, n, n_drawn, err)) != STATUS_OK ||
        (n_reports > 0 && (status = draw_scores_tell(draw, wants, n, err)) != STATUS_OK)) {
        return status;
    }
    append(draw, step, wants, n);
    return STATUS_OK;
}
