/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every transition of the world's machine: a table of (state, event) -> (state, actions), the proof
 * that each pair not in it changes nothing and says why, and the rules that reach over several
 * events: budget, probe, poison, both ways of resuming, fewer ranks, draining across a fault.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>

#include "base/file.h"
#include "world/machine.h"

static const struct world_part both[] = {{.request = 7}, {.request = 8}};

/* A machine in `state`: 3 ranks, of which all but the last have answered what it waits for. From
 * ready on: two steps are committed, and the third (requests 7 and 8) is in flight. */
static void rig_in(struct rig *rig, enum world_state state)
{
    rig_init(rig, NULL);
    if (state == WORLD_DOWN) {
        return;
    }
    rig_load(rig, N_RANKS);
    rig_climb(rig, state);
    if (rig->machine.state != WORLD_READY) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        rig_step(rig, WORLD_EV_STEP_ISSUED, both, 2);
        rig_step(rig, WORLD_EV_STEP_COMMITTED, NULL, 0);
    }
    rig_step(rig, WORLD_EV_STEP_ISSUED, both, 2);
    if (state == WORLD_REBUILDING) {
        rig_die(rig, 1, SIGKILL);
    } else if (state == WORLD_DRAINING || state == WORLD_STOPPING) {
        rig_event(rig, (struct world_event){.kind = WORLD_EV_DRAIN});
    } else if (state == WORLD_FAILED) {
        rig_event(rig, (struct world_event){.kind = WORLD_EV_RANK_DIED, .signal = SIGSEGV});
        for (int i = 0; i < 3; i++) {
            rig_rebuild(rig);
            rig_die(rig, 1, SIGKILL);
        }
        rig_event(rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    }
    if (state == WORLD_STOPPING) {
        rig_event(rig, (struct world_event){.kind = WORLD_EV_DRAINED});
    }
}

#define EV(name, ...)                        \
    {                                        \
        .kind = WORLD_EV_##name, __VA_ARGS__ \
    }
#define REBUILD  "rebuilding: kill_all report(rebuilding)"
#define STOP     "stopping: kill_all report(stopping)"
#define STOP_ALL "stopping: kill_all fail_requests(all) report(stopping)"
#define LEAVE    "stopping: shutdown fail_requests(all) report(stopping)"
#define LATE     1000000 /* ms: later than any limit */

static const struct transition {
    enum world_state state;
    struct world_event event;
    const char *expect;
    uint64_t later_ms;
} transitions[] = {
    {WORLD_DOWN, EV(LOAD, .n_ranks = 2), "spawning: spawn_all(epoch 1, 2 ranks) report(spawning)"},
    {WORLD_DOWN, EV(REQUEST_ENDED), "down:"},

    {WORLD_SPAWNING, EV(UNLOAD), STOP},
    {WORLD_SPAWNING, EV(DRAIN), "spawning:"},
    {WORLD_SPAWNING, EV(REQUEST_ENDED), "spawning:"},
    {WORLD_SPAWNING, EV(TICK), REBUILD, LATE},
    {WORLD_SPAWNING, EV(SPAWNED, .rank = 2), "hello: report(hello)"},
    {WORLD_SPAWNING, EV(SPAWN_FAILED, .rank = 2, .error = EAGAIN), REBUILD},
    {WORLD_SPAWNING, EV(HELLO, .rank = 1), "spawning:"},
    {WORLD_SPAWNING, EV(HELLO, .rank = 1, .mismatch = true), STOP},
    {WORLD_SPAWNING, EV(LOAD_ERROR, .error = WORLD_ERROR_BUG), REBUILD},
    {WORLD_SPAWNING, EV(RANK_DIED, .signal = SIGKILL), REBUILD},
    {WORLD_SPAWNING, EV(RANK_HUNG), REBUILD},
    {WORLD_SPAWNING, EV(RANK_ERROR, .error = WORLD_ERROR_DEVICE), REBUILD},
    {WORLD_SPAWNING, EV(RANK_ERROR, .error = WORLD_ERROR_USER), STOP},
    {WORLD_SPAWNING, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_SPAWNING, EV(FAULT_MARK), "spawning:"},

    {WORLD_HELLO, EV(UNLOAD), STOP},
    {WORLD_HELLO, EV(DRAIN), "hello:"},
    {WORLD_HELLO, EV(REQUEST_ENDED), "hello:"},
    {WORLD_HELLO, EV(TICK), REBUILD, LATE},
    {WORLD_HELLO, EV(SPAWN_FAILED, .rank = 2, .error = ENOENT), REBUILD},
    {WORLD_HELLO, EV(HELLO, .rank = 2), "comm_init: report(comm_init) comm_init"},
    {WORLD_HELLO, EV(HELLO, .rank = 2, .mismatch = true), STOP},
    {WORLD_HELLO, EV(LOAD_ERROR, .error = WORLD_ERROR_USER), STOP},
    {WORLD_HELLO, EV(RANK_DIED, .exit_code = 1), REBUILD},
    {WORLD_HELLO, EV(RANK_HUNG), REBUILD},
    {WORLD_HELLO, EV(RANK_ERROR, .error = WORLD_ERROR_LINK), REBUILD},
    {WORLD_HELLO, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_HELLO, EV(FAULT_MARK), "hello:"},

    {WORLD_COMM_INIT, EV(UNLOAD), STOP},
    {WORLD_COMM_INIT, EV(DRAIN), "comm_init:"},
    {WORLD_COMM_INIT, EV(REQUEST_ENDED), "comm_init:"},
    {WORLD_COMM_INIT, EV(TICK), REBUILD, LATE},
    {WORLD_COMM_INIT, EV(SPAWN_FAILED), REBUILD},
    {WORLD_COMM_INIT, EV(INIT_OK, .rank = 2), "sanity: report(sanity) sanity"},
    {WORLD_COMM_INIT, EV(LOAD_ERROR, .error = WORLD_ERROR_LINK), REBUILD},
    {WORLD_COMM_INIT, EV(RANK_DIED, .signal = SIGSEGV), REBUILD},
    {WORLD_COMM_INIT, EV(RANK_HUNG), REBUILD},
    {WORLD_COMM_INIT, EV(RANK_ERROR, .error = WORLD_ERROR_LINK), REBUILD},
    {WORLD_COMM_INIT, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_COMM_INIT, EV(FAULT_MARK), "comm_init:"},

    {WORLD_SANITY, EV(UNLOAD), STOP},
    {WORLD_SANITY, EV(DRAIN), "sanity:"},
    {WORLD_SANITY, EV(REQUEST_ENDED), "sanity:"},
    {WORLD_SANITY, EV(TICK), REBUILD, LATE},
    {WORLD_SANITY, EV(SPAWN_FAILED), REBUILD},
    {WORLD_SANITY, EV(SANITY_RESULT, .rank = 2, .sum = 3),
     "loading: report(loading) load(new weights, new kv)"},
    {WORLD_SANITY, EV(SANITY_RESULT, .rank = 2, .sum = 2), REBUILD},
    {WORLD_SANITY, EV(LOAD_ERROR, .error = WORLD_ERROR_MEMORY), STOP},
    {WORLD_SANITY, EV(RANK_DIED, .signal = SIGKILL), REBUILD},
    {WORLD_SANITY, EV(RANK_HUNG), REBUILD},
    {WORLD_SANITY, EV(RANK_ERROR, .error = WORLD_ERROR_BUG), REBUILD},
    {WORLD_SANITY, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_SANITY, EV(FAULT_MARK), "sanity:"},

    {WORLD_LOADING, EV(UNLOAD), STOP},
    {WORLD_LOADING, EV(DRAIN), "loading:"},
    {WORLD_LOADING, EV(REQUEST_ENDED), "loading:"},
    {WORLD_LOADING, EV(TICK), REBUILD, LATE},
    {WORLD_LOADING, EV(SPAWN_FAILED), REBUILD},
    {WORLD_LOADING, EV(LOAD_PROGRESS), "loading:"},
    {WORLD_LOADING, EV(LOAD_OK, .rank = 2), "ready: report(ready)"},
    {WORLD_LOADING, EV(LOAD_ERROR, .rank = 2, .error = WORLD_ERROR_USER), STOP},
    {WORLD_LOADING, EV(LOAD_ERROR, .rank = 2, .error = WORLD_ERROR_MEMORY), STOP},
    {WORLD_LOADING, EV(LOAD_ERROR, .rank = 2, .error = WORLD_ERROR_DEVICE), REBUILD},
    {WORLD_LOADING, EV(RANK_DIED, .signal = SIGKILL), REBUILD},
    {WORLD_LOADING, EV(RANK_HUNG), REBUILD},
    {WORLD_LOADING, EV(RANK_ERROR, .error = WORLD_ERROR_MEMORY), STOP},
    {WORLD_LOADING, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_LOADING, EV(FAULT_MARK), "loading:"},

    {WORLD_READY, EV(UNLOAD), LEAVE},
    {WORLD_READY, EV(DRAIN), "draining: report(draining)"},
    {WORLD_READY, EV(REQUEST_ENDED), "ready:"},
    {WORLD_READY, EV(SPAWN_FAILED), REBUILD},
    {WORLD_READY, EV(LOAD_ERROR, .error = WORLD_ERROR_BUG), REBUILD},
    {WORLD_READY, EV(STEP_ISSUED, .step = 4, .parts = both, .n_parts = 2), "ready:"},
    {WORLD_READY, EV(STEP_COMMITTED, .step = 3), "ready:"},
    {WORLD_READY, EV(RANK_DIED, .signal = SIGKILL), REBUILD},
    {WORLD_READY, EV(RANK_HUNG, .rank = 2), REBUILD},
    {WORLD_READY, EV(RANK_ERROR, .error = WORLD_ERROR_DEVICE), REBUILD},
    {WORLD_READY, EV(RANK_ERROR, .error = WORLD_ERROR_MEMORY), REBUILD},
    {WORLD_READY, EV(PLAN_MISMATCH, .rank = 1), REBUILD},
    {WORLD_READY, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_READY, EV(FAULT_MARK), "ready:"},

    {WORLD_REBUILDING, EV(UNLOAD), STOP_ALL},
    {WORLD_REBUILDING, EV(DRAIN), "rebuilding:"},
    {WORLD_REBUILDING, EV(REQUEST_ENDED), "rebuilding:"},
    {WORLD_REBUILDING, EV(TICK), "rebuilding: kill_all", LATE},
    {WORLD_REBUILDING, EV(RANK_DIED, .rank = 2, .signal = SIGSEGV), "rebuilding:"},
    {WORLD_REBUILDING, EV(DEVICE_GONE, .rank = 1), "rebuilding:"},
    {WORLD_REBUILDING, EV(ALL_REAPED), "spawning: spawn_all(epoch 2, 3 ranks) report(spawning)"},

    {WORLD_DRAINING, EV(UNLOAD), LEAVE},
    {WORLD_DRAINING, EV(DRAINED), LEAVE},
    {WORLD_DRAINING, EV(REQUEST_ENDED), "draining:"},
    {WORLD_DRAINING, EV(TICK), LEAVE, LATE},
    {WORLD_DRAINING, EV(SPAWN_FAILED), REBUILD},
    {WORLD_DRAINING, EV(LOAD_ERROR, .error = WORLD_ERROR_BUG), REBUILD},
    {WORLD_DRAINING, EV(STEP_ISSUED, .step = 4, .parts = both, .n_parts = 2), "draining:"},
    {WORLD_DRAINING, EV(STEP_COMMITTED, .step = 3), "draining:"},
    {WORLD_DRAINING, EV(RANK_DIED, .signal = SIGKILL), REBUILD},
    {WORLD_DRAINING, EV(RANK_HUNG), REBUILD},
    {WORLD_DRAINING, EV(RANK_ERROR, .error = WORLD_ERROR_LINK), REBUILD},
    {WORLD_DRAINING, EV(PLAN_MISMATCH), REBUILD},
    {WORLD_DRAINING, EV(DEVICE_GONE, .rank = 1), REBUILD},
    {WORLD_DRAINING, EV(FAULT_MARK), "draining:"},

    {WORLD_STOPPING, EV(REQUEST_ENDED), "stopping:"},
    {WORLD_STOPPING, EV(DEVICE_GONE, .rank = 1), "stopping:"},
    {WORLD_STOPPING, EV(TICK), "stopping: kill_all", LATE},
    {WORLD_STOPPING, EV(ALL_REAPED), "down: undo_load report(down)"},

    {WORLD_FAILED, EV(LOAD, .n_ranks = 3),
     "spawning: spawn_all(epoch 5, 3 ranks) report(spawning)"},
    {WORLD_FAILED, EV(UNLOAD), "down: report(down)"},
    {WORLD_FAILED, EV(DRAIN), "down: report(down)"},
    {WORLD_FAILED, EV(REQUEST_ENDED), "failed:"},
    {WORLD_FAILED, EV(TICK), "spawning: spawn_all(epoch 5, 3 ranks) report(spawning)", LATE},
    {WORLD_FAILED, EV(DEVICE_GONE, .rank = 1), "failed:"},
};

/* Handled, but only where something earlier asks for it; each has a test of its own below, and by
 * itself changes nothing. */
static const struct {
    enum world_state state;
    enum world_event_kind kind;
} conditional[] = {
    {WORLD_SPAWNING, WORLD_EV_DRAINED},  {WORLD_HELLO, WORLD_EV_DRAINED},
    {WORLD_COMM_INIT, WORLD_EV_DRAINED}, {WORLD_SANITY, WORLD_EV_DRAINED},
    {WORLD_LOADING, WORLD_EV_DRAINED},   {WORLD_REBUILDING, WORLD_EV_DRAINED},
    {WORLD_STOPPING, WORLD_EV_UNLOAD},
};

static const struct world_rule *find_rule(enum world_state state, enum world_event_kind kind)
{
    const struct world_rule *found = NULL;

    for (size_t i = 0; i < world_n_rules; i++) {
        if (world_rules[i].event == kind && (world_rules[i].states & (1u << state)) != 0) {
            assert_null(found); /* two rules for one pair */
            found = &world_rules[i];
        }
    }
    return found;
}

static void test_one_rule_for_each_pair(void **state)
{
    (void)state;
    for (int s = 0; s < WORLD_N_STATES; s++) {
        for (int e = 0; e < WORLD_N_EVENTS; e++) {
            const struct world_rule *rule =
                find_rule((enum world_state)s, (enum world_event_kind)e);

            assert_non_null(rule);
            assert_true(strlen(rule->what) >= strlen("a fault"));
        }
    }
}

static bool is_conditional(enum world_state state, enum world_event_kind kind)
{
    for (size_t i = 0; i < ARRAY_LEN(conditional); i++) {
        if (conditional[i].state == state && conditional[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static void test_every_transition(void **unused)
{
    bool seen[WORLD_N_STATES][WORLD_N_EVENTS] = {{false}};
    struct buf buf = {0};

    (void)unused;
    for (size_t i = 0; i < ARRAY_LEN(transitions); i++) {
        const struct transition *t = &transitions[i];
        struct rig rig;

        rig_in(&rig, t->state);
        assert_int_equal(rig.machine.state, t->state);
        rig.now += t->later_ms * MS;
        rig_event(&rig, t->event);
        if (strcmp(rig_describe(&rig, &buf), t->expect) != 0 || !rig.taken) {
            fail_msg("%s, %s:\n  is     %s\n  should %s", world_state_text(t->state),
                     world_event_text(t->event.kind), buf_str(&buf), t->expect);
        }
        assert_string_not_equal(find_rule(t->state, t->event.kind)->handler, "ignore");
        seen[t->state][t->event.kind] = true;
        world_machine_release(&rig.machine);
    }
    for (int s = 0; s < WORLD_N_STATES; s++) {
        for (int e = 0; e < WORLD_N_EVENTS; e++) {
            const struct world_rule *rule =
                find_rule((enum world_state)s, (enum world_event_kind)e);
            bool ignored = strcmp(rule->handler, "ignore") == 0;
            bool special = is_conditional((enum world_state)s, (enum world_event_kind)e);

            if (seen[s][e] == (ignored || special)) {
                fail_msg("%s, %s is not tested", world_state_text((enum world_state)s),
                         world_event_text((enum world_event_kind)e));
            }
        }
    }
    buf_release(&buf);
}

/* An event without effect leaves the machine as it is, but for the count. */
static void expect_nothing(enum world_state state, struct world_event event)
{
    struct world_machine before;
    struct rig rig;

    rig_in(&rig, state);
    before = rig.machine;
    rig_event(&rig, event);
    assert_false(rig.taken);
    assert_int_equal(rig.actions.n, 0);
    assert_int_equal(rig.machine.n_ignored, before.n_ignored + 1);
    rig.machine.n_ignored = before.n_ignored;
    assert_memory_equal(&rig.machine, &before, sizeof(before));
    world_machine_release(&rig.machine);
}

static void test_every_ignored_event(void **unused)
{
    (void)unused;
    for (int s = 0; s < WORLD_N_STATES; s++) {
        for (int e = 0; e < WORLD_N_EVENTS; e++) {
            enum world_state state = (enum world_state)s;
            enum world_event_kind kind = (enum world_event_kind)e;

            if (strcmp(find_rule(state, kind)->handler, "ignore") == 0 ||
                is_conditional(state, kind)) {
                expect_nothing(state, (struct world_event){.kind = kind, .n_ranks = 2});
            }
        }
    }
}

/* Taken by their rule, but without effect in this shape. */
static void test_duplicates_and_early_ticks(void **unused)
{
    (void)unused;
    expect_nothing(WORLD_SPAWNING, (struct world_event)EV(SPAWNED, .rank = 1));
    expect_nothing(WORLD_HELLO, (struct world_event)EV(HELLO, .rank = 1));
    expect_nothing(WORLD_COMM_INIT, (struct world_event)EV(INIT_OK, .rank = 1));
    expect_nothing(WORLD_SANITY, (struct world_event)EV(SANITY_RESULT, .rank = 1, .sum = 3));
    expect_nothing(WORLD_LOADING, (struct world_event)EV(LOAD_OK, .rank = 1));
    expect_nothing(WORLD_READY, (struct world_event)EV(STEP_COMMITTED, .step = 2));
    expect_nothing(WORLD_READY, (struct world_event)EV(STEP_COMMITTED, .step = 4));
    expect_nothing(WORLD_READY, (struct world_event)EV(STEP_ISSUED, .step = 3));
    expect_nothing(WORLD_READY, (struct world_event)EV(STEP_ISSUED, .step = 5));
    expect_nothing(WORLD_READY, (struct world_event)EV(RANK_ERROR, .error = WORLD_ERROR_USER));
    expect_nothing(WORLD_REBUILDING,
                   (struct world_event)EV(RANK_DIED, .rank = 2, .signal = SIGKILL));
    for (int s = 0; s < WORLD_N_STATES; s++) {
        expect_nothing((enum world_state)s, (struct world_event)EV(TICK));
    }
}

/* An event of another epoch touches nothing, in whatever state. */
static void test_stale_events(void **unused)
{
    (void)unused;
    for (int s = 0; s < WORLD_N_STATES; s++) {
        for (int e = WORLD_EV_SPAWNED; e < WORLD_N_EVENTS; e++) {
            struct world_machine before;
            struct rig rig;

            rig_in(&rig, (enum world_state)s);
            before = rig.machine;
            rig_event(&rig, (struct world_event){.kind = (enum world_event_kind)e, .epoch = 99});
            assert_false(rig.taken);
            assert_int_equal(rig.machine.n_stale, 1);
            rig.machine.n_stale = 0;
            assert_memory_equal(&rig.machine, &before, sizeof(before));
            world_machine_release(&rig.machine);
        }
    }
}

/* The lines of docs/world.md are those of the rules. */
static void test_documented(void **unused)
{
    struct buf page = {0};

    (void)unused;
    assert_int_equal(file_read_all(TEST_SOURCE_DIR "/docs/world.md", 1 << 20, &page, NULL),
                     STATUS_OK);
    for (size_t i = 0; i < world_n_rules; i++) {
        const struct world_rule *rule = &world_rules[i];
        struct buf line = {0};
        const char *comma = "";

        buf_printf(&line, "| %s | ", world_event_text(rule->event));
        for (int s = 0; s < WORLD_N_STATES; s++) {
            if ((rule->states & (1u << s)) != 0) {
                buf_printf(&line, "%s%s", comma, world_state_text((enum world_state)s));
                comma = ", ";
            }
        }
        buf_printf(&line, " | %s%s |\n", strcmp(rule->handler, "ignore") == 0 ? "*nothing:* " : "",
                   rule->what);
        if (strstr(buf_str(&page), buf_str(&line)) == NULL) {
            fail_msg("docs/world.md lacks: %s", buf_str(&line));
        }
        buf_release(&line);
    }
    buf_release(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rule_for_each_pair),
        cmocka_unit_test(test_every_transition),
        cmocka_unit_test(test_every_ignored_event),
        cmocka_unit_test(test_duplicates_and_early_ticks),
        cmocka_unit_test(test_stale_events),
        cmocka_unit_test(test_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
