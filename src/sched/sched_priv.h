/* SPDX-License-Identifier: Apache-2.0 */
/* Private to sched.c, queue.c, pick.c. */
#pragma once

#include "sched/sched.h"

/* Whoever shares a part of the machine. */
struct sched_tenant {
    uint64_t key;
    uint64_t charged;  /* virtual: lifted when it becomes active */
    uint32_t n_active; /* sequences that wait or run */
    struct sched_tenant *next;
};

/* Sequences of one tenant and priority that wait, in their order. */
struct sched_queue {
    struct sched_tenant *tenant;
    int32_t priority;
    struct sched_seq *first;
    struct sched_seq *last;
    uint32_t overtaken; /* by admissions of smaller priorities, since one of it was admitted */
    struct sched_queue *next;
};

struct sched {
    struct sched_config config;
    struct kvmap *kv;
    struct sched_tenant *tenants;
    struct sched_queue *queues; /* none is empty */
    struct sched_seq **running; /* [n_running] decodes are served in this order */
    struct sched_seq **order;   /* [max_running] scratch */
    uint32_t n_running;
    uint32_t n_waiting;
    uint32_t *free_slots;  /* [max_running - n_running] */
    uint32_t n_overtaking; /* admissions in a row that overtook somebody */
    uint64_t last_order;
    struct sched_counts counts; /* what is ever */
};

/* --- queue.c --- */

struct sched_tenant *sched_tenant_join(struct sched *s, uint64_t key);
void sched_tenant_leave(struct sched *s, struct sched_tenant *tenant);

/* Behind all of its kind, or before them. */
void sched_enqueue(struct sched *s, struct sched_seq *seq, bool at_head);
void sched_dequeue(struct sched *s, struct sched_seq *seq);

/* Positions that the cache may give it at most, in pages. */
uint32_t sched_cache_limit(const struct sched *s, const struct sched_seq *seq);

/* Takes the sequence's pages away and lets it wait again, at the head. */
void sched_preempt(struct sched *s, struct sched_seq *seq);
/* Out of running: slot and pages are given back. */
void sched_stop(struct sched *s, struct sched_seq *seq);
