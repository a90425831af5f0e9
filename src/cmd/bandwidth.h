/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory read bandwidth, the yardstick of decoding: every thread reads its own part of a buffer
 * that no cache holds. Create once, measure as often as wanted (beside what is compared with it,
 * because a shared machine's bandwidth changes within seconds). Used by the thread that created it.
 */
#pragma once

#include "base/err.h"

struct bandwidth;

/* A buffer of `bytes` (see bandwidth_bytes), its pages placed by the threads that will read them.
 */
NODISCARD enum status bandwidth_create(uint32_t n_threads, size_t bytes,
                                       struct bandwidth **ret_bandwidth, struct err *err);
void bandwidth_destroy(struct bandwidth **bandwidth);

/* Reads for about so many milliseconds; bytes a second of all threads together. */
double bandwidth_measure(struct bandwidth *bandwidth, uint32_t ms);

/* A buffer large enough to defeat caches of cache_bytes, but at most a quarter of the memory that
 * is available. */
size_t bandwidth_bytes(uint64_t cache_bytes, uint64_t available_bytes);
