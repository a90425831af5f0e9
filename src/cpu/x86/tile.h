/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM: a tile of TILE_ROWS rows of x by one or two panels. Weights come
 * unpacked, so it is bound by the rate of fused multiply-adds: even and odd accumulators fill the
 * registers (AVX-512: 7 rows x 2 vectors x 2 = 28 of 32; AVX2: 3 x 2 x 2 = 12 of 16), each weight
 * vector is used for every row and each broadcast value of x for every vector. The running sum lies
 * in memory and is touched once in 32 columns.
 *
 * Where another program runs on the core's second hardware thread, half as many instructions start
 * in a cycle, and these are then the bound: x comes packed, so that one register addresses all its
 * rows, and for three of the seven the multiply-adds themselves load and broadcast x. For all seven
 * that would be more loads than a core with both halves to itself can do.
 */
#pragma once

#include "cpu/x86/gemm.h"
#include "cpu/x86/vec.h"

#ifdef VEC_LANES

enum {
    TILE_ROWS = VEC_LANES == 16 ? 7 : 3,
    TILE_STRIDE = VEC_LANES == 16 ? 8 : 4, /* of packed x, from column to column */
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

/* The weights of one column. */
struct tile_weights {
    vecf v0;
    vecf v1;
};

/* One value of x, of an even column. Folded: each multiply-add broadcasts it by itself. */
VEC_INLINE void tile_even(uint32_t vectors, bool folded, const float *x, struct tile_weights w,
                          struct tile_row *row)
{
    if (folded) {
        row->e0 = vec_fma_set1(x, w.v0, row->e0);
        row->e1 = vectors > 1 ? vec_fma_set1(x, w.v1, row->e1) : row->e1;
    } else {
        vecf factor = vec_set1(*x);

        row->e0 = vec_fma(factor, w.v0, row->e0);
        row->e1 = vectors > 1 ? vec_fma(factor, w.v1, row->e1) : row->e1;
    }
}

/* Of an odd column. */
VEC_INLINE void tile_odd(uint32_t vectors, bool folded, const float *x, struct tile_weights w,
                         struct tile_row *row)
{
    if (folded) {
        row->o0 = vec_fma_set1(x, w.v0, row->o0);
        row->o1 = vectors > 1 ? vec_fma_set1(x, w.v1, row->o1) : row->o1;
    } else {
        vecf factor = vec_set1(*x);

        row->o0 = vec_fma(factor, w.v0, row->o0);
        row->o1 = vectors > 1 ? vec_fma(factor, w.v1, row->o1) : row->o1;
    }
}

VEC_INLINE struct tile_weights tile_load(uint32_t vectors, const float *w)
{
    struct tile_weights loaded;

    loaded.v0 = vec_load(w);
    loaded.v1 = vectors > 1 ? vec_load(w + VEC_LANES) : loaded.v0;
    return loaded;
}

/* An even column, for all rows. */
VEC_INLINE void tile_even_column(uint32_t rows, uint32_t vectors, const float *weights,
                                 const float *x, struct tile_row row[TILE_ROWS_MAX])
{
    struct tile_weights w = tile_load(vectors, weights);

    tile_even(vectors, true, x, w, &row[0]);
    if (rows > 1) {
        tile_even(vectors, true, x + 1, w, &row[1]);
    }
    if (rows > 2) {
        tile_even(vectors, true, x + 2, w, &row[2]);
    }
    if (rows > 3) {
        tile_even(vectors, false, x + 3, w, &row[3]);
    }
    if (rows > 4) {
        tile_even(vectors, false, x + 4, w, &row[4]);
    }
    if (rows > 5) {
        tile_even(vectors, false, x + 5, w, &row[5]);
    }
    if (rows > 6) {
        tile_even(vectors, false, x + 6, w, &row[6]);
    }
}

/* An odd one. */
VEC_INLINE void tile_odd_column(uint32_t rows, uint32_t vectors, const float *weights,
                                const float *x, struct tile_row row[TILE_ROWS_MAX])
{
    struct tile_weights w = tile_load(vectors, weights);

    tile_odd(vectors, true, x, w, &row[0]);
    if (rows > 1) {
        tile_odd(vectors, true, x + 1, w, &row[1]);
    }
    if (rows > 2) {
        tile_odd(vectors, true, x + 2, w, &row[2]);
    }
    if (rows > 3) {
        tile_odd(vectors, false, x + 3, w, &row[3]);
    }
    if (rows > 4) {
        tile_odd(vectors, false, x + 4, w, &row[4]);
    }
    if (rows > 5) {
        tile_odd(vectors, false, x + 5, w, &row[5]);
    }
    if (rows > 6) {
        tile_odd(vectors, false, x + 6, w, &row[6]);
    }
}

/* Packs n columns of some rows of x (see gemm_tile.x); up to three columns more are read and
 * written, and in rows beyond the last the last one's values. */
static void tile_pack(const float *x, size_t stride, uint32_t rows, uint32_t n, float *out)
{
    const float *from[TILE_STRIDE];

    for (uint32_t i = 0; i < TILE_STRIDE; i++) {
        from[i] = x + MIN(i, rows - 1) * stride;
    }
    for (uint32_t k = 0; k < n; k += 4) {
        for (uint32_t i = 0; i < TILE_STRIDE; i += 4) {
            __m128 a = _mm_loadu_ps(from[i] + k);
            __m128 b = _mm_loadu_ps(from[i + 1] + k);
            __m128 c = _mm_loadu_ps(from[i + 2] + k);
            __m128 d = _mm_loadu_ps(from[i + 3] + k);

            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(out + i, a);
            _mm_storeu_ps(out + TILE_STRIDE + i, b);
            _mm_storeu_ps(out + 2 * TILE_STRIDE + i, c);
            _mm_storeu_ps(out + 3 * TILE_STRIDE + i, d);
        }
        out += 4 * TILE_STRIDE;
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
VEC_INLINE void tile_step(uint32_t rows, uint32_t vectors, const float *w, const float *x,
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
        tile_odd_column(rows, vectors, w + width, x + TILE_STRIDE, row);
        w += 2 * width;
        x += 2 * TILE_STRIDE;
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
    const float *x = tile->x;
    const float *w = tile->w;
    float *sums = tile->sums;

    for (uint32_t i = 0; !tile->add && i < rows * vectors; i++) {
        vec_store(sums + i * VEC_LANES, vec_zero());
    }
    for (uint32_t n = tile->n / TILE_STEP; n > 0; n--) {
        tile_step(rows, vectors, w, x, TILE_STEP, sums);
        w += TILE_STEP * width;
        x += TILE_STEP * TILE_STRIDE;
        __asm__("" : "+r"(sums)); /* or gcc keeps the sums in registers that are not there */
    }
    if (tile->n % TILE_STEP != 0) {
        tile_step(rows, vectors, w, x, tile->n % TILE_STEP, sums);
    }
}

#endif
