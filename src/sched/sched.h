/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who computes what in the next step, and in which KV pages. Numbers in, numbers out: it does no
 * input or output, reads no clock and knows no tensors. The caller carries the decisions out and
 * reports what became of them.
 *
 *             sched_add        sched_admit               sched_remove
 *     (new) ────────────▶ waiting ─────────▶ running ───────────────▶ (gone; from waiting as well)
 *                            ▲                  │
 *                            └── preempted, ────┘   its pages are needed by one that goes before
 *                                or the pages         it, or their contents were lost
 *                                are lost
 *
 * Order of admission: priority (smaller is sooner); those that ran before; the tenant that has had
 * least; arrival. A step: one row for each that decodes, then prompts in chunks with the rows that
 * are left. docs/scheduler.md has the rules, their reasons and what holds at all times.
 *
 *     positions   |---- done ----|-- sent --|            done: committed, sent: issued
 *     tokens      |------------- known -----|            the next is being sampled where sent has
 *                                                        reached known
 *
 * One thread.
 */
#pragma once

#include "base/err.h"
#include "sched/kvmap.h"

enum {
    SCHED_AGE_AFTER = 16, /* so many admissions in a row may overtake somebody; then he is next */
};

struct sched;

struct sched_config {
    uint32_t max_running;
    uint32_t max_queue;      /* that wait besides those for which there are places */
    uint32_t max_rows;       /* of a step */
    uint32_t max_score_rows; /* of prompts, in a step, whose tokens are scored */
    uint32_t max_context;    /* positions of a sequence */
    uint32_t n_pages;
    uint32_t page_tokens;
    uint32_t hash_bits; /* 0: all (kvmap.h) */
};

struct sched_request {
    uint64_t tenant;
    int32_t priority;
    uint64_t salt;
    const int32_t *tokens; /* [n_prompt] borrowed until sched_know or sched_remove */
    uint32_t n_prompt;
    uint32_t max_generated;
    bool score; /* every token of the prompt is scored by the row before it */
    void *owner;
};

/* A sequence. Its owner reads what it likes and sets alone only. */
struct sched_seq {
    void *owner;
    struct sched_tenant *tenant;
    uint64_t order;   /* of arrival */
    int32_t priority; /* as asked for; sooner, once it was let in for its age */
    bool running;
    bool ran;   /* it was admitted before */
    bool alone; /* set by the owner: it must not share a step */
    bool score;
    uint32_t slot;  /* while running: below max_running, of it alone */
    uint32_t lives; /* times that it lost its pages: what was issued before is void */
    const int32_t *tokens;
    uint32_t n_prompt;
    uint32_t n_known;
    uint32_t max_generated;
    uint32_t sent; /* positions */
    uint32_t done;
    uint32_t sampling; /* tokens that steps in flight will sample */
    uint32_t scored;   /* rows of the prompt that were */
    uint32_t n_cached; /* positions that its last admission found in the cache */
    uint32_t blocked;  /* page that somebody else is computing; UINT32_MAX: none */
    struct kvmap_seq kv;
    struct sched_queue *queue; /* while waiting */
    struct sched_seq *next;
    struct sched_seq *prev;
};

/* What a sequence computes in a step. */
struct sched_part {
    struct sched_seq *seq;
    uint64_t order; /* of seq: another one may come to lie where it lay */
    uint32_t lives;
    uint32_t begin; /* positions [begin, begin + n) */
    uint32_t n;
    bool by_ref;          /* one, whose token is still being sampled */
    bool want;            /* the last row samples */
    uint32_t score_begin; /* rows of positions [score_begin, score_begin + n_score) score the */
    uint32_t n_score;     /* token that follows */
};

struct sched_counts {
    uint32_t running;
    uint32_t waiting;
    uint64_t preemptions;    /* ever, as what follows */
    uint64_t prefix_queries; /* prompt tokens of sequences admitted for the first time */
    uint64_t prefix_hits;
    struct kvmap_counts kv;
};

/* Never NULL. */
struct sched *sched_create(const struct sched_config *config);
void sched_destroy(struct sched **sched);

/* STATUS_INVALID: it can never run, with the numbers; STATUS_LIMIT: the queue is full. */
NODISCARD enum status sched_add(struct sched *sched, const struct sched_request *request,
                                struct sched_seq **ret_seq, struct err *err);
/* At once, whatever is in flight for it. What its pages hold stays in the cache. */
void sched_remove(struct sched *sched, struct sched_seq **seq);

/* Lets in those that wait, as places and pages go. */
void sched_admit(struct sched *sched);

/* True if one that must be alone has something to compute now; *ret_others: others have. */
bool sched_has_alone(const struct sched *sched, bool *ret_others);

/* What the next step computes: of the sequences that may share one, or of one that must be alone.
 * Takes the pages for it, from sequences that go behind if need be. parts: room for max_running.
 * Until sched_issued nothing counts as issued. */
uint32_t sched_pick(struct sched *sched, bool alone, struct sched_part *parts);
void sched_issued(struct sched *sched, const struct sched_part *part);

/* tokens is where the sequence's tokens lie from now on, n of them. */
void sched_know(struct sched *sched, struct sched_seq *seq, const int32_t *tokens, uint32_t n);

/* The part was committed; if it sampled, sched_know was told before. False: the sequence has lost
 * its pages since, and the part, with what it sampled, is void (then sched_know was not). */
bool sched_is_current(const struct sched_part *part, const struct sched_seq *seq);
void sched_commit(struct sched *sched, const struct sched_part *part);

/* What is in flight is void; committed positions are still there. */
void sched_void(struct sched *sched);
/* No page holds anything any more. Every sequence waits again. */
void sched_reset(struct sched *sched);

void sched_drop_cached(struct sched *sched);
struct sched_counts sched_counts(const struct sched *sched);
const struct kvmap *sched_kvmap(const struct sched *sched);

/* Tokens that the tenant was charged with; 0 if it is not known. */
uint64_t sched_charged(const struct sched *sched, uint64_t tenant);

/* For tests: aborts if the books are wrong. */
void sched_audit(const struct sched *sched);
