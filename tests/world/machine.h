/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers for the tests of the world's machine: handing in events by one call, driving it to any
 * state, and spelling actions as text.
 */
#pragma once

#include "base/buf.h"
#include "world/state.h"

enum { MS = 1000000, N_RANKS = 3 };

struct rig {
    struct world_machine machine;
    struct world_actions actions; /* of the last event */
    uint64_t now;
    bool taken; /* the last event */
};

static inline void rig_event(struct rig *rig, struct world_event event)
{
    event.epoch = event.epoch != 0 ? event.epoch : rig->machine.epoch;
    rig->taken = world_machine_event(&rig->machine, &event, rig->now, &rig->actions);
}

static inline void rig_init(struct rig *rig, const struct world_config *config)
{
    struct world_config plain;

    world_config_init(&plain);
    *rig = (struct rig){.now = 1000 * (uint64_t)MS};
    world_machine_init(&rig->machine, config == NULL ? &plain : config);
    rig_event(rig, (struct world_event){.kind = WORLD_EV_TICK}); /* says what time it is */
}

static inline void rig_step(struct rig *rig, enum world_event_kind kind,
                            const struct world_part *parts, size_t n)
{
    uint64_t step = kind == WORLD_EV_STEP_ISSUED ? world_machine_next_step(&rig->machine)
                                                 : rig->machine.flight.committed + 1;

    rig_event(rig, (struct world_event){.kind = kind, .step = step, .parts = parts, .n_parts = n});
}

/* One kind of answer from the ranks [begin, end). */
static inline void rig_answers(struct rig *rig, enum world_event_kind kind, uint32_t begin,
                               uint32_t end)
{
    uint32_t sum = rig->machine.n_ranks;

    for (uint32_t r = begin; r < end; r++) {
        rig_event(rig, (struct world_event){.kind = kind, .rank = r, .sum = sum});
    }
}

/* Cooperative ranks, until the last of them would leave `state` (or it is reached, with all but the
 * last answered). */
static inline void rig_climb(struct rig *rig, enum world_state state)
{
    static const struct {
        enum world_state in;
        enum world_event_kind answer;
    } way[] = {
        {WORLD_SPAWNING, WORLD_EV_SPAWNED},  {WORLD_HELLO, WORLD_EV_HELLO},
        {WORLD_COMM_INIT, WORLD_EV_INIT_OK}, {WORLD_SANITY, WORLD_EV_SANITY_RESULT},
        {WORLD_LOADING, WORLD_EV_LOAD_OK},
    };

    for (size_t i = 0; i < ARRAY_LEN(way); i++) {
        uint32_t n = rig->machine.n_ranks;

        if (rig->machine.state != way[i].in) {
            continue;
        }
        rig_answers(rig, way[i].answer, 0, state == way[i].in ? n - 1 : n);
        if (state == way[i].in) {
            return;
        }
    }
}

static inline void rig_die(struct rig *rig, uint32_t rank, int signal)
{
    rig_event(rig,
              (struct world_event){.kind = WORLD_EV_RANK_DIED, .rank = rank, .signal = signal});
}

/* The last epoch's processes are gone, and those of the next one come up to ready. */
static inline void rig_rebuild(struct rig *rig)
{
    rig_event(rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(rig, WORLD_READY);
}

static inline void rig_load(struct rig *rig, uint32_t n_ranks)
{
    rig_event(rig, (struct world_event){.kind = WORLD_EV_LOAD, .n_ranks = n_ranks});
}

static inline void rig_describe_action(const struct world_action *action, struct buf *buf)
{
    buf_printf(buf, " %s", world_action_text(action->kind));
    switch (action->kind) {
    case WORLD_DO_SPAWN_ALL:
        buf_printf(buf, "(epoch %u, %u ranks)", (unsigned)action->epoch, action->n_ranks);
        break;
    case WORLD_DO_SEND_LOAD:
        buf_printf(buf, "(%s, %s)", action->keep_weights ? "kept weights" : "new weights",
                   action->keep_kv ? "kept kv" : "new kv");
        break;
    case WORLD_DO_RESUME:
        buf_printf(buf, "(step %u, %s", (unsigned)action->step,
                   action->keep_kv ? "kept kv" : "prefill");
        for (size_t i = 0; i < action->n_ids; i++) {
            buf_printf(buf, ", %u alone", (unsigned)action->ids[i]);
        }
        buf_append_str(buf, ")");
        break;
    case WORLD_DO_FAIL_REQUESTS:
        buf_append_str(buf, action->all ? "(all" : "(");
        for (size_t i = 0; i < action->n_ids; i++) {
            buf_printf(buf, "%s%u", i == 0 ? "" : " ", (unsigned)action->ids[i]);
        }
        buf_append_str(buf, ")");
        break;
    case WORLD_DO_REPORT:
        buf_printf(buf, "(%s)", world_state_text(action->state));
        break;
    default:
        break;
    }
}

/* "state: action action(...)", borrowed until buf changes. */
static inline const char *rig_describe(const struct rig *rig, struct buf *buf)
{
    buf_clear(buf);
    buf_printf(buf, "%s:", world_state_text(rig->machine.state));
    for (size_t i = 0; i < rig->actions.n; i++) {
        rig_describe_action(&rig->actions.list[i], buf);
    }
    return buf_str(buf);
}
