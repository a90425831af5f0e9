/* SPDX-License-Identifier: Apache-2.0 */
/* Quantising plain weights: what a record says is close to what went in, and the corners. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tensor/packed.h"
#include "weights/pack.h"
#include "weights/quantise.h"

enum { N = 64 };

static uint32_t next(uint32_t *random)
{
    *random = *random * 1664525 + 1013904223;
    return *random;
}

/* The values of one row as the packed matrix has them. */
static void values_of(enum dtype dtype, const float *x, float out[N])
{
    const float *rows[PACKED_LANES] = {x};
    struct packed packed;
    void *storage;

    assert_true(packed_init(&packed, dtype, 1, N));
    storage = aligned_alloc(64, round_up(packed_bytes(&packed), 64));
    assert_non_null(storage);
    memset(storage, 0, packed_bytes(&packed));
    assert_true(pack_quantised(&packed, 0, rows, storage));
    packed_attach(&packed, storage);
    for (uint32_t k = 0; k < N; k++) {
        out[k] = packed_value(&packed, 0, k);
    }
    free(storage);
}

/* Every element within half a step of its value, and what rounding the scale to f16 (2^-11 of it)
 * moves: of 127 steps 1/16, and the end of the codes may be cut. */
static void test_q8_0_is_close(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        float x[N];
        float y[N];
        float amax[2] = {0, 0};

        for (uint32_t k = 0; k < N; k++) {
            x[k] = ldexpf((float)(int32_t)next(&random), -31 + round % 16 - 8);
            amax[k / 32] = fmaxf(amax[k / 32], fabsf(x[k]));
        }
        values_of(DTYPE_Q8_0, x, y);
        for (uint32_t k = 0; k < N; k++) {
            assert_true(fabsf(y[k] - x[k]) <= amax[k / 32] / 127.0f * (0.5f + 127.0f * 0x1p-10f));
        }
    }
}

static double squared_error(const float *x, const float *y, uint32_t n)
{
    double sum = 0;

    for (uint32_t k = 0; k < n; k++) {
        sum += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
    }
    return sum;
}

/* What one scale that puts the largest element on -8 gives, the simplest choice. */
static void plain_q4_0(const float *x, float *y)
{
    for (uint32_t k = 0; k < N; k += 32) {
        float most = 0;
        float d;

        for (uint32_t i = k; i < k + 32; i++) {
            most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
        }
        d = f32_from_f16(f16_from_f32(most / -8.0f));
        for (uint32_t i = k; i < k + 32; i++) {
            y[i] = d * fminf(fmaxf(rintf(x[i] / d), -8.0f), 7.0f);
        }
    }
}

/* The search makes it better: on bell-shaped values by a good tenth, over many rows. */
static void test_q4_0_beats_one_scale(void **state)
{
    uint32_t random = 7;
    double found = 0;
    double plain = 0;

    (void)state;
    for (int round = 0; round < 500; round++) {
        float x[N];
        float y[N];
        float z[N];

        for (uint32_t k = 0; k < N; k++) {
            x[k] = 0;
            for (int i = 0; i < 6; i++) {
                x[k] += ldexpf((float)(int32_t)next(&random), -34);
            }
        }
        values_of(DTYPE_Q4_0, x, y);
        plain_q4_0(x, z);
        found += squared_error(x, y, N);
        plain += squared_error(x, z, N);
    }
    print_message("squared error %.3f of that of one scale\n", found / plain);
    assert_true(found < 0.9 * plain);
}

/* What a type has exactly stays exact. */
static void test_exact(void **state)
{
    float x[N];
    float y[N];

    (void)state;
    for (uint32_t k = 0; k < N; k++) {
        x[k] = k % 32 == 0 ? 127.0f : (float)k - 40.0f;
    }
    values_of(DTYPE_Q8_0, x, y);
    assert_memory_equal(x, y, sizeof(x));
    for (uint32_t k = 0; k < N; k++) {
        x[k] = 0.25f * ((float)(k % 16) - 8.0f);
    }
    values_of(DTYPE_Q4_0, x, y);
    assert_memory_equal(x, y, sizeof(x));
    memset(x, 0, sizeof(x));
    for (int i = 0; i < 2; i++) {
        values_of(i == 0 ? DTYPE_Q8_0 : DTYPE_Q4_0, x, y);
        assert_memory_equal(x, y, sizeof(x));
    }
}

static void test_refused(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    uint8_t out[34];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        for (uint32_t at = 0; at < 32; at++) {
            float x[32] = {1.0f, [5] = -2.0f, [30] = 3.0f};

            x[at] = bad[i];
            assert_false(quantise_row(DTYPE_Q8_0, x, 32, out));
            assert_false(quantise_row(DTYPE_Q4_0, x, 32, out));
            x[(at + 7) % 32] = -bad[i]; /* of which no sum may be made */
            assert_false(quantise_row(DTYPE_Q8_0, x, 32, out));
            assert_false(quantise_row(DTYPE_Q4_0, x, 32, out));
        }
    }
    assert_true(quantise_makes(DTYPE_Q8_0) && quantise_makes(DTYPE_Q4_0));
    assert_false(quantise_makes(DTYPE_Q4_K) || quantise_makes(DTYPE_BF16));
}

/* Every half is its own nearest, and the middle between two goes to the even one. */
static void test_f16(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7c00; half++) {
        double low = (double)f32_from_f16((uint16_t)half);
        double high = half + 1 == 0x7c00 ? 65536.0 : (double)f32_from_f16((uint16_t)(half + 1));
        float middle = (float)((low + high) / 2);
        uint32_t even = half + (half & 1);

        assert_int_equal(f16_from_f32((float)low), half);
        assert_int_equal(f16_from_f32((float)-low), half | 0x8000);
        assert_int_equal(f16_from_f32(middle), even);
        assert_int_equal(f16_from_f32(nextafterf(middle, 0.0f)), half);
        assert_int_equal(f16_from_f32(nextafterf(middle, INFINITY)), half + 1);
    }
    assert_int_equal(f16_from_f32(INFINITY), 0x7c00);
    assert_true(isnan(f32_from_f16(f16_from_f32(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_q8_0_is_close), cmocka_unit_test(test_q4_0_beats_one_scale),
        cmocka_unit_test(test_exact),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_f16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
