/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators that treat each row of activations by itself. Of few rows they are done at once; of
 * many they wait until somebody needs what they compute, and then every thread does all of them
 * for its share of the rows without meeting the others in between. Operators on single rows that
 * follow one another are done some rows at a time, so that a row stays in the caches from one to
 * the next (decision 0003).
 *
 * Owned by the thread that calls operators, as the device is.
 */
#pragma once

#include "base/err.h"

struct ops_device;

/* Rows [begin, end) of an operator, by one thread: its results for a row depend on that row alone.
 */
typedef void row_fn(const void *args, uint32_t thread, uint32_t begin, uint32_t end);

/* ROWS_EACH: operators wait where each thread has so many rows at least. */
enum { ROWS_EACH = 128, ROW_JOBS = 32, ROW_ARGS_BYTES = 768 };

struct row_job {
    row_fn *fn;
    bool whole; /* a thread's rows at once, as a product wants them */
    _Alignas(16) uint8_t args[ROW_ARGS_BYTES];
};

struct row_queue {
    uint32_t n_rows; /* of every job */
    uint32_t n_jobs;
    struct row_job jobs[ROW_JOBS];
};

struct row_work {
    row_fn *fn;
    const void *args; /* copied; what it points to must stay until row_sync */
    size_t args_bytes;
    uint32_t n;        /* rows */
    size_t n_elements; /* of all rows: what it costs, where it is done at once */
    bool whole;
};

/* Whether an operator on n rows waits, so that thread t has the rows that pool_share gives it. */
bool row_waits(const struct ops_device *device, uint32_t n);

/* Does the work, at once or later; in any case behind all that was handed over before. */
void row_do(struct ops_device *device, const struct row_work *work);

/* Does what waits. */
void row_sync(struct ops_device *device);
