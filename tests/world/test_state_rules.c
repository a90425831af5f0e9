/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of the world's machine that reach over several events: restart budget and probe,
 * requests that kill, both ways of resuming, memory, fewer ranks, draining across a fault.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>

#include "world/machine.h"

static const struct world_part both[] = {{.request = 7}, {.request = 8}};
static const struct world_part seven[] = {{.request = 7}};
static const struct world_part eight[] = {{.request = 8}};

static void expect(const struct rig *rig, const char *text)
{
    struct buf buf = {0};

    assert_string_equal(rig_describe(rig, &buf), text);
    buf_release(&buf);
}

static void ready(struct rig *rig, const struct world_config *config)
{
    rig_init(rig, config);
    rig_load(rig, N_RANKS);
    rig_climb(rig, WORLD_READY);
    assert_int_equal(rig->machine.state, WORLD_READY);
}

static void issue(struct rig *rig, const struct world_part *parts, size_t n)
{
    rig_step(rig, WORLD_EV_STEP_ISSUED, parts, n);
    assert_true(rig->taken);
}

static void commit(struct rig *rig, const struct world_part *parts, size_t n)
{
    issue(rig, parts, n);
    rig_step(rig, WORLD_EV_STEP_COMMITTED, NULL, 0);
    assert_true(rig->taken);
}

static void mark(struct rig *rig)
{
    rig_event(rig, (struct world_event){.kind = WORLD_EV_FAULT_MARK});
}

static void test_budget_and_probe(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int i = 0; i < 3; i++) {
        rig_die(&rig, 1, SIGKILL);
        expect(&rig, "rebuilding: kill_all report(rebuilding)");
        rig_rebuild(&rig);
        expect(&rig, "ready: report(ready) resume(step 1, kept kv)");
    }
    rig_die(&rig, 1, SIGKILL); /* the fourth without progress */
    expect(&rig, "stopping: kill_all fail_requests(all) report(stopping)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "failed: undo_load report(failed) arm_probe");
    assert_int_equal(rig.actions.list[2].at, rig.now + 30000ull * MS);
    assert_int_equal(world_machine_wake_at(&rig.machine), rig.now + 30000ull * MS);

    rig.now += 29999ull * MS;
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    assert_false(rig.taken);
    rig.now += 1 * MS;
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    expect(&rig, "spawning: spawn_all(epoch 5, 3 ranks) report(spawning)");
    rig_climb(&rig, WORLD_SANITY);
    rig_answers(&rig, WORLD_EV_SANITY_RESULT, 2, 3); /* nothing was kept */
    expect(&rig, "loading: report(loading) load(new weights, new kv)");
    rig_die(&rig, 0, SIGKILL); /* the probe has one try */
    expect(&rig, "stopping: kill_all report(stopping)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "failed: undo_load report(failed) arm_probe");

    rig.now += 30000ull * MS;
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    rig_climb(&rig, WORLD_READY);
    expect(&rig, "ready: report(ready)"); /* no request is left to resume */
    rig_die(&rig, 0, SIGKILL);            /* still no progress */
    assert_int_equal(rig.machine.state, WORLD_STOPPING);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig.now += 30000ull * MS;
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    rig_climb(&rig, WORLD_READY);
    commit(&rig, seven, 1); /* proven: the whole budget is there again */
    for (int i = 0; i < 3; i++) {
        rig_die(&rig, 1, SIGKILL);
        rig_rebuild(&rig);
        assert_int_equal(rig.machine.state, WORLD_READY);
    }
    world_machine_release(&rig.machine);
}

/* The probe of a world that failed with its budget untouched has one try too. */
static void test_probe_after_a_mismatch(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig, NULL);
    rig_load(&rig, N_RANKS);
    rig_climb(&rig, WORLD_HELLO);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_HELLO, .rank = 2, .mismatch = true});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "failed: undo_load report(failed) arm_probe");
    rig.now = world_machine_wake_at(&rig.machine);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    rig_die(&rig, 0, SIGKILL);
    expect(&rig, "stopping: kill_all report(stopping)");
    world_machine_release(&rig.machine);
}

static void test_progress_renews_the_budget(void **state)
{
    static const struct world_part again[] = {{.request = 7, .again = true}};
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int i = 0; i < 50; i++) {
        rig_die(&rig, 1, SIGKILL);
        rig_rebuild(&rig);
        commit(&rig, seven, 1);
    }
    assert_int_equal(rig.machine.state, WORLD_READY);
    for (int i = 0; i < 3; i++) { /* prefilling again is no progress */
        rig_die(&rig, 1, SIGSEGV);
        rig_rebuild(&rig);
        commit(&rig, again, 1);
    }
    rig_die(&rig, 1, SIGSEGV);
    assert_int_equal(rig.machine.state, WORLD_STOPPING);
    world_machine_release(&rig.machine);
}

static void test_injected_faults_do_not_count(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int i = 0; i < 20; i++) {
        issue(&rig, both, 2);
        mark(&rig);
        rig_die(&rig, 1, SIGKILL);
        expect(&rig, "rebuilding: kill_all report(rebuilding)");
        assert_true(rig.machine.fault.injected);
        rig_rebuild(&rig);
        expect(&rig, "ready: report(ready) resume(step 1, kept kv)"); /* nobody is suspected */
    }
    assert_int_equal(rig.machine.in_a_row, 0);
    mark(&rig); /* a mark covers one fault of its epoch */
    rig_die(&rig, 1, SIGKILL);
    rig_rebuild(&rig);
    rig_die(&rig, 1, SIGKILL);
    assert_int_equal(rig.machine.in_a_row, 1);
    assert_false(rig.machine.fault.injected);
    world_machine_release(&rig.machine);
}

static void test_budget_without_limit_backs_off(void **state)
{
    struct world_config config;
    struct rig rig;
    uint64_t longest = 0;

    (void)state;
    world_config_init(&config);
    config.restart_budget = 0;
    ready(&rig, &config);
    for (int i = 0; i < 40; i++) {
        uint64_t began = rig.now;

        rig_die(&rig, 1, SIGKILL);
        rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
        if (i < 3) {
            assert_int_equal(rig.machine.state, WORLD_SPAWNING);
        } else {
            assert_int_equal(rig.machine.state, WORLD_REBUILDING);
            rig.now = world_machine_wake_at(&rig.machine);
            rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
            assert_int_equal(rig.machine.state, WORLD_SPAWNING);
            assert_true(rig.now - began >= 100ull * MS);
            assert_true(rig.now - began >= longest);
            longest = rig.now - began;
        }
        rig_climb(&rig, WORLD_READY);
    }
    assert_int_equal(longest, 30000ull * MS);
    /* An unload while the back-off runs: there is nobody to wait for. */
    rig_die(&rig, 1, SIGKILL);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_UNLOAD});
    expect(&rig, "down: fail_requests(all) undo_load report(down)");
    world_machine_release(&rig.machine);
}

/* Request 7 kills whatever computes it; 8 is only its neighbour. */
static void test_poison(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    commit(&rig, both, 2);
    issue(&rig, both, 2);
    issue(&rig, both, 2); /* one ahead: blamed once all the same */
    rig_die(&rig, 1, SIGSEGV);
    rig_rebuild(&rig);
    expect(&rig, "ready: report(ready) resume(step 2, prefill)");
    issue(&rig, both, 2);
    rig_die(&rig, 1, SIGSEGV);
    rig_rebuild(&rig);
    expect(&rig, "ready: report(ready) resume(step 2, prefill, 7 alone, 8 alone)");

    rig_step(&rig, WORLD_EV_STEP_ISSUED, both, 2);
    assert_false(rig.taken); /* may not share a step */
    issue(&rig, eight, 1);
    rig_step(&rig, WORLD_EV_STEP_ISSUED, seven, 1);
    assert_false(rig.taken); /* nor the pipeline */
    rig_step(&rig, WORLD_EV_STEP_COMMITTED, NULL, 0);
    issue(&rig, seven, 1);
    rig_step(&rig, WORLD_EV_STEP_ISSUED, eight, 1);
    assert_false(rig.taken);
    rig_die(&rig, 0, SIGSEGV);
    expect(&rig, "rebuilding: kill_all fail_requests(7) report(rebuilding)");
    rig_rebuild(&rig);
    expect(&rig, "ready: report(ready) resume(step 3, prefill)"); /* 8 is cleared */
    issue(&rig, eight, 1);
    issue(&rig, eight, 1);
    world_machine_release(&rig.machine);
}

/* The same where the neighbour comes first, and where the way up to the deadly position is
 * prefilled again each time. */
static void test_poison_is_found_behind_prefill(void **state)
{
    static const struct world_part again[] = {{.request = 7, .again = true}};
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int i = 1; i <= 3; i++) {
        commit(&rig, i == 1 ? seven : again, 1);
        commit(&rig, eight, 1);
        issue(&rig, seven, 1);
        rig_die(&rig, 1, SIGSEGV);
        if (i < 3) {
            expect(&rig, "rebuilding: kill_all report(rebuilding)");
        } else {
            expect(&rig, "rebuilding: kill_all fail_requests(7) report(rebuilding)");
        }
        rig_rebuild(&rig);
    }
    expect(&rig, "ready: report(ready) resume(step 7, prefill)");
    world_machine_release(&rig.machine);
}

/* A suspect does not join the pipeline behind a step of others either. */
static void test_suspects_wait_for_an_empty_pipeline(void **state)
{
    static const struct world_part nine[] = {{.request = 9}};
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int i = 0; i < 2; i++) {
        issue(&rig, seven, 1);
        rig_die(&rig, 1, SIGSEGV);
        rig_rebuild(&rig);
    }
    expect(&rig, "ready: report(ready) resume(step 1, prefill, 7 alone)");
    issue(&rig, nine, 1);
    rig_step(&rig, WORLD_EV_STEP_ISSUED, seven, 1);
    assert_false(rig.taken);
    rig_step(&rig, WORLD_EV_STEP_COMMITTED, NULL, 0);
    issue(&rig, seven, 1);
    world_machine_release(&rig.machine);
}

static void test_second_isolation_is_for_life(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) { /* they kill only together */
            issue(&rig, both, 2);
            rig_die(&rig, 1, SIGSEGV);
            rig_rebuild(&rig);
        }
        commit(&rig, seven, 1);
        commit(&rig, eight, 1);
    }
    rig_step(&rig, WORLD_EV_STEP_ISSUED, both, 2);
    assert_false(rig.taken);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_REQUEST_ENDED, .request = 7});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_REQUEST_ENDED, .request = 8});
    issue(&rig, both, 2); /* others of those numbers would be innocent */
    world_machine_release(&rig.machine);
}

/* Which memory and which way of resuming follows from how the rank ended. */
static void test_ways_of_resuming(void **state)
{
    static const struct {
        struct world_event event;
        bool keep_kv;
    } cases[] = {
        {{.kind = WORLD_EV_RANK_DIED, .signal = SIGKILL}, true},
        {{.kind = WORLD_EV_RANK_HUNG}, true},
        {{.kind = WORLD_EV_RANK_DIED, .signal = SIGSEGV}, false},
        {{.kind = WORLD_EV_RANK_DIED, .exit_code = 3}, false},
        {{.kind = WORLD_EV_RANK_ERROR, .error = WORLD_ERROR_BUG}, false},
        {{.kind = WORLD_EV_PLAN_MISMATCH}, false},
        {{.kind = WORLD_EV_RANK_DIED, .signal = SIGKILL, .oom = true}, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;

        ready(&rig, NULL);
        commit(&rig, both, 2);
        issue(&rig, both, 2);
        rig_event(&rig, cases[i].event);
        rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
        rig_climb(&rig, WORLD_SANITY);
        rig_answers(&rig, WORLD_EV_SANITY_RESULT, 2, 3);
        expect(&rig, cases[i].keep_kv ? "loading: report(loading) load(kept weights, kept kv)"
                                      : "loading: report(loading) load(kept weights, new kv)");
        rig_climb(&rig, WORLD_READY);
        expect(&rig, cases[i].keep_kv ? "ready: report(ready) resume(step 2, kept kv)"
                                      : "ready: report(ready) resume(step 2, prefill)");
        world_machine_release(&rig.machine);
    }
}

static void test_kept_memory_by_configuration(void **state)
{
    struct world_config config;
    struct rig rig;

    (void)state;
    world_config_init(&config);
    config.keeps_kv = false; /* the way that tests ask for */
    ready(&rig, &config);
    rig_die(&rig, 0, SIGKILL);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(&rig, WORLD_SANITY);
    rig_answers(&rig, WORLD_EV_SANITY_RESULT, 2, 3);
    expect(&rig, "loading: report(loading) load(kept weights, new kv)");
    rig_climb(&rig, WORLD_READY);
    expect(&rig, "ready: report(ready) resume(step 1, prefill)");
    world_machine_release(&rig.machine);
}

/* A rank that scribbles while the KV pages are kept through several rebuilds in a row. */
static void test_two_faults_at_once(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    issue(&rig, both, 2);
    rig_die(&rig, 1, SIGKILL);
    rig_die(&rig, 2, SIGBUS); /* had died of its own before kill_all reached it */
    assert_true(rig.taken);
    rig_event(&rig, (struct world_event){
                        .kind = WORLD_EV_RANK_ERROR, .rank = 0, .error = WORLD_ERROR_LINK});
    assert_false(rig.taken);
    assert_int_equal(rig.machine.in_a_row, 1); /* one fault, not three */
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(&rig, WORLD_LOADING);
    rig_die(&rig, 0, SIGKILL); /* and again while loading */
    rig_rebuild(&rig);
    expect(&rig, "ready: report(ready) resume(step 1, prefill)");
    world_machine_release(&rig.machine);
}

static void test_load_refused_is_undone(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig, NULL);
    rig_load(&rig, N_RANKS);
    rig_climb(&rig, WORLD_LOADING); /* two of three have loaded */
    rig_event(&rig, (struct world_event){
                        .kind = WORLD_EV_LOAD_ERROR, .rank = 2, .error = WORLD_ERROR_MEMORY});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "down: undo_load report(down)");
    assert_int_equal(world_machine_wake_at(&rig.machine), UINT64_MAX); /* and no probe */
    rig_load(&rig, 2);
    rig_climb(&rig, WORLD_READY);
    expect(&rig, "ready: report(ready)");

    /* Kept weights that a rank cannot use are read anew rather than refused. */
    rig_die(&rig, 0, SIGKILL);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(&rig, WORLD_LOADING);
    rig_event(&rig, (struct world_event){
                        .kind = WORLD_EV_LOAD_ERROR, .rank = 1, .error = WORLD_ERROR_USER});
    expect(&rig, "rebuilding: kill_all report(rebuilding)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(&rig, WORLD_SANITY);
    rig_answers(&rig, WORLD_EV_SANITY_RESULT, 1, 2);
    expect(&rig, "loading: report(loading) load(new weights, new kv)");
    /* And if those are refused too, a world that once worked fails rather than forgets. */
    rig_event(&rig, (struct world_event){
                        .kind = WORLD_EV_LOAD_ERROR, .rank = 1, .error = WORLD_ERROR_USER});
    expect(&rig, "stopping: kill_all fail_requests(all) report(stopping)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "failed: undo_load report(failed) arm_probe");
    world_machine_release(&rig.machine);
}

static void oom(struct rig *rig)
{
    rig_event(rig, (struct world_event){
                       .kind = WORLD_EV_RANK_DIED, .rank = 1, .signal = SIGKILL, .oom = true});
}

static void test_out_of_memory(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    oom(&rig);
    expect(&rig, "rebuilding: kill_all report(rebuilding)");
    rig_rebuild(&rig);
    oom(&rig);
    expect(&rig, "rebuilding: drop_cache kill_all report(rebuilding)");
    rig_rebuild(&rig);
    mark(&rig);
    oom(&rig); /* on purpose: does not count */
    rig_rebuild(&rig);
    oom(&rig);
    expect(&rig, "stopping: kill_all fail_requests(all) report(stopping)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "down: undo_load report(down)");
    world_machine_release(&rig.machine);
}

static void test_fewer_ranks(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    rig_die(&rig, 2, SIGKILL);
    for (int i = 0; i < 2; i++) { /* said twice, lost once */
        rig_event(&rig, (struct world_event){.kind = WORLD_EV_DEVICE_GONE, .rank = 2});
    }
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "spawning: spawn_all(epoch 2, 2 ranks) report(spawning)");
    rig_climb(&rig, WORLD_SANITY);
    rig_answers(&rig, WORLD_EV_SANITY_RESULT, 1, 2); /* the sum is 2 now */
    expect(&rig, "loading: report(loading) load(new weights, new kv)");
    rig_climb(&rig, WORLD_READY);
    expect(&rig, "ready: report(ready) resume(step 1, prefill)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DEVICE_GONE, .rank = 1});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DEVICE_GONE, .rank = 0});
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "failed: fail_requests(all) undo_load report(failed)");
    assert_int_equal(world_machine_wake_at(&rig.machine), UINT64_MAX); /* nothing to probe */
    rig_load(&rig, 1);
    rig_climb(&rig, WORLD_READY);
    expect(&rig, "ready: report(ready)");
    world_machine_release(&rig.machine);
}

static void test_drain_survives_a_fault(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    issue(&rig, both, 2);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DRAIN});
    rig_die(&rig, 1, SIGKILL);
    expect(&rig, "rebuilding: kill_all report(rebuilding)");
    rig_rebuild(&rig);
    expect(&rig, "draining: report(draining) resume(step 1, kept kv)");
    commit(&rig, both, 2);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DRAINED});
    assert_int_equal(rig.machine.state, WORLD_STOPPING);
    rig_die(&rig, 0, 0);
    assert_int_equal(rig.machine.state, WORLD_STOPPING);
    rig.now += 2000ull * MS; /* rank 1 does not leave by itself */
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    expect(&rig, "stopping: kill_all");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "down: undo_load report(down)");
    world_machine_release(&rig.machine);
}

static void test_drain_while_starting(void **state)
{
    static const enum world_state states[] = {WORLD_SPAWNING, WORLD_HELLO, WORLD_COMM_INIT,
                                              WORLD_SANITY, WORLD_LOADING};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        for (int late = 0; late < 2; late++) {
            struct world_config config;
            struct rig rig;

            world_config_init(&config);
            config.drain_ms = 5;
            rig_init(&rig, &config);
            rig_load(&rig, N_RANKS);
            rig_climb(&rig, states[i]);
            rig_event(&rig, (struct world_event){.kind = WORLD_EV_DRAIN});
            assert_int_equal(world_machine_wake_at(&rig.machine), rig.now + 5ull * MS);
            rig.now += late != 0 ? 5 * MS : 0;
            rig_event(&rig,
                      (struct world_event){.kind = late != 0 ? WORLD_EV_TICK : WORLD_EV_DRAINED});
            expect(&rig, "stopping: kill_all report(stopping)");
            rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
            expect(&rig, "down: undo_load report(down)");
            world_machine_release(&rig.machine);
        }
    }
}

/* Drained, or out of time, in the middle of a rebuild; and an unload takes the probe away. */
static void test_drain_while_rebuilding(void **state)
{
    struct rig rig;

    (void)state;
    ready(&rig, NULL);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DRAIN});
    rig_die(&rig, 1, SIGKILL);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_DRAINED});
    expect(&rig, "stopping: kill_all fail_requests(all) report(stopping)");
    world_machine_release(&rig.machine);

    ready(&rig, NULL);
    for (int i = 0; i < 4; i++) {
        rig_die(&rig, 1, SIGKILL);
        if (i < 3) {
            rig_rebuild(&rig);
        }
    }
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_UNLOAD});
    assert_true(rig.taken);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    expect(&rig, "down: undo_load report(down)"); /* and not failed */
    world_machine_release(&rig.machine);
}

static void test_a_late_rank_is_named(void **state)
{
    struct rig rig;
    char text[256];

    (void)state;
    rig_init(&rig, NULL);
    rig_load(&rig, N_RANKS);
    rig_climb(&rig, WORLD_COMM_INIT);
    rig.now = world_machine_wake_at(&rig.machine);
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
    assert_string_equal(world_fault_text(&rig.machine.fault, text, sizeof(text)),
                        "rank 2 did not answer in time (comm_init)");
    rig_event(&rig, (struct world_event){.kind = WORLD_EV_ALL_REAPED});
    rig_climb(&rig, WORLD_LOADING);
    for (int i = 0; i < 100; i++) { /* a slow disk is not a hang */
        rig.now += 59000ull * MS;
        rig_event(&rig, (struct world_event){.kind = WORLD_EV_TICK});
        rig_event(&rig, (struct world_event){.kind = WORLD_EV_LOAD_PROGRESS, .rank = 2});
    }
    assert_int_equal(rig.machine.state, WORLD_LOADING);
    mark(&rig);
    rig_die(&rig, 1, SIGKILL);
    assert_string_equal(world_fault_text(&rig.machine.fault, text, sizeof(text)),
                        "rank 1 died of signal 9 (Killed) (injected)");
    world_machine_release(&rig.machine);
}

static void test_early_hello(void **state)
{
    struct rig rig;

    (void)state;
    rig_init(&rig, NULL);
    rig_load(&rig, 2);
    rig_answers(&rig, WORLD_EV_HELLO, 0, 2); /* before the spawner has said so */
    assert_int_equal(rig.machine.state, WORLD_SPAWNING);
    rig_answers(&rig, WORLD_EV_SPAWNED, 0, 2);
    expect(&rig, "comm_init: report(hello) report(comm_init) comm_init");
    world_machine_release(&rig.machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget_and_probe),
        cmocka_unit_test(test_probe_after_a_mismatch),
        cmocka_unit_test(test_progress_renews_the_budget),
        cmocka_unit_test(test_injected_faults_do_not_count),
        cmocka_unit_test(test_budget_without_limit_backs_off),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_poison_is_found_behind_prefill),
        cmocka_unit_test(test_suspects_wait_for_an_empty_pipeline),
        cmocka_unit_test(test_second_isolation_is_for_life),
        cmocka_unit_test(test_ways_of_resuming),
        cmocka_unit_test(test_kept_memory_by_configuration),
        cmocka_unit_test(test_two_faults_at_once),
        cmocka_unit_test(test_load_refused_is_undone),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_fewer_ranks),
        cmocka_unit_test(test_drain_survives_a_fault),
        cmocka_unit_test(test_drain_while_starting),
        cmocka_unit_test(test_drain_while_rebuilding),
        cmocka_unit_test(test_a_late_rank_is_named),
        cmocka_unit_test(test_early_hello),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
