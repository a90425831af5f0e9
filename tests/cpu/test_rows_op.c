/* SPDX-License-Identifier: Apache-2.0 */
/* Operators on rows that threads share: values that are not numbers are found wherever they are. */
#include <math.h>

#include "kernel_fixture.h"

enum { ROWS = 3, DIM = 16 * 1024 + 5, STRIDE = DIM + 27 };

static void check(struct ops_device *device, float *x, uint32_t n, uint32_t dim)
{
    assert_false(cpu_ops.has_nan(device, x, STRIDE, n, dim));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t columns[] = {0, dim / 3, dim / 2, dim - 1};

        for (size_t j = 0; j < ARRAY_LEN(columns); j++) {
            float *at = x + (size_t)i * STRIDE + columns[j];
            float before = *at;

            *at = NAN;
            assert_true(cpu_ops.has_nan(device, x, STRIDE, n, dim));
            *at = before;
        }
    }
}

/* What lies behind the columns, and behind the rows, does not count; infinities are numbers. */
static void test_has_nan(void **state)
{
    struct kernel_fixture *fixture = *state;
    float *x = kernel_floats(&fixture->random, (ROWS + 1) * STRIDE, KIND_NORMAL, 0);

    for (uint32_t i = 0; i < ROWS; i++) {
        x[i * STRIDE + 7] = -INFINITY;
        for (uint32_t j = DIM; j < STRIDE; j++) {
            x[i * STRIDE + j] = NAN;
        }
    }
    x[ROWS * STRIDE] = NAN;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct ops_device *device = NULL;

        assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = threads}, &device, NULL),
                         STATUS_OK);
        check(device, x, ROWS, DIM);
        check(device, x, 1, DIM);
        check(device, x, ROWS, 40); /* by the calling thread alone */
        cpu_ops.destroy(&device);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_has_nan, kernel_setup, kernel_teardown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
