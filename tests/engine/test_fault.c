/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults carried out in children: what happens, where, once, and that the status page tells it
 * after the child's death.
 */
#include "faults.h"

#include "base/mem.h"

/* The calls of a rank's loop through its life: 3 steps of 4 layers with 2 collectives each. */
static void life(struct drill *drill)
{
    static const enum status_phase before[] = {STATUS_PHASE_HELLO, STATUS_PHASE_COMM_INIT,
                                               STATUS_PHASE_SANITY, STATUS_PHASE_LOADING,
                                               STATUS_PHASE_IDLE};
    struct faults *faults = &drill->faults;

    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        faults_at_phase(faults, before[i]);
        if (before[i] == STATUS_PHASE_SANITY) {
            faults_at_collective(faults, 0, 0);
        }
        faults_alloc(faults);
    }
    for (uint64_t step = 1; step <= 3; step++) {
        drill_step(drill, step, step == 1 ? STATUS_PHASE_PREFILL : STATUS_PHASE_DECODE);
        for (uint32_t layer = 0; layer < 4; layer++) {
            faults_at_layer(faults, step, layer);
            faults_at_collective(faults, step, layer);
            faults_at_collective(faults, step, layer);
        }
        faults_alloc(faults);
        faults_at_phase(faults, STATUS_PHASE_IDLE);
    }
    faults_at_phase(faults, STATUS_PHASE_UNLOAD);
    faults_alloc(faults);
    faults_at_phase(faults, STATUS_PHASE_SHUTDOWN);
    faults_alloc(faults);
}

/* What becomes of a rank with that fault; its step in *ret_step. */
static int live(const char *text, uint64_t *ret_step, enum status_phase *ret_phase)
{
    struct drill drill;
    uint64_t step = 0;
    int signal;

    drill_begin(&drill);
    drill_arm(&drill, 7, text);
    signal = drill_wait(drill_fork(&drill, life));
    assert_int_equal(drill_recorded(&drill, 0, &step), signal != 0);
    assert_int_equal(drill_recorded(&drill, 7, &step), signal != 0);
    *ret_step = step;
    *ret_phase = (enum status_phase)drill.seen.phase;
    drill_end(&drill);
    return signal;
}

static void test_kill_places(void **state)
{
    static const struct {
        const char *text;
        uint64_t step;
    } cases[] = {
        {"kill:rank=3", 0},
        {"kill:rank=3,phase=hello", 0},
        {"kill:rank=3,phase=loading", 0},
        {"kill:rank=3,phase=prefill", 0}, /* before its first step */
        {"kill:rank=3,phase=decode", 1},
        {"kill:rank=3,step=2", 2},
        {"kill:rank=3,step=2,layer=3", 2},
        {"kill:rank=3,layer=2", 1},
        {"kill:rank=3,phase=decode,layer=0", 2},
        {"kill:rank=3,step=3,phase=decode,layer=1", 3},
        {"kill:rank=3,phase=unload", 3},
        {"kill:rank=3,phase=shutdown", 3},
        {"oom:rank=3", 0},
        {"oom:rank=3,phase=loading", 0},
        {"oom:rank=3,step=2,layer=1", 2},
        {"oom:rank=3,phase=shutdown", 3},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum status_phase phase;
        uint64_t step;
        int signal = live(cases[i].text, &step, &phase);

        if (signal != SIGKILL || step != cases[i].step) {
            fail_msg("%s: signal %d in step %llu", cases[i].text, signal, (unsigned long long)step);
        }
    }
}

static void test_places_that_never_come(void **state)
{
    static const char *const cases[] = {
        "kill:rank=3,step=4",
        "kill:rank=3,step=1,layer=4",
        "kill:rank=3,phase=prefill,step=2",
        "kill:rank=3,layer=9",
        "hang-in-collective:rank=3,phase=loading",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum status_phase phase;
        uint64_t step;

        assert_int_equal(live(cases[i], &step, &phase), 0);
    }
}

/* A step that has passed counts as begun: the fault is late, not lost. */
static void play_late(struct drill *drill)
{
    drill_step(drill, 50, STATUS_PHASE_DECODE);
    drill_arm(drill, 2, "kill:rank=3,step=20");
    faults_at_phase(&drill->faults, STATUS_PHASE_IDLE);
}

static void test_late(void **state)
{
    struct drill drill;
    uint64_t step;

    (void)state;
    drill_begin(&drill);
    assert_int_equal(drill_wait(drill_fork(&drill, play_late)), SIGKILL);
    assert_int_equal(drill_recorded(&drill, 2, &step), 1);
    assert_int_equal(step, 50);
    drill_end(&drill);
}

static void test_stop(void **state)
{
    struct drill drill;
    uint64_t step;
    pid_t child;
    int how;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 4, "stop:rank=3,step=2,layer=1");
    child = drill_fork(&drill, life);
    assert_int_equal(waitpid(child, &how, WUNTRACED), child);
    assert_true(WIFSTOPPED(how));
    assert_int_equal(WSTOPSIG(how), SIGSTOP);
    assert_int_equal(drill_recorded(&drill, 4, &step), 1);
    assert_int_equal(step, 2);
    kill(child, SIGCONT); /* once: it then lives to its end */
    assert_int_equal(drill_wait(child), 0);
    assert_int_equal(drill_recorded(&drill, 0, &step), 1);
    drill_end(&drill);
}

static void test_hang(void **state)
{
    struct drill drill;
    uint64_t step = 0;
    uint64_t word;
    uint64_t limit = clock_ns() + 10000 * MS;
    pid_t child;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 5, "hang-in-collective:rank=3,step=2,layer=3");
    child = drill_fork(&drill, life);
    while (drill_recorded(&drill, 5, &step) == 0 && clock_ns() < limit) {
        drill_sleep(MS);
    }
    assert_int_equal(step, 2);
    word = status_page_progress_word(drill.page);
    drill_sleep(50 * MS);
    assert_int_equal(waitpid(child, NULL, WNOHANG), 0); /* neither dead nor at its end */
    assert_int_equal(status_page_progress_word(drill.page), word);
    kill(child, SIGKILL);
    assert_int_equal(drill_wait(child), SIGKILL);
    drill_end(&drill);
}

static void test_slow(void **state)
{
    struct drill drill;
    struct faults *faults = &drill.faults;
    uint64_t start;
    uint64_t step;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 6, "slow:rank=3,ms=10,step=2");
    start = clock_ns();
    for (int i = 0; i < 1000; i++) {
        faults_at_collective(faults, 1, 0);
    }
    assert_int_equal(faults->slow_ms, 0);
    start = clock_ns();
    for (int i = 0; i < 5; i++) {
        faults_at_collective(faults, 2 + i / 3, 0);
    }
    assert_true(clock_ns() - start >= 5 * 10 * MS);
    assert_int_equal(drill_recorded(&drill, 6, &step), 1); /* not once for each */
    assert_int_equal(step, 2);
    drill_end(&drill);
}

static void test_frames(void **state)
{
    struct drill drill;
    struct faults *faults = &drill.faults;
    uint64_t step;

    (void)state;
    drill_begin(&drill);
    assert_false(faults_take_drop(faults));
    assert_false(faults_take_corrupt(faults));
    drill_arm(&drill, 1, "drop-frame:rank=3,step=2");
    drill_arm(&drill, 2, "corrupt-frame:rank=3");
    drill_arm(&drill, 3, "drop-frame:rank=3,phase=unload");
    faults_at_phase(faults, STATUS_PHASE_IDLE);
    drill_step(&drill, 1, STATUS_PHASE_PREFILL);
    assert_int_equal(drill_recorded(&drill, 0, &step), 0); /* only when there is an answer */
    assert_false(faults_take_drop(faults));
    assert_true(faults_take_corrupt(faults));
    assert_false(faults_take_corrupt(faults));
    assert_int_equal(drill_recorded(&drill, 2, &step), 1);
    drill_step(&drill, 2, STATUS_PHASE_DECODE);
    assert_true(faults_take_drop(faults));
    assert_false(faults_take_drop(faults));
    assert_int_equal(drill_recorded(&drill, 1, &step), 1);
    assert_int_equal(step, 2);
    faults_at_phase(faults, STATUS_PHASE_UNLOAD);
    assert_true(faults_take_drop(faults));
    assert_int_equal(drill_recorded(&drill, 0, &step), 3);
    drill_end(&drill);
}

/* The allocation fails where it is asked for, and the process dies when that is dealt with. */
static void play_oom(struct drill *drill)
{
    void *memory;

    faults_at_phase(&drill->faults, STATUS_PHASE_LOADING);
    memory = mem_map(FAULTS_OOM_BYTES - 1);
    if (memory == NULL || mem_map(FAULTS_OOM_BYTES) != NULL || mem_fail_pending()) {
        _exit(1);
    }
    faults_alloc(&drill->faults);
}

static void test_oom(void **state)
{
    struct drill drill;
    uint64_t step;

    (void)state;
    drill_begin(&drill);
    faults_alloc(&drill.faults); /* nothing */
    drill_arm(&drill, 9, "oom:rank=3,phase=loading");
    faults_alloc(&drill.faults);
    assert_int_equal(drill_wait(drill_fork(&drill, play_oom)), SIGKILL);
    assert_int_equal(drill_recorded(&drill, 9, &step), 1);
    drill_end(&drill);
}

/* Of several that fit, each happens, in the order of arming; one that does not fit stays. */
static void test_several(void **state)
{
    struct drill drill;
    struct fault_spec spec = {.kind = FAULT_SLOW, .ms = 1};
    uint64_t step;

    (void)state;
    drill_begin(&drill);
    drill_arm(&drill, 1, "slow:rank=3,ms=2");
    drill_arm(&drill, 2, "slow:rank=3,ms=3,step=8");
    drill_arm(&drill, 3, "slow:rank=3,ms=1");
    faults_at_collective(&drill.faults, 1, 0);
    assert_int_equal(drill.faults.slow_ms, 1);
    assert_int_equal(drill.faults.n, 1);
    assert_int_equal(drill_recorded(&drill, 0, &step), 2);
    for (uint32_t id = 4; drill.faults.n < FAULTS_MAX; id++) {
        assert_true(faults_arm(&drill.faults, id, &spec));
    }
    assert_false(faults_arm(&drill.faults, 99, &spec));
    faults_at_collective(&drill.faults, 8, 0);
    assert_int_equal(drill.faults.n, 0);
    assert_int_equal(drill_recorded(&drill, 0, &step), 2 + FAULTS_MAX);
    drill_end(&drill);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_places), cmocka_unit_test(test_places_that_never_come),
        cmocka_unit_test(test_late),        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_hang),        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_frames),      cmocka_unit_test(test_oom),
        cmocka_unit_test(test_several),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
