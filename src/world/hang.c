/* SPDX-License-Identifier: Apache-2.0 */
#include "world/hang.h"

void hang_init(struct hang *hang, uint32_t n_ranks, uint32_t hang_ms)
{
    *hang = (struct hang){.hang_ns = (uint64_t)hang_ms * 1000000};
    hang_restart(hang, n_ranks);
}

void hang_restart(struct hang *hang, uint32_t n_ranks)
{
    ENSURE_OP(n_ranks, >, 0);
    ENSURE_OP(n_ranks, <=, HANG_MAX_RANKS);
    hang->n_ranks = n_ranks;
    hang->looked = false;
    for (uint32_t r = 0; r < n_ranks; r++) {
        hang->ranks[r] = (struct hang_rank){.last.idle = true};
    }
}

uint64_t hang_threshold_ns(const struct hang *hang)
{
    return MAX(hang->hang_ns, HANG_GAPS * hang->longest_gap_ns);
}

static bool has_moved(const struct hang_progress *from, const struct hang_progress *to)
{
    return from->step != to->step || from->layer != to->layer ||
           from->collective != to->collective || from->block != to->block ||
           from->waiting != to->waiting || from->idle != to->idle;
}

/* Updates how long each rank has stood still with work to do. */
static void update(struct hang *hang, uint64_t elapsed, const struct hang_progress *ranks)
{
    for (uint32_t r = 0; r < hang->n_ranks; r++) {
        struct hang_rank *rank = &hang->ranks[r];

        if (ranks[r].idle) {
            rank->still_ns = 0;
        } else if (!has_moved(&rank->last, &ranks[r])) {
            rank->still_ns += elapsed;
        } else {
            if (!rank->last.idle) {
                hang->longest_gap_ns = MAX(hang->longest_gap_ns, rank->still_ns + elapsed);
            }
            rank->still_ns = 0;
        }
        rank->last = ranks[r];
    }
}

/* True if a is behind b, or stopped, which b is not. */
static bool is_behind(const struct hang_rank *a, const struct hang_rank *b)
{
    if (a->last.stopped != b->last.stopped) {
        return a->last.stopped;
    }
    if (a->last.step != b->last.step) {
        return a->last.step < b->last.step;
    }
    if (a->last.collective != b->last.collective) {
        return a->last.collective < b->last.collective;
    }
    return a->still_ns > b->still_ns;
}

/* The rank furthest behind among those with work that wait or do not wait; n_ranks if there is
 * none. *ret_moving: one of them has moved within the threshold. */
static uint32_t furthest_behind(const struct hang *hang, bool waiting, bool *ret_moving)
{
    uint32_t found = hang->n_ranks;

    *ret_moving = false;
    for (uint32_t r = 0; r < hang->n_ranks; r++) {
        const struct hang_rank *rank = &hang->ranks[r];

        if (rank->last.idle || rank->last.waiting != waiting) {
            continue;
        }
        if (rank->still_ns < hang_threshold_ns(hang)) {
            *ret_moving = true;
        } else if (found == hang->n_ranks || is_behind(rank, &hang->ranks[found])) {
            found = r;
        }
    }
    return found;
}

bool hang_look(struct hang *hang, uint64_t now, const struct hang_progress *ranks,
               struct hang_verdict *ret_verdict)
{
    uint64_t elapsed = hang->looked && now > hang->last_look ? now - hang->last_look : 0;
    bool working_moves;
    bool waiting_moves;
    uint32_t culprit;
    uint32_t waiting;

    update(hang, MIN(elapsed, hang->hang_ns / HANG_LOOKS), ranks);
    hang->last_look = MAX(now, hang->last_look);
    hang->looked = true;
    culprit = furthest_behind(hang, false, &working_moves);
    waiting = furthest_behind(hang, true, &waiting_moves);
    if (waiting < hang->n_ranks && hang->ranks[waiting].last.stopped &&
        (culprit == hang->n_ranks || !hang->ranks[culprit].last.stopped)) {
        culprit = waiting;
    } else if (culprit == hang->n_ranks && !working_moves && !waiting_moves) {
        culprit = waiting;
    }
    if (culprit == hang->n_ranks) {
        return false;
    }
    *ret_verdict = (struct hang_verdict){
        .rank = culprit,
        .at = hang->ranks[culprit].last,
        .still_ns = hang->ranks[culprit].still_ns,
    };
    return true;
}

char *hang_text(const struct hang_verdict *verdict, char *out, size_t size)
{
    const struct hang_progress *at = &verdict->at;

    snprintf(out, size,
             at->waiting && !at->stopped
                 ? "all ranks wait; rank %u is furthest behind, in layer %u, "
                   "all-reduce %u of step %llu"
                 : "rank %u stopped in layer %u, all-reduce %u of step %llu",
             (unsigned)verdict->rank, (unsigned)at->layer, (unsigned)at->collective,
             (unsigned long long)at->step);
    return out;
}
