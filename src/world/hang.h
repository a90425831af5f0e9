/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rank stands still, from the progress words that the ranks publish. Pure: whoever watches
 * hands in the time and what it read. What it is not: death (spawner.h), or limits on answers over
 * the control channel (state.h).
 *
 * A world hangs when a rank that has work and waits for nobody has not moved for the threshold;
 * that rank is the culprit. If every rank that has work waits, and none has moved for the
 * threshold, it is the one that is furthest behind. But a rank that a signal has stopped for that
 * long is the culprit before all others. A waiting rank whose peer still moves is only
 * patient.
 *
 * The threshold is hang_ms, and at least ten times the longest gap that ended well. Time in which
 * nobody watched does not count: one look adds at most a quarter of hang_ms, so that a machine that
 * was suspended, or a leader that was stopped together with its ranks, raises no false alarm.
 *
 * A plain struct; one thread.
 */
#pragma once

#include "base/base.h"

enum { HANG_MAX_RANKS = 64, HANG_GAPS = 10, HANG_LOOKS = 4 };

/* Where a rank is. */
struct hang_progress {
    uint64_t step;
    uint32_t layer;
    uint32_t collective; /* within the step */
    uint32_t block;      /* of work between two collectives */
    bool waiting;        /* in that collective, for the other ranks */
    bool idle;           /* has finished every step it was given */
    bool stopped;        /* by a signal: it may say that it waits, and not have arrived */
};

struct hang_rank {
    struct hang_progress last;
    uint64_t still_ns; /* watched time since it last moved */
};

struct hang {
    uint64_t hang_ns;
    uint64_t longest_gap_ns;
    uint64_t last_look;
    uint32_t n_ranks;
    bool looked;
    struct hang_rank ranks[HANG_MAX_RANKS];
};

struct hang_verdict {
    uint32_t rank;
    struct hang_progress at;
    uint64_t still_ns;
};

/* n_ranks: 1 to HANG_MAX_RANKS. */
void hang_init(struct hang *hang, uint32_t n_ranks, uint32_t hang_ms);

/* A new epoch: other ranks, which start from nowhere. The longest gap is kept. */
void hang_restart(struct hang *hang, uint32_t n_ranks);

/* One look at all ranks, now in monotonic nanoseconds. True: the world hangs, *ret_verdict names
 * the culprit. To be called at least HANG_LOOKS times, better twice as often, in hang_ms. */
bool hang_look(struct hang *hang, uint64_t now, const struct hang_progress *ranks,
               struct hang_verdict *ret_verdict);

uint64_t hang_threshold_ns(const struct hang *hang);

/* For example "rank 2 stopped in layer 17, all-reduce 34 of step 9812". Returns out. */
char *hang_text(const struct hang_verdict *verdict, char *out, size_t size);
