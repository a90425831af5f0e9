/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits, and who is next: tenants and their counters, queues, age, admission. */
#include <stdlib.h>

#include "base/mem.h"
#include "sched/sched_priv.h"

/* --- Tenants --- */

/* What the active tenant that has had least was charged with; false: none is active. */
static bool least_charged(const struct sched *s, uint64_t *ret_least)
{
    bool any = false;

    for (const struct sched_tenant *t = s->tenants; t != NULL; t = t->next) {
        if (t->n_active > 0 && (!any || t->charged < *ret_least)) {
            *ret_least = t->charged;
            any = true;
        }
    }
    return any;
}

/* A tenant that was away does not come back with what it has not used: it is lifted to the least of
 * those that are active. */
struct sched_tenant *sched_tenant_join(struct sched *s, uint64_t key)
{
    struct sched_tenant *tenant = s->tenants;
    uint64_t least = 0;

    while (tenant != NULL && tenant->key != key) {
        tenant = tenant->next;
    }
    if (tenant == NULL) {
        tenant = xalloc(sizeof(*tenant));
        tenant->key = key;
        tenant->next = s->tenants;
        s->tenants = tenant;
    }
    if (tenant->n_active == 0 && least_charged(s, &least)) {
        tenant->charged = MAX(tenant->charged, least);
    }
    tenant->n_active++;
    return tenant;
}

/* Forgets tenants that are away and would come back as new ones do. */
void sched_tenant_leave(struct sched *s, struct sched_tenant *tenant)
{
    struct sched_tenant **link = &s->tenants;
    uint64_t least = UINT64_MAX; /* nobody is left: all begin anew */

    if (--tenant->n_active > 0) {
        return;
    }
    (void)least_charged(s, &least);
    while (*link != NULL) {
        struct sched_tenant *it = *link;

        if (it->n_active == 0 && it->charged <= least) {
            *link = it->next;
            free(it);
        } else {
            link = &it->next;
        }
    }
}

uint64_t sched_charged(const struct sched *sched, uint64_t tenant)
{
    for (const struct sched_tenant *t = sched->tenants; t != NULL; t = t->next) {
        if (t->key == tenant) {
            return t->charged;
        }
    }
    return 0;
}

/* --- Queues --- */

static struct sched_queue *queue_of(struct sched *s, struct sched_tenant *tenant, int32_t priority)
{
    struct sched_queue *queue = s->queues;

    while (queue != NULL && (queue->tenant != tenant || queue->priority != priority)) {
        queue = queue->next;
    }
    if (queue == NULL) {
        queue = xalloc(sizeof(*queue));
        *queue = (struct sched_queue){.tenant = tenant, .priority = priority, .next = s->queues};
        s->queues = queue;
    }
    return queue;
}

void sched_enqueue(struct sched *s, struct sched_seq *seq, bool at_head)
{
    struct sched_queue *queue = queue_of(s, seq->tenant, seq->priority);

    seq->queue = queue;
    seq->prev = at_head ? NULL : queue->last;
    seq->next = at_head ? queue->first : NULL;
    *(seq->prev == NULL ? &queue->first : &seq->prev->next) = seq;
    *(seq->next == NULL ? &queue->last : &seq->next->prev) = seq;
    s->n_waiting++;
}

void sched_dequeue(struct sched *s, struct sched_seq *seq)
{
    struct sched_queue *queue = seq->queue;
    struct sched_queue **link = &s->queues;

    *(seq->prev == NULL ? &queue->first : &seq->prev->next) = seq->next;
    *(seq->next == NULL ? &queue->last : &seq->next->prev) = seq->prev;
    seq->next = seq->prev = NULL;
    seq->queue = NULL;
    s->n_waiting--;
    if (queue->first != NULL) {
        return;
    }
    while (*link != queue) {
        link = &(*link)->next;
    }
    *link = queue->next;
    free(queue);
}

/* --- Prefixes that are being computed --- */

/* The last known position must be computed, and those whose next token is to be scored. */
uint32_t sched_cache_limit(const struct sched *s, const struct sched_seq *seq)
{
    uint32_t n = seq->n_known - 1;

    if (seq->score && seq->scored + 1 < seq->n_prompt) {
        n = MIN(n, seq->scored);
    }
    return n / s->config.page_tokens;
}

/* True if one that runs will enter page i of seq's chain into the cache. */
static bool is_coming(const struct sched *s, const struct sched_seq *seq, uint32_t i)
{
    for (uint32_t k = 0; k < s->n_running; k++) {
        const struct kvmap_seq *kv = &s->running[k]->kv;

        if (!kv->broken && kv->n_chained <= i && i < kv->n_hashes &&
            kv->hashes[i] == seq->kv.hashes[i] && kv->salt == seq->kv.salt) {
            return true;
        }
    }
    return false;
}

/* It had better wait: what it would compute next, somebody is computing. */
static bool is_blocked(struct sched *s, struct sched_seq *seq)
{
    uint32_t limit = sched_cache_limit(s, seq);
    uint32_t idle;
    uint32_t n;

    if (limit == 0) {
        return false;
    }
    kvmap_know(s->kv, &seq->kv, seq->tokens, seq->n_known);
    if (seq->blocked < limit && is_coming(s, seq, seq->blocked)) {
        return true;
    }
    n = kvmap_match(s->kv, &seq->kv, seq->tokens, limit, &idle);
    seq->blocked = n < limit && is_coming(s, seq, n) ? n : UINT32_MAX;
    return seq->blocked != UINT32_MAX;
}

/* --- Who is next --- */

static struct sched_seq *first_ready(struct sched *s, const struct sched_queue *queue)
{
    struct sched_seq *seq = queue->first;

    while (seq != NULL && is_blocked(s, seq)) {
        seq = seq->next;
    }
    return seq;
}

/* a goes before b. */
static bool goes_before(const struct sched_seq *a, const struct sched_seq *b)
{
    if (a->priority != b->priority) {
        return a->priority < b->priority;
    }
    if (a->ran != b->ran) {
        return a->ran;
    }
    if (!a->ran && a->tenant->charged != b->tenant->charged) {
        return a->tenant->charged < b->tenant->charged;
    }
    return a->order < b->order;
}

/* NULL: nobody waits, or all that do wait for a prefix. *ret_over: the one that goes before it by
 * right, and that it overtakes for its age; else NULL. */
static struct sched_seq *find_next(struct sched *s, struct sched_seq **ret_over)
{
    struct sched_seq *next = NULL;
    struct sched_seq *aged = NULL;

    for (struct sched_queue *queue = s->queues; queue != NULL; queue = queue->next) {
        struct sched_seq *seq = first_ready(s, queue);

        if (seq == NULL) {
            continue;
        }
        next = next == NULL || goes_before(seq, next) ? seq : next;
        if (queue->overtaken > 0 &&
            (aged == NULL || queue->overtaken > aged->queue->overtaken ||
             (queue->overtaken == aged->queue->overtaken && goes_before(seq, aged)))) {
            aged = seq;
        }
    }
    *ret_over = NULL;
    if (aged != NULL && s->n_overtaking >= SCHED_AGE_AFTER && aged != next) {
        *ret_over = next;
        return aged;
    }
    return next;
}

/* Notes whom it overtakes. */
static void note_overtaking(struct sched *s, const struct sched_seq *seq)
{
    bool any = false;

    for (struct sched_queue *queue = s->queues; queue != NULL; queue = queue->next) {
        if (queue->priority > seq->priority) {
            queue->overtaken++;
            any = true;
        }
    }
    s->n_overtaking = any ? s->n_overtaking + 1 : 0;
}

/* --- Admission --- */

/* Pages that those which run still need for the tokens they know, and one ahead. */
static uint64_t promised(const struct sched *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct sched_seq *seq = s->running[i];
        uint64_t need = div_up(seq->n_known, s->config.page_tokens);

        n += need > seq->kv.n_pages ? need - seq->kv.n_pages : 0;
    }
    return n;
}

/* All that it knows must fit beside the others, or it would be preempted before it is of use. */
static bool has_room(const struct sched *s, const struct sched_seq *seq)
{
    struct kvmap_counts counts = kvmap_counts(s->kv);
    uint64_t need = div_up(seq->n_known, s->config.page_tokens);
    uint32_t idle = 0;
    uint32_t cached = kvmap_match(s->kv, &seq->kv, seq->tokens, sched_cache_limit(s, seq), &idle);

    return s->n_running == 0 ||
           (uint64_t)counts.free + counts.cached >= need - cached + idle + promised(s);
}

static void admit(struct sched *s, struct sched_seq *seq)
{
    uint32_t taken;

    sched_dequeue(s, seq);
    kvmap_know(s->kv, &seq->kv, seq->tokens, seq->n_known);
    taken = kvmap_take(s->kv, &seq->kv, seq->tokens, sched_cache_limit(s, seq));
    seq->n_cached = taken * s->config.page_tokens;
    seq->sent = seq->done = seq->n_cached;
    seq->running = true;
    seq->blocked = UINT32_MAX;
    seq->slot = s->free_slots[s->config.max_running - s->n_running - 1];
    s->running[s->n_running++] = seq;
    if (!seq->ran) {
        seq->ran = true;
        seq->tenant->charged += seq->n_prompt - seq->n_cached;
        s->counts.prefix_queries += seq->score ? 0 : seq->n_prompt;
        s->counts.prefix_hits += seq->n_cached;
    }
}

void sched_admit(struct sched *sched)
{
    struct sched *s = sched;

    while (s->n_waiting > 0 && s->n_running < s->config.max_running) {
        struct sched_seq *over;
        struct sched_seq *seq = find_next(s, &over);

        if (seq == NULL || !has_room(s, seq)) {
            return;
        }
        seq->queue->overtaken = 0;
        if (over != NULL) { /* from now on it is as urgent, or it would be the next victim */
            s->n_overtaking = 0;
        } else {
            note_overtaking(s, seq);
        }
        admit(s, seq);
        seq->priority = over != NULL ? over->priority : seq->priority;
    }
}
