/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences come, are told what became of their steps, and go. */
#include "sched/sched.h"

#include <stdlib.h>

#include "base/mem.h"
#include "sched/sched_priv.h"

struct sched *sched_create(const struct sched_config *config)
{
    struct sched *s = xalloc(sizeof(*s));

    ENSURE(config->max_running > 0 && config->max_rows > 0 && config->max_context > 0);
    s->config = *config;
    s->kv = kvmap_create(&(struct kvmap_config){.n_pages = config->n_pages,
                                                .page_tokens = config->page_tokens,
                                                .hash_bits = config->hash_bits});
    s->running = xcalloc(config->max_running, sizeof(struct sched_seq *));
    s->order = xcalloc(config->max_running, sizeof(struct sched_seq *));
    s->free_slots = xcalloc(config->max_running, sizeof(*s->free_slots));
    for (uint32_t i = 0; i < config->max_running; i++) {
        s->free_slots[i] = config->max_running - 1 - i;
    }
    return s;
}

void sched_destroy(struct sched **sched)
{
    struct sched *s = *sched;

    if (s == NULL) {
        return;
    }
    while (s->n_running > 0) {
        struct sched_seq *seq = s->running[0];

        sched_remove(s, &seq);
    }
    while (s->queues != NULL) {
        struct sched_seq *seq = s->queues->first;

        sched_remove(s, &seq);
    }
    kvmap_destroy(&s->kv);
    free(s->running);
    free(s->order);
    free(s->free_slots);
    free(s);
    *sched = NULL;
}

/* --- Coming and going --- */

/* The last token that is generated needs no place. */
static enum status check_fit(const struct sched *s, const struct sched_request *request,
                             struct err *err)
{
    uint64_t context = s->config.max_context;
    uint64_t pages;

    if (request->n_prompt == 0 || request->max_generated == 0) {
        return err_set(err, STATUS_INVALID, "a request needs a prompt and tokens to generate");
    }
    if (request->n_prompt + UINT64_C(1) > context ||
        request->n_prompt + (uint64_t)request->max_generated - 1 > context) {
        return err_set(err, STATUS_INVALID,
                       "%u prompt tokens and %u to generate do not fit the context of %u tokens",
                       request->n_prompt, request->max_generated, s->config.max_context);
    }
    pages = div_up(request->n_prompt + (size_t)request->max_generated - 1, s->config.page_tokens);
    if (pages > s->config.n_pages) {
        return err_set(err, STATUS_INVALID,
                       "%u prompt tokens and %u to generate need %llu KV pages of %u tokens, and "
                       "there are %u (the context is %u tokens)",
                       request->n_prompt, request->max_generated, (unsigned long long)pages,
                       s->config.page_tokens, s->config.n_pages, s->config.max_context);
    }
    if (request->score && s->config.max_score_rows == 0) {
        return err_set(err, STATUS_INVALID, "log-probabilities of prompts are not computed here");
    }
    return STATUS_OK;
}

enum status sched_add(struct sched *sched, const struct sched_request *request,
                      struct sched_seq **ret_seq, struct err *err)
{
    struct sched *s = sched;
    uint32_t places = s->config.max_running - s->n_running;
    struct sched_seq *seq;
    enum status status = check_fit(s, request, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (s->n_waiting >= (uint64_t)s->config.max_queue + places) {
        return err_set(err, STATUS_LIMIT, "the queue is full: %u requests run and %u wait",
                       s->n_running, s->n_waiting);
    }
    seq = xalloc(sizeof(*seq));
    seq->owner = request->owner;
    seq->tenant = sched_tenant_join(s, request->tenant);
    seq->order = ++s->last_order;
    seq->priority = request->priority;
    seq->score = request->score;
    seq->tokens = request->tokens;
    seq->n_prompt = request->n_prompt;
    seq->n_known = request->n_prompt;
    seq->max_generated = request->max_generated;
    seq->blocked = UINT32_MAX;
    seq->kv.salt = request->salt;
    sched_enqueue(s, seq, false);
    *ret_seq = seq;
    return STATUS_OK;
}

void sched_stop(struct sched *s, struct sched_seq *seq)
{
    uint32_t i = 0;

    while (s->running[i] != seq) {
        i++;
    }
    s->n_running--;
    memmove(s->running + i, s->running + i + 1, (s->n_running - i) * sizeof(struct sched_seq *));
    s->free_slots[s->config.max_running - s->n_running - 1] = seq->slot;
    kvmap_release(s->kv, &seq->kv);
    seq->running = false;
    seq->lives++;
    seq->sent = 0;
    seq->done = 0;
    seq->sampling = 0;
}

void sched_remove(struct sched *sched, struct sched_seq **seq)
{
    struct sched_seq *gone = *seq;

    if (gone == NULL) {
        return;
    }
    if (gone->running) {
        sched_stop(sched, gone);
    } else {
        sched_dequeue(sched, gone);
    }
    kvmap_seq_release(sched->kv, &gone->kv);
    sched_tenant_leave(sched, gone->tenant);
    free(gone);
    *seq = NULL;
}

void sched_preempt(struct sched *s, struct sched_seq *seq)
{
    sched_stop(s, seq);
    seq->blocked = UINT32_MAX;
    sched_enqueue(s, seq, true);
}

/* --- What became of a step --- */

void sched_issued(UNUSED struct sched *sched, const struct sched_part *part)
{
    struct sched_seq *seq = part->seq;

    ENSURE_OP(part->begin, ==, seq->sent);
    seq->sent += part->n;
    seq->sampling += part->want;
}

void sched_know(struct sched *sched, struct sched_seq *seq, const int32_t *tokens, uint32_t n)
{
    ENSURE_OP(n, >=, seq->n_known);
    seq->tenant->charged += n - seq->n_known;
    seq->tokens = tokens;
    seq->n_known = n;
    if (seq->running) {
        kvmap_know(sched->kv, &seq->kv, tokens, n);
    }
}

bool sched_is_current(const struct sched_part *part, const struct sched_seq *seq)
{
    return seq != NULL && seq == part->seq && seq->order == part->order && seq->running &&
           seq->lives == part->lives;
}

void sched_commit(struct sched *sched, const struct sched_part *part)
{
    struct sched_seq *seq = part->seq;

    ENSURE(sched_is_current(part, seq));
    ENSURE_OP(part->begin, ==, seq->done);
    seq->done += part->n;
    seq->sampling -= part->want;
    seq->scored = MAX(seq->scored, part->score_begin + part->n_score);
    kvmap_commit(sched->kv, &seq->kv, seq->tokens, seq->done);
}

void sched_void(struct sched *sched)
{
    for (uint32_t i = 0; i < sched->n_running; i++) {
        struct sched_seq *seq = sched->running[i];

        seq->sent = seq->done;
        seq->sampling = 0;
    }
}

void sched_reset(struct sched *sched)
{
    struct sched *s = sched;

    while (s->n_running > 0) { /* the newest first, so that the oldest comes to the head */
        struct sched_seq *newest = s->running[0];

        for (uint32_t i = 1; i < s->n_running; i++) {
            newest = s->running[i]->order > newest->order ? s->running[i] : newest;
        }
        sched_preempt(s, newest);
    }
    kvmap_drop_cached(s->kv);
}

/* --- What there is --- */

void sched_drop_cached(struct sched *sched)
{
    kvmap_drop_cached(sched->kv);
}

struct sched_counts sched_counts(const struct sched *sched)
{
    struct sched_counts counts = sched->counts;

    counts.running = sched->n_running;
    counts.waiting = sched->n_waiting;
    counts.kv = kvmap_counts(sched->kv);
    return counts;
}

const struct kvmap *sched_kvmap(const struct sched *sched)
{
    return sched->kv;
}

static void audit_running(const struct sched *s)
{
    uint32_t page_tokens = s->config.page_tokens;

    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct sched_seq *seq = s->running[i];

        ENSURE(seq->running && seq->queue == NULL);
        ENSURE_OP(seq->slot, <, s->config.max_running);
        ENSURE_OP(seq->done, <=, seq->sent);
        ENSURE_OP(seq->sent, <=, seq->n_known + seq->sampling);
        ENSURE_OP((size_t)seq->kv.n_pages * page_tokens, >=, seq->sent);
        for (uint32_t k = 0; k < i; k++) {
            ENSURE_OP(s->running[k]->slot, !=, seq->slot);
        }
    }
}

void sched_audit(const struct sched *sched)
{
    const struct sched *s = sched;
    uint32_t n_waiting = 0;
    uint32_t n_active = 0;

    kvmap_audit(s->kv);
    audit_running(s);
    for (const struct sched_queue *q = s->queues; q != NULL; q = q->next) {
        ENSURE(q->first != NULL);
        for (const struct sched_seq *seq = q->first; seq != NULL; seq = seq->next) {
            ENSURE(!seq->running && seq->queue == q && seq->kv.n_pages == 0);
            ENSURE(seq->tenant == q->tenant && seq->priority == q->priority);
            n_waiting++;
        }
    }
    for (const struct sched_tenant *t = s->tenants; t != NULL; t = t->next) {
        n_active += t->n_active;
    }
    ENSURE_OP(n_waiting, ==, s->n_waiting);
    ENSURE_OP(n_active, ==, s->n_waiting + s->n_running);
    if (n_active == 0) {
        ENSURE_OP(kvmap_counts(s->kv).used, ==, 0);
    }
}
