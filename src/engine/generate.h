/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer on one sequence: prompt in, tokens out, one at a time. A token is drawn by a generator
 * keyed with (seed, number of tokens generated before), so that an answer can be continued from its
 * tokens alone. One thread.
 */
#pragma once

#include "engine/generation.h"
#include "engine/sequence.h"

enum generate_finish { GENERATE_STOP, GENERATE_LENGTH, GENERATE_CANCELLED };

/* Called with each token as it is chosen, the end token not included. Not STATUS_OK ends the answer
 * with that status. */
typedef enum status generate_token_fn(void *arg, int32_t token, struct err *err);

struct generate_args {
    struct sequence *sequence; /* holds the first sequence->pos tokens of prompt */
    const int32_t *prompt;     /* [n_prompt], all of it; at least one beyond what is cached */
    uint32_t n_prompt;
    const struct sample_params *params;
    const struct generation_defaults *ends; /* tokens that end the answer; NULL: none does */
    uint64_t seed;
    int64_t max_tokens; /* negative: as many as the context holds */
    uint32_t chunk;
    generate_token_fn *token;
    void *arg;
    const _Atomic bool *stop; /* NULL, or: the answer is cut short once it is true */
};

struct generate_result {
    enum generate_finish finish;
    uint32_t n_prompt; /* computed now, without what was cached */
    uint32_t n_generated;
    uint64_t prefill_ns; /* up to the first token */
    uint64_t decode_ns;  /* from there on */
};

/* *ret_result is filled also on failure (n_generated: tokens delivered so far). After it the
 * sequence holds the prompt and every generated token but the last, whose key and value are not
 * computed yet. */
NODISCARD enum status generate(const struct generate_args *args, struct generate_result *ret_result,
                               struct err *err);
