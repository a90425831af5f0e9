/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this project's tests use of cmocka's interface, for processors that there is no cmocka for
 * on the machine that builds: every test runs in the one process, a failed assertion ends its test,
 * signals end the program. Include directories decide which of the two a test gets.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int cross_fixture_fn(void **state);

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    cross_fixture_fn *setup;
    cross_fixture_fn *teardown;
};

enum cross_outcome { CROSS_PASSED, CROSS_FAILED, CROSS_SKIPPED };

/* Where an assertion that does not hold, and skip(), go on; of the thread that runs the tests. */
static jmp_buf cross_out;

__attribute__((noreturn, unused)) static void cross_end(enum cross_outcome outcome)
{
    longjmp(cross_out, (int)outcome);
}

__attribute__((noreturn, unused, format(printf, 3, 4))) static void
cross_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    cross_end(CROSS_FAILED);
}

/* Runs one part of a test; false if it ended early or a fixture reported an error. */
static enum cross_outcome cross_call(void (*run)(void **), cross_fixture_fn *fixture, void **state)
{
    int outcome = setjmp(cross_out);

    if (outcome != CROSS_PASSED) {
        return (enum cross_outcome)outcome;
    }
    if (run != NULL) {
        run(state);
        return CROSS_PASSED;
    }
    return fixture == NULL || fixture(state) == 0 ? CROSS_PASSED : CROSS_FAILED;
}

static enum cross_outcome cross_run(const struct CMUnitTest *test, void *group)
{
    void *state = group;
    enum cross_outcome outcome = cross_call(NULL, test->setup, &state);

    if (outcome == CROSS_PASSED) {
        outcome = cross_call(test->run, NULL, &state);
    }
    if (cross_call(NULL, test->teardown, &state) == CROSS_FAILED) {
        outcome = CROSS_FAILED;
    }
    return outcome;
}

/* How many failed. */
static int cross_run_group(const struct CMUnitTest *tests, size_t n, cross_fixture_fn *setup,
                           cross_fixture_fn *teardown)
{
    static const char *const words[] = {"      OK", "  FAILED", " SKIPPED"};
    void *group = NULL;
    int failed = 0;

    if (cross_call(NULL, setup, &group) != CROSS_PASSED) {
        fprintf(stderr, "[  FAILED ] the fixture of all tests\n");
        return (int)n;
    }
    for (size_t i = 0; i < n; i++) {
        enum cross_outcome outcome = cross_run(&tests[i], group);

        printf("[ %s ] %s\n", words[outcome], tests[i].name);
        fflush(stdout);
        failed += outcome == CROSS_FAILED;
    }
    return failed + (cross_call(NULL, teardown, &group) != CROSS_PASSED);
}

#define cmocka_unit_test(test)  \
    (struct CMUnitTest)         \
    {                           \
#test, test, NULL, NULL \
    }
#define cmocka_unit_test_setup_teardown(test, setup, teardown) \
    (struct CMUnitTest)                                        \
    {                                                          \
#test, test, setup, teardown                           \
    }
#define cmocka_run_group_tests(tests, setup, teardown) \
    cross_run_group(tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

#define skip()             cross_end(CROSS_SKIPPED)
#define fail_msg(...)      cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define print_message(...) printf(__VA_ARGS__)

#define assert_true(value)                                            \
    do {                                                              \
        if (!(value)) {                                               \
            cross_fail(__FILE__, __LINE__, "%s is not true", #value); \
        }                                                             \
    } while (0)
#define assert_false(value)    assert_true(!(value))
#define assert_null(value)     assert_true((value) == NULL)
#define assert_non_null(value) assert_true((value) != NULL)

#define assert_int_equal(a, b)                                                                    \
    do {                                                                                          \
        long long cross_a = (long long)(a);                                                       \
        long long cross_b = (long long)(b);                                                       \
                                                                                                  \
        if (cross_a != cross_b) {                                                                 \
            cross_fail(__FILE__, __LINE__, "%s is %lld, not %s, %lld", #a, cross_a, #b, cross_b); \
        }                                                                                         \
    } while (0)
#define assert_in_range(value, least, most) assert_true((value) >= (least) && (value) <= (most))
#define assert_ptr_equal(a, b)              assert_true((const void *)(a) == (const void *)(b))
#define assert_string_equal(a, b)                                                             \
    do {                                                                                      \
        const char *cross_a = (a);                                                            \
        const char *cross_b = (b);                                                            \
                                                                                              \
        if (strcmp(cross_a, cross_b) != 0) {                                                  \
            cross_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #a, cross_a, cross_b); \
        }                                                                                     \
    } while (0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
