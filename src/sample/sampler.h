/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ordinary sampler: one process that has the logits of the whole vocabulary. It is a merge over
 * a single part, and gives the token that any division into parts gives. Also log-probabilities.
 *
 * The token is a pure function of the logits and the request: no state is kept between calls but
 * scratch. Owns the scratch; one thread at a time.
 */
#pragma once

#include "sample/merge.h"

struct sampler {
    struct sample_part part;
    struct sample_merge merge;
};

/* For a vocabulary of this many rows (at least 1). STATUS_NO_MEMORY. */
NODISCARD enum status sampler_init(struct sampler *sampler, uint32_t vocab);
void sampler_release(struct sampler *sampler);

/* Chooses a token. logits [vocab] is changed: bias and penalties are applied in place.
 * STATUS_NUMERIC if a logit is not a number, or none is above -infinity. */
NODISCARD enum status sampler_token(struct sampler *sampler, const struct sample_request *request,
                                    float *logits, uint32_t *ret_token, struct err *err);

/* Log-softmax of the model's own logits [vocab] (not changed; to be taken before sampler_token):
 * *ret_token for `token`, and the n_top likeliest, best first, in ret_top. n_top is cut to the
 * tokens there are; *ret_n_top is what was written. STATUS_NUMERIC if a logit is not a number or
 * the greatest not finite. */
NODISCARD enum status sampler_logprobs(struct sampler *sampler, float *logits, uint32_t token,
                                       uint32_t n_top, struct sample_logprob *ret_token,
                                       struct sample_logprob *ret_top, uint32_t *ret_n_top);
