/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers of awkward kinds. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tensor/bf16_12.h"

struct kernel_random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t kernel_next(struct kernel_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint32_t kernel_below(struct kernel_random *random, uint32_t n)
{
    return (uint32_t)(kernel_next(random) % n);
}

/* NORMAL: near 1. TINY: such that products of x and w lie around 2^-126, where sums and products
 * flush to zero of either sign. WIDE: forty binades, zeros of both signs. SPECIAL: NORMAL with
 * infinities, NaNs, denormals and zeros among them. */
enum kernel_kind { KIND_NORMAL, KIND_TINY, KIND_WIDE, KIND_SPECIAL, KIND_COUNT };

static inline float kernel_float(uint32_t sign, int exponent, uint32_t mantissa)
{
    uint32_t bits = sign << 31 | (uint32_t)(exponent + 127) << 23 | mantissa;
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* One value; TINY lies at 2^tiny. */
static inline float kernel_value(struct kernel_random *random, enum kernel_kind kind, int tiny)
{
    uint64_t r = kernel_next(random);
    uint32_t sign = (uint32_t)(r & 1);
    uint32_t mantissa = (uint32_t)(r >> 8) & 0x7fffff;
    uint32_t dice = (uint32_t)(r >> 40) % 64;

    switch (kind) {
    case KIND_TINY:
        if (dice % 8 == 0) {
            return sign != 0 ? -0.0f : 0.0f;
        }
        return kernel_float(sign, tiny + (int)(dice % 4) - 2, dice < 32 ? mantissa : 0);
    case KIND_WIDE:
        if (dice % 8 == 0) {
            return sign != 0 ? -0.0f : 0.0f;
        }
        return kernel_float(sign, (int)(dice % 40) - 20, mantissa);
    case KIND_SPECIAL:
        if (dice == 0) {
            return kernel_float(sign, 128, 0);
        }
        if (dice == 1 && mantissa % 8 == 0) {
            return kernel_float(sign, 128, 0x400000);
        }
        if (dice < 6) {
            return dice % 2 == 0 ? kernel_float(sign, -127, mantissa) : kernel_float(sign, -127, 0);
        }
        /* fallthrough */
    default:
        return kernel_float(sign, (int)(dice % 4) - 2, mantissa);
    }
}

static inline uint16_t kernel_half(struct kernel_random *random, enum kernel_kind kind)
{
    uint16_t bits = (uint16_t)kernel_next(random);

    if (kind == KIND_TINY) {
        return bits & 0x87ff; /* denormal halves and the binade above */
    }
    return (bits & 0x7c00) == 0x7c00 ? bits & 0xbfff : bits; /* no infinity, no NaN */
}

static inline bool kernel_has_f16_scales(enum dtype dtype)
{
    return dtype_is_quantised(dtype) || dtype == DTYPE_F16;
}

/* The power of two at which TINY values of x meet weights of dtype at 2^-126. */
static inline int kernel_x_tiny(enum dtype dtype)
{
    return kernel_has_f16_scales(dtype) ? -108 : -63;
}

/* n values for rows of x, of w and the like, 64-byte aligned. */
static inline float *kernel_floats(struct kernel_random *random, size_t n, enum kernel_kind kind,
                                   int tiny)
{
    float *values = aligned_alloc(64, round_up(MAX(n, 1) * sizeof(float), 64));

    assert_non_null(values);
    for (size_t i = 0; i < n; i++) {
        values[i] = kernel_value(random, kind, tiny);
    }
    return values;
}

static inline void kernel_fill_halves(struct kernel_random *random, uint8_t *at, size_t n,
                                      enum kernel_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half = kernel_half(random, kind);

        memcpy(at + 2 * i, &half, sizeof(half));
    }
}
