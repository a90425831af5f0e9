/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log-probabilities of the model's own logits. Before anything is sampled, which changes logits,
 * each want's row is noted; when its token is known, one round tells all ranks of all wants. A rank
 * sends, for each want that reports, in order:
 *
 *   state     GOOD, or why there is no answer; then the rest is not read
 *   logit     of the token, if the rank has it
 *   top       n_top << 1 | more, then room for the candidates
 *   blocks    room for the rank's blocks, each (max, sum) at temperature 1
 *
 * laid out as in draw_world.c. A want of a token that was not drawn has state GOOD and logit 0:
 * nobody reads them.
 */
#include "base/mem.h"
#include "engine/draw_priv.h"

enum { HEAD_WORDS = 3 };

static size_t top_room(const struct draw *draw, const struct draw_want *want)
{
    return MIN(want->n_top, draw->max_rows);
}

/* Words of each rank about a want that reports. */
static size_t n_words(const struct draw *draw, const struct draw_want *want)
{
    return HEAD_WORDS + 2 * top_room(draw, want) + 2 * div_up(draw->max_rows, SAMPLE_BLOCK_ROWS);
}

static bool changes_logits(const struct draw *draw, const struct draw_want *want)
{
    return !want->score && sample_changes_logits(&draw->slots[want->slot].params);
}

static enum status grow_raw(struct draw_scores *scores, size_t n)
{
    if (n <= scores->cap_raw) {
        return STATUS_OK;
    }
    free(scores->raw);
    scores->cap_raw = 0;
    scores->raw = mem_alloc(n, sizeof(*scores->raw));
    scores->cap_raw = scores->raw != NULL ? n : 0;
    return scores->raw != NULL ? STATUS_OK : STATUS_NO_MEMORY;
}

static enum status grow_words(struct draw_scores *scores, size_t n)
{
    if (n <= scores->cap_words) {
        return STATUS_OK;
    }
    free(scores->words);
    scores->cap_words = 0;
    scores->words = mem_alloc(n, sizeof(*scores->words));
    scores->cap_words = scores->words != NULL ? n : 0;
    return scores->words != NULL ? STATUS_OK : STATUS_NO_MEMORY;
}

/* What this rank's rows say, but for the token's logit. */
static void note(struct draw *draw, const struct draw_want *want, uint32_t *words)
{
    const struct sample_ask ask = {.n_top = want->n_top, .blocks = true};
    struct sample_part *part = &draw->sampler.part;
    struct sample_params neutral;
    const struct sample_request request = {.params = &neutral};
    struct sample_answer answer;

    sample_params_init(&neutral);
    words[0] = DRAW_GOOD;
    words[1] = 0;
    words[2] = 0;
    if (want->nan_layer >= 0) {
        words[0] = DRAW_FIRST_LAYER + (uint32_t)want->nan_layer;
        return;
    }
    if (sample_part_begin(part, &request, want->logits) != STATUS_OK) {
        words[0] = DRAW_NOT_A_NUMBER;
        return;
    }
    sample_part_answer(part, &ask, &answer);
    words[2] = answer.n_top << 1 | answer.more;
    if (answer.n_top > 0) {
        memcpy(words + HEAD_WORDS, answer.top, answer.n_top * sizeof(*answer.top));
    }
    if (answer.n_blocks > 0) {
        memcpy(words + HEAD_WORDS + 2 * top_room(draw, want), answer.blocks,
               answer.n_blocks * sizeof(*answer.blocks));
    }
}

enum status draw_scores_note(struct draw *draw, const struct draw_want *wants, uint32_t n,
                             struct err *err)
{
    struct draw_scores *scores = &draw->scores;
    uint32_t n_rows = draw->sampler.part.n_rows;
    uint32_t *words;
    size_t n_raw = 0;
    float *raw;

    scores->stride = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (wants[i].logprob) {
            scores->stride += n_words(draw, &wants[i]);
            n_raw += changes_logits(draw, &wants[i]);
        }
    }
    if (grow_words(scores, scores->stride * draw->config.comm->n_ranks) != STATUS_OK ||
        grow_raw(scores, n_raw * n_rows) != STATUS_OK) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for log-probabilities");
    }
    words = scores->words + draw->config.comm->rank * scores->stride;
    raw = scores->raw;
    for (uint32_t i = 0; i < n; i++) {
        if (!wants[i].logprob) {
            continue;
        }
        note(draw, &wants[i], words);
        words += n_words(draw, &wants[i]);
        if (changes_logits(draw, &wants[i]) && n_rows > 0) {
            memcpy(raw, wants[i].logits, n_rows * sizeof(*raw));
            raw += n_rows;
        }
    }
    return STATUS_OK;
}

/* Adds the logits of the tokens that this rank has, now that they are known. */
static void add_logits(struct draw *draw, const struct draw_want *wants, uint32_t n)
{
    const struct draw_scores *scores = &draw->scores;
    uint32_t begin = draw->config.vocab_begin;
    uint32_t n_rows = draw->sampler.part.n_rows;
    uint32_t *words = scores->words + draw->config.comm->rank * scores->stride;
    const float *raw = scores->raw;

    for (uint32_t i = 0; i < n && n_rows > 0; i++) {
        const float *logits = wants[i].logits;
        int64_t row = (int64_t)wants[i].token - begin;

        if (!wants[i].logprob) {
            continue;
        }
        if (changes_logits(draw, &wants[i])) {
            logits = raw;
            raw += n_rows;
        }
        if (wants[i].token >= 0 && row >= 0 && row < n_rows) {
            memcpy(words + 1, &logits[row], sizeof(*words));
        }
        words += n_words(draw, &wants[i]);
    }
}

/* The rank that has this row of the vocabulary. */
static uint32_t owner_of(const struct draw *draw, uint32_t token)
{
    uint32_t rank = 0;
    uint32_t end = draw->rank_rows[0];

    while (token >= end) {
        end += draw->rank_rows[++rank];
    }
    return rank;
}

/* What rank says, as the merge takes it; false if that cannot be. */
static bool read_answer(const struct draw *draw, uint32_t rank, const struct draw_want *want,
                        const uint32_t *words)
{
    uint32_t rows = draw->rank_rows[rank];
    uint32_t n_top = words[2] >> 1;
    bool more = (words[2] & 1) != 0;
    const uint32_t *top = words + HEAD_WORDS;

    draw->answers[rank] = (struct sample_answer){
        .top = (const struct sample_candidate *)top,
        .n_top = n_top,
        .more = more,
        .blocks = (const struct mass_block *)(top + 2 * top_room(draw, want)),
        .n_blocks = (uint32_t)div_up(rows, SAMPLE_BLOCK_ROWS),
        .picked = -1,
    };
    return n_top <= MIN(want->n_top, rows) && (!more || n_top == want->n_top);
}

/* Takes all ranks' words about one want (rank r's at words + r * stride). */
static enum status take(struct draw *draw, struct draw_want *want, const uint32_t *words,
                        struct err *err)
{
    uint32_t n_ranks = draw->config.comm->n_ranks;
    size_t stride = draw->scores.stride;
    struct sample_scale scale;
    float logit;

    if (want->token < 0) {
        return STATUS_OK;
    }
    if (!draw_all_good(words, stride, n_ranks, &want->ret_nan_layer)) {
        want->token = -1;
        return STATUS_OK;
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (!read_answer(draw, r, want, words + r * stride)) {
            return err_set(err, STATUS_LINK, "rank %u has more likely tokens than it can have", r);
        }
    }
    if (sample_merge_logprobs(&draw->sampler.merge, draw->answers, n_ranks, want->n_top, &scale,
                              want->tops, &want->ret_n_top) != STATUS_OK) {
        want->token = -1;
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < want->ret_n_top; i++) {
        if (want->tops[i].token >= draw->config.vocab) {
            return err_set(err, STATUS_LINK, "the ranks rank token %u of a vocabulary of %u",
                           want->tops[i].token, draw->config.vocab);
        }
    }
    memcpy(&logit, words + owner_of(draw, (uint32_t)want->token) * stride + 1, sizeof(logit));
    want->ret_logprob = sample_scale_logprob(&scale, logit);
    return STATUS_OK;
}

enum status draw_scores_tell(struct draw *draw, struct draw_want *wants, uint32_t n,
                             struct err *err)
{
    struct draw_scores *scores = &draw->scores;
    struct comm *comm = draw->config.comm;
    const uint32_t *words = scores->words;
    enum status status = STATUS_OK;

    add_logits(draw, wants, n);
    if (comm->n_ranks > 1) {
        status = comm_all_gather(comm,
                                 &(struct comm_data){
                                     .in = scores->words + comm->rank * scores->stride,
                                     .out = scores->words,
                                     .count = scores->stride,
                                     .type = COMM_U32,
                                 },
                                 err);
    }
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        if (wants[i].logprob) {
            status = take(draw, &wants[i], words, err);
            words += n_words(draw, &wants[i]);
        }
    }
    return status;
}
