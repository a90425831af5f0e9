/* SPDX-License-Identifier: Apache-2.0 */
/* What an event means where state_rules.def says that it means something. */
#include "world/state_priv.h"

#include <signal.h>

/* Rebuilds in a row before the next one waits, for budgets that allow so many. */
enum { BACKOFF_AFTER = 3, BACKOFF_MS = 100, BACKOFF_MAX_MS = 30000 };
enum { OOM_DROP_CACHE_AT = 2, OOM_REFUSE_AT = 3 };

bool world_on_ignore(UNUSED struct world_machine *m, UNUSED const struct world_event *event,
                     UNUSED struct world_actions *out)
{
    return false;
}

/* --- The leader's wishes --- */

bool world_on_load(struct world_machine *m, const struct world_event *event,
                   struct world_actions *out)
{
    ENSURE_OP(event->n_ranks, >, 0);
    ENSURE_OP(event->n_ranks, <=, WORLD_MAX_RANKS);
    m->n_ranks = event->n_ranks;
    m->gone = 0;
    m->in_a_row = 0;
    m->oom_in_a_row = 0;
    m->fault = (struct world_fault){0};
    world_spawn(m, out);
    return true;
}

bool world_on_unload(struct world_machine *m, UNUSED const struct world_event *event,
                     struct world_actions *out)
{
    if (m->state == WORLD_STOPPING) {
        bool changes = m->after != WORLD_DOWN;

        m->after = WORLD_DOWN;
        return changes;
    }
    world_stop(m, WORLD_DOWN, world_computes(m->state), out);
    return true;
}

bool world_on_give_up(struct world_machine *m, UNUSED const struct world_event *event,
                      struct world_actions *out)
{
    world_enter(m, WORLD_DOWN, 0, out);
    return true;
}

bool world_on_drain(struct world_machine *m, UNUSED const struct world_event *event,
                    struct world_actions *out)
{
    if (m->drain) {
        return false;
    }
    m->drain = true;
    m->drain_deadline = world_after_ms(m, m->config.drain_ms);
    if (m->state == WORLD_READY) {
        world_enter(m, WORLD_DRAINING, 0, out);
    }
    return true;
}

bool world_on_drained(struct world_machine *m, UNUSED const struct world_event *event,
                      struct world_actions *out)
{
    if (!m->drain) {
        return false;
    }
    world_stop(m, WORLD_DOWN, m->state == WORLD_DRAINING, out);
    return true;
}

bool world_on_request_ended(struct world_machine *m, const struct world_event *event,
                            UNUSED struct world_actions *out)
{
    suspects_forget(&m->flight.suspects, event->request);
    return true;
}

/* --- Time --- */

static bool drain_is_over(struct world_machine *m, struct world_actions *out)
{
    if (!m->drain || !world_passed(m, m->drain_deadline)) {
        return false;
    }
    world_stop(m, WORLD_DOWN, m->state == WORLD_DRAINING, out);
    return true;
}

bool world_on_tick_starting(struct world_machine *m, UNUSED const struct world_event *event,
                            struct world_actions *out)
{
    uint64_t late = world_all_ranks(m) & ~m->answered;

    if (drain_is_over(m, out)) {
        return true;
    }
    if (!world_passed(m, m->deadline)) {
        return false;
    }
    if (m->state == WORLD_SPAWNING) {
        late = world_all_ranks(m) & ~m->spawned;
    }
    return world_break(m,
                       (struct world_fault){.cause = WORLD_CAUSE_LATE,
                                            .rank = (uint32_t)__builtin_ctzll(late),
                                            .detail = m->state},
                       true, out);
}

bool world_on_tick_draining(struct world_machine *m, UNUSED const struct world_event *event,
                            struct world_actions *out)
{
    return drain_is_over(m, out);
}

bool world_on_tick_rebuilding(struct world_machine *m, UNUSED const struct world_event *event,
                              struct world_actions *out)
{
    if (drain_is_over(m, out)) {
        return true;
    }
    if (!world_passed(m, m->deadline)) {
        return false;
    }
    if (m->no_ranks) {
        world_spawn(m, out);
    } else {
        world_kill_all(m, out);
    }
    return true;
}

bool world_on_tick_stopping(struct world_machine *m, UNUSED const struct world_event *event,
                            struct world_actions *out)
{
    if (!world_passed(m, m->deadline)) {
        return false;
    }
    world_kill_all(m, out);
    return true;
}

bool world_on_tick_failed(struct world_machine *m, UNUSED const struct world_event *event,
                          struct world_actions *out)
{
    if (!world_passed(m, m->deadline)) {
        return false;
    }
    m->probing = true;
    world_spawn(m, out);
    return true;
}

/* --- The way up --- */

/* Notes an answer in set; false for a duplicate. */
static bool note(uint64_t *set, uint32_t rank)
{
    bool is_new = (*set & world_bit(rank)) == 0;

    *set |= world_bit(rank);
    return is_new;
}

static void send_comm_init(struct world_machine *m, struct world_actions *out)
{
    world_enter(m, WORLD_COMM_INIT, m->config.comm_init_ms, out);
    world_act(out, WORLD_DO_SEND_COMM_INIT);
}

bool world_on_spawned(struct world_machine *m, const struct world_event *event,
                      struct world_actions *out)
{
    uint64_t early = m->answered;

    if (!note(&m->spawned, event->rank)) {
        return false;
    }
    if (m->spawned == world_all_ranks(m)) {
        world_enter(m, WORLD_HELLO, m->config.hello_ms, out);
        m->answered = early;
        if (m->answered == world_all_ranks(m)) {
            send_comm_init(m, out);
        }
    }
    return true;
}

bool world_on_spawn_failed(struct world_machine *m, const struct world_event *event,
                           struct world_actions *out)
{
    return world_break(m,
                       (struct world_fault){
                           .cause = WORLD_CAUSE_SPAWN, .rank = event->rank, .detail = event->error},
                       true, out);
}

bool world_on_hello(struct world_machine *m, const struct world_event *event,
                    struct world_actions *out)
{
    if (event->mismatch) { /* another try gives the same answer */
        m->fault = (struct world_fault){.cause = WORLD_CAUSE_MISMATCH, .rank = event->rank};
        world_stop(m, WORLD_FAILED, false, out);
        return true;
    }
    if (!note(&m->answered, event->rank)) {
        return false;
    }
    if (m->state == WORLD_HELLO && m->answered == world_all_ranks(m)) {
        send_comm_init(m, out);
    }
    return true;
}

bool world_on_init_ok(struct world_machine *m, const struct world_event *event,
                      struct world_actions *out)
{
    if (!note(&m->answered, event->rank)) {
        return false;
    }
    if (m->answered == world_all_ranks(m)) {
        world_enter(m, WORLD_SANITY, m->config.sanity_ms, out);
        world_act(out, WORLD_DO_SEND_SANITY);
    }
    return true;
}

static void send_load(struct world_machine *m, struct world_actions *out)
{
    struct world_action *action;

    m->weights_mapped = m->weights_valid && m->config.keeps_weights;
    m->kv_mapped = m->kv_valid && m->config.keeps_kv;
    world_enter(m, WORLD_LOADING, m->config.load_ms, out);
    action = world_act(out, WORLD_DO_SEND_LOAD);
    action->keep_weights = m->weights_mapped;
    action->keep_kv = m->kv_mapped;
}

bool world_on_sanity_result(struct world_machine *m, const struct world_event *event,
                            struct world_actions *out)
{
    if (event->sum != m->n_ranks) {
        return world_break(m,
                           (struct world_fault){.cause = WORLD_CAUSE_SANITY,
                                                .rank = event->rank,
                                                .detail = event->sum},
                           false, out);
    }
    if (!note(&m->answered, event->rank)) {
        return false;
    }
    if (m->answered == world_all_ranks(m)) {
        send_load(m, out);
    }
    return true;
}

bool world_on_load_progress(struct world_machine *m, UNUSED const struct world_event *event,
                            UNUSED struct world_actions *out)
{
    m->deadline = world_after_ms(m, m->config.load_ms);
    return true;
}

bool world_on_load_ok(struct world_machine *m, const struct world_event *event,
                      struct world_actions *out)
{
    struct world_action *action;

    if (!note(&m->answered, event->rank)) {
        return false;
    }
    if (m->answered != world_all_ranks(m)) {
        return true;
    }
    m->weights_valid = true;
    m->kv_valid = true;
    m->probing = false;
    world_enter(m, m->drain ? WORLD_DRAINING : WORLD_READY, 0, out);
    if (m->loaded) {
        action = world_act(out, WORLD_DO_RESUME);
        action->step = m->flight.committed + 1;
        action->keep_kv = m->kv_mapped;
        action->n_ids = suspects_alone(&m->flight.suspects, &action->ids);
    }
    m->loaded = true;
    return true;
}

/* An error from a rank before it was ready. User input and memory: trying again gives the same, so
 * the load is undone on every rank; unless it was kept memory that a rank could not use. */
bool world_on_refused(struct world_machine *m, const struct world_event *event,
                      struct world_actions *out)
{
    struct world_fault what = {
        .cause = WORLD_CAUSE_ERROR, .rank = event->rank, .detail = event->error};
    bool for_good = event->error == WORLD_ERROR_USER || event->error == WORLD_ERROR_MEMORY;

    if (m->state == WORLD_LOADING && m->weights_mapped) {
        m->weights_valid = false;
        for_good = false;
    }
    if (!for_good) {
        return world_break(m, what, false, out);
    }
    m->fault = what;
    world_stop(m, m->loaded || m->probing ? WORLD_FAILED : WORLD_DOWN, false, out);
    return true;
}

/* --- Steps --- */

bool world_on_step_issued(struct world_machine *m, const struct world_event *event,
                          UNUSED struct world_actions *out)
{
    return flight_issue(&m->flight, event->step, event->parts, event->n_parts);
}

bool world_on_step_committed(struct world_machine *m, const struct world_event *event,
                             UNUSED struct world_actions *out)
{
    bool progress;

    if (!flight_commit(&m->flight, event->step, &progress)) {
        return false;
    }
    if (progress) {
        m->in_a_row = 0;
        m->oom_in_a_row = 0;
    }
    return true;
}

/* --- Faults --- */

bool world_on_rank_died(struct world_machine *m, const struct world_event *event,
                        struct world_actions *out)
{
    struct world_fault what = {
        .cause = WORLD_CAUSE_EXIT, .rank = event->rank, .detail = event->exit_code};

    if (event->oom) {
        what.cause = WORLD_CAUSE_OOM;
    } else if (event->signal != 0) {
        what.cause = WORLD_CAUSE_SIGNAL;
        what.detail = event->signal;
    }
    if (event->oom && !m->injected) {
        m->oom_in_a_row++;
        if (m->oom_in_a_row == OOM_DROP_CACHE_AT) {
            world_act(out, WORLD_DO_DROP_CACHE);
        } else if (m->oom_in_a_row >= OOM_REFUSE_AT) { /* and no probe does it again */
            m->fault = what;
            world_stop(m, WORLD_DOWN, false, out);
            return true;
        }
    }
    return world_break(m, what, event->signal == SIGKILL, out);
}

/* A second death before all are reaped. */
bool world_on_died_too(struct world_machine *m, const struct world_event *event,
                       UNUSED struct world_actions *out)
{
    bool was_valid = m->kv_valid;

    m->kv_valid = m->kv_valid && event->signal == SIGKILL;
    return was_valid != m->kv_valid;
}

bool world_on_rank_hung(struct world_machine *m, const struct world_event *event,
                        struct world_actions *out)
{
    return world_break(m, (struct world_fault){.cause = WORLD_CAUSE_HUNG, .rank = event->rank},
                       true, out);
}

bool world_on_rank_error(struct world_machine *m, const struct world_event *event,
                         struct world_actions *out)
{
    if (event->error == WORLD_ERROR_USER) {
        return false;
    }
    return world_break(m,
                       (struct world_fault){
                           .cause = WORLD_CAUSE_ERROR, .rank = event->rank, .detail = event->error},
                       false, out);
}

bool world_on_plan_mismatch(struct world_machine *m, const struct world_event *event,
                            struct world_actions *out)
{
    return world_break(m, (struct world_fault){.cause = WORLD_CAUSE_PLAN, .rank = event->rank},
                       false, out);
}

bool world_on_device_gone(struct world_machine *m, const struct world_event *event,
                          struct world_actions *out)
{
    m->gone |= world_bit(event->rank);
    return world_break(
        m, (struct world_fault){.cause = WORLD_CAUSE_DEVICE_GONE, .rank = event->rank}, false, out);
}

bool world_on_device_gone_too(struct world_machine *m, const struct world_event *event,
                              UNUSED struct world_actions *out)
{
    return note(&m->gone, event->rank);
}

bool world_on_fault_mark(struct world_machine *m, UNUSED const struct world_event *event,
                         UNUSED struct world_actions *out)
{
    bool is_new = !m->injected;

    m->injected = true;
    return is_new;
}

bool world_on_reaped_rebuilding(struct world_machine *m, UNUSED const struct world_event *event,
                                struct world_actions *out)
{
    uint32_t extra = m->in_a_row > BACKOFF_AFTER ? m->in_a_row - BACKOFF_AFTER : 0;

    if (m->no_ranks) {
        return false;
    }
    if (extra == 0) {
        world_spawn(m, out);
        return true;
    }
    m->no_ranks = true;
    m->deadline =
        world_after_ms(m, MIN((uint64_t)BACKOFF_MS << MIN(extra - 1, 16u), BACKOFF_MAX_MS));
    return true;
}

bool world_on_reaped_stopping(struct world_machine *m, UNUSED const struct world_event *event,
                              struct world_actions *out)
{
    world_finish(m, out);
    return true;
}
