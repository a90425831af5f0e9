/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities in JSON. Private to api/. */
#pragma once

#include "api/generate.h"

/* Nine digits: a float that is equal gives the same text. -infinity, which JSON has not, is -9999.
 */
void logprob_write(struct buf *out, float logprob);

/* A JSON string with the token's bytes (what is no UTF-8 as U+FFFD). */
void logprob_write_token(struct buf *out, const struct tokenizer *tokenizer, int32_t token);

/* {"token","logprob","bytes","top_logprobs":[...]}, ... separated by commas, as chat lists them. */
void logprobs_write_chat(struct buf *out, const struct tokenizer *tokenizer,
                         const struct token_entry *entries, uint32_t n);
