/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as integers: values that can be told by hand, the corners, and groups along leaves.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "tensor/quant.h"

static void test_group(void **state)
{
    const float x[] = {127.0f, -127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.25f, -0.0f, 63.75f};
    const int8_t expected[] = {127, -127, 0, 2, 2, 0, -2, 0, 0, 64};
    int8_t codes[QUANT_GROUP];
    float scale;
    int32_t sum;

    (void)state;
    quant_group(x, 3, ARRAY_LEN(x), codes, &scale, &sum);
    assert_true(scale == 1.0f);
    assert_int_equal(sum, 66);
    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        bool own = i >= 3 && i < 3 + ARRAY_LEN(x);

        assert_int_equal(codes[i], own ? expected[i - 3] : 0);
    }
}

/* Every code of a finite group is within 127, and half a step from its value (and the rounding of
 * three operations, each 2^-24 of at most 127 steps). */
static void test_error_is_half_a_step(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        float x[QUANT_GROUP];
        int8_t codes[QUANT_GROUP];
        float scale;
        int32_t sum;
        int32_t expected = 0;

        for (uint32_t i = 0; i < QUANT_GROUP; i++) {
            random = random * 1664525 + 1013904223;
            x[i] = ldexpf((float)(int32_t)random, (int)(random >> 8) % 12 - 31 + round % 160 - 60);
        }
        quant_group(x, 0, QUANT_GROUP, codes, &scale, &sum);
        for (uint32_t i = 0; i < QUANT_GROUP; i++) {
            assert_in_range(codes[i] + 127, 0, 254);
            assert_true(fabs((double)x[i] - (double)codes[i] * (double)scale) <=
                        (double)scale * (0.5 + 127 * 3 * 0x1p-24));
            expected += codes[i];
        }
        assert_int_equal(sum, expected);
    }
}

/* Wide codes: 32,512 steps on either side; the rounding of three operations on each. */
static void test_wide_error_is_half_a_step(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        float x[QUANT_GROUP];
        int16_t codes[QUANT_GROUP];
        float scale;
        int32_t sum;
        int32_t expected = 0;

        for (uint32_t i = 0; i < QUANT_GROUP; i++) {
            random = random * 1664525 + 1013904223;
            x[i] = ldexpf((float)(int32_t)random, (int)(random >> 8) % 12 - 31 + round % 160 - 60);
        }
        quant_group_wide(x, 0, QUANT_GROUP, codes, &scale, &sum);
        for (uint32_t i = 0; i < QUANT_GROUP; i++) {
            int32_t code = codes[quant_wide_at(i)];

            assert_in_range(code + 32512, 0, 65024);
            assert_true(fabs((double)x[i] - code * (double)scale) <=
                        (double)scale * (0.5 + 32512 * 3 * 0x1p-24));
            expected += code;
        }
        assert_int_equal(sum, expected);
    }
}

/* Every column has its place. */
static void test_wide_order(void **state)
{
    float x[QUANT_GROUP];
    int16_t codes[QUANT_GROUP];
    float scale;
    int32_t sum;

    (void)state;
    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        x[i] = (float)i;
    }
    x[0] = 32512.0f; /* so that a step is 1 */
    quant_group_wide(x, 0, QUANT_GROUP, codes, &scale, &sum);
    assert_true(scale == 1.0f);
    assert_int_equal(sum, 32512 + 31 * 32 / 2);
    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        assert_int_equal(codes[i], i == 0 ? 32512 : i < 16 ? 2 * i : 2 * (i - 16) + 1);
    }
}

static void check_corner(float special, float other, float expected_scale)
{
    float x[QUANT_GROUP];
    int8_t codes[QUANT_GROUP];
    int16_t wide[QUANT_GROUP];
    float scale;
    int32_t sum;

    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        x[i] = i == 17 ? special : other;
    }
    quant_group(x, 0, QUANT_GROUP, codes, &scale, &sum);
    assert_true(isnan(expected_scale) ? isnan(scale) : scale == expected_scale && !signbit(scale));
    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        assert_int_equal(codes[i], 0);
    }
    assert_int_equal(sum, 0);
    quant_group_wide(x, 0, QUANT_GROUP, wide, &scale, &sum);
    assert_true(isnan(expected_scale) ? isnan(scale) : scale == expected_scale && !signbit(scale));
    for (uint32_t i = 0; i < QUANT_GROUP; i++) {
        assert_int_equal(wide[i], 0);
    }
    assert_int_equal(sum, 0);
}

static void test_corners(void **state)
{
    (void)state;
    check_corner(NAN, 1.0f, NAN);
    check_corner(-NAN, INFINITY, NAN);
    check_corner(INFINITY, 1.0f, NAN);
    check_corner(-INFINITY, 1.0f, NAN);
    check_corner(-0.0f, 0.0f, 0.0f);
    check_corner(-0x1.fffffep-101f, 0x1p-149f, 0.0f); /* the greatest that counts as nothing */
}

/* Groups are cut where leaves end; each says nothing of its neighbour's columns. */
static void test_row(void **state)
{
    uint32_t bounds[] = {0, 40, 40, 100};
    uint8_t merges[3] = {0};
    const struct leaf_plan plan = {.n_leaves = 3, .bounds = bounds, .merges = merges};
    const uint32_t begins[] = {0, 32, 40, 64, 96};
    const uint32_t ends[] = {32, 40, 64, 96, 100};
    float x[100];
    int8_t codes[5][QUANT_GROUP];
    int8_t expected[QUANT_GROUP];
    float scales[5];
    int32_t sums[5];

    (void)state;
    for (uint32_t i = 0; i < ARRAY_LEN(x); i++) {
        x[i] = (float)(i * i) - 700.0f;
    }
    assert_int_equal(quant_n_groups(&plan), ARRAY_LEN(begins));
    quant_row(
        x, &plan,
        &(struct quant){
            .n_groups = ARRAY_LEN(begins), .codes = codes[0], .scales = scales, .sums = sums});
    for (uint32_t g = 0; g < ARRAY_LEN(begins); g++) {
        float scale;
        int32_t sum;

        quant_group(x + begins[g], begins[g] % QUANT_GROUP, ends[g] - begins[g], expected, &scale,
                    &sum);
        assert_memory_equal(codes[g], expected, QUANT_GROUP);
        assert_true(scales[g] == scale);
        assert_int_equal(sums[g], sum);
    }
}

static void test_bytes(void **state)
{
    _Alignas(64) char memory[2048];
    size_t bytes;
    struct quant q;

    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        assert_true(quant_bytes(3, 5, wide != 0, &bytes));
        assert_int_equal(bytes, 3 * 5 * (32 * (wide + 1) + 4 + 4));
        q = quant_attach(memory, 3, 5, wide != 0);
        assert_ptr_equal(wide != 0 ? (void *)q.wide : (void *)q.codes, memory);
        assert_ptr_equal(q.sums + 15, memory + bytes);
        assert_false(quant_bytes(UINT32_MAX, UINT32_MAX, wide != 0, &bytes));
        q = quant_from(q, 2);
        assert_ptr_equal(wide != 0 ? (void *)q.wide : (void *)q.codes,
                         memory + 2 * 5 * 32 * (wide + 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_error_is_half_a_step),
        cmocka_unit_test(test_wide_error_is_half_a_step),
        cmocka_unit_test(test_wide_order),
        cmocka_unit_test(test_corners),
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
