/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products for few rows of integer activations: gemv.h with integer chains. The codes of a group
 * are taken apart once for all rows of x.
 */
#pragma once

#include "cpu/x86/gemv.h"
#include "cpu/x86/int8.h"

#if defined(VEC_LANES) && VEC_LANES == 8

/* The words [first, end) of a group times one row of x. */
VEC_INLINE veci gemv_int8_dot(enum dtype dtype, const veci words[INT8_WORDS], uint32_t first,
                              uint32_t end, const int8_t *x)
{
    const enum int8_sum how = int8_sum_of(dtype);
    veci sum = vec_set1_word(0);

#pragma GCC unroll 8
    for (uint32_t j = first; j < end; j++) {
        veci magnitude = how == INT8_SIGNED ? vec_abs_bytes(words[j]) : words[j];

        sum = int8_add(how, sum, words[j], magnitude, vec_set1_bytes(x + 4 * j));
    }
    return sum;
}

/* One group of VEC_LANES lanes times row i of x, added to run. */
VEC_INLINE void gemv_int8_row(enum dtype dtype, const struct weights *w,
                              const veci words[INT8_WORDS], const struct quant *q, size_t g,
                              float *run)
{
    const uint32_t scale_words = int8_scale_words(dtype);
    const vecf scale = vec_set1(q->scales[g]);
    const veci zero = vec_set1_word((uint32_t)(-packed_code_zero(dtype) * q->sums[g]));
    vecf sum = vec_load(run);

#pragma GCC unroll 2
    for (uint32_t h = 0; h < INT8_WORDS / scale_words; h++) {
        veci dot = gemv_int8_dot(dtype, words, h * scale_words, (h + 1) * scale_words,
                                 q->codes + g * QUANT_GROUP);

        sum = vec_fma(int8_number(dtype, dot, zero), vec_mul(w->d[h], scale), sum);
    }
    if (packed_has_minimum(dtype)) {
        sum = vec_fma(w->m[0], vec_mul(scale, vec_set1((float)q->sums[g])), sum);
    }
    vec_store(run, sum);
}

/* Columns [k, k + 32) of the group's panels by group g of x, added to run. */
VEC_INLINE void gemv_int8_step(enum dtype dtype, uint32_t m, const struct gemv *group, uint32_t k,
                               uint32_t g, float *run)
{
    const struct packed *w = group->args->w;
    const struct quant *q = &group->args->q;
    const struct gemv_later later = gemv_later(dtype, w, k);

    for (uint32_t p = 0; p < group->n_panels; p++) {
        size_t panel = group->panel + p;
        const uint8_t *codes = w->codes + panel * w->panel_code_bytes;
        const uint8_t *scales = w->scales + panel * w->panel_scale_bytes;

        gemv_prefetch(dtype, 0, codes + later.code_bytes, scales + later.scale_bytes);
        for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
            struct weights open = weights_open(dtype, codes, scales, k, lane);
            veci words[INT8_WORDS];

#pragma GCC unroll 8
            for (uint32_t j = 0; j < INT8_WORDS; j++) {
                words[j] = int8_word(dtype, open.codes - lane * 4, lane, j);
            }
#pragma GCC unroll 4
            for (uint32_t i = 0; i < m; i++) {
                gemv_int8_row(dtype, &open, words, q, (size_t)i * q->n_groups + g,
                              run + (p * m + i) * PACKED_LANES + lane);
            }
        }
    }
}

/* See gemv_leaf_fn. */
VEC_INLINE void gemv_int8_leaf(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                               float *run)
{
    const uint32_t *bounds = group->args->w->leaves.bounds + leaf;
    uint32_t k = bounds[0] / QUANT_GROUP * QUANT_GROUP;

    for (uint32_t n = quant_leaf_groups(bounds[0], bounds[1]); n > 0; n--) {
        gemv_int8_step(dtype, m, group, k, group->x_group++, run);
        k += QUANT_GROUP;
    }
}

VEC_INLINE void gemv_int8(enum dtype dtype, uint32_t m, const struct cpu_matmul *args)
{
    gemv_walk(dtype, m, args, NULL, gemv_int8_leaf);
}

#endif
