/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM: a tile of some rows of x by one or two panels. It is bound by the rate
 * of fused multiply-adds: accumulators fill the registers, each weight vector is used for every row
 * and each broadcast value of x for every vector of weights. The running sum lies in memory and is
 * touched once in 32 columns.
 *
 * Even and odd columns have accumulators of their own. Where both fit the registers a step of 32
 * columns is one pass, else (tall tiles) the even columns come first and their sums wait in the
 * first-level cache while the odd ones follow: the order of additions within each is the same.
 *
 *   AVX-512  up to 7 rows x 2 vectors x 2 = 28 of 32 registers, one pass
 *   AVX2     up to 3 rows x 2 vectors x 2 = 12 of 16, one pass; 4 rows x 2 = 8, two passes (of
 *            102 GFLOP/s from registers 97 come out of the first-level cache; 6 rows gave 90)
 *
 * Weights are f32, unpacked before, or BF16 as packed: a shift or a mask makes two columns of them,
 * which is less work than writing f32 and reading it again unless many tiles share it (AVX2, 16
 * rows: 82 GFLOP/s instead of 72; 64 rows: no difference).
 *
 * Where another program runs on the core's second hardware thread, half as many instructions start
 * in a cycle, and these are then the bound: x comes packed, so that one register addresses all its
 * rows, and for three of the rows the multiply-adds themselves load and broadcast x. For all of
 * them that would be more loads than a core with both halves to itself can do.
 */
#pragma once

#include "cpu/x86/gemm.h"
#include "cpu/x86/transpose.h"
#include "cpu/x86/weights.h"

#ifdef VEC_LANES

enum {
    TILE_ROWS = VEC_LANES == 16 ? 7 : 4,
    TILE_ROWS_BF16 = VEC_LANES == 16 ? 8 : 4,
    TILE_BF16_MAX = VEC_LANES == 16 ? 48 : UINT16_MAX, /* rows of x; from 64 on unpacking pays */
    TILE_STRIDE = VEC_LANES == 16 ? 8 : 4, /* of packed x, from column to column; whole fours */
    TILE_PANELS = VEC_LANES == 16 ? 2 : 1,
    TILE_ONE_PASS = VEC_LANES == 16 ? 7 : 3, /* rows for which even and odd fit the registers */
    /* Half of the second-level cache of processors that have nothing better: 512 KB with AVX2, 2 MB
     * with AVX-512. */
    TILE_X_BYTES = VEC_LANES == 16 ? 1280 * 1024 : 256 * 1024,
    TILE_STEP = 32
};

/* Accumulators of one row for the even or for the odd columns, one for each vector of outputs. */
struct tile_acc {
    vecf v0;
    vecf v1;
};

/* Of all rows. They are written out one by one below, and no loop or array index is left: only so
 * do both compilers keep all of them in registers. */
struct tile_accs {
    struct tile_acc row0;
    struct tile_acc row1;
    struct tile_acc row2;
    struct tile_acc row3;
    struct tile_acc row4;
    struct tile_acc row5;
    struct tile_acc row6;
    struct tile_acc row7;
};

/* The weights of one column. */
struct tile_weights {
    vecf v0;
    vecf v1;
};

/* What is constant wherever a tile is computed. */
struct tile_shape {
    uint32_t rows;
    uint32_t vectors;
    bool pairs; /* weights are packed BF16 */
};

/* One value of x. Folded: each multiply-add broadcasts it by itself. */
VEC_INLINE void tile_row(uint32_t vectors, bool folded, const float *x, struct tile_weights w,
                         struct tile_acc *acc)
{
    if (folded) {
        acc->v0 = vec_fma_set1(x, w.v0, acc->v0);
        acc->v1 = vectors > 1 ? vec_fma_set1(x, w.v1, acc->v1) : acc->v1;
    } else {
        vecf factor = vec_set1(*x);

        acc->v0 = vec_fma(factor, w.v0, acc->v0);
        acc->v1 = vectors > 1 ? vec_fma(factor, w.v1, acc->v1) : acc->v1;
    }
}

/* One column, for all rows. */
VEC_INLINE void tile_column(struct tile_shape shape, struct tile_weights w, const float *x,
                            struct tile_accs *accs)
{
    tile_row(shape.vectors, true, x, w, &accs->row0);
    if (shape.rows > 1) {
        tile_row(shape.vectors, true, x + 1, w, &accs->row1);
    }
    if (shape.rows > 2) {
        tile_row(shape.vectors, true, x + 2, w, &accs->row2);
    }
    if (shape.rows > 3) {
        tile_row(shape.vectors, false, x + 3, w, &accs->row3);
    }
    if (shape.rows > 4) {
        tile_row(shape.vectors, false, x + 4, w, &accs->row4);
    }
    if (shape.rows > 5) {
        tile_row(shape.vectors, false, x + 5, w, &accs->row5);
    }
    if (shape.rows > 6) {
        tile_row(shape.vectors, false, x + 6, w, &accs->row6);
    }
    if (shape.rows > 7) {
        tile_row(shape.vectors, false, x + 7, w, &accs->row7);
    }
}

/* Column k of the step's f32 weights, or of the even or odd half of packed ones. */
VEC_INLINE struct tile_weights tile_load(struct tile_shape shape, const struct gemm_tile *tile,
                                         const uint8_t *w, uint32_t k)
{
    struct tile_weights loaded;
    const uint32_t width = shape.vectors * VEC_LANES;

    if (shape.pairs) {
        const uint8_t *line = w + k / 2 * 64;
        const uint8_t *second = line + (VEC_LANES == 16 ? tile->panel_bytes : 32);
        const veci odd = vec_set1_word(0xffff0000);
        veci v0 = vec_load_words(line);
        veci v1 = shape.vectors > 1 ? vec_load_words(second) : v0;

        loaded.v0 = vec_as_float(k % 2 == 0 ? vec_shl(v0, 16) : vec_and(v0, odd));
        loaded.v1 = vec_as_float(k % 2 == 0 ? vec_shl(v1, 16) : vec_and(v1, odd));
    } else {
        const float *column = (const float *)(const void *)w + k * width;

        loaded.v0 = vec_load(column);
        loaded.v1 = shape.vectors > 1 ? vec_load(column + VEC_LANES) : loaded.v0;
    }
    return loaded;
}

/* [column][TILE_STRIDE]; up to three columns more are read and written, and in rows beyond the last
 * the last one's values. See gemm_pack_fn. */
VEC_INLINE void tile_pack(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *packed)
{
    const float *from[8];
    float *out = packed;

    for (uint32_t i = 0; i < ARRAY_LEN(from); i++) {
        from[i] = args->x + (row + MIN(i, n - 1)) * args->x_stride;
    }
    for (uint32_t k = 0; k < args->w->cols; k += 4) {
        for (uint32_t i = 0; i < TILE_STRIDE; i += 4) {
            transpose_four(from + i, k, out + i, TILE_STRIDE);
        }
        out += 4 * TILE_STRIDE;
    }
}

VEC_INLINE struct tile_accs tile_zero(void)
{
    const struct tile_acc zero = {vec_zero(), vec_zero()};

    return (struct tile_accs){zero, zero, zero, zero, zero, zero, zero, zero};
}

/* sums += e + o of one row; a shorter step adds +0 to both first. */
VEC_INLINE void tile_fold_row(uint32_t vectors, bool shorter, struct tile_acc e, struct tile_acc o,
                              float *sums)
{
    const vecf zero = vec_zero();
    vecf sum = shorter ? vec_add(vec_add(e.v0, zero), vec_add(o.v0, zero)) : vec_add(e.v0, o.v0);

    vec_store(sums, vec_add(vec_load(sums), sum));
    if (vectors > 1) {
        sum = shorter ? vec_add(vec_add(e.v1, zero), vec_add(o.v1, zero)) : vec_add(e.v1, o.v1);
        vec_store(sums + VEC_LANES, vec_add(vec_load(sums + VEC_LANES), sum));
    }
}

VEC_INLINE void tile_fold(struct tile_shape shape, bool shorter, const struct tile_accs *e,
                          const struct tile_accs *o, float *sums)
{
    const uint32_t vectors = shape.vectors;
    const uint32_t width = vectors * VEC_LANES;

    tile_fold_row(vectors, shorter, e->row0, o->row0, sums);
    if (shape.rows > 1) {
        tile_fold_row(vectors, shorter, e->row1, o->row1, sums + width);
    }
    if (shape.rows > 2) {
        tile_fold_row(vectors, shorter, e->row2, o->row2, sums + 2 * width);
    }
    if (shape.rows > 3) {
        tile_fold_row(vectors, shorter, e->row3, o->row3, sums + 3 * width);
    }
    if (shape.rows > 4) {
        tile_fold_row(vectors, shorter, e->row4, o->row4, sums + 4 * width);
    }
    if (shape.rows > 5) {
        tile_fold_row(vectors, shorter, e->row5, o->row5, sums + 5 * width);
    }
    if (shape.rows > 6) {
        tile_fold_row(vectors, shorter, e->row6, o->row6, sums + 6 * width);
    }
    if (shape.rows > 7) {
        tile_fold_row(vectors, shorter, e->row7, o->row7, sums + 7 * width);
    }
}

/* Bytes of weights from column to column, exact for an even number of columns. */
VEC_INLINE size_t tile_weight_bytes(struct tile_shape shape, uint32_t n)
{
    return shape.pairs ? (size_t)n * 32 : (size_t)n * shape.vectors * VEC_LANES * sizeof(float);
}

/* n columns, added to sums; n is TILE_STEP or less. */
VEC_INLINE void tile_step(struct tile_shape shape, const struct gemm_tile *tile, const uint8_t *w,
                          const float *x, uint32_t n, float *sums)
{
    const size_t pair = tile_weight_bytes(shape, 2);
    struct tile_accs e = tile_zero();
    struct tile_accs o = tile_zero();

    for (uint32_t k = n / 2; k > 0; k--) {
        tile_column(shape, tile_load(shape, tile, w, 0), x, &e);
        tile_column(shape, tile_load(shape, tile, w, 1), x + TILE_STRIDE, &o);
        w += pair;
        x += 2 * TILE_STRIDE;
    }
    if (n % 2 != 0) {
        tile_column(shape, tile_load(shape, tile, w, 0), x, &e);
    }
    tile_fold(shape, n < TILE_STEP, &e, &o, sums);
}

/* A whole step in two passes. */
VEC_INLINE void tile_step_tall(struct tile_shape shape, const struct gemm_tile *tile,
                               const uint8_t *w, const float *x, float *sums)
{
    const size_t pair = tile_weight_bytes(shape, 2);
    struct tile_accs accs = tile_zero();
    struct tile_accs even;

    for (uint32_t k = 0; k < TILE_STEP / 2; k++) {
        tile_column(shape, tile_load(shape, tile, w + k * pair, 0), x + 2 * k * TILE_STRIDE, &accs);
    }
    even = accs;
    __asm__ volatile("" : "+m"(even)); /* not in registers, which the odd columns need */
    accs = tile_zero();
    x += TILE_STRIDE;
    for (uint32_t k = 0; k < TILE_STEP / 2; k++) {
        tile_column(shape, tile_load(shape, tile, w + k * pair, 1), x + 2 * k * TILE_STRIDE, &accs);
    }
    tile_fold(shape, false, &even, &accs, sums);
}

/* See gemm_tile_fn; the shape is constant. */
VEC_INLINE void tile_compute(struct tile_shape shape, const struct gemm_tile *tile)
{
    const bool two_panels = shape.vectors * VEC_LANES > PACKED_LANES;
    const float *x = tile->x;
    const uint8_t *w = tile->w;
    const uint8_t *fetch = tile->fetch;
    float *sums = tile->sums;

    for (uint32_t i = 0; !tile->add && i < shape.rows * shape.vectors; i++) {
        vec_store(sums + i * VEC_LANES, vec_zero());
    }
    for (uint32_t n = tile->n / TILE_STEP; n > 0; n--) {
        fetch = gemm_fetch(tile, two_panels, fetch);
        if (shape.rows <= TILE_ONE_PASS) {
            tile_step(shape, tile, w, x, TILE_STEP, sums);
        } else {
            tile_step_tall(shape, tile, w, x, sums);
        }
        w += tile_weight_bytes(shape, TILE_STEP);
        x += TILE_STEP * TILE_STRIDE;
        __asm__("" : "+r"(sums)); /* or gcc keeps the sums in registers that are not there */
    }
    if (tile->n % TILE_STEP != 0) {
        gemm_fetch(tile, two_panels, fetch);
        tile_step(shape, tile, w, x, tile->n % TILE_STEP, sums);
    }
}

/* x[i] += y[i]; n is a multiple of VEC_LANES. */
VEC_INLINE void tile_add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES) {
        vec_store(x + i, vec_add(vec_load(x + i), vec_load(y + i)));
    }
}

/* See gemm_isa.write. Most often a row is whole panels, and whole lines of y. */
VEC_INLINE void tile_write(const float *sums, uint32_t rows, size_t outputs, size_t n, float *y,
                           size_t y_stride)
{
    for (; rows > 0; rows--, sums += outputs, y += y_stride) {
        size_t i = 0;

        for (; i + VEC_LANES <= n; i += VEC_LANES) {
            vec_store(y + i, vec_load(sums + i));
        }
        if (i < n) {
            vec_store_part(y + i, vec_load(sums + i), (uint32_t)(n - i));
        }
    }
}

#endif
