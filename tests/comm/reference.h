/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reduction gives, one element at a time, written down from comm/comm.h alone: nothing of
 * src/comm computes here. Half floats are rounded by arithmetic on doubles instead of bits.
 */
#pragma once

#include <math.h>

#include "base/float_env.h"
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

static inline union reference_value reference_combine(enum comm_type type, bool product,
                                                      union reference_value a,
                                                      union reference_value b)
{
    union reference_value value = {.u = product ? a.u * b.u : a.u + b.u};

    if (type == COMM_F64) {
        value.f64 = product ? a.f64 * b.f64 : a.f64 + b.f64;
    } else if (reference_is_float(type)) {
        value.u = 0;
        value.f32 = product ? a.f32 * b.f32 : a.f32 + b.f32;
    }
    return value;
}

/* What is to be reduced: element i of every rank's memory. */
struct reference {
    enum comm_type type;
    enum comm_reduction reduction;
    uint32_t n_ranks;
    const void *const *in;               /* [n_ranks] */
    const union reference_value *scales; /* [n_ranks] of premul_sum */
};

/* Over ranks [low, high), by the tree whose first half is the larger. */
static inline union reference_value reference_tree(const struct reference *r, uint32_t low,
                                                   uint32_t high, size_t i)
{
    uint32_t middle = low + (high - low + 1) / 2;

    if (high - low == 1) {
        union reference_value value =
            reference_load(r->type, reference_bits(r->type, r->in[low], i));

        return r->reduction == COMM_PREMUL_SUM
                   ? reference_combine(r->type, true, value, r->scales[low])
                   : value;
    }
    return reference_combine(r->type, r->reduction == COMM_PROD, reference_tree(r, low, middle, i),
                             reference_tree(r, middle, high, i));
}

static inline union reference_value reference_divide(enum comm_type type,
                                                     union reference_value value, uint32_t n)
{
    /* the wrapped sum */
    union reference_value sum = reference_load(type, reference_store(type, value));

    if (type == COMM_F64) {
        value.f64 /= n;
    } else if (reference_is_float(type)) {
        value.f32 /= (float)n;
    } else if (reference_is_signed(type)) {
        value.u = (uint64_t)((int64_t)sum.u / (int64_t)n);
    } else {
        value.u = sum.u / n;
    }
    return value;
}

/* As a number that orders the type; floats only. */
static inline double reference_order(enum comm_type type, uint64_t bits)
{
    return type == COMM_F64    ? reference_number(bits, 52, 11)
           : type == COMM_F32  ? reference_number(bits, 23, 8)
           : type == COMM_BF16 ? reference_number(bits, 7, 8)
                               : reference_number(bits, 10, 5);
}

static inline bool reference_less(enum comm_type type, uint64_t a, uint64_t b)
{
    union reference_value x = reference_load(type, a);
    union reference_value y = reference_load(type, b);
    double p;
    double q;

    if (!reference_is_float(type)) {
        return reference_is_signed(type) ? (int64_t)x.u < (int64_t)y.u : x.u < y.u;
    }
    p = reference_order(type, a);
    q = reference_order(type, b);
    return p < q || (p == q && signbit(p) && !signbit(q));
}

static inline uint64_t reference_extreme(const struct reference *r, size_t i)
{
    static const uint64_t quiet[COMM_TYPE_COUNT] = {[COMM_F32] = 0x7fc00000,
                                                    [COMM_F64] = 0x7ff8000000000000,
                                                    [COMM_F16] = 0x7e00,
                                                    [COMM_BF16] = 0x7fc0};
    uint64_t best = reference_bits(r->type, r->in[0], i);
    bool is_nan = false;

    for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
        uint64_t next = reference_bits(r->type, r->in[rank], i);

        is_nan |= reference_is_float(r->type) && isnan(reference_order(r->type, next));
        if (r->reduction == COMM_MIN ? reference_less(r->type, next, best)
                                     : reference_less(r->type, best, next)) {
            best = next;
        }
    }
    return is_nan && r->n_ranks > 1 ? quiet[r->type] : best;
}

/* The bits of element i of the result. In the canonical environment for all but min and max, which
 * need one that knows denormals. */
static inline uint64_t reference_reduce(const struct reference *r, size_t i)
{
    union reference_value value;

    if (r->reduction == COMM_MIN || r->reduction == COMM_MAX) {
        return reference_extreme(r, i);
    }
    if (r->n_ranks == 1 && (r->reduction == COMM_SUM || r->reduction == COMM_PROD)) {
        return reference_bits(r->type, r->in[0], i);
    }
    value = reference_tree(r, 0, r->n_ranks, i);
    if (r->reduction == COMM_AVG) {
        value = reference_divide(r->type, value, r->n_ranks);
    }
    return reference_store(r->type, value);
}

/* Equal bits; of floats any NaN equals any other, unless it was chosen by min or max. */
static inline bool reference_same(const struct reference *r, uint64_t found, uint64_t expected)
{
    bool chosen = r->reduction == COMM_MIN || r->reduction == COMM_MAX;

    if (found == expected) {
        return true;
    }
    return !chosen && reference_is_float(r->type) && isnan(reference_order(r->type, found)) &&
           isnan(reference_order(r->type, expected));
}
