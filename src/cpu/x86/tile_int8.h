/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM with integer activations: a tile of up to four rows of x by one panel,
 * two vectors of lanes. Codes are taken apart once for a block of columns (struct int8_weights) and
 * lie in the first-level cache; x lies packed so that four codes of a row are one broadcast. The
 * integer sums fill the registers, the running sums lie in memory and are touched once in a group.
 */
#pragma once

#include "cpu/x86/gemm.h"
#include "cpu/x86/int8.h"

#if defined(VEC_LANES) && VEC_LANES == 8

enum { TILE_INT8_ROWS = 4 };

/* A group of 32 columns of a panel. */
struct int8_weights {
    uint8_t words[INT8_WORDS][64];      /* as int8_word gives them, 16 lanes */
    uint8_t magnitudes[INT8_WORDS][64]; /* INT8_SIGNED alone */
    float d[2][PACKED_LANES];
    float m[PACKED_LANES];
};

/* A group of columns of a tile's rows. */
struct int8_x {
    int8_t codes[INT8_WORDS][TILE_INT8_ROWS][4];
    float scale[TILE_INT8_ROWS];
    union {
        int32_t zero[TILE_INT8_ROWS]; /* -(the type's zero) times the sum of the codes */
        float sum[TILE_INT8_ROWS];    /* or, for types with a minimum, scale times that sum */
    };
};

/* See gemm_unpack_fn; n is a multiple of 32. */
VEC_INLINE void tile_int8_unpack(enum dtype dtype, const struct packed *w, uint32_t panel,
                                 uint32_t k, uint32_t n, struct int8_weights *out)
{
    const uint8_t *codes = w->codes + panel * w->panel_code_bytes;
    const uint8_t *scales = w->scales + panel * w->panel_scale_bytes;

    for (; n > 0; n -= QUANT_GROUP, k += QUANT_GROUP, out++) {
        for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
            struct weights open = weights_open(dtype, codes, scales, k, lane);

            vec_store(out->d[0] + lane, open.d[0]);
            if (int8_scale_words(dtype) < INT8_WORDS) {
                vec_store(out->d[1] + lane, open.d[1]);
            }
            if (packed_has_minimum(dtype)) {
                vec_store(out->m + lane, open.m[0]);
            }
#pragma GCC unroll 8
            for (uint32_t j = 0; j < INT8_WORDS; j++) {
                veci word = int8_word(dtype, open.codes - lane * 4, lane, j);

                vec_store_words(out->words[j] + lane * 4, word);
                if (int8_sum_of(dtype) == INT8_SIGNED) {
                    vec_store_words(out->magnitudes[j] + lane * 4, vec_abs_bytes(word));
                }
            }
        }
    }
}

/* See gemm_pack_fn. Rows beyond the last get the last one's values. */
VEC_INLINE void tile_int8_pack(enum dtype dtype, const struct cpu_matmul *args, uint32_t row,
                               uint32_t n, struct int8_x *out)
{
    const struct quant *q = &args->q;

    for (uint32_t g = 0; g < q->n_groups; g++, out++) {
        for (uint32_t i = 0; i < TILE_INT8_ROWS; i++) {
            size_t at = (size_t)(row + MIN(i, n - 1)) * q->n_groups + g;

            for (uint32_t j = 0; j < INT8_WORDS; j++) {
                memcpy(out->codes[j][i], q->codes + at * QUANT_GROUP + 4 * j, 4);
            }
            out->scale[i] = q->scales[at];
            if (packed_has_minimum(dtype)) {
                out->sum[i] = q->scales[at] * (float)q->sums[at];
            } else {
                out->zero[i] = -packed_code_zero(dtype) * q->sums[at];
            }
        }
    }
}

/* Integer sums of one row. As in tile.h, rows are written out one by one and no array is left. */
struct tile_int8_acc {
    veci v0;
    veci v1;
};

struct tile_int8_words {
    veci v0;
    veci v1;
    veci magnitude0;
    veci magnitude1;
};

VEC_INLINE void tile_int8_row(enum int8_sum how, const struct tile_int8_words *w, const int8_t *x,
                              struct tile_int8_acc *acc)
{
    veci four = vec_set1_bytes(x);

    acc->v0 = int8_add(how, acc->v0, w->v0, w->magnitude0, four);
    acc->v1 = int8_add(how, acc->v1, w->v1, w->magnitude1, four);
}

/* A row's integer sums over half h (or all) of a group, added to its running sums. */
VEC_INLINE void tile_int8_fold(enum dtype dtype, const struct int8_weights *w,
                               const struct int8_x *x, uint32_t i, uint32_t h,
                               struct tile_int8_acc acc, float *sums)
{
    const vecf scale = vec_set1(x->scale[i]);
    const veci zero =
        int8_wants_zero(dtype) ? vec_set1_word((uint32_t)x->zero[i]) : vec_set1_word(0);
    const float *d = w->d[h];
    float *at = sums + i * PACKED_LANES;
    vecf sum0 = vec_load(at);
    vecf sum1 = vec_load(at + VEC_LANES);

    sum0 = vec_fma(int8_number(dtype, acc.v0, zero), vec_mul(vec_load(d), scale), sum0);
    sum1 = vec_fma(int8_number(dtype, acc.v1, zero), vec_mul(vec_load(d + VEC_LANES), scale), sum1);
    if (packed_has_minimum(dtype)) {
        const vecf sum = vec_set1(x->sum[i]);

        sum0 = vec_fma(vec_load(w->m), sum, sum0);
        sum1 = vec_fma(vec_load(w->m + VEC_LANES), sum, sum1);
    }
    vec_store(at, sum0);
    vec_store(at + VEC_LANES, sum1);
}

/* Half h (or all) of a group. */
VEC_INLINE void tile_int8_half(enum dtype dtype, uint32_t rows, const struct int8_weights *w,
                               const struct int8_x *x, uint32_t h, float *sums)
{
    const enum int8_sum how = int8_sum_of(dtype);
    const uint32_t n_words = int8_scale_words(dtype);
    const struct tile_int8_acc none = {vec_set1_word(0), vec_set1_word(0)};
    struct tile_int8_acc row0 = none;
    struct tile_int8_acc row1 = none;
    struct tile_int8_acc row2 = none;
    struct tile_int8_acc row3 = none;

#pragma GCC unroll 8
    for (uint32_t j = h * n_words; j < (h + 1) * n_words; j++) {
        struct tile_int8_words word = {.v0 = vec_load_words(w->words[j]),
                                       .v1 = vec_load_words(w->words[j] + 32)};

        word.magnitude0 = how == INT8_SIGNED ? vec_load_words(w->magnitudes[j]) : word.v0;
        word.magnitude1 = how == INT8_SIGNED ? vec_load_words(w->magnitudes[j] + 32) : word.v1;
        tile_int8_row(how, &word, x->codes[j][0], &row0);
        if (rows > 1) {
            tile_int8_row(how, &word, x->codes[j][1], &row1);
        }
        if (rows > 2) {
            tile_int8_row(how, &word, x->codes[j][2], &row2);
        }
        if (rows > 3) {
            tile_int8_row(how, &word, x->codes[j][3], &row3);
        }
    }
    tile_int8_fold(dtype, w, x, 0, h, row0, sums);
    if (rows > 1) {
        tile_int8_fold(dtype, w, x, 1, h, row1, sums);
    }
    if (rows > 2) {
        tile_int8_fold(dtype, w, x, 2, h, row2, sums);
    }
    if (rows > 3) {
        tile_int8_fold(dtype, w, x, 3, h, row3, sums);
    }
}

/* See gemm_tile_fn; dtype and rows are constants. */
VEC_INLINE void tile_int8_compute(enum dtype dtype, uint32_t rows, const struct gemm_tile *tile)
{
    const struct int8_weights *w = tile->w;
    const struct int8_x *x = tile->x;
    const uint8_t *fetch = tile->fetch;
    float *sums = tile->sums;

    for (uint32_t i = 0; !tile->add && i < rows * PACKED_LANES; i += VEC_LANES) {
        vec_store(sums + i, vec_zero());
    }
    for (uint32_t n = tile->n / QUANT_GROUP; n > 0; n--, w++, x++) {
        fetch = gemm_fetch(tile, false, fetch);
        for (uint32_t h = 0; h < INT8_WORDS / int8_scale_words(dtype); h++) {
            tile_int8_half(dtype, rows, w, x, h, sums);
        }
        __asm__("" : "+r"(sums)); /* or gcc keeps the sums in registers that are not there */
    }
}

#endif
