/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing among several ranks. In a round every rank sends, for each want that is open, in order,
 * as many words as the question to it may need of any rank, so that all of them know the size
 * beforehand:
 *
 *   state       GOOD, or why there is no answer; then the rest is not read
 *   top         if likeliest tokens are asked for: n_top << 1 | more, then room for the candidates
 *   blocks      if masses are asked for: room for the rank's blocks
 *   picked      if a token at some mass is asked for: it, or NOT_HERE
 *
 * Candidates and blocks are laid out as in memory, floats as their bits.
 */
#include "engine/draw_priv.h"

#include "base/mem.h"

#define NOT_HERE UINT32_MAX

_Static_assert(sizeof(struct sample_candidate) == 8 && sizeof(struct mass_block) == 8,
               "two words each");

static uint32_t n_blocks_of(uint32_t n_rows)
{
    return (uint32_t)div_up(n_rows, SAMPLE_BLOCK_ROWS);
}

/* Room for n wants among several ranks. */
static enum status grow_opens(struct draw *draw, uint32_t n)
{
    size_t n_blocks = n_blocks_of(draw->sampler.part.n_rows) + draw->sampler.merge.n_blocks;
    size_t cap = MIN(UINT32_MAX, MAX(n, draw->cap_opens * (size_t)2));
    struct mass_block *blocks;
    struct draw_open *opens;

    if (n <= draw->cap_opens) {
        return STATUS_OK;
    }
    blocks = mem_alloc(cap, n_blocks * sizeof(*blocks));
    opens = mem_alloc(cap, sizeof(*opens));
    if (blocks == NULL || opens == NULL) {
        free(blocks);
        free(opens);
        return STATUS_NO_MEMORY;
    }
    free(draw->blocks);
    free(draw->opens);
    draw->blocks = blocks;
    draw->opens = opens;
    draw->cap_opens = (uint32_t)cap;
    for (size_t i = 0; i < cap; i++) {
        opens[i].part = draw->sampler.part;
        opens[i].merge = draw->sampler.merge;
        opens[i].merge.blocks = blocks + i * n_blocks;
        opens[i].part.blocks = opens[i].merge.blocks + draw->sampler.merge.n_blocks;
    }
    return STATUS_OK;
}

/* Room for n words, whose values are not kept. */
static enum status grow_words(struct draw *draw, size_t n)
{
    size_t cap = MAX(n, draw->cap_words * 2);
    uint32_t *words;

    if (n <= draw->cap_words) {
        return STATUS_OK;
    }
    words = mem_alloc(cap, sizeof(*words));
    if (words == NULL) {
        return STATUS_NO_MEMORY;
    }
    free(draw->words);
    draw->words = words;
    draw->cap_words = cap;
    return STATUS_OK;
}

/* Exchanges n words a rank in place: rank r's lie at draw->words + r * n. */
static enum status exchange(struct draw *draw, size_t n, struct err *err)
{
    return comm_all_gather(draw->config.comm,
                           &(struct comm_data){
                               .in = draw->words + draw->config.comm->rank * n,
                               .out = draw->words,
                               .count = n,
                               .type = COMM_U32,
                           },
                           err);
}

enum status draw_meet(struct draw *draw, struct err *err)
{
    const struct draw_config *config = &draw->config;
    uint32_t n_ranks = config->comm->n_ranks;
    uint32_t at = 0;
    uint32_t *own;
    enum status status;

    if (draw->met) {
        return STATUS_OK;
    }
    if (grow_words(draw, (size_t)n_ranks * 2) != STATUS_OK) {
        return err_set(err, STATUS_NO_MEMORY, "no memory to sample among %u ranks", n_ranks);
    }
    own = draw->words + config->comm->rank * 2;
    own[0] = config->vocab_begin;
    own[1] = config->vocab_end;
    status = exchange(draw, 2, err);
    for (uint32_t r = 0; r < n_ranks && status == STATUS_OK; r++) {
        uint32_t begin = draw->words[r * 2];
        uint32_t end = draw->words[r * 2 + 1];

        if (begin > end || (begin < end && (begin != at || begin % SAMPLE_BLOCK_ROWS != 0))) {
            return err_set(err, STATUS_INVALID,
                           "rank %u has rows %u to %u of the vocabulary, but its turn is at %u", r,
                           begin, end, at);
        }
        draw->rank_rows[r] = end - begin;
        draw->max_rows = MAX(draw->max_rows, end - begin);
        at += end - begin;
    }
    if (status == STATUS_OK && at != config->vocab) {
        return err_set(err, STATUS_INVALID, "all ranks together have %u rows of a vocabulary of %u",
                       at, config->vocab);
    }
    draw->met = status == STATUS_OK;
    return status;
}

static void open_want(struct draw *draw, struct draw_open *open, const struct draw_want *want)
{
    open->is_open = true;
    open->request = draw_request_of(&draw->slots[want->slot]);
    open->state = DRAW_GOOD;
    if (want->nan_layer >= 0) {
        open->state = DRAW_FIRST_LAYER + (uint32_t)want->nan_layer;
    } else if (sample_part_begin(&open->part, &open->request, want->logits) != STATUS_OK) {
        open->state = DRAW_NOT_A_NUMBER;
    }
    sample_merge_begin(&open->merge, &open->request, &open->ask);
}

static size_t top_room(const struct draw *draw, const struct sample_ask *ask)
{
    return MIN(ask->n_top, draw->max_rows);
}

/* Words of each rank in answer to ask. */
static size_t n_words(const struct draw *draw, const struct sample_ask *ask)
{
    size_t n = 1;

    if (ask->n_top > 0) {
        n += 1 + 2 * top_room(draw, ask);
    }
    if (ask->blocks) {
        n += (size_t)2 * n_blocks_of(draw->max_rows);
    }
    return n + (ask->pick ? 1 : 0);
}

static void write_answer(const struct draw *draw, struct draw_open *open, uint32_t *words)
{
    const struct sample_ask *ask = &open->ask;
    struct sample_answer answer;

    *words++ = open->state;
    if (open->state != DRAW_GOOD) {
        return;
    }
    sample_part_answer(&open->part, ask, &answer);
    if (ask->n_top > 0) {
        *words++ = answer.n_top << 1 | answer.more;
        memcpy(words, answer.top, answer.n_top * sizeof(*answer.top));
        words += 2 * top_room(draw, ask);
    }
    if (ask->blocks) {
        if (answer.n_blocks > 0) {
            memcpy(words, answer.blocks, answer.n_blocks * sizeof(*answer.blocks));
        }
        words += (size_t)2 * n_blocks_of(draw->max_rows);
    }
    if (ask->pick) {
        *words = answer.picked >= 0 ? (uint32_t)answer.picked : NOT_HERE;
    }
}

/* What rank says, as the merge takes it; false if that cannot be. */
static bool read_answer(const struct draw *draw, uint32_t rank, const struct sample_ask *ask,
                        const uint32_t *words)
{
    struct sample_answer *answer = &draw->answers[rank];

    *answer = (struct sample_answer){.picked = -1};
    words++;
    if (ask->n_top > 0) {
        answer->n_top = *words >> 1;
        answer->more = *words & 1;
        answer->top = (const struct sample_candidate *)++words;
        if (answer->n_top > MIN(ask->n_top, draw->rank_rows[rank]) ||
            (answer->more && answer->n_top == 0)) {
            return false;
        }
        words += 2 * top_room(draw, ask);
    }
    if (ask->blocks) {
        answer->blocks = (const struct mass_block *)words;
        answer->n_blocks = n_blocks_of(draw->rank_rows[rank]);
        words += (size_t)2 * n_blocks_of(draw->max_rows);
    }
    if (ask->pick && *words != NOT_HERE) {
        answer->picked = *words;
    }
    return true;
}

bool draw_all_good(const uint32_t *words, size_t stride, uint32_t n_ranks, int32_t *ret_nan_layer)
{
    uint32_t layer = UINT32_MAX;
    bool good = true;

    for (uint32_t r = 0; r < n_ranks; r++) {
        uint32_t state = words[r * stride];

        good = good && state == DRAW_GOOD;
        if (state >= DRAW_FIRST_LAYER) {
            layer = MIN(layer, state - DRAW_FIRST_LAYER);
        }
    }
    if (layer <= INT32_MAX) {
        *ret_nan_layer = (int32_t)layer;
    }
    return good;
}

/* Takes all ranks' answers to one want (rank r's at words + r * stride). */
static enum status take_answers(struct draw *draw, struct draw_open *open, struct draw_want *want,
                                const uint32_t *words, size_t stride, struct err *err)
{
    uint32_t n_ranks = draw->config.comm->n_ranks;
    enum status status;
    uint32_t token;

    if (!draw_all_good(words, stride, n_ranks, &want->ret_nan_layer)) {
        open->is_open = false;
        return STATUS_OK;
    }
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (!read_answer(draw, r, &open->ask, words + r * stride)) {
            return err_set(err, STATUS_LINK, "rank %u has more candidates than it can have", r);
        }
    }
    status = sample_merge_next(&open->merge, draw->answers, n_ranks, &open->ask, &token);
    if (status == STATUS_OK) {
        if (token >= draw->config.vocab) {
            return err_set(err, STATUS_LINK, "the ranks chose token %u of a vocabulary of %u",
                           token, draw->config.vocab);
        }
        want->token = (int32_t)token;
    }
    open->is_open = status == STATUS_PENDING;
    return STATUS_OK; /* STATUS_NUMERIC: there is no token */
}

/* Asks all ranks about every open want. *n_open: what is open afterwards. */
static enum status ask_round(struct draw *draw, struct draw_want *wants, uint32_t n,
                             uint32_t *n_open, struct err *err)
{
    struct comm *comm = draw->config.comm;
    size_t stride = 0;
    size_t at = 0;
    enum status status;

    for (uint32_t i = 0; i < n; i++) {
        stride += draw->opens[i].is_open ? n_words(draw, &draw->opens[i].ask) : 0;
    }
    if (grow_words(draw, stride * comm->n_ranks) != STATUS_OK) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %zu words of %u ranks", stride,
                       comm->n_ranks);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (draw->opens[i].is_open) {
            write_answer(draw, &draw->opens[i], draw->words + comm->rank * stride + at);
            at += n_words(draw, &draw->opens[i].ask);
        }
    }
    status = exchange(draw, stride, err);
    *n_open = 0;
    at = 0;
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        struct draw_open *open = &draw->opens[i];

        if (open->is_open) {
            size_t words = n_words(draw, &open->ask); /* the answers change what is asked */

            status = take_answers(draw, open, &wants[i], draw->words + at, stride, err);
            at += words;
            *n_open += open->is_open;
        }
    }
    return status;
}

enum status draw_together(struct draw *draw, struct draw_want *wants, uint32_t n, struct err *err)
{
    enum status status = STATUS_OK;
    uint32_t n_open = 0;

    if (grow_opens(draw, n) != STATUS_OK) {
        return err_set(err, STATUS_NO_MEMORY, "no memory to draw %u tokens", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        draw->opens[i].is_open = !wants[i].score;
        if (!wants[i].score) {
            open_want(draw, &draw->opens[i], &wants[i]);
            n_open++;
        }
    }
    while (n_open > 0 && status == STATUS_OK) {
        status = ask_round(draw, wants, n, &n_open, err);
    }
    return status;
}
