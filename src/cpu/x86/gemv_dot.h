/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of BF16 weights, plain or at 12 bits, for three and four rows of x rounded to bf16,
 * where vectors multiply pairs of BF16: the walk of gemv.h with the words of tile_dot.h. Of one row
 * and two memory is the bound either way.
 */
#pragma once

#include "cpu/x86/tile_dot.h"

#ifdef VEC_DOT_BF16

enum { GEMV_DOT_PANELS = 8 };

/* x as tile_dot.h pairs it: for columns 4 q .. 4 q + 3 of row i words 2 q (even) and 2 q + 1, from
 * i * stride on. */
struct gemv_dot_x {
    uint32_t *words;
    size_t stride;
};

struct gemv_dot_row {
    vecf e;
    vecf o;
};

VEC_INLINE void gemv_dot_end(struct gemv_dot_row row, float *run)
{
    vec_store(run, vec_add(vec_load(run), vec_add(row.e, row.o)));
}

/* How a step of 32 columns of a panel lies: as units of 12 bits, or (twelve false) as pairs. */
struct gemv_dot_w {
    const uint8_t *codes;
    veci table;
};

VEC_INLINE struct dot_words gemv_dot_words(bool twelve, const struct gemv_dot_w *w, uint32_t quad)
{
    return twelve ? dot_words_12(w->codes + quad / 2 * BF16_12_UNIT_BYTES, quad % 2, w->table)
                  : dot_words(w->codes + quad * DOT_QUAD_BYTES);
}

/* Four columns for one row of x. */
VEC_INLINE void gemv_dot_quad(const struct dot_words *words, const uint32_t *x,
                              struct gemv_dot_row *row)
{
    row->e = vec_dot_bf16_set1(row->e, words->even, x);
    row->o = vec_dot_bf16_set1(row->o, words->odd, x + 1);
}

/* A step for m rows of x, 3 or 4. */
VEC_INLINE void gemv_dot_step(bool twelve, uint32_t m, const struct gemv_dot_w *w,
                              const struct gemv_dot_x *x, float *run)
{
    struct gemv_dot_row row0 = {vec_zero(), vec_zero()};
    struct gemv_dot_row row1 = row0;
    struct gemv_dot_row row2 = row0;
    struct gemv_dot_row row3 = row0;

#pragma GCC unroll 8
    for (uint32_t quad = 0; quad < DOT_QUADS; quad++) {
        const struct dot_words words = gemv_dot_words(twelve, w, quad);
        const uint32_t *at = x->words + 2 * quad;

        gemv_dot_quad(&words, at, &row0);
        gemv_dot_quad(&words, at + x->stride, &row1);
        gemv_dot_quad(&words, at + 2 * x->stride, &row2);
        if (m > 3) {
            gemv_dot_quad(&words, at + 3 * x->stride, &row3);
        }
    }
    gemv_dot_end(row0, run);
    gemv_dot_end(row1, run + PACKED_LANES);
    gemv_dot_end(row2, run + 2 * PACKED_LANES);
    if (m > 3) {
        gemv_dot_end(row3, run + 3 * PACKED_LANES);
    }
}

/* The part of the scratch memory behind the stack of sums. */
VEC_INLINE struct gemv_dot_x gemv_dot_x(const struct cpu_matmul *args)
{
    return (struct gemv_dot_x){
        .words = (uint32_t *)(void *)args->scratch + CPU_SCRATCH_BYTES / 8,
        .stride = round_up(args->w->cols, 32) / 2,
    };
}

static void gemv_dot_pack(const struct cpu_matmul *args)
{
    const struct gemv_dot_x x = gemv_dot_x(args);

    ENSURE_OP(args->m * x.stride * sizeof(uint32_t), <=, CPU_SCRATCH_BYTES / 2);
    for (uint32_t i = 0; i < args->m; i++) {
        const float *row = args->x + i * args->x_stride;
        uint32_t *out = x.words + i * x.stride;

        for (uint32_t k = 0; k < args->w->cols; k += 4) {
            uint32_t bits[4];

            memcpy(bits, row + k, sizeof(bits));
            out[k / 2] = dot_x_word(bits[0], bits[2]);
            out[k / 2 + 1] = dot_x_word(bits[1], bits[3]);
        }
    }
}

/* Columns [k, k + 32) of the group's panels. */
VEC_INLINE void gemv_dot_panels(bool twelve, uint32_t m, const struct gemv *group, uint32_t k,
                                float *run)
{
    const struct packed *w = group->args->w;
    const struct gemv_dot_x all = gemv_dot_x(group->args);
    const struct gemv_dot_x x = {all.words + k / 2, all.stride};
    const size_t later = twelve ? later_12(GEMV_DOT_PANELS, w, k)
                                : gemv_later(DTYPE_BF16, GEMV_DOT_PANELS, w, k).code_bytes;
    struct gemv_dot_w step = {.table = vec_set1_word(0)};

    for (uint32_t p = 0; p < group->n_panels; p++) {
        const uint8_t *codes = w->codes + (group->panel + p) * w->panel_code_bytes;
        const struct step_12 step_12 = {group, k, run};

        for (uint32_t at = 0; at < WEIGHTS_STEP * (twelve ? 24 : 32); at += CACHE_LINE) {
            __builtin_prefetch(codes + later + at, 0, 2);
        }
        if (twelve && __builtin_expect(needs_pairs(&step_12, p), 0)) {
            step_pairs(&step_12, m, p);
            continue;
        }
        step.codes = codes + (size_t)k * (twelve ? 24 : 32);
        if (twelve) {
            step.table = lanes_12(&step_12, m, p, 0).table;
        }
        gemv_dot_step(twelve, m, &step, &x, run + p * m * PACKED_LANES);
    }
}

/* See gemv_leaf_fn. */
VEC_INLINE void gemv_dot_leaf(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                              float *run)
{
    const bool twelve = dtype == DTYPE_BF16_12;
    const uint32_t *bounds = group->args->w->leaves.bounds + leaf;
    const uint32_t end = bounds[0] + (bounds[1] - bounds[0]) / WEIGHTS_STEP * WEIGHTS_STEP;

    if (bounds[0] % BF16_12_UNIT != 0) {
        (twelve ? gemv_leaf_12 : gemv_leaf)(dtype, m, group, leaf, run);
        return;
    }
    gemv_clear(run, group->level);
    for (uint32_t k = bounds[0]; k < end; k += WEIGHTS_STEP) {
        gemv_dot_panels(twelve, m, group, k, run);
    }
    if (end < bounds[1]) {
        gemv_leaf_end(m, group, end, bounds[1], run);
    }
}

/* y = W x for m rows, 3 or 4; dtype and m are constants. */
VEC_INLINE void gemv_dot(enum dtype dtype, uint32_t m, const struct cpu_matmul *args,
                         gemm_unpack_fn *unpack_fn)
{
    gemv_dot_pack(args);
    gemv_walk(dtype, m, GEMV_DOT_PANELS, args, unpack_fn, gemv_dot_leaf);
}

#endif
