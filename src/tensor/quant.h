/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activations as integers, for products with quantised weights (--act int8). A row of x is cut into
 * groups: the 32 columns from each multiple of 32 on, as far as they lie in one leaf of the product
 * (tensor/leaves.h); where a leaf ends inside such columns there are two groups of them. So what a
 * group holds depends on model and weight type alone, as leaves do, and a rank can quantise what it
 * owns by itself.
 *
 * A group is its codes q, one scale d and the sum of its codes; x is about d q. With amax the
 * greatest |x| of the group and MOST the greatest code, 127, or 32512 where codes are wide:
 *   amax infinite or a NaN   d = NaN, q = 0: the product is a NaN, as it would have been
 *   amax < 2^-100            d = +0, q = 0
 *   else                     d = amax / MOST, q = x (MOST / amax) to the nearest integer, ties to
 * even; all of it single operations in f32, so that every implementation gives the same bits; |q|
 * is at most MOST. Columns of the 32 that are not the group's have q = 0.
 *
 * Codes have 8 bits, or 16 (wide) for products that want x nearly as it is. 32512 is 127 x 256: a
 * wide code is 256 h + l with h and l of 8 bits, for hardware that multiplies nothing wider.
 *
 * Symmetric codes of 8 bits with one scale per 32 values are GGUF's Q8_0, but for d, which stays
 * f32 here. Pure; any thread.
 */
#pragma once

#include "tensor/leaves.h"

enum { QUANT_GROUP = 32 };

#define QUANT_SMALLEST  0x1p-100f
#define QUANT_MOST      127.0f
#define QUANT_MOST_WIDE 32512.0f

/* n rows, quantised. Row i has its groups at [i * n_groups]. Borrowed from whoever has the memory.
 */
struct quant {
    uint32_t n_groups; /* of a row: quant_n_groups of the plan */
    int8_t *codes;     /* [n][n_groups][32], 64-byte aligned; NULL if they are wide */
    int16_t *wide;     /* or so, each at quant_wide_at of its column; NULL if they are not */
    float *scales;     /* [n][n_groups] */
    int32_t *sums;     /* [n][n_groups] of the codes */
};

/* Where the wide code of a group's column k is: the even columns come first and then the odd ones,
 * for so vectors split bytes of weights. */
static inline uint32_t quant_wide_at(uint32_t k)
{
    return k % 2 * (QUANT_GROUP / 2) + k / 2;
}

/* Groups of one leaf over columns [begin, end). */
static inline uint32_t quant_leaf_groups(uint32_t begin, uint32_t end)
{
    return begin == end ? 0 : (uint32_t)div_up(end, QUANT_GROUP) - begin / QUANT_GROUP;
}

/* Groups of a row of x, leaf by leaf. */
uint32_t quant_n_groups(const struct leaf_plan *leaves);

/* The rows from one on. */
static inline struct quant quant_from(struct quant quant, size_t row)
{
    size_t group = row * quant.n_groups;

    if (quant.wide != NULL) {
        quant.wide += group * QUANT_GROUP;
    } else {
        quant.codes += group * QUANT_GROUP;
    }
    quant.scales += group;
    quant.sums += group;
    return quant;
}

/* Bytes that n rows take; and the views into memory of that size, 64-byte aligned. False if it
 * overflows. */
NODISCARD bool quant_bytes(uint32_t n, uint32_t n_groups, bool wide, size_t *ret_bytes);
struct quant quant_attach(void *memory, uint32_t n, uint32_t n_groups, bool wide);

/* One group of n <= 32 columns, which lie in the 32 from `lead` on. codes: 32 of int8_t, or of
 * int16_t if they are wide. */
typedef void quant_group_fn(const float *x, uint32_t lead, uint32_t n, void *codes,
                            float *ret_scale, int32_t *ret_sum);

/* The definitions. */
quant_group_fn quant_group;
quant_group_fn quant_group_wide;

/* All groups of one row, each by the same function; code_bytes: of one code. */
static inline void quant_each(const float *x, const struct leaf_plan *leaves, void *codes,
                              size_t code_bytes, float *scales, int32_t *sums,
                              quant_group_fn *group)
{
    uint8_t *at = codes;

    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        uint32_t end = leaves->bounds[i + 1];

        for (uint32_t k = leaves->bounds[i]; k < end;) {
            uint32_t lead = k % QUANT_GROUP;
            uint32_t n = MIN(QUANT_GROUP - lead, end - k);

            group(x + k, lead, n, at, scales++, sums++);
            at += QUANT_GROUP * code_bytes;
            k += n;
        }
    }
}

/* One row: codes, scales and sums of all its groups, into the first row of out. The definition. */
void quant_row(const float *x, const struct leaf_plan *leaves, const struct quant *out);
