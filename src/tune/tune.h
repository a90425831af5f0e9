/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices of speed (struct ops_tune) by measurement, and the file in which they are kept:
 * $XDG_CACHE_HOME/lockstep/tune-HASH.json, one for each processor, level, number of threads and
 * build. Nothing in it changes a result. Whoever makes the options of a load reads the file, once,
 * and tells all ranks, so that they choose alike, also after a respawn, and a rank never measures.
 * Any thread.
 */
#pragma once

#include "base/err.h"
#include "json/json.h"
#include "ops/ops.h"

/* What choices are for; processor and build are this one. */
struct tune_key {
    const char *level;  /* of the kernels, ops->level */
    uint32_t n_threads; /* all that this process may use */
};

struct tune_job {
    const struct ops *ops;
    struct tune_key key;
    size_t bytes; /* of weights, more than caches hold; taken for the time of the measurement */
};

/* What was measured, microseconds. */
struct tune_result {
    struct ops_tune tune;
    double streamed[OPS_PRODUCTS][OPS_FEW_ROWS_MAX + 1]; /* by rows, from 2 on */
    double taken_apart[OPS_PRODUCTS][OPS_FEW_ROWS_MAX + 1];
    double bf16; /* one row: the same weights plain and at 12 bits */
    double bf16_12;
};

/* Some tenths of a second, a second at the most: what a busy machine leaves no time for stays as
 * built in. STATUS_NO_MEMORY. */
NODISCARD enum status tune_measure(const struct tune_job *job, struct tune_result *ret_result,
                                   struct err *err);

/* The choices as a rank gets them. From: STATUS_INVALID names a field that is out of range. */
json_t *tune_to_json(const struct ops_tune *tune);
NODISCARD enum status tune_from_json(const json_t *json, struct ops_tune *ret_tune,
                                     struct err *err);

/* Where the file is; owned by the caller. NULL: neither XDG_CACHE_HOME nor HOME says where. */
char *tune_path(const struct tune_key *key);

/* False, and *ret_tune zero, if there is none, or one that is of no use (which is logged). */
bool tune_read(const struct tune_key *key, struct ops_tune *ret_tune);

/* The whole file at once, so that nobody reads half of it; its folder is made. STATUS_IO. */
NODISCARD enum status tune_write(const struct tune_key *key, const struct ops_tune *tune,
                                 struct err *err);
