/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM with integer activations where one vector is a panel: up to 16 rows of
 * x by one panel. The integer sums of all rows fill half of the registers; the running sums lie in
 * memory and are touched once in a group.
 *
 * It is bound by the units that multiply. Those of Zen 4 start one instruction of 64 bytes a cycle:
 * a group of a row takes them eight cycles for its codes, and two (types with a minimum: three) to
 * scale the sum and to add it. So of 472 GOP/s that byte products alone can do 378 (343) are left,
 * and with x in the first-level cache it is 378 (334). For that, everything else must be little:
 *
 *   - products load and broadcast x's codes by themselves, and sums begin with what the type's zero
 *     takes off (353 GOP/s with broadcasts apart and the zero at the end)
 *   - weights are taken apart in registers, from the panel as packed: no copy is written and read,
 *     which pays for 5 rows and for 512
 *   - 16 rows share that work (8 rows: Q8_0 375 GOP/s, Q5_K 312 instead of 328; whole products
 *     differ by 2 %, those of Q6_K by 10)
 */
#pragma once

#include "cpu/x86/int8.h"
#include "cpu/x86/tile.h"

#if defined(VEC_INT8) && VEC_LANES == 16

enum {
    TALL_ROWS = 16,
    TALL_UNIT = 2,            /* there are tiles of even heights alone, for each is much code */
    TALL_STEP = TALL_ROWS * 4 /* bytes of a word of x for all rows */
};

/* Sums of halves of a group of x make Q6_K's zero a start value, too, and its codes unsigned (202
 * GOP/s with codes that are signed, 284 so). */
VEC_INLINE enum int8_sum tall_sum_of(bool wide)
{
    return wide ? INT8_WIDE : INT8_DOT;
}

/* A group of columns of a tile's rows; the next one is tall_x_bytes away. */
struct tall_x {
    float scale[TALL_ROWS];
    union {
        /* -(the type's zero) times the sum of the codes: of the group, or of its halves for types
         * with a scale for each */
        int32_t zero[2][TALL_ROWS];
        float sum[TALL_ROWS]; /* or, for types with a minimum, scale times that sum */
    };
    uint8_t codes[]; /* [int8_x_words][TALL_ROWS][4] */
};

VEC_INLINE uint32_t tall_x_bytes(enum int8_sum how)
{
    return sizeof(struct tall_x) + int8_x_words(how) * TALL_STEP;
}

VEC_INLINE void tall_pack_row(enum dtype dtype, const struct quant *q, size_t at, uint32_t i,
                              struct tall_x *x)
{
    const bool halves = dtype == DTYPE_Q6_K && q->wide == NULL;
    int32_t second = 0;

    for (uint32_t k = QUANT_GROUP / 2; halves && k < QUANT_GROUP; k++) {
        second += q->codes[at * QUANT_GROUP + k];
    }
    x->scale[i] = q->scales[at];
    if (packed_has_minimum(dtype)) {
        x->sum[i] = q->scales[at] * (float)q->sums[at];
    } else {
        x->zero[0][i] = -packed_code_zero(dtype) * (q->sums[at] - second);
        x->zero[1][i] = -packed_code_zero(dtype) * second;
    }
}

/* See gemm_pack_fn. Rows beyond the last, as far as there are tiles of such a height, get the last
 * one's values. */
VEC_INLINE void tall_pack(enum dtype dtype, bool wide, const struct cpu_matmul *args, uint32_t row,
                          uint32_t n, uint8_t *out)
{
    const enum int8_sum how = tall_sum_of(wide);
    const struct quant *q = &args->q;
    const uint32_t n_fours = (uint32_t)div_up(n, 4);
    const size_t group_bytes = QUANT_GROUP * (wide ? sizeof(*q->wide) : sizeof(*q->codes));
    const uint8_t *codes = wide ? (const void *)q->wide : (const void *)q->codes;
    const float *from[TALL_ROWS];

    for (uint32_t g = 0; g < q->n_groups; g++, out += tall_x_bytes(how)) {
        struct tall_x *x = (void *)out;

        for (uint32_t i = 0; i < 4 * n_fours; i++) {
            size_t at = (size_t)(row + MIN(i, n - 1)) * q->n_groups + g;

            from[i] = (const void *)(codes + at * group_bytes);
            tall_pack_row(dtype, q, at, i, x);
        }
        for (uint32_t j = 0; j < int8_x_words(how); j += 4) {
            for (uint32_t i = 0; i < 4 * n_fours; i += 4) {
                transpose_four(from + i, j, (float *)(void *)(x->codes + j * TALL_STEP) + i,
                               TALL_ROWS);
            }
        }
    }
}

/* Integer sums of all rows. As in tile.h they are written out one by one, here four at a time, and
 * no array is left. */
struct tall_four {
    veci row0;
    veci row1;
    veci row2;
    veci row3;
};

struct tall_sums {
    struct tall_four four0;
    struct tall_four four1;
    struct tall_four four2;
    struct tall_four four3;
};

/* What the sums begin with, of half h (or all) of a group. */
VEC_INLINE veci tall_begin(enum dtype dtype, enum int8_sum how, const struct tall_x *x, uint32_t h,
                           uint32_t i)
{
    return vec_set1_word(int8_wants_zero(dtype, how) ? (uint32_t)x->zero[h][i] : 0);
}

VEC_INLINE struct tall_four tall_begin_four(enum dtype dtype, enum int8_sum how,
                                            const struct tall_x *x, uint32_t h, uint32_t i)
{
    return (struct tall_four){tall_begin(dtype, how, x, h, i), tall_begin(dtype, how, x, h, i + 1),
                              tall_begin(dtype, how, x, h, i + 2),
                              tall_begin(dtype, how, x, h, i + 3)};
}

/* sum + w times a word of x's codes. */
VEC_INLINE veci tall_add(enum int8_sum how, veci sum, struct int8_factor w, const uint8_t *x)
{
    return how == INT8_WIDE ? int8_add(how, sum, w, x, TALL_STEP)
                            : vec_dot_bytes_set1(sum, w.first, x);
}

/* One word times four rows of x, from row i on, as far as there are so many. */
VEC_INLINE void tall_four(enum int8_sum how, uint32_t rows, uint32_t i, struct int8_factor w,
                          const uint8_t *x, struct tall_four *sums)
{
    if (rows > i) {
        sums->row0 = tall_add(how, sums->row0, w, x + 4 * i);
    }
    if (rows > i + 1) {
        sums->row1 = tall_add(how, sums->row1, w, x + 4 * i + 4);
    }
    if (rows > i + 2) {
        sums->row2 = tall_add(how, sums->row2, w, x + 4 * i + 8);
    }
    if (rows > i + 3) {
        sums->row3 = tall_add(how, sums->row3, w, x + 4 * i + 12);
    }
}

/* The running sums of all rows, in memory. */
struct tall_run {
    float *sums;
    vec_flag add; /* to what is there, or to zeros */
};

/* The integer sum of row i over half h (or all) of a group, added to the running ones. */
VEC_INLINE void tall_end(enum dtype dtype, const struct weights *w, const struct tall_x *x,
                         uint32_t h, uint32_t i, veci sum, struct tall_run to)
{
    const vecf scale = vec_mul(w->d[h], vec_set1(x->scale[i]));
    float *sums = to.sums + i * PACKED_LANES;
    vecf run = vec_fma(vec_from_words(sum), scale, vec_load_if(to.add, sums));

    if (packed_has_minimum(dtype)) {
        run = vec_fma(w->m[0], vec_set1(x->sum[i]), run);
    }
    vec_store(sums, run);
}

VEC_INLINE void tall_end_four(enum dtype dtype, uint32_t rows, const struct weights *w,
                              const struct tall_x *x, uint32_t h, uint32_t i,
                              const struct tall_four *four, struct tall_run to)
{
    if (rows > i) {
        tall_end(dtype, w, x, h, i, four->row0, to);
    }
    if (rows > i + 1) {
        tall_end(dtype, w, x, h, i + 1, four->row1, to);
    }
    if (rows > i + 2) {
        tall_end(dtype, w, x, h, i + 2, four->row2, to);
    }
    if (rows > i + 3) {
        tall_end(dtype, w, x, h, i + 3, four->row3, to);
    }
}

/* Half h (or all) of a group. */
VEC_INLINE void tall_half(enum dtype dtype, enum int8_sum how, uint32_t rows,
                          const struct weights *w, const struct tall_x *x, uint32_t h,
                          struct tall_run to)
{
    const uint32_t n_words = int8_scale_words(dtype);
    struct tall_sums ints = {
        tall_begin_four(dtype, how, x, h, 0), tall_begin_four(dtype, how, x, h, 4),
        tall_begin_four(dtype, how, x, h, 8), tall_begin_four(dtype, how, x, h, 12)};

#pragma GCC unroll 8
    for (uint32_t j = h * n_words; j < (h + 1) * n_words; j++) {
        const struct int8_factor word = int8_factor(how, int8_word(dtype, how, w->codes, 0, j));
        const uint8_t *codes = x->codes + j * TALL_STEP;

        tall_four(how, rows, 0, word, codes, &ints.four0);
        tall_four(how, rows, 4, word, codes, &ints.four1);
        tall_four(how, rows, 8, word, codes, &ints.four2);
        tall_four(how, rows, 12, word, codes, &ints.four3);
    }
    tall_end_four(dtype, rows, w, x, h, 0, &ints.four0, to);
    tall_end_four(dtype, rows, w, x, h, 4, &ints.four1, to);
    tall_end_four(dtype, rows, w, x, h, 8, &ints.four2, to);
    tall_end_four(dtype, rows, w, x, h, 12, &ints.four3, to);
}

/* See gemm_tile_fn; dtype, wide and rows are constants. */
VEC_INLINE void tall_compute(enum dtype dtype, bool wide, uint32_t rows,
                             const struct gemm_tile *tile)
{
    const enum int8_sum how = tall_sum_of(wide);
    const struct packed *w = tile->packed;
    const uint8_t *codes = w->codes + tile->panel * w->panel_code_bytes;
    const uint8_t *scales = w->scales + tile->panel * w->panel_scale_bytes;
    const uint8_t *x = tile->x;
    const uint8_t *fetch = tile->fetch;
    struct tall_run to = {tile->sums, vec_all(tile->add)};

    for (uint32_t k = tile->k; k < tile->k + tile->n; k += QUANT_GROUP, x += tall_x_bytes(how)) {
        const struct weights open = weights_open(dtype, codes, scales, k, 0);

        fetch = gemm_fetch(tile, false, fetch);
#pragma GCC unroll 2
        for (uint32_t h = 0; h < INT8_WORDS / int8_scale_words(dtype); h++) {
            tall_half(dtype, how, rows, &open, (const void *)x, h, to);
            to.add = vec_all(true);
            __asm__("" : "+r"(to.sums)); /* or gcc keeps them in registers that are not there */
        }
    }
}

#endif
