/* SPDX-License-Identifier: Apache-2.0 */
/* Status pages: what they tell of the living and the dead, and what damage cannot do. */
#include "helpers.h"

#include "rpc/status_page_priv.h"

static struct status_snapshot *snapshot; /* large */
static void *memory;

static int set_up(void **state)
{
    (void)state;
    snapshot = xalloc(sizeof(*snapshot));
    memory = shared_memory(STATUS_PAGE_BYTES);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(snapshot);
    region_unmap(memory, STATUS_PAGE_BYTES);
    return 0;
}

static void take(uint32_t rank)
{
    assert_int_equal(status_page_read(memory, rank, 4, snapshot, NULL), STATUS_OK);
}

static void expect_place(const char *expected)
{
    struct buf text = {0};

    take(2);
    status_snapshot_place(snapshot, "stopped", &text);
    assert_string_equal(buf_str(&text), expected);
    buf_release(&text);
}

static void test_place(void **state)
{
    struct status_writer writer;
    struct status_progress at = {.step = 9812, .layer = 17, .collective = 34, .block = 3};

    (void)state;
    status_page_init(&writer, memory, 2, 4);
    expect_place("rank 2 stopped in phase start");
    status_page_phase(&writer, STATUS_PHASE_LOADING);
    expect_place("rank 2 stopped in phase loading");
    status_page_phase(&writer, STATUS_PHASE_DECODE);
    status_page_progress(&writer, &at);
    expect_place("rank 2 stopped in layer 17, all-reduce 34 of step 9812");
    assert_int_equal(snapshot->pid, getpid());
    assert_int_equal(snapshot->progress.block, 3);
    assert_false(snapshot->progress.waiting);
    assert_true(snapshot->word == status_page_progress_word(memory));
    at.collective = 0;
    at.waiting = true;
    status_page_progress(&writer, &at);
    expect_place("rank 2 stopped in layer 17, block 3 of step 9812");
    assert_true(snapshot->progress.waiting);
}

/* Every step, layer, collective and block comes back; what is too large shows as the largest. */
static void test_progress(void **state)
{
    static const uint64_t steps[] = {0,
                                     1,
                                     UINT32_MAX - 1,
                                     UINT32_MAX,
                                     UINT64_C(1) << 32,
                                     (UINT64_C(1) << 32) + 1,
                                     UINT64_C(77) << 40};
    struct status_writer writer;
    uint64_t last = UINT64_MAX;

    (void)state;
    status_page_init(&writer, memory, 2, 4);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct status_progress at = {.step = steps[i],
                                     .layer = STATUS_LAYER_MAX - (uint32_t)i,
                                     .collective = STATUS_COLLECTIVE_MAX - (uint32_t)i,
                                     .block = STATUS_BLOCK_MAX - (uint32_t)i,
                                     .waiting = i % 2 == 0};

        status_page_progress(&writer, &at);
        take(2);
        assert_true(snapshot->progress.step == at.step);
        assert_int_equal(snapshot->progress.layer, at.layer);
        assert_int_equal(snapshot->progress.collective, at.collective);
        assert_int_equal(snapshot->progress.block, at.block);
        assert_int_equal(snapshot->progress.waiting, at.waiting);
        assert_true(snapshot->word != last);
        last = snapshot->word;
    }
    /* the writer died between the two words, as the low half of the step overflowed */
    ((struct status_page *)memory)->step = UINT64_C(5) << 32;
    ((struct status_page *)memory)->progress = (uint64_t)UINT32_MAX << 32;
    take(2);
    assert_true(snapshot->progress.step == (UINT64_C(5) << 32) - 1);
    {
        struct status_progress at = {.layer = 5000, .collective = 5000, .block = 5000};

        status_page_progress(&writer, &at);
        take(2);
        assert_int_equal(snapshot->progress.layer, STATUS_LAYER_MAX);
        assert_int_equal(snapshot->progress.collective, STATUS_COLLECTIVE_MAX);
        assert_int_equal(snapshot->progress.block, STATUS_BLOCK_MAX);
    }
}

static void test_errors(void **state)
{
    struct status_writer writer;
    char longer[2 * STATUS_PAGE_TEXT];

    (void)state;
    status_page_init(&writer, memory, 2, 4);
    take(2);
    assert_string_equal(snapshot->error, "");
    status_page_error(&writer, "tensor \x1b[31m: \xff");
    take(2);
    assert_string_equal(snapshot->error, "tensor \\x1b[31m: \\xff");
    memset(longer, 'e', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    status_page_error(&writer, longer);
    take(2);
    assert_int_equal(strlen(snapshot->error), STATUS_PAGE_TEXT - 1);
    status_page_error(&writer, "third");
    take(2);
    assert_string_equal(snapshot->error, "third");
    /* the next one was begun and never finished */
    memset((void *)((struct status_page *)memory)->errors[0], 'x', STATUS_PAGE_TEXT);
    take(2);
    assert_string_equal(snapshot->error, "third");
}

static void test_recorder(void **state)
{
    struct status_writer writer;

    (void)state;
    status_page_init(&writer, memory, 2, 4);
    for (uint32_t n = 1; n <= 3 * STATUS_PAGE_EVENTS; n++) {
        status_page_event(&writer, STATUS_EVENT_COLLECTIVE, n, UINT64_MAX - n);
        take(2);
        assert_int_equal(snapshot->n_events, MIN(n, STATUS_PAGE_EVENTS));
        assert_int_equal(snapshot->events[snapshot->n_events - 1].a, n);
        assert_true(snapshot->events[snapshot->n_events - 1].b == UINT64_MAX - n);
        assert_int_equal(snapshot->events[0].a,
                         n < STATUS_PAGE_EVENTS ? 1 : n - STATUS_PAGE_EVENTS + 1);
        for (uint32_t i = 1; i < snapshot->n_events; i++) {
            assert_int_equal(snapshot->events[i].a, snapshot->events[i - 1].a + 1);
            assert_true(snapshot->events[i].ns >= snapshot->events[i - 1].ns);
        }
    }
}

static void test_counters_and_dump(void **state)
{
    struct status_writer writer;
    struct buf text = {0};

    (void)state;
    status_page_init(&writer, memory, 2, 4);
    for (uint32_t c = 0; c < STATUS_COUNTERS; c++) {
        status_page_count(&writer, (enum status_counter)c, c + 1);
        status_page_count(&writer, (enum status_counter)c, 100);
    }
    status_page_phase(&writer, STATUS_PHASE_IDLE);
    status_page_event(&writer, STATUS_EVENT_STEP_BEGIN, 64, 9);
    status_page_error(&writer, "no\nroom");
    status_page_beat(&writer);
    take(2);
    for (uint32_t c = 0; c < STATUS_COUNTERS; c++) {
        assert_int_equal(snapshot->counters[c], c + 101);
    }
    status_snapshot_dump(snapshot, 10, &text);
    assert_non_null(strstr(text.data, "rank 2 is in phase idle\npid "));
    assert_non_null(strstr(text.data, "last error: no\\x0aroom\n"));
    assert_non_null(strstr(text.data, "\nsteps 101\n"));
    assert_non_null(strstr(text.data, "  phase phase=5 from=0\n"));
    assert_non_null(strstr(text.data, "  step_begin rows=64 step=9\n"));
    buf_clear(&text);
    status_snapshot_dump(snapshot, 1, &text);
    assert_null(strstr(text.data, "phase=5"));
    buf_release(&text);
}

static void test_names(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < STATUS_PHASES; i++) {
        assert_string_not_equal(status_phase_text(i), "unknown");
    }
    for (uint32_t i = 0; i < STATUS_COUNTERS; i++) {
        assert_string_not_equal(status_counter_name(i), "unknown");
    }
    for (uint32_t i = 1; i < STATUS_EVENTS; i++) {
        assert_string_not_equal(status_event_name(i), "unknown");
    }
    assert_string_equal(status_phase_text(STATUS_PHASES), "unknown");
    assert_string_equal(status_counter_name(STATUS_COUNTERS), "unknown");
    assert_string_equal(status_event_name(0), "unknown");
    assert_string_equal(status_event_name(STATUS_EVENTS), "unknown");
}

static void test_wrong_page(void **state)
{
    struct status_writer writer;
    struct err err = {0};

    (void)state;
    assert_int_equal(status_page_read(memory, 2, 4, snapshot, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.text, "rank 2: its status page was never started");
    status_page_init(&writer, memory, 2, 4);
    assert_int_equal(status_page_read(memory, 3, 4, snapshot, &err), STATUS_CORRUPT);
    assert_int_equal(status_page_read(memory, 2, 5, snapshot, &err), STATUS_CORRUPT);
    assert_string_equal(err.text, "rank 2: its status page is damaged");
    ((struct status_page *)memory)->magic ^= 1;
    assert_int_equal(status_page_read(memory, 2, 4, snapshot, &err), STATUS_CORRUPT);
}

/* Any bytes: the reader stays within bounds and its text is clean. */
static void test_scribbled(void **state)
{
    struct random random = random_start("scribbled");
    struct status_page *page = memory;

    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 300 : 1500); round++) {
        struct buf text = {0};

        for (size_t i = 0; i < STATUS_PAGE_BYTES / 8; i++) {
            ((uint64_t *)memory)[i] = random_next(&random) >> random_below(&random, 64);
        }
        page->magic = STATUS_PAGE_MAGIC;
        page->epoch = 4;
        page->who = UINT64_C(2) << 32 | random_below(&random, UINT32_MAX);
        for (uint32_t i = 0; i < STATUS_PAGE_EVENTS; i++) {
            if (random_below(&random, 2) == 0) { /* past the checks of events */
                page->events[i].number = i + STATUS_PAGE_EVENTS * (random_next(&random) >> 20);
                page->events[i].what = random_next(&random) >> random_below(&random, 40);
            }
        }
        take(2);
        assert_in_range(snapshot->n_events, 0, STATUS_PAGE_EVENTS);
        for (uint32_t i = 0; i < snapshot->n_events; i++) {
            assert_in_range(snapshot->events[i].type, 1, STATUS_EVENTS - 1);
        }
        status_snapshot_dump(snapshot, STATUS_PAGE_EVENTS, &text);
        for (size_t i = 0; i < text.len; i++) {
            assert_true((unsigned char)text.data[i] >= 0x20 || text.data[i] == '\n');
        }
        buf_release(&text);
    }
}

static NORETURN void busy_child(void)
{
    struct status_writer writer;

    status_page_init(&writer, memory, 2, 4);
    status_page_phase(&writer, STATUS_PHASE_DECODE);
    for (uint32_t n = 1;; n++) {
        struct status_progress at = {.step = n, .layer = n % 30, .collective = n % 60 + 1};
        char text[STATUS_PAGE_TEXT];

        memset(text, 'a' + (int)(n % 26), sizeof(text) - 1);
        text[n % (sizeof(text) - 1)] = '\0';
        status_page_progress(&writer, &at);
        for (uint32_t i = 0; i < 100; i++) { /* most of the time */
            status_page_event(&writer, STATUS_EVENT_STEP_BEGIN, 100 * n + i, 100 * n + i);
        }
        status_page_error(&writer, text);
        status_page_count(&writer, STATUS_COUNTER_STEPS, 1);
        status_page_beat(&writer);
    }
}

/* Killed at a random moment, read before and after: no torn text, no torn event, steps in order. */
static void check_busy(void)
{
    size_t n = 0;

    for (const char *c = snapshot->error; *c != '\0'; c++, n++) {
        assert_int_equal(*c, snapshot->error[0]);
    }
    for (uint32_t i = 0; i < snapshot->n_events; i++) {
        const struct status_record *event = &snapshot->events[i];

        assert_true(event->type == STATUS_EVENT_PHASE || event->b == event->a);
        assert_true(i == 0 || event->ns >= snapshot->events[i - 1].ns);
    }
    assert_int_equal(snapshot->progress.layer,
                     snapshot->progress.step == 0 ? 0 : (uint32_t)(snapshot->word >> 32) % 30);
}

static void test_killed(void **state)
{
    struct random random = random_start("killed");

    (void)state;
    for (uint32_t round = 0; round < (SANITIZED ? 25 : 60); round++) {
        uint64_t start = clock_ns();
        pid_t child;

        memset(memory, 0, STATUS_PAGE_BYTES);
        child = fork_child();
        if (child == 0) {
            busy_child();
        }
        while (status_page_read(memory, 2, 4, snapshot, NULL) != STATUS_OK) {
            assert_in_range(clock_ns() - start, 0, 10000 * MS);
            usleep(50);
        }
        for (uint32_t i = random_below(&random, 30); i > 0; i--) {
            take(2);
            check_busy();
        }
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        take(2);
        check_busy();
        assert_int_equal(snapshot->pid, child);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_progress, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_recorder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_counters_and_dump, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scribbled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
