/* SPDX-License-Identifier: Apache-2.0 */
/* An allocation that is made to fail: only a large one, only one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"

enum { LARGE = 1 << 16 };

static void test_mem_alloc(void **state)
{
    void *small;
    void *next;

    (void)state;
    assert_false(mem_fail_pending());
    mem_fail_next(LARGE);
    small = mem_alloc(LARGE - 1, 1);
    assert_non_null(small);
    assert_true(mem_fail_pending());
    assert_null(mem_alloc(LARGE / 4, 4));
    assert_false(mem_fail_pending());
    next = mem_alloc(LARGE, 1);
    assert_non_null(next);
    free(next);
    free(small);
}

static void test_mem_map(void **state)
{
    void *next;

    (void)state;
    mem_fail_next(LARGE);
    assert_null(mem_map(LARGE));
    next = mem_map(LARGE);
    assert_non_null(next);
    mem_unmap(next, LARGE);
}

static void test_other_memory(void **state)
{
    (void)state;
    assert_false(mem_fails(SIZE_MAX));
    mem_fail_next(LARGE);
    assert_false(mem_fails(LARGE - 1));
    assert_true(mem_fails(LARGE));
    assert_false(mem_fails(LARGE));
}

static void test_taken_back(void **state)
{
    (void)state;
    mem_fail_next(LARGE);
    mem_fail_next(0);
    assert_false(mem_fail_pending());
    assert_false(mem_fails(LARGE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mem_alloc),
        cmocka_unit_test(test_mem_map),
        cmocka_unit_test(test_other_memory),
        cmocka_unit_test(test_taken_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
