/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks tell about their time, read from their regions while they live: counters, which are
 * added up over the epochs, and records, while a recording is under way. Both are read a last time
 * before an epoch's memory goes.
 */
#include "base/clock.h"
#include "world/supervisor_priv.h"

enum { RECORDS_AT_ONCE = 256 };

/* --- Counters --- */

/* A damaged page adds nothing. */
static void add_page(const void *page, uint32_t rank, uint64_t epoch,
                     struct supervisor_counters *to)
{
    uint64_t n[STATUS_COUNTERS];

    if (!status_page_counters(page, rank, epoch, n)) {
        return;
    }
    to->steps += n[STATUS_COUNTER_STEPS];
    to->rows += n[STATUS_COUNTER_ROWS];
    to->collectives += n[STATUS_COUNTER_COLLECTIVES];
    to->step_ns += n[STATUS_COUNTER_STEP_NS];
    to->collective_ns += n[STATUS_COUNTER_COLLECTIVE_NS];
    to->wait_ns += n[STATUS_COUNTER_WAIT_NS];
    to->frames_dropped += n[STATUS_COUNTER_DROPPED_EPOCH] + n[STATUS_COUNTER_DROPPED_SEQ];
}

static void add_present(const struct supervisor *s, uint32_t rank, struct supervisor_counters *to)
{
    const struct channel_counters *c = &s->members[rank].channel.counters;

    if (rank >= s->n_members) {
        return;
    }
    to->frames_dropped += c->dropped_epoch + c->dropped_seq;
    if (s->wired) {
        add_page(s->wiring.ranks[rank], rank, s->wiring.shape.epoch, to);
    }
}

void supervisor_rank_counters(const struct supervisor *supervisor, uint32_t rank,
                              struct supervisor_counters *ret_counters)
{
    struct supervisor_counters counters = {0};

    if (rank < SUPERVISOR_MAX_RANKS) {
        counters = supervisor->past[rank];
        add_present(supervisor, rank, &counters);
    }
    *ret_counters = counters;
}

/* --- Records --- */

static void drain(struct supervisor *s)
{
    struct trace_record records[RECORDS_AT_ONCE];

    for (uint32_t r = 0; r < s->n_members && s->wired; r++) {
        uint64_t lost = 0;
        uint32_t left = TRACE_SLOTS; /* a rank that writes as fast as this reads does not keep it */
        uint32_t n;

        do {
            n = trace_read(&s->trace_readers[r], records, RECORDS_AT_ONCE, &lost);
            trace_add(s->trace, r, records, n, lost);
            left -= MIN(left, n);
            lost = 0;
        } while (n > 0 && left > 0);
    }
}

void trace_look(struct supervisor *s)
{
    if (s->trace != NULL) {
        drain(s);
    }
}

void trace_epoch_begins(struct supervisor *s)
{
    if (s->trace == NULL) {
        return;
    }
    for (uint32_t r = 0; r < s->n_members; r++) {
        trace_reader_init(&s->trace_readers[r], wiring_leader_trace_ring(&s->wiring, r));
    }
    wiring_leader_trace(&s->wiring, true);
}

void trace_epoch_ends(struct supervisor *s)
{
    trace_look(s);
    for (uint32_t r = 0; r < s->n_members; r++) {
        add_present(s, r, &s->past[r]);
    }
}

void trace_step_ended(struct supervisor *s, const struct pending_step *step, bool committed)
{
    if (s->trace != NULL) {
        trace_add_step(s->trace, &(struct trace_leader_step){
                                     .number = step->number,
                                     .issued_ns = step->issued_ns,
                                     .ended_ns = clock_ns(),
                                     .n_rows = step->n_rows,
                                     .committed = committed,
                                 });
    }
}

void trace_ready(struct supervisor *s)
{
    if (s->trace != NULL && s->fault_ns != 0) {
        trace_add_rebuild(s->trace, s->fault_ns, s->ready_ns, s->machine.epoch);
    }
}

enum status supervisor_trace_begin(struct supervisor *supervisor, struct err *err)
{
    struct supervisor *s = supervisor;

    if (s->trace != NULL) {
        return err_set(err, STATUS_PENDING, "a recording is under way");
    }
    s->trace = trace_create(&(struct trace_config){
        .n_ranks = s->n_members,
        .n_layers = s->config.n_layers,
        .next_step = supervisor_next_step(s),
        .begin_ns = clock_ns(),
    });
    if (s->wired) {
        trace_epoch_begins(s);
    }
    return STATUS_OK;
}

bool supervisor_tracing(const struct supervisor *supervisor)
{
    return supervisor->trace != NULL;
}

struct trace *supervisor_trace_end(struct supervisor *supervisor)
{
    struct supervisor *s = supervisor;
    struct trace *trace = s->trace;

    if (trace == NULL) {
        return NULL;
    }
    drain(s);
    if (s->wired) {
        wiring_leader_trace(&s->wiring, false);
    }
    s->trace = NULL;
    return trace;
}
