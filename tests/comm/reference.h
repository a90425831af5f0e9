/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reduction gives, one element at a time, written down from comm/comm.h alone: nothing of
 * src/comm computes here. Half floats are rounded by arithmetic on doubles instead of bits.
 */
#pragma once

#include "base/float_env.h"
#include "comm/comm.h"
#include "reference_value.h"

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
    union reference_value sum = reference_load(type, reference_store(type, value)); /* wrapped */

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

/* Floats only. */
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
