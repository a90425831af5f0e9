/* SPDX-License-Identifier: Apache-2.0 */
/* Names, sizes and the two small float types, over all their values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "tensor/dtype.h"

static void test_names_and_numbers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        const struct dtype_info *info = dtype_info((enum dtype)i);
        enum dtype found = DTYPE_COUNT;

        /* what no file has cannot be asked for */
        assert_int_equal(dtype_from_name(info->name, &found), i != DTYPE_BF16_12);
        assert_int_equal(info->ggml_type >= 0, i != DTYPE_BF16_12);
        if (info->ggml_type >= 0) {
            assert_int_equal(found, i);
            assert_true(dtype_from_ggml((uint32_t)info->ggml_type, &found));
            assert_int_equal(found, i);
        }
        assert_int_equal(dtype_is_quantised((enum dtype)i), info->name[0] == 'Q');
    }
}

static void test_unknown_names(void **state)
{
    enum dtype dtype = DTYPE_Q8_0;

    (void)state;
    assert_true(dtype_from_name("bf16", &dtype));
    assert_int_equal(dtype, DTYPE_BF16);
    assert_false(dtype_from_name("", &dtype));
    assert_false(dtype_from_name("Q4", &dtype));
    assert_false(dtype_from_ggml(9, &dtype)); /* Q8_1: an intermediate of its home, not stored */
    assert_false(dtype_from_ggml(UINT32_MAX, &dtype));
    assert_int_equal(dtype, DTYPE_BF16); /* untouched */
}

static void test_bytes(void **state)
{
    size_t bytes = 7;

    (void)state;
    assert_true(dtype_bytes(DTYPE_F32, 3, &bytes));
    assert_int_equal(bytes, 12);
    assert_true(dtype_bytes(DTYPE_Q8_0, 64, &bytes));
    assert_int_equal(bytes, 68);
    assert_true(dtype_bytes(DTYPE_Q4_1, 32, &bytes));
    assert_int_equal(bytes, 20);
    assert_true(dtype_bytes(DTYPE_Q6_K, 256, &bytes));
    assert_int_equal(bytes, 256 / 2 + 256 / 4 + 16 + 2);
    assert_true(dtype_bytes(DTYPE_Q4_K, 512, &bytes));
    assert_int_equal(bytes, 2 * (256 / 2 + 12 + 2 * 2));
    assert_true(dtype_bytes(DTYPE_Q5_K, 0, &bytes));
    assert_int_equal(bytes, 0);
    assert_false(dtype_bytes(DTYPE_Q8_0, 63, &bytes));
    assert_false(dtype_bytes(DTYPE_Q4_K, 32, &bytes));
    assert_false(dtype_bytes(DTYPE_F32, SIZE_MAX / 2, &bytes));
    assert_int_equal(bytes, 0); /* untouched */
}

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* sign * 2^e * (1 + m/1024), straight from IEEE 754's definition of binary16. */
static void test_every_f16(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 1u << 16; half++) {
        int exponent = (int)(half >> 10 & 0x1f);
        int mantissa = (int)(half & 0x3ff);
        float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
        float value = f32_from_f16((uint16_t)half);

        if (exponent == 31 && mantissa != 0) {
            assert_true(isnan(value));
        } else if (exponent == 31) {
            assert_true(isinf(value) && copysignf(1.0f, value) == sign);
        } else {
            float expected = exponent == 0 ? ldexpf((float)mantissa, -24)
                                           : ldexpf((float)(1024 + mantissa), exponent - 25);

            assert_int_equal(bits_of(value), bits_of(sign * expected));
        }
    }
}

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void test_every_bf16(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 1u << 16; b++) {
        float value = f32_from_bf16((uint16_t)b);

        assert_int_equal(bits_of(value), b << 16);
        if (isnan(value)) {
            assert_true(isnan(f32_from_bf16(bf16_from_f32(value))));
        } else {
            assert_int_equal(bf16_from_f32(value), b);
        }
    }
}

/* Between two neighbours the nearer one, at the middle the even one. */
static void test_bf16_rounding(void **state)
{
    (void)state;
    for (uint32_t b = 0; b < 0x7f80; b++) {
        uint32_t low = b << 16;

        assert_int_equal(bf16_from_f32(float_of(low + 0x7fff)), b);
        assert_int_equal(bf16_from_f32(float_of(low + 0x8000)), b + (b & 1));
        assert_int_equal(bf16_from_f32(float_of(low + 0x8001)), b + 1);
        assert_int_equal(bf16_from_f32(-float_of(low + 0x8001)), 0x8000 + b + 1);
    }
    assert_true(isnan(f32_from_bf16(bf16_from_f32(float_of(0x7f800001))))); /* a low payload */
    assert_true(isnan(f32_from_bf16(bf16_from_f32(float_of(0xffffffff)))));
    assert_int_equal(bf16_from_f32(INFINITY), 0x7f80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_numbers),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_every_f16),
        cmocka_unit_test(test_every_bf16),
        cmocka_unit_test(test_bf16_rounding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
