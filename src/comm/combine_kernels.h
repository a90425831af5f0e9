/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of combine.h once for every vector width: whoever includes this (combine_ref.c,
 * combine_avx2.c) says the width in bytes, and gets static functions and the table of them. All are
 * element by element, so that the width changes no bit. A tail is computed as a vector whose rest
 * is zero. out may be a or b.
 */
#pragma once

#include "comm/combine.h"
#include "tensor/dtype.h"

#ifndef COMBINE_VECTOR
#define COMBINE_VECTOR 16
#endif

#define COMBINE_VECTOR_OF(type, bytes) type __attribute__((vector_size(bytes)))
typedef COMBINE_VECTOR_OF(float, COMBINE_VECTOR) combine_f32s;
typedef COMBINE_VECTOR_OF(double, COMBINE_VECTOR) combine_f64s;
typedef COMBINE_VECTOR_OF(int8_t, COMBINE_VECTOR) combine_i8s;
typedef COMBINE_VECTOR_OF(uint8_t, COMBINE_VECTOR) combine_u8s;
typedef COMBINE_VECTOR_OF(int16_t, COMBINE_VECTOR) combine_i16s;
typedef COMBINE_VECTOR_OF(int32_t, COMBINE_VECTOR) combine_i32s;
typedef COMBINE_VECTOR_OF(uint32_t, COMBINE_VECTOR) combine_u32s;
typedef COMBINE_VECTOR_OF(int64_t, COMBINE_VECTOR) combine_i64s;
typedef COMBINE_VECTOR_OF(uint64_t, COMBINE_VECTOR) combine_u64s;
typedef COMBINE_VECTOR_OF(uint16_t, COMBINE_VECTOR / 2) combine_halves; /* as many as f32s */

/* A function that makes z of x and y, all of them such vectors. */
#define COMBINE_BINARY(function, vector, expression)                               \
    static UNUSED void function(void *out, const void *a, const void *b, size_t n) \
    {                                                                              \
        size_t bytes = n * sizeof(((vector *)NULL)[0][0]);                         \
        size_t at = 0;                                                             \
        vector x;                                                                  \
        vector y;                                                                  \
        vector z;                                                                  \
                                                                                   \
        for (; at + sizeof(z) <= bytes; at += sizeof(z)) {                         \
            memcpy(&x, (const char *)a + at, sizeof(x));                           \
            memcpy(&y, (const char *)b + at, sizeof(y));                           \
            z = (expression);                                                      \
            memcpy((char *)out + at, &z, sizeof(z));                               \
        }                                                                          \
        if (at < bytes) {                                                          \
            x = (vector){0};                                                       \
            y = (vector){0};                                                       \
            memcpy(&x, (const char *)a + at, bytes - at);                          \
            memcpy(&y, (const char *)b + at, bytes - at);                          \
            z = (expression);                                                      \
            memcpy((char *)out + at, &z, bytes - at);                              \
        }                                                                          \
    }

/* x where the mask is set, else y. */
#define COMBINE_CHOOSE(vector, mask, x, y) (((x) & (vector)(mask)) | ((y) & ~(vector)(mask)))

/* Floats as integers of the same size: in this form their order is that of the numbers, -0 below
 * +0; the magnitude of a NaN is above infinity's. */
#define COMBINE_ORDERED(x, sign_at, magnitude) ((x) ^ (((x) >> (sign_at)) & (magnitude)))
#define COMBINE_IS_NAN(x, magnitude, infinity) (((x) & (magnitude)) > (infinity))

#define COMBINE_EXTREME(vector, sign_at, magnitude, infinity, quiet, less)                       \
    COMBINE_CHOOSE(                                                                              \
        vector, COMBINE_IS_NAN(x, magnitude, infinity) | COMBINE_IS_NAN(y, magnitude, infinity), \
        (vector){0} + (quiet),                                                                   \
        COMBINE_CHOOSE(vector,                                                                   \
                       COMBINE_ORDERED(x, sign_at, magnitude)                                    \
                           less COMBINE_ORDERED(y, sign_at, magnitude),                          \
                       x, y))

#define COMBINE_F16(less)  COMBINE_EXTREME(combine_i16s, 15, 0x7fff, 0x7c00, 0x7e00, less)
#define COMBINE_BF16(less) COMBINE_EXTREME(combine_i16s, 15, 0x7fff, 0x7f80, 0x7fc0, less)
#define COMBINE_F32(less) \
    COMBINE_EXTREME(combine_i32s, 31, 0x7fffffff, 0x7f800000, 0x7fc00000, less)
#define COMBINE_F64(less)                                                                         \
    COMBINE_EXTREME(combine_i64s, 63, 0x7fffffffffffffff, 0x7ff0000000000000, 0x7ff8000000000000, \
                    less)

COMBINE_BINARY(sum_f32, combine_f32s, x + y)
COMBINE_BINARY(sum_f64, combine_f64s, x + y)
COMBINE_BINARY(sum_8, combine_u8s, x + y)
COMBINE_BINARY(sum_32, combine_u32s, x + y)
COMBINE_BINARY(sum_64, combine_u64s, x + y)
COMBINE_BINARY(prod_f32, combine_f32s, x *y)
COMBINE_BINARY(prod_f64, combine_f64s, x *y)
COMBINE_BINARY(prod_8, combine_u8s, x *y)
COMBINE_BINARY(prod_32, combine_u32s, x *y)
COMBINE_BINARY(prod_64, combine_u64s, x *y)
COMBINE_BINARY(min_f16, combine_i16s, COMBINE_F16(<))
COMBINE_BINARY(max_f16, combine_i16s, COMBINE_F16(>))
COMBINE_BINARY(min_bf16, combine_i16s, COMBINE_BF16(<))
COMBINE_BINARY(max_bf16, combine_i16s, COMBINE_BF16(>))
COMBINE_BINARY(min_f32, combine_i32s, COMBINE_F32(<))
COMBINE_BINARY(max_f32, combine_i32s, COMBINE_F32(>))
COMBINE_BINARY(min_f64, combine_i64s, COMBINE_F64(<))
COMBINE_BINARY(max_f64, combine_i64s, COMBINE_F64(>))
COMBINE_BINARY(min_i8, combine_i8s, COMBINE_CHOOSE(combine_i8s, x < y, x, y))
COMBINE_BINARY(max_i8, combine_i8s, COMBINE_CHOOSE(combine_i8s, x > y, x, y))
COMBINE_BINARY(min_u8, combine_u8s, COMBINE_CHOOSE(combine_u8s, x < y, x, y))
COMBINE_BINARY(max_u8, combine_u8s, COMBINE_CHOOSE(combine_u8s, x > y, x, y))
COMBINE_BINARY(min_i32, combine_i32s, COMBINE_CHOOSE(combine_i32s, x < y, x, y))
COMBINE_BINARY(max_i32, combine_i32s, COMBINE_CHOOSE(combine_i32s, x > y, x, y))
COMBINE_BINARY(min_u32, combine_u32s, COMBINE_CHOOSE(combine_u32s, x < y, x, y))
COMBINE_BINARY(max_u32, combine_u32s, COMBINE_CHOOSE(combine_u32s, x > y, x, y))
COMBINE_BINARY(min_i64, combine_i64s, COMBINE_CHOOSE(combine_i64s, x < y, x, y))
COMBINE_BINARY(max_i64, combine_i64s, COMBINE_CHOOSE(combine_i64s, x > y, x, y))
COMBINE_BINARY(min_u64, combine_u64s, COMBINE_CHOOSE(combine_u64s, x < y, x, y))
COMBINE_BINARY(max_u64, combine_u64s, COMBINE_CHOOSE(combine_u64s, x > y, x, y))

enum { COMBINE_LANES = COMBINE_VECTOR / 4 };

static UNUSED void widen_bf16(void *out, const void *in, size_t n)
{
    const uint16_t *from = in;
    uint32_t *to = out;
    size_t i = 0;

    for (; i + COMBINE_LANES <= n; i += COMBINE_LANES) {
        combine_halves half;
        combine_u32s full;

        memcpy(&half, from + i, sizeof(half));
        full = __builtin_convertvector(half, combine_u32s) << 16;
        memcpy(to + i, &full, sizeof(full));
    }
    for (; i < n; i++) {
        to[i] = (uint32_t)from[i] << 16;
    }
}

/* To nearest even; as bf16_from_f32. */
static UNUSED void narrow_bf16(void *out, const void *in, size_t n)
{
    const float *from = in;
    uint16_t *to = out;
    size_t i = 0;

    for (; i + COMBINE_LANES <= n; i += COMBINE_LANES) {
        combine_halves half;
        combine_u32s full;
        combine_u32s rounded;

        memcpy(&full, from + i, sizeof(full));
        rounded = (full + 0x7fff + ((full >> 16) & 1)) >> 16;
        rounded = COMBINE_CHOOSE(combine_u32s, (full & 0x7fffffff) > 0x7f800000, full >> 16 | 0x40,
                                 rounded);
        half = __builtin_convertvector(rounded, combine_halves);
        memcpy(to + i, &half, sizeof(half));
    }
    for (; i < n; i++) {
        to[i] = bf16_from_f32(from[i]);
    }
}

#define COMBINE_TABLE                                                                             \
    {                                                                                             \
        [COMM_F32] = {sum_f32, prod_f32, min_f32, max_f32},                                       \
        [COMM_F64] = {sum_f64, prod_f64, min_f64, max_f64},                                       \
        [COMM_F16] = {NULL, NULL, min_f16, max_f16},                                              \
        [COMM_BF16] = {NULL, NULL, min_bf16, max_bf16},                                           \
        [COMM_I8] = {sum_8, prod_8, min_i8, max_i8}, [COMM_U8] = {sum_8, prod_8, min_u8, max_u8}, \
        [COMM_I32] = {sum_32, prod_32, min_i32, max_i32},                                         \
        [COMM_U32] = {sum_32, prod_32, min_u32, max_u32},                                         \
        [COMM_I64] = {sum_64, prod_64, min_i64, max_i64},                                         \
        [COMM_U64] = {sum_64, prod_64, min_u64, max_u64},                                         \
    }
