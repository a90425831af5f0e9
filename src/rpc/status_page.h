/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's status page: shared memory that the rank alone writes, without a lock or a system call,
 * and that tells after its death where it was. The leader sees from it that a rank hangs (its
 * progress word does not move) and which one is to blame.
 *
 * Every field is a word of one writer. Longer things become visible by a number that is written
 * last: error texts go to two places in turn, so the last complete one is always there; an entry of
 * the flight recorder carries its own number. The reader copies a page and believes nothing in it:
 * what is out of range is left out or named by its number, text is escaped.
 *
 * A writer belongs to the rank's main thread; only status_page_beat may be called from one other.
 * The memory is borrowed (region.h).
 */
#pragma once

#include <stdatomic.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    STATUS_PAGE_EVENTS = 512,
    STATUS_PAGE_TEXT = 512, /* bytes of an error text, with its end */
};

enum status_phase {
#define PHASE(id, text) STATUS_PHASE_##id,
#define COUNTER(id, name)
#define EVENT(id, name, a, b)
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
    STATUS_PHASES,
};

enum status_counter {
#define PHASE(id, text)
#define COUNTER(id, name) STATUS_COUNTER_##id,
#define EVENT(id, name, a, b)
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
    STATUS_COUNTERS,
};

enum status_event {
    STATUS_EVENT_NONE,
#define PHASE(id, text)
#define COUNTER(id, name)
#define EVENT(id, name, a, b) STATUS_EVENT_##id,
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
    STATUS_EVENTS,
};

/* Where in a step a rank is: packed into one word. Layers above 1023, collectives above 4095 and
 * blocks above 511 show as that. */
struct status_progress {
    uint64_t step;
    uint32_t layer;
    uint32_t collective; /* number within the step, from 1 on; 0: before the first */
    uint32_t block;      /* part of a layer, as the model numbers them */
    bool waiting;        /* inside the collective, for others */
};

struct status_page;

enum { STATUS_PAGE_BYTES = 20 << 10 }; /* of shared memory, 128-byte aligned */

struct status_writer {
    struct status_page *page;
    uint64_t n_events;
    uint64_t n_errors;
    enum status_phase phase;
};

/* Starts the page of this process in zeroed memory. */
void status_page_init(struct status_writer *writer, void *memory, uint32_t rank, uint64_t epoch);

void status_page_progress(struct status_writer *writer, const struct status_progress *progress);
void status_page_phase(struct status_writer *writer, enum status_phase phase);
void status_page_count(struct status_writer *writer, enum status_counter counter, uint64_t add);
void status_page_event(struct status_writer *writer, enum status_event type, uint32_t a,
                       uint64_t b);
void status_page_error(struct status_writer *writer, const char *text);

/* "I live": stores the time. Also from a thread of its own. */
void status_page_beat(struct status_writer *writer);

/* The packed word alone, for whoever watches it move. */
uint64_t status_page_progress_word(const void *memory);

/* The same in its parts. */
struct status_progress status_page_progress_read(const void *memory);

struct status_record {
    uint64_t ns;
    enum status_event type;
    uint32_t a;
    uint64_t b;
};

/* A copy of a page. */
struct status_snapshot {
    uint32_t rank;
    uint32_t pid;
    uint64_t epoch;
    uint64_t beat_ns;
    uint64_t word; /* the packed progress */
    struct status_progress progress;
    uint32_t phase; /* may be no enum status_phase */
    uint64_t counters[STATUS_COUNTERS];
    char error[STATUS_PAGE_TEXT];                    /* escaped; empty if there was none */
    struct status_record events[STATUS_PAGE_EVENTS]; /* oldest first */
    uint32_t n_events;
};

/* Copies a page; its writer may be alive, dead, or have scribbled over it. STATUS_NOT_FOUND if it
 * was never started; STATUS_CORRUPT if it is not of this rank and epoch. *ret_snapshot may be
 * changed on failure too: it is large. */
NODISCARD enum status status_page_read(const void *memory, uint32_t rank, uint64_t epoch,
                                       struct status_snapshot *ret_snapshot, struct err *err);

/* The counters alone, cheaply. False (and nothing is written) if the page is not of this rank and
 * epoch. */
bool status_page_counters(const void *memory, uint32_t rank, uint64_t epoch,
                          uint64_t ret_counters[STATUS_COUNTERS]);

/* "rank 2 VERB in layer 17, all-reduce 34 of step 9812", or "rank 2 VERB in phase loading" outside
 * a step. */
void status_snapshot_place(const struct status_snapshot *snapshot, const char *verb,
                           struct buf *out);

/* The whole page as lines of text, the last n_events events at most. */
void status_snapshot_dump(const struct status_snapshot *snapshot, uint32_t n_events,
                          struct buf *out);

/* Text of a number, "unknown" where it has none. Static. */
const char *status_phase_text(uint32_t phase);
const char *status_counter_name(uint32_t counter);
const char *status_event_name(uint32_t event);
