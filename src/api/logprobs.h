/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities in JSON. Private to api/. */
#pragma once

#include "api/generate.h"

/* Nine digits: a float that is equal gives the same text. -infinity, which JSON has not, is -9999.
 */
void logprob_write(struct buf *out, float logprob);

/* A JSON string with the token's bytes (what is no UTF-8 as U+FFFD). */
void logprob_write_token(struct buf *out, const struct tokenizer *tokenizer, int32_t token);

/* The same as a generation's client wants it: perhaps "token_id:N". */
void logprob_write_name(struct buf *out, const struct generation *g, int32_t token);

/* {"token","logprob","bytes","top_logprobs":[...]}, ... separated by commas, as chat lists them. */
void logprobs_write_chat(struct buf *out, const struct generation *g,
                         const struct token_entry *entries, uint32_t n);

/* What prompt p's tokens had, as vLLM lists it: null for the first, then {"id":{"logprob","rank",
 * "decoded_token"}, ...}, the token itself among them (rank null where it is none of the likeliest
 * that were asked for). */
void logprobs_write_prompt(struct buf *out, const struct generation *g, uint32_t prompt);
