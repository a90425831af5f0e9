/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank did when: steps, layers and collectives with their times, written into the rank's own
 * region while the leader asks for it, and read by the leader while the rank goes on.
 *
 * The leader asks by one word in its region. A rank looks at it once a step and records whole steps
 * only, so that what is recorded nests. Record n (from 0 on) lies in slot n % TRACE_SLOTS; the
 * number of records is written after it. The writer never waits: records that were written over
 * before they were read are lost and counted. One that is killed while it writes has not counted
 * that record. The reader believes nothing: kinds and times out of range are lost records too.
 *
 * All are words of one writer. Each struct belongs to one thread; the memory is borrowed.
 */
#pragma once

#include <stdatomic.h>

#include "base/err.h"

enum { TRACE_SLOTS = 1 << 16 };

enum trace_kind { TRACE_STEP, TRACE_LAYER, TRACE_COLLECTIVE, TRACE_KINDS };

/* What a record is of: of a step whether it was prefill, of a collective which one. */
enum trace_what {
    TRACE_DECODE,
    TRACE_PREFILL,
    TRACE_SUM_TREE,
    TRACE_ALL_REDUCE,
    TRACE_ALL_GATHER,
    TRACE_BROADCAST,
    TRACE_BARRIER,
    TRACE_WHATS,
};

struct trace_record {
    uint64_t start_ns; /* clock_ns */
    uint64_t took_ns;  /* at most 2^48 - 1 */
    enum trace_kind kind;
    enum trace_what what;
    uint32_t step;   /* low half of its number */
    uint32_t layer;  /* of a step: its rows; numbers above 65535 show as that */
    uint32_t number; /* of a collective within its step, from 1 on */
};

/* Shared memory, zeroed at first, 128-byte aligned. */
struct trace_slot {
    _Atomic uint64_t start_ns;
    _Atomic uint64_t took;  /* kind << 56 | what << 48 | nanoseconds */
    _Atomic uint64_t where; /* step << 32 | layer << 16 | number */
};

struct trace_ring {
    _Alignas(128) _Atomic uint64_t n; /* records written so far */
    _Alignas(128) struct trace_slot slots[TRACE_SLOTS];
};

/* The leader's word. */
struct trace_switch {
    _Alignas(128) _Atomic uint32_t on;
};

struct trace_writer {
    struct trace_ring *ring;
    const struct trace_switch *asked;
    uint64_t n;
};

static inline bool trace_is_asked(const struct trace_writer *writer)
{
    return writer->asked != NULL &&
           atomic_load_explicit(&writer->asked->on, memory_order_relaxed) != 0;
}

void trace_write(struct trace_writer *writer, const struct trace_record *record);

struct trace_reader {
    const struct trace_ring *ring;
    uint64_t next;
};

/* What is written from now on. */
void trace_reader_init(struct trace_reader *reader, const struct trace_ring *ring);

/* Copies up to max records, in the order in which they ended; returns how many, 0 when there is
 * none left. *lost grows by those that cannot be had any more. */
uint32_t trace_read(struct trace_reader *reader, struct trace_record *out, uint32_t max,
                    uint64_t *lost);
