/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the next step, and the pages that they need. */
#include "sched/sched_priv.h"

/* The step that is being put together. */
struct pick {
    struct sched_part *parts;
    uint32_t n;
    uint32_t rows;  /* left */
    uint32_t score; /* rows that score, left */
};

static bool may_sample(const struct sched_seq *seq)
{
    return seq->n_known - seq->n_prompt + seq->sampling < seq->max_generated;
}

/* Cuts a chunk so that it scores no more rows than are left. */
static void cut_score(const struct sched_seq *seq, const struct pick *pick, struct sched_part *part)
{
    uint32_t first = MAX(part->begin, seq->scored); /* rows before are scored, or in flight */
    uint32_t end = seq->n_prompt - 1;               /* the last row of a prompt scores nothing */

    if (!seq->score || first >= end || part->begin + part->n <= first) {
        return;
    }
    if (first + pick->score < end) {
        part->n = MIN(part->n, first + pick->score - part->begin);
    }
    part->score_begin = first;
    part->n_score = MIN(part->begin + part->n, end) - first;
}

/* What it can compute now; n 0: nothing. */
static struct sched_part next_of(struct sched_seq *seq, const struct pick *pick)
{
    struct sched_part part = {
        .seq = seq, .order = seq->order, .lives = seq->lives, .begin = seq->sent};

    if (pick->rows == 0) {
        return part;
    }
    if (seq->sent < seq->n_known) {
        part.n = MIN(seq->n_known - seq->sent, pick->rows);
        cut_score(seq, pick, &part);
        part.want = seq->sent + part.n == seq->n_known && seq->sampling == 0 && may_sample(seq);
    } else if (seq->sent == seq->n_known && seq->sampling == 1 && may_sample(seq)) {
        part.n = 1;
        part.by_ref = true;
        part.want = true;
    }
    return part;
}

bool sched_has_alone(const struct sched *sched, bool *ret_others)
{
    const struct pick one = {.rows = 1, .score = 1};
    bool alone = false;

    *ret_others = false;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        struct sched_seq *seq = sched->running[i];

        if (next_of(seq, &one).n > 0) {
            alone = alone || seq->alone;
            *ret_others = *ret_others || !seq->alone;
        }
    }
    return alone;
}

/* The newest of those with the lowest priority. */
static struct sched_seq *find_victim(const struct sched *s)
{
    struct sched_seq *victim = NULL;

    for (uint32_t i = 0; i < s->n_running; i++) {
        struct sched_seq *seq = s->running[i];

        if (victim == NULL || seq->priority > victim->priority ||
            (seq->priority == victim->priority && seq->order > victim->order)) {
            victim = seq;
        }
    }
    return victim;
}

/* Takes a sequence that loses its pages out of the step again. */
static void unpick(struct pick *pick, const struct sched_seq *seq)
{
    for (uint32_t i = 0; i < pick->n; i++) {
        if (pick->parts[i].seq == seq) {
            pick->rows += pick->parts[i].n;
            pick->score += pick->parts[i].n_score;
            pick->n--;
            memmove(pick->parts + i, pick->parts + i + 1, (pick->n - i) * sizeof(*pick->parts));
            return;
        }
    }
}

/* Pages for the part. False: it was the victim itself. */
static bool make_room(struct sched *s, struct pick *pick, const struct sched_part *part)
{
    struct sched_seq *seq = part->seq;
    uint32_t need = (uint32_t)div_up((size_t)part->begin + part->n, s->config.page_tokens);

    while (!kvmap_grow(s->kv, &seq->kv, need)) {
        struct sched_seq *victim = find_victim(s);

        ENSURE(s->n_running > 1); /* what can never fit was refused */
        unpick(pick, victim);
        sched_preempt(s, victim);
        s->counts.preemptions++;
        if (victim == seq) {
            return false;
        }
    }
    return true;
}

/* Adds what each of these n sequences can compute: those that decode, or those with more than one
 * position to go. Returns how many had a part. */
static uint32_t add_parts(struct sched *s, struct pick *pick, uint32_t n, bool alone, bool prompts)
{
    uint32_t n_served = 0;

    for (uint32_t i = 0; i < n && pick->rows > 0; i++) {
        struct sched_seq *seq = s->order[i];
        struct sched_part part = {0};

        /* One that lost its pages to another is not running any more. */
        if (seq->running && seq->alone == alone && (seq->n_known > seq->sent + 1) == prompts) {
            part = next_of(seq, pick);
        }
        if (part.n == 0 || !make_room(s, pick, &part)) {
            continue;
        }
        pick->rows -= part.n;
        pick->score -= part.n_score;
        pick->parts[pick->n++] = part;
        n_served = i + 1;
        if (alone) {
            return n_served;
        }
    }
    return n_served;
}

/* There were fewer rows than sequences to decode: the next step begins with those left out. */
static void rotate(struct sched *s, uint32_t n)
{
    memcpy(s->order, s->running, n * sizeof(struct sched_seq *));
    memmove(s->running, s->running + n, (s->n_running - n) * sizeof(struct sched_seq *));
    memcpy(s->running + s->n_running - n, s->order, n * sizeof(struct sched_seq *));
}

uint32_t sched_pick(struct sched *sched, bool alone, struct sched_part *parts)
{
    struct sched *s = sched;
    struct pick pick = {
        .parts = parts, .rows = s->config.max_rows, .score = s->config.max_score_rows};
    uint32_t n = s->n_running;
    uint32_t n_decoded;

    memcpy(s->order, s->running, n * sizeof(struct sched_seq *));
    n_decoded = add_parts(s, &pick, n, alone, false);
    if (pick.rows > 0 && !(alone && pick.n > 0)) {
        (void)add_parts(s, &pick, n, alone, true);
    } else if (n_decoded < s->n_running) {
        rotate(s, n_decoded);
    }
    return pick.n;
}
