/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the machine of state.h: what the handlers share. state.c has the moves between states and
 * the table, state_handlers.c what an event means.
 */
#pragma once

#include "world/state.h"

/* Returns false where there was nothing to do. */
typedef bool world_handler_fn(struct world_machine *m, const struct world_event *event,
                              struct world_actions *out);

/* One for each name in state_rules.def. */
world_handler_fn world_on_ignore;
world_handler_fn world_on_load;
world_handler_fn world_on_unload;
world_handler_fn world_on_give_up;
world_handler_fn world_on_drain;
world_handler_fn world_on_drained;
world_handler_fn world_on_request_ended;
world_handler_fn world_on_tick_starting;
world_handler_fn world_on_tick_draining;
world_handler_fn world_on_tick_rebuilding;
world_handler_fn world_on_tick_stopping;
world_handler_fn world_on_tick_failed;
world_handler_fn world_on_spawned;
world_handler_fn world_on_spawn_failed;
world_handler_fn world_on_hello;
world_handler_fn world_on_init_ok;
world_handler_fn world_on_sanity_result;
world_handler_fn world_on_load_progress;
world_handler_fn world_on_load_ok;
world_handler_fn world_on_refused;
world_handler_fn world_on_step_issued;
world_handler_fn world_on_step_committed;
world_handler_fn world_on_rank_died;
world_handler_fn world_on_died_too;
world_handler_fn world_on_rank_hung;
world_handler_fn world_on_rank_error;
world_handler_fn world_on_plan_mismatch;
world_handler_fn world_on_device_gone;
world_handler_fn world_on_device_gone_too;
world_handler_fn world_on_fault_mark;
world_handler_fn world_on_reaped_rebuilding;
world_handler_fn world_on_reaped_stopping;

/* Rank sets. */
uint64_t world_bit(uint32_t rank);
uint64_t world_all_ranks(const struct world_machine *m);

/* The time in ms milliseconds, 0 (never) for 0; and whether such a time has come. */
uint64_t world_after_ms(const struct world_machine *m, uint64_t ms);
bool world_passed(const struct world_machine *m, uint64_t deadline);

/* Appends an action; borrowed until the next event. */
struct world_action *world_act(struct world_actions *out, enum world_action_kind kind);

/* The new state, with its limit, and a report of it. */
void world_enter(struct world_machine *m, enum world_state state, uint32_t limit_ms,
                 struct world_actions *out);

/* SIGKILL to all, and a limit for their end. */
void world_kill_all(struct world_machine *m, struct world_actions *out);

/* Ends the epoch for good. Healthy ranks that wait for work are asked, others are killed. */
void world_stop(struct world_machine *m, enum world_state after, bool politely,
                struct world_actions *out);

/* A new epoch. No rank may be alive. */
void world_spawn(struct world_machine *m, struct world_actions *out);

/* No rank is alive and none is wanted: memory goes, and the machine is down or failed. */
void world_finish(struct world_machine *m, struct world_actions *out);

/* Something broke in this epoch: rebuild, or fail once the budget is used up. kv_trusted: a rank
 * that was killed or stood still has not written where it should not. Returns true. */
bool world_break(struct world_machine *m, struct world_fault what, bool kv_trusted,
                 struct world_actions *out);
