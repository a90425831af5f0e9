/* SPDX-License-Identifier: Apache-2.0 */
/* From the options of a command to an engine, with progress on standard error while it loads. */
#pragma once

#include "config/options.h"
#include "engine/engine.h"

/* What the command adds to the options. */
struct open_engine {
    uint32_t max_context; /* 0: the model's own limit */
    uint32_t max_chunk;
};

/* Loads options->path on the CPU. *ret_seconds: how long that took. */
NODISCARD enum status open_engine(const struct options *options, const struct open_engine *want,
                                  struct engine **ret_engine, double *ret_seconds, struct err *err);

/* The same with random weights of config. */
NODISCARD enum status open_engine_random(const struct options *options,
                                         const struct open_engine *want,
                                         const struct model_config *config,
                                         struct engine **ret_engine, struct err *err);
