/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM with integer activations where two vectors are a panel (for one, see
 * tile_int8_tall.h): a tile of some rows of x by one panel. Codes are taken apart once for a block
 * of columns (struct int8_weights) and lie in the first-level cache; x lies packed so that four
 * codes of a row are one broadcast. The integer sums fill the registers, the running sums lie in
 * memory and are touched once in a group.
 */
#pragma once

#include "cpu/x86/int8.h"
#include "cpu/x86/tile.h"

#ifdef VEC_INT8

enum {
    TILE_INT8_ROWS = 4,
    TILE_INT8_STEP = TILE_INT8_ROWS * 4, /* bytes of a word of x for all rows */
    /* x split into halves is large, and blocks of fewer rows take weights apart more often (AVX2,
     * 384 KiB instead of 256, 3072 columns: 2 %). */
    TILE_INT8_X_BYTES = TILE_X_BYTES * 3 / 2
};

/* Whether tiles split signed codes of this type into halves and x's codes with them: as many
 * instructions as turning x's signs for products of bytes, but of kinds that more units have. */
#define TILE_INT8_SPLITS(dtype) \
    (!VEC_DOT && !VEC_SIGNED && ((dtype) == DTYPE_Q8_0 || (dtype) == DTYPE_Q6_K))

VEC_INLINE enum int8_sum tile_int8_sum_of(enum dtype dtype, bool wide)
{
    return int8_sum_of(dtype, wide || TILE_INT8_SPLITS(dtype));
}

/* A group of 32 columns of a panel. */
struct int8_weights {
    uint8_t first[INT8_WORDS][64];  /* as int8_factor gives them, 16 lanes */
    uint8_t second[INT8_WORDS][64]; /* where it gives two */
    float d[2][PACKED_LANES];
    float m[PACKED_LANES];
};

/* A group of columns of a tile's rows; the next one is tile_int8_x_bytes away. */
struct int8_x {
    float scale[TILE_INT8_ROWS];
    union {
        int32_t zero[TILE_INT8_ROWS]; /* -(the type's zero) times the sum of the codes */
        float sum[TILE_INT8_ROWS];    /* or, for types with a minimum, scale times that sum */
    };
    uint8_t codes[]; /* [int8_x_words][TILE_INT8_ROWS][4] */
};

VEC_INLINE uint32_t tile_int8_x_bytes(enum int8_sum how)
{
    return sizeof(struct int8_x) + int8_x_words(how) * TILE_INT8_STEP;
}

/* See gemm_unpack_fn; n is a multiple of 32. */
VEC_INLINE void tile_int8_unpack(enum dtype dtype, bool wide, const struct packed *w,
                                 uint32_t panel, uint32_t k, uint32_t n, struct int8_weights *out)
{
    const enum int8_sum how = tile_int8_sum_of(dtype, wide);
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
                veci word = int8_word(dtype, how, open.codes - lane * 4, lane, j);
                struct int8_factor factor = int8_factor(how, word);

                vec_store_words(out->first[j] + lane * 4, factor.first);
                if (int8_has_second(how)) {
                    vec_store_words(out->second[j] + lane * 4, factor.second);
                }
            }
        }
    }
}

/* The codes of group `at` of x (counted through all rows): as they lie, or those of 8 bits as wide
 * ones in `split`. */
VEC_INLINE const float *tile_int8_codes(enum int8_sum how, bool wide, const struct quant *q,
                                        size_t at, int16_t split[QUANT_GROUP])
{
    const int8_t *codes = q->codes + at * QUANT_GROUP;

    if (wide) {
        return (const float *)(const void *)(q->wide + at * QUANT_GROUP);
    }
    if (how != INT8_WIDE) {
        return (const float *)(const void *)codes;
    }
    for (uint32_t j = 0; j < INT8_WORDS; j += VEC_LANES) {
        veci words = vec_load_words(codes + 4 * j);

        vec_store_words(split + 2 * j, vec_even_bytes(words));
        vec_store_words(split + QUANT_GROUP / 2 + 2 * j, vec_odd_bytes(words));
    }
    return (const float *)(const void *)split;
}

/* See gemm_pack_fn. Rows beyond the last get the last one's values. */
VEC_INLINE void tile_int8_pack(enum dtype dtype, bool wide, const struct cpu_matmul *args,
                               uint32_t row, uint32_t n, uint8_t *out)
{
    const enum int8_sum how = tile_int8_sum_of(dtype, wide);
    const struct quant *q = &args->q;
    int16_t split[TILE_INT8_ROWS][QUANT_GROUP];
    const float *from[TILE_INT8_ROWS];

    for (uint32_t g = 0; g < q->n_groups; g++, out += tile_int8_x_bytes(how)) {
        struct int8_x *x = (void *)out;

        for (uint32_t i = 0; i < TILE_INT8_ROWS; i++) {
            size_t at = (size_t)(row + MIN(i, n - 1)) * q->n_groups + g;

            from[i] = tile_int8_codes(how, wide, q, at, split[i]);
            x->scale[i] = q->scales[at];
            if (packed_has_minimum(dtype)) {
                x->sum[i] = q->scales[at] * (float)q->sums[at];
            } else {
                x->zero[i] = -packed_code_zero(dtype) * q->sums[at];
            }
        }
        for (uint32_t j = 0; j < int8_x_words(how); j += 4) {
            for (uint32_t i = 0; i < TILE_INT8_ROWS; i += 4) {
                transpose_four(from + i, j, (float *)(void *)(x->codes + j * TILE_INT8_STEP) + i,
                               TILE_INT8_ROWS);
            }
        }
    }
}

/* Integer sums of one row, in v0 alone where a vector is a panel. As in tile.h, rows are written
 * out one by one and no array is left. */
struct tile_int8_acc {
    veci v0;
    veci v1;
};

struct tile_int8_words {
    struct int8_factor v0;
    struct int8_factor v1;
};

VEC_INLINE struct int8_factor tile_int8_factor(enum int8_sum how, const struct int8_weights *w,
                                               uint32_t j, uint32_t lane)
{
    struct int8_factor factor = {.first = vec_load_words(w->first[j] + lane * 4)};

    factor.second = int8_has_second(how) ? vec_load_words(w->second[j] + lane * 4) : factor.first;
    return factor;
}

/* Word j of a group. */
VEC_INLINE struct tile_int8_words tile_int8_open(enum int8_sum how, const struct int8_weights *w,
                                                 uint32_t j)
{
    struct tile_int8_words word = {.v0 = tile_int8_factor(how, w, j, 0)};

    word.v1 = word.v0;
    if (VEC_LANES < PACKED_LANES) {
        word.v1 = tile_int8_factor(how, w, j, VEC_LANES);
    }
    return word;
}

VEC_INLINE void tile_int8_row(enum int8_sum how, const struct tile_int8_words *w, const uint8_t *x,
                              struct tile_int8_acc *acc)
{
    acc->v0 = int8_add(how, acc->v0, w->v0, x, TILE_INT8_STEP);
    if (VEC_LANES < PACKED_LANES) {
        acc->v1 = int8_add(how, acc->v1, w->v1, x, TILE_INT8_STEP);
    }
}

/* The lanes from `lane` on of row i's integer sums over half h (or all) of a group, added to its
 * running sums. */
VEC_INLINE void tile_int8_fold(enum dtype dtype, enum int8_sum how, const struct int8_weights *w,
                               const struct int8_x *x, uint32_t i, uint32_t h, uint32_t lane,
                               veci acc, float *sums)
{
    const vecf scale = vec_mul(vec_load(w->d[h] + lane), vec_set1(x->scale[i]));
    const veci zero = vec_set1_word(int8_wants_zero(dtype, how) ? (uint32_t)x->zero[i] : 0);
    vecf sum = vec_fma(int8_number(dtype, how, acc, zero), scale, vec_load(sums + lane));

    if (packed_has_minimum(dtype)) {
        sum = vec_fma(vec_load(w->m + lane), vec_set1(x->sum[i]), sum);
    }
    vec_store(sums + lane, sum);
}

VEC_INLINE void tile_int8_end(enum dtype dtype, enum int8_sum how, const struct int8_weights *w,
                              const struct int8_x *x, uint32_t i, uint32_t h,
                              struct tile_int8_acc acc, float *sums)
{
    float *run = sums + i * PACKED_LANES;

    tile_int8_fold(dtype, how, w, x, i, h, 0, acc.v0, run);
    if (VEC_LANES < PACKED_LANES) {
        tile_int8_fold(dtype, how, w, x, i, h, VEC_LANES, acc.v1, run);
    }
}

struct tile_int8_accs {
    struct tile_int8_acc row0;
    struct tile_int8_acc row1;
    struct tile_int8_acc row2;
    struct tile_int8_acc row3;
};

/* One word times the rows. */
VEC_INLINE void tile_int8_rows(enum int8_sum how, uint32_t rows, const struct tile_int8_words *word,
                               const uint8_t *x, struct tile_int8_accs *accs)
{
    tile_int8_row(how, word, x, &accs->row0);
    if (rows > 1) {
        tile_int8_row(how, word, x + 4, &accs->row1);
    }
    if (rows > 2) {
        tile_int8_row(how, word, x + 8, &accs->row2);
    }
    if (rows > 3) {
        tile_int8_row(how, word, x + 12, &accs->row3);
    }
}

/* Half h (or all) of a group. */
VEC_INLINE void tile_int8_half(enum dtype dtype, enum int8_sum how, uint32_t rows,
                               const struct int8_weights *w, const struct int8_x *x, uint32_t h,
                               float *sums)
{
    const uint32_t n_words = int8_scale_words(dtype);
    const struct tile_int8_acc none = {vec_set1_word(0), vec_set1_word(0)};
    struct tile_int8_accs accs = {none, none, none, none};

#pragma GCC unroll 8
    for (uint32_t j = h * n_words; j < (h + 1) * n_words; j++) {
        struct tile_int8_words word = tile_int8_open(how, w, j);

        tile_int8_rows(how, rows, &word, x->codes + j * TILE_INT8_STEP, &accs);
    }
    tile_int8_end(dtype, how, w, x, 0, h, accs.row0, sums);
    if (rows > 1) {
        tile_int8_end(dtype, how, w, x, 1, h, accs.row1, sums);
    }
    if (rows > 2) {
        tile_int8_end(dtype, how, w, x, 2, h, accs.row2, sums);
    }
    if (rows > 3) {
        tile_int8_end(dtype, how, w, x, 3, h, accs.row3, sums);
    }
}

/* See gemm_tile_fn; dtype, wide and rows are constants. */
VEC_INLINE void tile_int8_compute(enum dtype dtype, bool wide, uint32_t rows,
                                  const struct gemm_tile *tile)
{
    const enum int8_sum how = tile_int8_sum_of(dtype, wide);
    const struct int8_weights *w = tile->w;
    const uint8_t *x = tile->x;
    const uint8_t *fetch = tile->fetch;
    float *sums = tile->sums;

    for (uint32_t i = 0; !tile->add && i < rows * PACKED_LANES; i += VEC_LANES) {
        vec_store(sums + i, vec_zero());
    }
    for (uint32_t n = tile->n / QUANT_GROUP; n > 0; n--, w++, x += tile_int8_x_bytes(how)) {
        fetch = gemm_fetch(tile, false, fetch);
        for (uint32_t h = 0; h < INT8_WORDS / int8_scale_words(dtype); h++) {
            tile_int8_half(dtype, how, rows, w, (const void *)x, h, sums);
        }
        __asm__("" : "+r"(sums)); /* or gcc keeps the sums in registers that are not there */
    }
}

#endif
