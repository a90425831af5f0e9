/* SPDX-License-Identifier: Apache-2.0 */
/* Levels by name: those of this kind of processor, and no others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "cpu/cpu.h"

#if defined(__x86_64__)
#define HERE  "ref, avx2, avx-vnni, avx512, avx512-vnni, avx512-bf16, amx"
#define OTHER "neon-dot"
static const enum cpu_level FIRST = CPU_LEVEL_AVX2;
static const enum cpu_level LAST = CPU_LEVEL_AMX;
static const enum cpu_level FIRST_OTHER = CPU_LEVEL_NEON;
#else
#define HERE  "ref, neon, neon-dot"
#define OTHER "avx512-vnni"
static const enum cpu_level FIRST = CPU_LEVEL_NEON;
static const enum cpu_level LAST = CPU_LEVEL_NEONDOT;
static const enum cpu_level FIRST_OTHER = CPU_LEVEL_AVX2;
#endif

static void test_parse(void **state)
{
    enum cpu_level found = CPU_LEVEL_COUNT;
    struct err err = {0};

    (void)state;
    for (enum cpu_level level = FIRST; level <= LAST; level++) {
        char number[2] = {(char)('0' + (int)level), '\0'};

        assert_int_equal(cpu_level_parse(cpu_level_name(level), &found, &err), STATUS_OK);
        assert_int_equal(found, level);
        found = CPU_LEVEL_COUNT;
        assert_int_equal(cpu_level_parse(number, &found, &err), STATUS_OK);
        assert_int_equal(found, level);
    }
    assert_int_equal(cpu_level_parse("REF", &found, &err), STATUS_OK);
    assert_int_equal(found, CPU_LEVEL_REF);
}

static void test_refused(void **state)
{
    const char number[2] = {(char)('0' + (int)FIRST_OTHER), '\0'};
    const char past[2] = {(char)('0' + (int)CPU_LEVEL_COUNT), '\0'};
    const char *const texts[] = {OTHER, number, "", past, "00", "sse9"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        enum cpu_level found = CPU_LEVEL_COUNT;
        struct err err = {0};
        char expected[128];

        snprintf(expected, sizeof(expected), "--cpu-mask: '%s' is none of " HERE, texts[i]);
        assert_int_equal(cpu_level_parse(texts[i], &found, &err), STATUS_INVALID);
        assert_string_equal(err.text, expected);
        assert_int_equal(found, CPU_LEVEL_COUNT);
    }
}

static void test_supported(void **state)
{
    enum cpu_level best = cpu_level_supported();

    (void)state;
    assert_true(cpu_level_is_supported(CPU_LEVEL_REF));
    assert_true(cpu_level_is_supported(best));
    assert_true(best == CPU_LEVEL_REF || (best >= FIRST && best <= LAST));
    assert_false(cpu_level_is_supported(FIRST_OTHER));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_supported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
