/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Combines the answers of all parts into one token. The merge asks every part the same question,
 * gets their answers in order of their rows, and either knows the token or has a further question:
 *
 *   temperature 0                one round: each part's best token
 *   min-p, top-k or top-p        rounds of likeliest tokens, more each time, until the cut is
 * inside what is known for certain. top-p alone also needs the mass of the whole vocabulary, which
 * comes with the first round none of them                 the blocks' masses; then the token at the
 * drawn mass of one block
 *
 * Masses of blocks are merged by the tree that halves the range of blocks, first half the larger,
 * so the total, and with it the token, does not depend on who computed which block. Candidates are
 * summed best first, in double.
 *
 * Pure: no I/O, no clock. A merge owns its scratch; one thread at a time.
 */
#pragma once

#include "sample/part.h"

struct sample_merge {
    const struct sample_request *request;
    struct sample_candidate *top; /* [vocab] scratch of the merged candidates */
    float *mass;                  /* [vocab] theirs, relative to the first */
    struct mass_block *blocks;    /* [n_blocks] of the whole vocabulary */
    uint32_t vocab;
    uint32_t n_blocks;
};

/* For a vocabulary of this many rows (at least 1). STATUS_NO_MEMORY. */
NODISCARD enum status sample_merge_init(struct sample_merge *merge, uint32_t vocab);
void sample_merge_release(struct sample_merge *merge);

/* Starts a token and gives the first question. The request is borrowed until the token is known. */
void sample_merge_begin(struct sample_merge *merge, const struct sample_request *request,
                        struct sample_ask *ret_ask);

/* Takes the answers to *ask, one a part, in order of rows. STATUS_OK: *ret_token is chosen.
 * STATUS_PENDING: *ask holds the next question. STATUS_NUMERIC: every logit is -infinity. */
NODISCARD enum status sample_merge_next(struct sample_merge *merge,
                                        const struct sample_answer *answers, uint32_t n_answers,
                                        struct sample_ask *ask, uint32_t *ret_token);

/* The tree over blocks [0, n), n > 0: their greatest logit and total mass relative to it. */
struct mass_block sample_blocks_total(const struct mass_block *blocks, uint32_t n,
                                      float inv_temperature);

/* The scale of log-probabilities, from the blocks of the whole vocabulary at temperature 1. */
struct sample_scale {
    float max;
    double log_sum; /* natural logarithm of the mass relative to max */
};

struct sample_logprob {
    uint32_t token;
    float logprob; /* natural logarithm; -infinity where the logit is */
};

/* What the parts said of the model's own logits (all n_blocks in order, temperature 1) as a scale.
 * STATUS_NUMERIC if the greatest logit is not finite. */
NODISCARD enum status sample_scale_of(const struct mass_block *blocks, uint32_t n_blocks,
                                      struct sample_scale *ret_scale);

/* (logit - max) - log of the sum, in double, rounded once. */
float sample_scale_logprob(const struct sample_scale *scale, float logit);

/* Takes the answers to an ask of n_top and blocks about the model's own logits: the scale, and the
 * n_top likeliest tokens, best first; *ret_n_top is fewer if there are no more above -infinity.
 * STATUS_NUMERIC as sample_scale_of. */
NODISCARD enum status sample_merge_logprobs(struct sample_merge *merge,
                                            const struct sample_answer *answers, uint32_t n_answers,
                                            uint32_t n_top, struct sample_scale *ret_scale,
                                            struct sample_logprob *ret_top, uint32_t *ret_n_top);
