/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps that were issued and are not yet committed, oldest first, and what is known of the
 * requests in them (suspects.h). Plain data; part of the world's machine (state.h) and used by its
 * thread only.
 */
#pragma once

#include "world/suspects.h"

enum { FLIGHT_MAX_STEPS = 2 }; /* one, and one ahead */

struct flight_step {
    uint64_t number;
    struct world_part *parts; /* [n_parts] */
    size_t n_parts;
    size_t cap;
};

struct flight {
    struct flight_step steps[FLIGHT_MAX_STEPS]; /* [n]; the others lend their buffers */
    size_t n;
    uint64_t committed; /* number of the last committed step; 0: none */
    struct suspects suspects;
};

void flight_release(struct flight *flight);

/* Number that the next step must carry. */
uint64_t flight_next(const struct flight *flight);

/* Notes a step; parts are copied. False (nothing noted): not the next number, two are in flight, or
 * a request that is to be run alone would share the step or the pipeline. */
bool flight_issue(struct flight *flight, uint64_t number, const struct world_part *parts, size_t n);

/* The oldest step is committed. False if number is not its number. *ret_progress: it computed
 * something that had not been committed before (a step without requests, a warm-up, does too). */
bool flight_commit(struct flight *flight, uint64_t number, bool *ret_progress);

/* The steps in flight are lost to a fault of which their requests may be the cause. Returns how
 * many of these have done it too often, and lends their ids until the next call. */
size_t flight_blame(struct flight *flight, const uint64_t **ret_ids);

/* The steps in flight are lost. */
void flight_drop(struct flight *flight);
