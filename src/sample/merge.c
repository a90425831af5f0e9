/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/merge.h"

#include <math.h>

#include "base/mem.h"
#include "tensor/canon.h"

/* Candidates asked for first where top-k does not say, and by how much the number grows a round.
 * Only speed depends on them. */
enum { FIRST_TOP = 64, TOP_GROWTH = 8 };

enum status sample_merge_init(struct sample_merge *merge, uint32_t vocab)
{
    ENSURE_OP(vocab, >, 0);
    *merge = (struct sample_merge){
        .vocab = vocab,
        .n_blocks = (uint32_t)div_up(vocab, SAMPLE_BLOCK_ROWS),
    };
    merge->top = mem_alloc(vocab, sizeof(*merge->top));
    merge->mass = mem_alloc(vocab, sizeof(*merge->mass));
    merge->blocks = mem_alloc(merge->n_blocks, sizeof(*merge->blocks));
    if (merge->top == NULL || merge->mass == NULL || merge->blocks == NULL) {
        sample_merge_release(merge);
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

void sample_merge_release(struct sample_merge *merge)
{
    free(merge->top);
    free(merge->mass);
    free(merge->blocks);
    *merge = (struct sample_merge){0};
}

/* True if a share of the likeliest tokens is kept, false if every token may be drawn. */
static bool is_cut(const struct sample_params *params)
{
    return params->top_k > 0 || params->top_p < 1.0f || params->min_p > 0.0f;
}

/* True if top-p is a share of the whole vocabulary, not of what min-p and top-k leave. */
static bool needs_total(const struct sample_params *params)
{
    return params->top_k == 0 && params->min_p == 0.0f;
}

void sample_merge_begin(struct sample_merge *merge, const struct sample_request *request,
                        struct sample_ask *ret_ask)
{
    const struct sample_params *params = request->params;

    merge->request = request;
    *ret_ask = (struct sample_ask){0};
    if (params->temperature == 0.0f) {
        ret_ask->n_top = 1;
    } else {
        ret_ask->blocks = needs_total(params);
        if (is_cut(params)) {
            ret_ask->n_top = params->top_k > 0 ? params->top_k : FIRST_TOP;
        }
    }
}

struct mass_block sample_blocks_total(const struct mass_block *blocks, uint32_t n,
                                      float inv_temperature)
{
    struct mass_block a;
    struct mass_block b;
    float max;

    if (n == 1) {
        return blocks[0];
    }
    a = sample_blocks_total(blocks, n - n / 2, inv_temperature);
    b = sample_blocks_total(blocks + (n - n / 2), n / 2, inv_temperature);
    max = b.max > a.max ? b.max : a.max;
    a.sum *= mass_of(a.max, max, inv_temperature);
    return (struct mass_block){
        .max = max,
        .sum = fmaf(b.sum, mass_of(b.max, max, inv_temperature), a.sum),
    };
}

static void take_blocks(struct sample_merge *merge, const struct sample_answer *answers,
                        uint32_t n_answers)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_answers; i++) {
        ENSURE_OP(n + answers[i].n_blocks, <=, merge->n_blocks);
        memcpy(merge->blocks + n, answers[i].blocks, answers[i].n_blocks * sizeof(*merge->blocks));
        n += answers[i].n_blocks;
    }
    ENSURE_OP(n, ==, merge->n_blocks);
}

static int compare(const void *a, const void *b)
{
    const struct sample_candidate *left = a;
    const struct sample_candidate *right = b;

    return sample_before(*left, *right) ? -1 : 1; /* tokens differ, so nothing is equal */
}

/* Puts the candidates of all answers in order. Returns how many of them are certain: a part that
 * has more may hold anything after its last one. *ret_all: there are no others. */
static uint32_t take_top(struct sample_merge *merge, const struct sample_answer *answers,
                         uint32_t n_answers, bool *ret_all)
{
    const struct sample_candidate *horizon = NULL; /* the first of the parts' last candidates */
    uint32_t certain = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_answers; i++) {
        const struct sample_answer *answer = &answers[i];

        ENSURE_OP(n + answer->n_top, <=, merge->vocab);
        memcpy(merge->top + n, answer->top, answer->n_top * sizeof(*merge->top));
        n += answer->n_top;
        if (answer->more) {
            const struct sample_candidate *last = &answer->top[answer->n_top - 1];

            horizon = horizon == NULL || sample_before(*last, *horizon) ? last : horizon;
        }
    }
    if (n_answers > 1) {
        qsort(merge->top, n, sizeof(*merge->top), compare);
    }
    *ret_all = horizon == NULL;
    if (horizon == NULL) {
        return n;
    }
    while (certain < n && !sample_before(*horizon, merge->top[certain])) {
        certain++;
    }
    return certain;
}

static void weigh_top(struct sample_merge *merge, uint32_t certain)
{
    float inv_temperature = 1.0f / merge->request->params->temperature;

    for (uint32_t i = 0; i < certain; i++) {
        merge->mass[i] = mass_of(merge->top[i].logit, merge->top[0].logit, inv_temperature);
    }
}

/* How many of the likeliest tokens min-p and top-k leave, and their mass; false if that is not
 * certain yet. Without either, all of them and the mass of the vocabulary. */
static bool cut_by_rank(const struct sample_merge *merge, uint32_t certain, bool all,
                        uint32_t *ret_n, double *ret_mass)
{
    const struct sample_params *params = merge->request->params;
    uint32_t limit = params->top_k > 0 ? params->top_k : UINT32_MAX;
    double total = 0.0;
    uint32_t n = 0;

    if (needs_total(params)) {
        *ret_n = UINT32_MAX;
        *ret_mass =
            sample_blocks_total(merge->blocks, merge->n_blocks, 1.0f / params->temperature).sum;
        return true;
    }
    while (n < limit) {
        if (n == certain) {
            if (!all) {
                return false;
            }
            break;
        }
        if (merge->mass[n] < params->min_p) {
            break;
        }
        total += merge->mass[n];
        n++;
    }
    *ret_n = n;
    *ret_mass = total;
    return true;
}

/* Draws among the tokens kept. False if more candidates are needed. */
static bool choose_top(const struct sample_merge *merge, uint32_t certain, bool all,
                       uint32_t *ret_token)
{
    const struct sample_params *params = merge->request->params;
    double kept = 0.0;
    double running = 0.0;
    double total;
    double target;
    uint32_t limit;
    uint32_t n = 0;

    if (!cut_by_rank(merge, certain, all, &limit, &total)) {
        return false;
    }
    while (n < limit && (n == 0 || kept < (double)params->top_p * total)) {
        if (n == certain) {
            if (!all) {
                return false;
            }
            break;
        }
        kept += merge->mass[n];
        n++;
    }
    target = sample_uniform(&merge->request->key) * kept;
    for (uint32_t i = 0; i < n; i++) {
        running += merge->mass[i];
        if (running > target) { /* true at i = n - 1 at the latest: running is then kept */
            *ret_token = merge->top[i].token;
            break;
        }
    }
    return true;
}

/* The block in which the drawn mass of the whole vocabulary lies, as the next question. False if no
 * block has any mass. */
static bool choose_block(struct sample_merge *merge, struct sample_ask *ret_ask)
{
    float inv_temperature = 1.0f / merge->request->params->temperature;
    float *scales = merge->mass; /* [n_blocks]; no candidate is weighed now */
    float max = -INFINITY;
    double total = 0.0;
    double target;

    for (uint32_t b = 0; b < merge->n_blocks; b++) {
        max = merge->blocks[b].max > max ? merge->blocks[b].max : max;
    }
    if (max == -INFINITY) {
        return false;
    }
    for (uint32_t b = 0; b < merge->n_blocks; b++) {
        scales[b] = mass_of(merge->blocks[b].max, max, inv_temperature);
        total += (double)merge->blocks[b].sum * scales[b];
    }
    target = sample_uniform(&merge->request->key) * total;
    *ret_ask = (struct sample_ask){.pick = true};
    total = 0.0;
    for (uint32_t b = 0; b < merge->n_blocks; b++) {
        double scale = scales[b];
        double next = total + (double)merge->blocks[b].sum * scale;

        if (next > target) { /* true in the last block with mass at the latest */
            ret_ask->pick_block = b;
            ret_ask->pick_mass = (target - total) / scale;
            break;
        }
        total = next;
    }
    return true;
}

static uint32_t picked_token(const struct sample_answer *answers, uint32_t n_answers)
{
    int64_t picked = -1;

    for (uint32_t i = 0; i < n_answers; i++) {
        picked = answers[i].picked >= 0 ? answers[i].picked : picked;
    }
    ENSURE_OP(picked, >=, 0); /* one part owns the block */
    return (uint32_t)picked;
}

enum status sample_merge_next(struct sample_merge *merge, const struct sample_answer *answers,
                              uint32_t n_answers, struct sample_ask *ask, uint32_t *ret_token)
{
    const struct sample_params *params = merge->request->params;
    uint32_t certain;
    bool all;

    if (ask->pick) {
        *ret_token = picked_token(answers, n_answers);
        return STATUS_OK;
    }
    if (ask->blocks) {
        take_blocks(merge, answers, n_answers);
    }
    if (ask->n_top == 0) {
        return choose_block(merge, ask) ? STATUS_PENDING : STATUS_NUMERIC;
    }
    certain = take_top(merge, answers, n_answers, &all);
    if (certain == 0) {
        return STATUS_NUMERIC; /* the best of a part is always certain, so no part has any */
    }
    if (params->temperature == 0.0f) {
        *ret_token = merge->top[0].token;
        return STATUS_OK;
    }
    weigh_top(merge, certain);
    if (choose_top(merge, certain, all, ret_token)) {
        return STATUS_OK;
    }
    *ask = (struct sample_ask){
        .n_top = ask->n_top < merge->vocab / TOP_GROWTH ? ask->n_top * TOP_GROWTH : merge->vocab,
    };
    return STATUS_PENDING;
}

enum status sample_scale_of(const struct mass_block *blocks, uint32_t n_blocks,
                            struct sample_scale *ret_scale)
{
    struct mass_block total = sample_blocks_total(blocks, n_blocks, 1.0f);

    if (!isfinite(total.max)) {
        return STATUS_NUMERIC;
    }
    *ret_scale = (struct sample_scale){.max = total.max, .log_sum = canon_log_f64(total.sum)};
    return STATUS_OK;
}

float sample_scale_logprob(const struct sample_scale *scale, float logit)
{
    return (float)((double)logit - (double)scale->max - scale->log_sum);
}

enum status sample_merge_logprobs(struct sample_merge *merge, const struct sample_answer *answers,
                                  uint32_t n_answers, uint32_t n_top,
                                  struct sample_scale *ret_scale, struct sample_logprob *ret_top,
                                  uint32_t *ret_n_top)
{
    enum status status;
    bool all;

    take_blocks(merge, answers, n_answers);
    status = sample_scale_of(merge->blocks, merge->n_blocks, ret_scale);
    if (status != STATUS_OK) {
        return status;
    }
    /* The first n_top are certain: a part that has more has given n_top. */
    *ret_n_top = n_top > 0 ? MIN(n_top, take_top(merge, answers, n_answers, &all)) : 0;
    for (uint32_t i = 0; i < *ret_n_top; i++) {
        ret_top[i] = (struct sample_logprob){
            .token = merge->top[i].token,
            .logprob = sample_scale_logprob(ret_scale, merge->top[i].logit),
        };
    }
    return STATUS_OK;
}
