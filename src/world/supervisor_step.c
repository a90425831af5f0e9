/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps: a plan goes to all ranks at once, through the ring or, if it is too long, over the
 * channels. A step is committed when every rank has said that it carried out this very plan, and
 * all said the same of it.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "world/supervisor_priv.h"

enum {
    STEP_LOOK_NS = 1500 * 1000, /* longest sleep on a ring, and so how late a death is seen, */
    STEP_SLICE_NS = 50 * 1000 * 1000, /* where the death itself does not end the sleep */
};

static struct result_limits limits_of(const struct supervisor *s, const struct pending_step *step,
                                      uint32_t rank)
{
    return (struct result_limits){
        .rank = rank,
        .max_tokens = step->n_wants,
        .n_slots = s->config.n_slots,
        .n_layers = s->config.n_layers,
        .vocab = s->config.vocab,
        .max_top = PLAN_MAX_TOP,
    };
}

/* --- Out --- */

static void *plan_room(struct supervisor *s, size_t bytes)
{
    if (bytes > s->plan_record_bytes) {
        free(s->plan_record);
        s->plan_record_bytes = round_up(bytes, 4096);
        s->plan_record = aligned_alloc(64, s->plan_record_bytes);
        ENSURE(s->plan_record != NULL);
    }
    return s->plan_record;
}

static void send_by_channel(struct supervisor *s, size_t bytes)
{
    struct message_out outs[SUPERVISOR_MAX_RANKS];

    for (uint32_t r = 0; r < s->n_members; r++) {
        outs[r] = (struct message_out){.bytes = s->plan_record, .n_bytes = (uint32_t)bytes};
    }
    talk_ask_all(s, MESSAGE_STEP, outs);
}

/* A plan over the channel has it to itself, and the pipeline too: its answer would not be told from
 * another's. */
static bool is_crowded(const struct supervisor *s, bool by_channel)
{
    return (by_channel && (s->n_steps > 0 || talk_busy(s))) ||
           (s->n_steps > 0 && s->steps[0].by_channel);
}

bool supervisor_can_issue(const struct supervisor *supervisor)
{
    const struct supervisor *s = supervisor;

    return world_computes(s->machine.state) && s->n_events == 0 && s->n_steps < FLIGHT_MAX_STEPS &&
           s->wired && !is_crowded(s, false);
}

enum status supervisor_issue(struct supervisor *supervisor, struct step_plan *plan,
                             const struct world_part *parts, size_t n_parts, struct err *err)
{
    struct supervisor *s = supervisor;
    struct world_event event = supervisor_event(s, WORLD_EV_STEP_ISSUED, 0);
    struct world_actions actions;
    struct pending_step *step;
    bool by_channel;
    uint64_t number;
    size_t bytes;

    plan->step = supervisor_next_step(s);
    bytes = plan_bytes(plan);
    by_channel = bytes > s->wiring.shape.plan_bytes;
    if (s->n_steps == FLIGHT_MAX_STEPS || !s->wired || is_crowded(s, by_channel)) {
        return STATUS_PENDING;
    }
    event.step = plan->step;
    event.parts = parts;
    event.n_parts = n_parts;
    if (!world_machine_event(&s->machine, &event, clock_ns(), &actions)) {
        return STATUS_PENDING;
    }
    step = &s->steps[s->n_steps];
    *step = (struct pending_step){.number = plan->step,
                                  .n_wants = plan->n_wants,
                                  .n_rows = plan->n_tokens,
                                  .issued_ns = clock_ns(),
                                  .record = step->record,
                                  .by_channel = by_channel};
    plan_room(s, bytes);
    if (plan_encode(plan, s->plan_record, bytes, &step->plan_hash, err) != STATUS_OK) {
        return STATUS_BUG;
    }
    if (s->n_steps++ == 0) {
        s->looked_ns = 0; /* the ranks' idle time is no hang */
    }
    if (by_channel) {
        send_by_channel(s, bytes);
        return STATUS_OK;
    }
    return ring_publish(&s->wiring.plans, RING_PLAN, s->plan_record, bytes, &number, err);
}

/* --- In --- */

static void rank_fault(struct supervisor *s, uint32_t rank, int kind)
{
    struct world_event event = supervisor_event(s, WORLD_EV_RANK_ERROR, rank);

    watch_processes(s); /* a death says more than its consequences */
    watch_injected(s);
    event.error = kind;
    supervisor_post(s, &event);
}

static void mismatch(struct supervisor *s, uint32_t rank, const struct pending_step *step,
                     const char *what)
{
    struct world_event event = supervisor_event(s, WORLD_EV_PLAN_MISMATCH, rank);

    err_set(&s->members[rank].err, STATUS_BUG, "it disagrees on %s of step %llu", what,
            (unsigned long long)step->number);
    watch_injected(s);
    supervisor_post(s, &event);
}

static void read_first(const struct supervisor *s, const struct pending_step *step,
                       struct step_result *ret_result)
{
    struct result_limits limits = limits_of(s, step, step->first);

    ENSURE_OP(result_decode(step->record, step->record_bytes, &limits, ret_result, NULL), ==,
              STATUS_OK);
}

/* All ranks are done with the oldest step, and agree. */
static void commit(struct supervisor *s)
{
    struct pending_step done = s->steps[0];
    struct world_event event = supervisor_event(s, WORLD_EV_STEP_COMMITTED, 0);
    struct world_actions actions;
    struct step_result result;

    for (uint32_t i = 1; i < FLIGHT_MAX_STEPS; i++) {
        s->steps[i - 1] = s->steps[i];
    }
    s->steps[FLIGHT_MAX_STEPS - 1] = (struct pending_step){.record = done.record};
    s->n_steps--;
    trace_step_ended(s, &done, true);
    read_first(s, &done, &result);
    event.step = done.number;
    memset(s->device_faults, 0, sizeof(s->device_faults));
    if (world_machine_event(&s->machine, &event, clock_ns(), &actions) &&
        s->config.on.commit != NULL) {
        s->config.on.commit(s->config.on.arg, &result);
    }
}

/* A failed step, by the rank's own word. */
static void failed(struct supervisor *s, uint32_t rank, const struct step_result *result)
{
    enum error_kind kind = error_kind_of((enum status)result->status);

    err_set(&s->members[rank].err, (enum status)result->status, "step %llu: %.*s",
            (unsigned long long)result->step, (int)result->n_text, result->text);
    if (kind == ERROR_DEVICE) {
        watch_injected(s);
        if (watch_device(s, rank)) {
            return;
        }
    }
    rank_fault(s, rank,
               kind == ERROR_USER || kind == ERROR_NONE ? (int)WORLD_ERROR_BUG : (int)kind);
}

/* False if the result is not that of this step, or not what the first rank said of it. */
static bool agrees(struct supervisor *s, uint32_t rank, const struct pending_step *step,
                   const struct step_result *result)
{
    struct step_result first = *result;

    if (result->step != step->number || result->plan_hash != step->plan_hash) {
        mismatch(s, rank, step, "the plan");
        return false;
    }
    if (step->done != 0) {
        read_first(s, step, &first);
    }
    if (first.state_hash != result->state_hash) {
        mismatch(s, rank, step, "the residual stream");
        return false;
    }
    if (first.n_tokens != result->n_tokens ||
        memcmp(first.tokens, result->tokens, first.n_tokens * sizeof(*first.tokens)) != 0 ||
        first.n_tops != result->n_tops ||
        memcmp(first.tops, result->tops, first.n_tops * sizeof(*first.tops)) != 0) {
        mismatch(s, rank, step, "what was sampled");
        return false;
    }
    return true;
}

void step_result_in(struct supervisor *s, uint32_t rank, const void *bytes, size_t n)
{
    uint64_t bit = UINT64_C(1) << rank;
    uint64_t all = (UINT64_C(1) << s->n_members) - 1; /* at most 16 */
    struct pending_step *step = NULL;
    struct result_limits limits;
    struct step_result result;
    struct err err = {0};

    for (uint32_t i = s->n_steps; i-- > 0;) {
        step = (s->steps[i].done & bit) == 0 ? &s->steps[i] : step;
    }
    if (step == NULL) {
        err_set(&s->members[rank].err, STATUS_CORRUPT, "a result that nobody waits for");
        rank_fault(s, rank, WORLD_ERROR_BUG);
        return;
    }
    limits = limits_of(s, step, rank);
    if (n > s->result_bytes || result_decode(bytes, n, &limits, &result, &err) != STATUS_OK) {
        err_set(&s->members[rank].err, STATUS_CORRUPT, "rubbish in the place of a result: %s",
                err.text);
        rank_fault(s, rank, WORLD_ERROR_BUG);
        return;
    }
    if (result.status != STATUS_OK) {
        failed(s, rank, &result);
        return;
    }
    if (!agrees(s, rank, step, &result)) {
        return;
    }
    if (step->done == 0) {
        memcpy(step->record, bytes, n);
        step->record_bytes = n;
        step->first = rank;
    }
    step->done |= bit;
    while (s->n_steps > 0 && s->steps[0].done == all) {
        commit(s);
    }
}

/* The ranks' rings, each up to its last record. */
bool step_take(struct supervisor *s)
{
    bool any = false;

    for (uint32_t r = 0; r < s->n_members && s->n_steps > 0 && s->wired; r++) {
        while (s->n_steps > 0 && s->wiring.attached[r] && ring_ready(&s->wiring.results[r])) {
            struct wait now = {.deadline_ns = 0};
            struct ring_record record;
            struct err err = {0};
            enum status status = ring_read(&s->wiring.results[r], &now, s->incoming, &record, &err);

            any = true;
            if (status != STATUS_OK || record.kind != RING_RESULT) {
                s->members[r].err = err;
                rank_fault(s, r, WORLD_ERROR_BUG);
                return true;
            }
            ring_ack(&s->wiring.results[r], record.number);
            step_result_in(s, r, s->incoming, record.n_bytes);
            if (s->n_events > 0) { /* a fault: what else there is, is void */
                return true;
            }
        }
    }
    return any;
}

void step_wait(struct supervisor *s, uint64_t deadline_ns)
{
    struct wait wait = wait_leader(deadline_ns);

    if (s->has_alarm) {
        wait.slice_ns = STEP_SLICE_NS;
        wait.alarm = &s->alarm;
        wait.heard = s->alarm_seen;
    } else {
        wait.deadline_ns = MIN(deadline_ns, clock_ns() + STEP_LOOK_NS);
    }
    for (uint32_t r = 0; r < s->n_members; r++) {
        if ((s->steps[0].done & UINT64_C(1) << r) == 0 && s->wiring.attached[r]) {
            ring_wait_ready(&s->wiring.results[r], &wait);
            return;
        }
    }
}

void step_drop_all(struct supervisor *s)
{
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        if (i < s->n_steps) {
            trace_step_ended(s, &s->steps[i], false);
        }
        s->steps[i] = (struct pending_step){.record = s->steps[i].record};
    }
    s->n_steps = 0;
}
