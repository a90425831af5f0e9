/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products for few rows of integer activations: the walk of gemv.h, one panel after the other, so
 * that the running sums of a leaf stay in registers. The codes of a group are taken apart once for
 * all rows of x.
 */
#pragma once

#include "cpu/x86/gemv.h"
#include "cpu/x86/int8.h"

#ifdef VEC_INT8

/* Panels follow each other in memory: one stream, fetched so far ahead, into the first-level cache
 * (on AVX2 with 8192 into the second, 8 bit read 77 % of what memory gives one core and 4 bit 86;
 * so it is 88 and 97). */
enum { GEMV_INT8_AHEAD = 2048 };

/* Where a leaf of one panel begins. */
struct gemv_int8 {
    const uint8_t *codes; /* of the panel */
    const uint8_t *scales;
    const struct quant *q;
    uint32_t k;       /* the leaf's first group of columns */
    uint32_t x_group; /* and its first group of x */
    uint32_t n_groups;
};

/* The words [first, end) of a group times one row of x. */
VEC_INLINE veci gemv_int8_dot(enum int8_sum how, const struct int8_factor words[INT8_WORDS],
                              uint32_t first, uint32_t end, const uint8_t *x)
{
    veci sum = vec_set1_word(0);

#pragma GCC unroll 8
    for (uint32_t j = first; j < end; j++) {
        sum = int8_add(how, sum, words[j], x + 4 * j, 4);
    }
    return sum;
}

/* sum + one group of VEC_LANES lanes times group g of x (counted through all rows). */
VEC_INLINE vecf gemv_int8_row(enum dtype dtype, enum int8_sum how, const struct weights *w,
                              const struct int8_factor words[INT8_WORDS], const struct quant *q,
                              size_t g, vecf sum)
{
    const uint32_t scale_words = int8_scale_words(dtype);
    const vecf scale = vec_set1(q->scales[g]);
    const veci zero = vec_set1_word((uint32_t)(-packed_code_zero(dtype) * q->sums[g]));
    const uint8_t *x = how == INT8_WIDE ? (const uint8_t *)(q->wide + g * QUANT_GROUP)
                                        : (const uint8_t *)(q->codes + g * QUANT_GROUP);

#pragma GCC unroll 2
    for (uint32_t h = 0; h < INT8_WORDS / scale_words; h++) {
        veci dot = gemv_int8_dot(how, words, h * scale_words, (h + 1) * scale_words, x);

        sum = vec_fma(int8_number(dtype, how, dot, zero), vec_mul(w->d[h], scale), sum);
    }
    if (packed_has_minimum(dtype)) {
        sum = vec_fma(w->m[0], vec_mul(scale, vec_set1((float)q->sums[g])), sum);
    }
    return sum;
}

/* The running sums of VEC_LANES lanes. Rows of x are written out one by one, here and below, so
 * that both compilers keep them in registers. */
struct gemv_int8_sums {
    vecf row0;
    vecf row1;
    vecf row2;
    vecf row3;
};

/* Group i of the leaf, the lanes from `lane` on, times m rows of x. */
VEC_INLINE void gemv_int8_group(enum dtype dtype, enum int8_sum how, uint32_t m,
                                const struct gemv_int8 *leaf, uint32_t i, uint32_t lane,
                                struct gemv_int8_sums *sums)
{
    const struct quant *q = leaf->q;
    const size_t g = leaf->x_group + i;
    struct weights open =
        weights_open(dtype, leaf->codes, leaf->scales, leaf->k + i * QUANT_GROUP, lane);
    struct int8_factor words[INT8_WORDS];

#pragma GCC unroll 8
    for (uint32_t j = 0; j < INT8_WORDS; j++) {
        words[j] = int8_factor(how, int8_word(dtype, how, open.codes - lane * 4, lane, j));
    }
    sums->row0 = gemv_int8_row(dtype, how, &open, words, q, g, sums->row0);
    if (m > 1) {
        sums->row1 = gemv_int8_row(dtype, how, &open, words, q, g + q->n_groups, sums->row1);
    }
    if (m > 2) {
        sums->row2 =
            gemv_int8_row(dtype, how, &open, words, q, g + 2 * (size_t)q->n_groups, sums->row2);
    }
    if (m > 3) {
        sums->row3 =
            gemv_int8_row(dtype, how, &open, words, q, g + 3 * (size_t)q->n_groups, sums->row3);
    }
}

VEC_INLINE void gemv_int8_store(uint32_t m, const struct gemv_int8_sums *sums, float *run)
{
    vec_store(run, sums->row0);
    if (m > 1) {
        vec_store(run + PACKED_LANES, sums->row1);
    }
    if (m > 2) {
        vec_store(run + 2 * PACKED_LANES, sums->row2);
    }
    if (m > 3) {
        vec_store(run + 3 * PACKED_LANES, sums->row3);
    }
}

/* Fetches what is to be read GEMV_INT8_AHEAD bytes of codes after group i. */
VEC_INLINE void gemv_int8_prefetch(enum dtype dtype, const struct gemv_int8 *leaf, uint32_t i)
{
    const uint32_t bytes = weights_code_bytes(dtype);
    size_t step = leaf->k / WEIGHTS_STEP + i + GEMV_INT8_AHEAD / bytes;

#pragma GCC unroll 32
    for (uint32_t at = 0; at < bytes; at += CACHE_LINE) {
        __builtin_prefetch(leaf->codes + step * bytes + at, 0, 3);
    }
    __builtin_prefetch(leaf->scales + step * weights_scale_bytes(dtype), 0, 3);
}

/* One leaf; see gemv_leaf_fn. */
VEC_INLINE void gemv_int8_walk(enum dtype dtype, bool wide, uint32_t m, struct gemv *group,
                               uint32_t leaf, float *run)
{
    const enum int8_sum how = int8_sum_of(dtype, wide);
    const struct packed *w = group->args->w;
    const uint32_t *bounds = w->leaves.bounds + leaf;
    const struct gemv_int8 at = {.codes = w->codes + group->panel * w->panel_code_bytes,
                                 .scales = w->scales + group->panel * w->panel_scale_bytes,
                                 .q = &group->args->q,
                                 .k = bounds[0] / QUANT_GROUP * QUANT_GROUP,
                                 .x_group = group->x_group,
                                 .n_groups = quant_leaf_groups(bounds[0], bounds[1])};
    struct gemv_int8_sums low = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    struct gemv_int8_sums high = low;

    for (uint32_t i = 0; i < at.n_groups; i++) {
        gemv_int8_prefetch(dtype, &at, i);
        gemv_int8_group(dtype, how, m, &at, i, 0, &low);
        if (VEC_LANES < PACKED_LANES) {
            gemv_int8_group(dtype, how, m, &at, i, VEC_LANES, &high);
        }
    }
    gemv_int8_store(m, &low, run);
    if (VEC_LANES < PACKED_LANES) {
        gemv_int8_store(m, &high, run + VEC_LANES);
    }
    group->x_group += at.n_groups;
}

VEC_INLINE void gemv_int8_leaf(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                               float *run)
{
    gemv_int8_walk(dtype, false, m, group, leaf, run);
}

VEC_INLINE void gemv_wide_leaf(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                               float *run)
{
    gemv_int8_walk(dtype, true, m, group, leaf, run);
}

VEC_INLINE void gemv_int8(enum dtype dtype, bool wide, uint32_t m, const struct cpu_matmul *args)
{
    gemv_walk(dtype, m, 1, args, NULL, wide ? gemv_wide_leaf : gemv_int8_leaf);
}

#endif
