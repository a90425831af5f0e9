/* SPDX-License-Identifier: Apache-2.0 */
/* The moves of the machine of state.h from one state to another, and its table. */
#include "world/state.h"

#include "world/state_priv.h"

/* Sets of states, as state_rules.def spells them. */
enum {
#define WORLD_STATE(name, text) name = 1u << WORLD_##name,
#include "world/state.def"
#undef WORLD_STATE
    PAST_HELLO = COMM_INIT | SANITY | LOADING,
    PAST_SPAWNING = HELLO | PAST_HELLO,
    STARTING = SPAWNING | PAST_SPAWNING,
    SERVING = READY | DRAINING,
    ENDING = REBUILDING | STOPPING,
    ANY = (1u << WORLD_N_STATES) - 1,
};

uint64_t world_bit(uint32_t rank)
{
    return (uint64_t)1 << rank;
}

uint64_t world_all_ranks(const struct world_machine *m)
{
    return m->n_ranks == 64 ? UINT64_MAX : world_bit(m->n_ranks) - 1;
}

uint64_t world_after_ms(const struct world_machine *m, uint64_t ms)
{
    return ms == 0 ? 0 : m->now + ms * 1000000;
}

bool world_passed(const struct world_machine *m, uint64_t deadline)
{
    return deadline != 0 && m->now >= deadline;
}

struct world_action *world_act(struct world_actions *out, enum world_action_kind kind)
{
    struct world_action *action;

    ENSURE_OP(out->n, <, WORLD_MAX_ACTIONS);
    action = &out->list[out->n++];
    *action = (struct world_action){.kind = kind};
    return action;
}

void world_enter(struct world_machine *m, enum world_state state, uint32_t limit_ms,
                 struct world_actions *out)
{
    m->state = state;
    m->deadline = world_after_ms(m, limit_ms);
    m->answered = 0;
    world_act(out, WORLD_DO_REPORT)->state = state;
}

static void fail_all(struct world_machine *m, struct world_actions *out)
{
    if (m->loaded) {
        world_act(out, WORLD_DO_FAIL_REQUESTS)->all = true;
    }
    flight_drop(&m->flight);
    suspects_clear(&m->flight.suspects);
}

void world_finish(struct world_machine *m, struct world_actions *out)
{
    world_act(out, WORLD_DO_UNDO_LOAD);
    m->loaded = false;
    m->weights_valid = false;
    m->kv_valid = false;
    m->probing = false;
    m->injected = false;
    m->no_ranks = false;
    if (m->after == WORLD_FAILED && !m->drain) {
        m->in_a_row = m->config.restart_budget; /* a probe has one try */
        world_enter(m, WORLD_FAILED, m->n_ranks == 0 ? 0 : m->config.probe_ms, out);
        if (m->deadline != 0) {
            world_act(out, WORLD_DO_ARM_PROBE)->at = m->deadline;
        }
    } else {
        m->drain = false;
        m->drain_deadline = 0;
        world_enter(m, WORLD_DOWN, 0, out);
    }
}

void world_kill_all(struct world_machine *m, struct world_actions *out)
{
    world_act(out, WORLD_DO_KILL_ALL);
    m->deadline = world_after_ms(m, m->config.reap_ms);
}

void world_stop(struct world_machine *m, enum world_state after, bool politely,
                struct world_actions *out)
{
    m->after = after;
    if (m->state == WORLD_REBUILDING && m->no_ranks) {
        fail_all(m, out);
        world_finish(m, out);
        return;
    }
    world_act(out, politely ? WORLD_DO_SEND_SHUTDOWN : WORLD_DO_KILL_ALL);
    fail_all(m, out);
    world_enter(m, WORLD_STOPPING, politely ? m->config.stop_ms : m->config.reap_ms, out);
}

void world_spawn(struct world_machine *m, struct world_actions *out)
{
    struct world_action *action;

    if (m->gone != 0) { /* other shards: neither weights nor KV pages fit any more */
        m->n_ranks -= (uint32_t)__builtin_popcountll(m->gone);
        m->gone = 0;
        m->weights_valid = false;
        m->kv_valid = false;
    }
    if (m->n_ranks == 0) {
        m->after = WORLD_FAILED;
        fail_all(m, out);
        world_finish(m, out);
        return;
    }
    m->epoch++;
    m->spawned = 0;
    m->injected = false;
    m->no_ranks = false;
    action = world_act(out, WORLD_DO_SPAWN_ALL);
    action->epoch = m->epoch;
    action->n_ranks = m->n_ranks;
    world_enter(m, WORLD_SPAWNING, m->config.spawn_ms, out);
}

/* Gives up the requests that have killed too often. */
static void blame(struct world_machine *m, struct world_actions *out)
{
    const uint64_t *ids;
    size_t n_ids = flight_blame(&m->flight, &ids);

    if (n_ids > 0) {
        struct world_action *action = world_act(out, WORLD_DO_FAIL_REQUESTS);

        action->ids = ids;
        action->n_ids = n_ids;
    }
}

bool world_break(struct world_machine *m, struct world_fault what, bool kv_trusted,
                 struct world_actions *out)
{
    m->fault = what;
    m->fault.injected = m->injected;
    m->kv_valid = m->kv_valid && kv_trusted;
    if (!m->fault.injected) {
        if (m->config.restart_budget != 0 && m->in_a_row >= m->config.restart_budget) {
            world_stop(m, WORLD_FAILED, false, out);
            return true;
        }
        m->in_a_row++;
    }
    world_act(out, WORLD_DO_KILL_ALL);
    if (!m->fault.injected) {
        blame(m, out);
    }
    flight_drop(&m->flight);
    m->n_rebuilds++;
    world_enter(m, WORLD_REBUILDING, m->config.reap_ms, out);
    return true;
}

/* --- The table --- */

static world_handler_fn *const handlers[] = {
#define WORLD_RULE(event, states, handler, what) world_on_##handler,
#include "world/state_rules.def"
#undef WORLD_RULE
};

const struct world_rule world_rules[] = {
#define WORLD_RULE(event, states, handler, what) {WORLD_EV_##event, (states), #handler, what},
#include "world/state_rules.def"
#undef WORLD_RULE
};

const size_t world_n_rules = ARRAY_LEN(handlers);

static bool is_of_epoch(enum world_event_kind kind)
{
    static const bool of_epoch[] = {
#define WORLD_EVENT(name, text, of_epoch) of_epoch,
#include "world/state.def"
#undef WORLD_EVENT
    };

    return of_epoch[kind];
}

static world_handler_fn *find_handler(enum world_event_kind kind, enum world_state state)
{
    for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
        if (world_rules[i].event == kind && (world_rules[i].states & (1u << state)) != 0) {
            return handlers[i];
        }
    }
    ENSURE(!"every event has a rule in every state");
    return world_on_ignore;
}

bool world_machine_event(struct world_machine *machine, const struct world_event *event,
                         uint64_t now, struct world_actions *ret_actions)
{
    ret_actions->n = 0;
    machine->now = MAX(machine->now, now);
    if (is_of_epoch(event->kind)) {
        if (event->epoch != machine->epoch || event->rank >= MAX(machine->n_ranks, 1u)) {
            machine->n_stale++;
            return false;
        }
    }
    if (!find_handler(event->kind, machine->state)(machine, event, ret_actions)) {
        machine->n_ignored++;
        return false;
    }
    return true;
}

uint64_t world_machine_wake_at(const struct world_machine *machine)
{
    uint64_t wake = machine->deadline != 0 ? machine->deadline : UINT64_MAX;

    if (machine->drain && machine->drain_deadline != 0 && machine->state != WORLD_STOPPING) {
        wake = MIN(wake, machine->drain_deadline);
    }
    return wake;
}

uint64_t world_machine_next_step(const struct world_machine *machine)
{
    return flight_next(&machine->flight);
}

void world_config_init(struct world_config *config)
{
    *config = (struct world_config){
        .restart_budget = 3,
        .probe_ms = 30000,
        .spawn_ms = 10000,
        .hello_ms = 10000,
        .comm_init_ms = 30000,
        .sanity_ms = 10000,
        .load_ms = 60000,
        .drain_ms = 30000,
        .stop_ms = 2000,
        .reap_ms = 2000,
        .keeps_weights = true,
        .keeps_kv = true,
    };
}

void world_machine_init(struct world_machine *machine, const struct world_config *config)
{
    *machine = (struct world_machine){.config = *config, .state = WORLD_DOWN};
}

void world_machine_release(struct world_machine *machine)
{
    flight_release(&machine->flight);
}
