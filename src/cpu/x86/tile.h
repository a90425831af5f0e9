/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM: a tile of TILE_ROWS rows of x by one or two panels. Weights come
 * unpacked, so it is bound by the rate of fused multiply-adds: even and odd accumulators fill the
 * registers (AVX-512: 7 rows x 2 vectors x 2 = 28 of 32; AVX2: 3 x 2 x 2 = 12 of 16), each weight
 * vector is used for every row and each broadcast value of x for every vector. The running sum lies
 * in memory and is touched once in 32 columns.
 */
#pragma once

#include "cpu/x86/gemm.h"
#include "cpu/x86/vec.h"

#ifdef VEC_LANES

enum {
    TILE_ROWS = VEC_LANES == 16 ? 7 : 3,
    TILE_PANELS = VEC_LANES == 16 ? 2 : 1,
    TILE_ROWS_MAX = 7,
    TILE_STEP = 32
};

/* The accumulators of one row. Rows are written out one by one below, and no loop or array index is
 * left: only so do both compilers keep all of them in registers. */
struct tile_row {
    vecf e0; /* even columns, first vector of outputs */
    vecf e1; /* second */
    vecf o0; /* odd columns */
    vecf o1;
};

/* Rows 0, 3 and 6 of x: the others are one or two strides away, which an address can express, so
 * that four registers are enough for all of them. */
struct tile_x {
    const float *row0;
    const float *row3;
    const float *row6;
    size_t stride;
};

/* The weights of one column. */
struct tile_weights {
    vecf v0;
    vecf v1;
};

VEC_INLINE void tile_even(uint32_t vectors, const float *x, struct tile_weights w,
                          struct tile_row *row)
{
    vecf factor = vec_set1(*x);

    row->e0 = vec_fma(factor, w.v0, row->e0);
    if (vectors > 1) {
        row->e1 = vec_fma(factor, w.v1, row->e1);
    }
}

VEC_INLINE void tile_odd(uint32_t vectors, const float *x, struct tile_weights w,
                         struct tile_row *row)
{
    vecf factor = vec_set1(*x);

    row->o0 = vec_fma(factor, w.v0, row->o0);
    if (vectors > 1) {
        row->o1 = vec_fma(factor, w.v1, row->o1);
    }
}

VEC_INLINE struct tile_weights tile_load(uint32_t vectors, const float *w)
{
    struct tile_weights loaded;

    loaded.v0 = vec_load(w);
    loaded.v1 = vectors > 1 ? vec_load(w + VEC_LANES) : loaded.v0;
    return loaded;
}

/* The even column that the rows of x point to. */
VEC_INLINE void tile_even_column(uint32_t rows, uint32_t vectors, const float *weights,
                                 const struct tile_x *x, struct tile_row row[TILE_ROWS_MAX])
{
    struct tile_weights w = tile_load(vectors, weights);

    tile_even(vectors, x->row0, w, &row[0]);
    if (rows > 1) {
        tile_even(vectors, x->row0 + x->stride, w, &row[1]);
    }
    if (rows > 2) {
        tile_even(vectors, x->row0 + 2 * x->stride, w, &row[2]);
    }
    if (rows > 3) {
        tile_even(vectors, x->row3, w, &row[3]);
    }
    if (rows > 4) {
        tile_even(vectors, x->row3 + x->stride, w, &row[4]);
    }
    if (rows > 5) {
        tile_even(vectors, x->row3 + 2 * x->stride, w, &row[5]);
    }
    if (rows > 6) {
        tile_even(vectors, x->row6, w, &row[6]);
    }
}

/* The odd column after it. */
VEC_INLINE void tile_odd_column(uint32_t rows, uint32_t vectors, const float *weights,
                                const struct tile_x *x, struct tile_row row[TILE_ROWS_MAX])
{
    struct tile_weights w = tile_load(vectors, weights);

    tile_odd(vectors, x->row0 + 1, w, &row[0]);
    if (rows > 1) {
        tile_odd(vectors, x->row0 + x->stride + 1, w, &row[1]);
    }
    if (rows > 2) {
        tile_odd(vectors, x->row0 + 2 * x->stride + 1, w, &row[2]);
    }
    if (rows > 3) {
        tile_odd(vectors, x->row3 + 1, w, &row[3]);
    }
    if (rows > 4) {
        tile_odd(vectors, x->row3 + x->stride + 1, w, &row[4]);
    }
    if (rows > 5) {
        tile_odd(vectors, x->row3 + 2 * x->stride + 1, w, &row[5]);
    }
    if (rows > 6) {
        tile_odd(vectors, x->row6 + 1, w, &row[6]);
    }
}

/* On to the next two columns. The compiler must not see that the rows are related, or it would keep
 * an address for each row in registers that are not there. */
VEC_INLINE void tile_advance(uint32_t rows, struct tile_x *x)
{
    x->row0 += 2;
    __asm__("" : "+r"(x->row0));
    if (rows > 3) {
        x->row3 += 2;
        __asm__("" : "+r"(x->row3));
    }
    if (rows > 6) {
        x->row6 += 2;
        __asm__("" : "+r"(x->row6));
    }
}

VEC_INLINE void tile_zero(struct tile_row *row)
{
    row->e0 = vec_zero();
    row->e1 = vec_zero();
    row->o0 = vec_zero();
    row->o1 = vec_zero();
}

/* sums += e + o; a shorter step adds +0 to both first. */
VEC_INLINE void tile_fold(uint32_t vectors, bool shorter, const struct tile_row *row, float *sums)
{
    const vecf zero = vec_zero();
    vecf sum = shorter ? vec_add(vec_add(row->e0, zero), vec_add(row->o0, zero))
                       : vec_add(row->e0, row->o0);

    vec_store(sums, vec_add(vec_load(sums), sum));
    if (vectors > 1) {
        sum = shorter ? vec_add(vec_add(row->e1, zero), vec_add(row->o1, zero))
                      : vec_add(row->e1, row->o1);
        vec_store(sums + VEC_LANES, vec_add(vec_load(sums + VEC_LANES), sum));
    }
}

/* n columns, added to sums; n is TILE_STEP or less. */
VEC_INLINE void tile_step(uint32_t rows, uint32_t vectors, const float *w, struct tile_x *x,
                          uint32_t n, float *sums)
{
    const uint32_t width = vectors * VEC_LANES;
    struct tile_row row[TILE_ROWS_MAX];

    tile_zero(&row[0]);
    tile_zero(&row[1]);
    tile_zero(&row[2]);
    if (rows > 3) {
        tile_zero(&row[3]);
        tile_zero(&row[4]);
        tile_zero(&row[5]);
        tile_zero(&row[6]);
    }
    for (uint32_t k = n / 2; k > 0; k--) {
        tile_even_column(rows, vectors, w, x, row);
        tile_odd_column(rows, vectors, w + width, x, row);
        w += 2 * width;
        tile_advance(rows, x);
    }
    if (n % 2 != 0) {
        tile_even_column(rows, vectors, w, x, row);
    }
#pragma GCC unroll 7
    for (uint32_t i = 0; i < TILE_ROWS_MAX; i++) {
        if (i < rows) {
            tile_fold(vectors, n < TILE_STEP, &row[i], sums + i * width);
        }
    }
}

/* See gemm_tile_fn; rows and vectors are constants. */
VEC_INLINE void tile_compute(uint32_t rows, uint32_t vectors, const struct gemm_tile *tile)
{
    const uint32_t width = vectors * VEC_LANES;
    struct tile_x x = {.row0 = tile->x,
                       .row3 = tile->x + 3 * tile->x_stride,
                       .row6 = tile->x + 6 * tile->x_stride,
                       .stride = tile->x_stride};
    const float *w = tile->w;
    float *sums = tile->sums;

    for (uint32_t i = 0; !tile->add && i < rows * vectors; i++) {
        vec_store(sums + i * VEC_LANES, vec_zero());
    }
    for (uint32_t n = tile->n / TILE_STEP; n > 0; n--) {
        tile_step(rows, vectors, w, &x, TILE_STEP, sums);
        w += TILE_STEP * width;
        __asm__("" : "+r"(sums)); /* or gcc keeps the sums in registers that are not there */
    }
    if (tile->n % TILE_STEP != 0) {
        tile_step(rows, vectors, w, &x, tile->n % TILE_STEP, sums);
    }
}

#endif
