/* SPDX-License-Identifier: Apache-2.0 */
/* Who stands still: culprit, threshold, patience, time in which nobody looked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "world/hang.h"

enum { MS = 1000000, HANG_MS = 500, LOOK_MS = 50 };

struct watch {
    struct hang hang;
    uint64_t now;
    struct hang_progress at[4];
    struct hang_verdict verdict;
    char text[200];
};

static void begin(struct watch *watch, uint32_t n_ranks)
{
    *watch = (struct watch){.now = 77ull * MS};
    hang_init(&watch->hang, n_ranks, HANG_MS);
    for (uint32_t r = 0; r < n_ranks; r++) {
        watch->at[r] = (struct hang_progress){.step = 9812, .layer = 17, .collective = 34};
    }
}

/* Looks every look_ms for ms; true at the first alarm. */
static bool look_for(struct watch *watch, uint32_t ms, uint32_t look_ms)
{
    for (uint32_t t = 0; t < ms; t += look_ms) {
        watch->now += (uint64_t)look_ms * MS;
        if (hang_look(&watch->hang, watch->now, watch->at, &watch->verdict)) {
            hang_text(&watch->verdict, watch->text, sizeof(watch->text));
            return true;
        }
    }
    return false;
}

static void test_the_one_that_does_not_wait(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 4);
    for (uint32_t r = 0; r < 4; r++) {
        watch.at[r].waiting = r != 2;
    }
    assert_false(look_for(&watch, HANG_MS, LOOK_MS)); /* the first look only begins */
    assert_true(look_for(&watch, LOOK_MS, LOOK_MS));
    assert_int_equal(watch.verdict.rank, 2);
    assert_string_equal(watch.text, "rank 2 stopped in layer 17, all-reduce 34 of step 9812");
    assert_int_equal(watch.verdict.still_ns, (uint64_t)HANG_MS * MS);
}

static void test_all_wait(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 3);
    for (uint32_t r = 0; r < 3; r++) {
        watch.at[r].waiting = true;
    }
    watch.at[1].collective = 33;
    watch.at[0].step = 9813; /* ahead, though its number in the step is lower */
    watch.at[0].collective = 1;
    assert_true(look_for(&watch, 2 * HANG_MS, LOOK_MS));
    assert_int_equal(watch.verdict.rank, 1);
    assert_string_equal(watch.text, "all ranks wait; rank 1 is furthest behind, in layer 17, "
                                    "all-reduce 33 of step 9812");
}

/* Two that say they wait at the same place: one of them was stopped before it arrived. */
static void test_all_wait_and_one_is_stopped(void **state)
{
    (void)state;
    for (uint32_t culprit = 0; culprit < 3; culprit++) {
        struct watch watch;
        char expected[96];

        begin(&watch, 3);
        for (uint32_t r = 0; r < 3; r++) {
            watch.at[r].waiting = true;
        }
        watch.at[culprit].stopped = true;
        assert_true(look_for(&watch, 2 * HANG_MS, LOOK_MS));
        assert_int_equal(watch.verdict.rank, culprit);
        snprintf(expected, sizeof(expected),
                 "rank %u stopped in layer 17, all-reduce 34 of step 9812", (unsigned)culprit);
        assert_string_equal(watch.text, expected);
    }
}

/* One is stopped while it says that it waits; another, short of processor time, has not moved in as
 * long, and a third moves. */
static void test_stopped_comes_first(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 3);
    watch.at[1].waiting = true;
    watch.at[1].stopped = true;
    for (uint32_t t = 0; t < HANG_MS / LOOK_MS; t++) {
        watch.at[2].block++;
        assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
    }
    watch.at[2].block++;
    assert_true(look_for(&watch, LOOK_MS, LOOK_MS));
    assert_int_equal(watch.verdict.rank, 1);
}

static void test_patience_with_a_slow_rank(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 2);
    watch.at[0].waiting = true;
    for (int i = 0; i < 100; i++) { /* rank 0 waits for seconds, rank 1 works */
        watch.at[1].block++;
        assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
    }
    assert_true(look_for(&watch, 2 * HANG_MS, LOOK_MS));
    assert_int_equal(watch.verdict.rank, 1);
}

static void test_idle_is_no_hang(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 2);
    watch.at[0].idle = true;
    watch.at[1].idle = true;
    assert_false(look_for(&watch, 20 * HANG_MS, LOOK_MS));
    watch.at[0].waiting = true; /* work for rank 0 only: rank 1 has not seen it yet */
    watch.at[0].idle = false;
    assert_false(look_for(&watch, HANG_MS, LOOK_MS));
    watch.at[1] = (struct hang_progress){.step = 9813};
    assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
    assert_int_equal(watch.hang.longest_gap_ns, 0); /* what was idle before was no gap */
    assert_true(look_for(&watch, HANG_MS, LOOK_MS));
    assert_int_equal(watch.verdict.rank, 1);
}

static void test_threshold_grows_with_the_gaps(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 1);
    assert_int_equal(hang_threshold_ns(&watch.hang), (uint64_t)HANG_MS * MS);
    assert_false(look_for(&watch, 200, LOOK_MS)); /* the first of the looks begins */
    watch.at[0].block++;
    assert_false(look_for(&watch, LOOK_MS, LOOK_MS)); /* a gap of 200 ms that ended well */
    assert_int_equal(watch.hang.longest_gap_ns, 200ull * MS);
    assert_int_equal(hang_threshold_ns(&watch.hang), 2000ull * MS);
    assert_false(look_for(&watch, 2000 - LOOK_MS, LOOK_MS));
    assert_true(look_for(&watch, LOOK_MS, LOOK_MS));
    hang_restart(&watch.hang, 1); /* the next epoch knows the machine */
    assert_int_equal(hang_threshold_ns(&watch.hang), 2000ull * MS);
    assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
}

/* A leader that was stopped with its ranks must not kill them when all are continued. */
static void test_unwatched_time_does_not_count(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 1);
    assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
    assert_false(look_for(&watch, 3 * 60000, 60000)); /* three looks in three minutes */
    assert_true(look_for(&watch, 60000, 60000));
    watch.now = 0; /* a clock that goes back adds nothing */
    hang_restart(&watch.hang, 1);
    assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
}

/* Every place of the word counts as a move. */
static void test_every_field_moves(void **state)
{
    struct watch watch;

    (void)state;
    begin(&watch, 1);
    for (int i = 0; i < 60; i++) {
        watch.at[0].step += i % 5 == 0;
        watch.at[0].layer += i % 5 == 1;
        watch.at[0].collective += i % 5 == 2;
        watch.at[0].block += i % 5 == 3;
        watch.at[0].waiting = i % 5 == 4;
        assert_false(look_for(&watch, LOOK_MS, LOOK_MS));
    }
    assert_int_equal(watch.hang.longest_gap_ns, (uint64_t)LOOK_MS * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_one_that_does_not_wait),
        cmocka_unit_test(test_all_wait),
        cmocka_unit_test(test_all_wait_and_one_is_stopped),
        cmocka_unit_test(test_stopped_comes_first),
        cmocka_unit_test(test_patience_with_a_slow_rank),
        cmocka_unit_test(test_idle_is_no_hang),
        cmocka_unit_test(test_threshold_grows_with_the_gaps),
        cmocka_unit_test(test_unwatched_time_does_not_count),
        cmocka_unit_test(test_every_field_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
