/* SPDX-License-Identifier: Apache-2.0 */
/* The rates from registers: every level of this machine has them, asked for in a process that has
 * done nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "cpu/peak.h"

static void test_rates(void **state)
{
    (void)state;
    for (enum cpu_level level = CPU_LEVEL_REF; level < CPU_LEVEL_COUNT; level++) {
        if (!cpu_level_is_supported(level)) {
            print_message("%s is not tested: not of this processor\n", cpu_level_name(level));
            continue;
        }
        /* a processor of this century, and none of the next */
        assert_true(cpu_peak_flops(level, 1) > 1e6 && cpu_peak_flops(level, 1) < 1e15);
        assert_true(cpu_peak_bf16_flops(level, 1) > 1e6 && cpu_peak_bf16_flops(level, 1) < 1e15);
        assert_true(cpu_peak_int8_ops(level, 1) > 1e6 && cpu_peak_int8_ops(level, 1) < 1e15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rates)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
