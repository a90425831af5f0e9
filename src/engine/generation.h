/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a model wants to be sampled, and which tokens end its answers: generation_config.json and
 * config.json of a folder, or GGUF metadata. Plain data; any thread.
 */
#pragma once

#include "sample/params.h"
#include "weights/weights.h"

enum { GENERATION_MAX_END = 64 };

struct generation_defaults {
    struct sample_params params; /* what the model names, otherwise params' own defaults */
    bool has_temperature; /* which of them the model names (do_sample false names temperature 0) */
    bool has_top_k;
    bool has_top_p;
    bool has_min_p;
    bool has_repetition_penalty;
    int32_t end[GENERATION_MAX_END]; /* tokens that end an answer */
    uint32_t n_end;
};

/* Errors name file and field. Files that are absent give nothing. */
NODISCARD enum status generation_defaults_load(const struct weights *weights,
                                               struct generation_defaults *ret_defaults,
                                               struct err *err);

bool generation_is_end(const struct generation_defaults *defaults, int32_t token);

/* Adds an end token unless it is there, negative, or the list is full. */
void generation_add_end(struct generation_defaults *defaults, int64_t token);
