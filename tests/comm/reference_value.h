/* SPDX-License-Identifier: Apache-2.0 */
/* One element of any type, from its bits and back, for the reference of reductions. */
#pragma once

#include <math.h>

#include "comm/comm.h"

/* An element of any type: of floats, the value; of integers, the number in 64 bits. */
union reference_value {
    float f32;
    double f64;
    uint64_t u;
};

static inline bool reference_is_half(enum comm_type type)
{
    return type == COMM_F16 || type == COMM_BF16;
}

static inline bool reference_is_float(enum comm_type type)
{
    return type == COMM_F32 || type == COMM_F64 || reference_is_half(type);
}

static inline bool reference_is_signed(enum comm_type type)
{
    return type == COMM_I8 || type == COMM_I32 || type == COMM_I64;
}

/* The bits of element i. */
static inline uint64_t reference_bits(enum comm_type type, const void *memory, size_t i)
{
    static const size_t sizes[] = {
        [COMM_F32] = 4, [COMM_F64] = 8, [COMM_F16] = 2, [COMM_BF16] = 2, [COMM_I8] = 1,
        [COMM_U8] = 1,  [COMM_I32] = 4, [COMM_U32] = 4, [COMM_I64] = 8,  [COMM_U64] = 8};
    uint64_t bits = 0;

    memcpy(&bits, (const char *)memory + i * sizes[type], sizes[type]); /* little-endian */
    return bits;
}

/* The number that bits stand for; of NaN, NaN. exponent_at: where the exponent begins. */
static inline double reference_number(uint64_t bits, int exponent_at, int exponent_bits)
{
    uint64_t fraction = bits & (((uint64_t)1 << exponent_at) - 1);
    int exponent = (int)(bits >> exponent_at & (((uint64_t)1 << exponent_bits) - 1));
    int bias = (1 << (exponent_bits - 1)) - 1;
    double sign = bits >> (exponent_at + exponent_bits) & 1 ? -1 : 1;

    if (exponent == (1 << exponent_bits) - 1) {
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    }
    if (exponent == 0) {
        return sign * ldexp((double)fraction, 1 - bias - exponent_at);
    }
    return sign *
           ldexp((double)(fraction | (uint64_t)1 << exponent_at), exponent - bias - exponent_at);
}

/* value, which is a float's, rounded to a half float of that shape. */
static inline uint64_t reference_half(float value, int exponent_at, int exponent_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint64_t sign = (uint64_t)(signbit(value) != 0) << 15;
    uint64_t infinity = (((uint64_t)1 << exponent_bits) - 1) << exponent_at;
    double magnitude = fabs((double)value);
    uint64_t rounded;
    int exponent;

    if (isnan(value)) {
        return infinity + 1;
    }
    if (isinf(value)) {
        return sign | infinity;
    }
    if (magnitude == 0) {
        return sign;
    }
    exponent = MAX(ilogb(magnitude), 1 - bias);
    /* in units of the last place; a carry into the exponent comes out right */
    rounded = ((uint64_t)(exponent + bias - 1) << exponent_at) +
              (uint64_t)rint(ldexp(magnitude, exponent_at - exponent));
    return sign | MIN(rounded, infinity);
}

static inline union reference_value reference_load(enum comm_type type, uint64_t bits)
{
    union reference_value value = {.u = bits};

    if (type == COMM_F16) {
        value.f32 = (float)reference_number(bits, 10, 5);
    } else if (type == COMM_BF16) {
        value.u = bits << 16;
    } else if (reference_is_signed(type)) {
        value.u = type == COMM_I8    ? (uint64_t)(int64_t)(int8_t)bits
                  : type == COMM_I32 ? (uint64_t)(int64_t)(int32_t)bits
                                     : bits;
    }
    return value;
}

/* Back to the type's bits. */
static inline uint64_t reference_store(enum comm_type type, union reference_value value)
{
    switch (type) {
    case COMM_F16:
        return reference_half(value.f32, 10, 5);
    case COMM_BF16:
        return reference_half(value.f32, 7, 8);
    case COMM_F32:
    case COMM_U32:
    case COMM_I32:
        return (uint32_t)value.u;
    case COMM_U8:
    case COMM_I8:
        return (uint8_t)value.u;
    default:
        return value.u;
    }
}
