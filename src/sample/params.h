/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request asks of the sampler, with the defaults of generation_config.json's fields (which
 * the engine reads and fills in here). Plain data; the bias array is borrowed.
 *
 * The order in which they act, on the float32 logits of one position (vLLM's order):
 *   0. allow list           logit = -infinity, unless the token is in it
 *   1. bias                 logit += bias; that of a phrase's last token, where the answer ends
 * with the tokens before it
 *   2. repetition penalty   of every token in prompt or answer: logit > 0 ? logit / p : logit * p
 *   3. frequency penalty    logit -= frequency * times generated
 *   4. presence penalty     logit -= presence, if generated at all
 *   5. temperature          0 (do_sample false): the greatest logit, lowest index on ties; done
 *   6. min-p                keeps tokens at least min_p times as probable as the likeliest
 *   7. top-k                of those, the k likeliest (lowest index first on ties)
 *   8. top-p                of those, the smallest number of likeliest tokens whose share of their
 *                           common probability reaches top_p, at least one
 *   9. draw                 among what is left, in proportion to its probability
 */
#pragma once

#include "base/err.h"

/* Far above any use, and far from where its reciprocal would lose bits. */
#define SAMPLE_TEMPERATURE_MAX 1e6f

struct sample_bias {
    uint32_t token;
    float add; /* not +infinity; -infinity: the token is never drawn */
};

struct sample_params {
    float temperature;              /* [0, SAMPLE_TEMPERATURE_MAX]; default 1. 0 is arg-max */
    uint32_t top_k;                 /* default 0: no limit */
    float top_p;                    /* (0, 1]; default 1: no limit */
    float min_p;                    /* [0, 1]; default 0: no limit */
    float repetition_penalty;       /* > 0; default 1: none. Prompt and generated tokens */
    float presence_penalty;         /* default 0. Generated tokens only, as frequency_penalty */
    float frequency_penalty;        /* default 0 */
    const struct sample_bias *bias; /* [n_bias]; a token listed twice is added to twice */
    uint32_t n_bias;
    uint32_t n_min; /* default 0. The first n_min_bias biases hold only while fewer tokens have */
    uint32_t n_min_bias;    /* been generated than n_min */
    uint32_t n_phrase_bias; /* default 0. The last so many biases are phrases: tokens with 0, then
                               one with what is added to it while the answer ends with the others */
    bool allow; /* default false. The biases between those are the allow list, not empty */
};

/* The defaults above. */
void sample_params_init(struct sample_params *params);

/* STATUS_INVALID, naming the field, for a value out of range or a bias outside [0, vocab). */
NODISCARD enum status sample_params_check(const struct sample_params *params, uint32_t vocab,
                                          struct err *err);
