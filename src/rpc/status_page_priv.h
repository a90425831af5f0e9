/* SPDX-License-Identifier: Apache-2.0 */
/* How a status page lies in memory; for its writer, its reader and the tests that damage it. */
#pragma once

#include "rpc/status_page.h"

enum { STATUS_TEXT_WORDS = STATUS_PAGE_TEXT / 8 };

#define STATUS_PAGE_MAGIC UINT64_C(0x3165676150737372)

struct status_slot {
    _Atomic uint64_t number; /* from 1 on, written last; 0 while being written */
    _Atomic uint64_t ns;
    _Atomic uint64_t what; /* type << 32 | a */
    _Atomic uint64_t b;
};

struct status_page {
    _Alignas(128) _Atomic uint64_t magic; /* written last */
    _Atomic uint64_t epoch;
    _Atomic uint64_t who; /* rank << 32 | pid */
    _Alignas(128) _Atomic uint64_t progress;
    _Atomic uint64_t step; /* whole; the packed word has its low half */
    _Atomic uint64_t phase;
    _Alignas(128) _Atomic uint64_t beat;
    _Alignas(128) _Atomic uint64_t counters[STATUS_COUNTERS];
    _Alignas(128) _Atomic uint64_t n_errors; /* text n is in errors[n % 2] */
    _Atomic uint64_t errors[2][STATUS_TEXT_WORDS];
    _Alignas(128) struct status_slot events[STATUS_PAGE_EVENTS]; /* event n at n % their number */
};

/* Fields of the packed word, from the top: step 32 bits, layer 10, collective 12, block 9,
 * waiting 1. */
enum { STATUS_LAYER_MAX = 1023, STATUS_COLLECTIVE_MAX = 4095, STATUS_BLOCK_MAX = 511 };
