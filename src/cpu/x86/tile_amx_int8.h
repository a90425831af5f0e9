/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM with integer activations in tile registers: 16 rows of x by one panel,
 * a group of 32 columns (or half of one, where scales change there) at a time. The weights' codes,
 * signed, are the second factor, those of 16 rows of x the first. The sums are exact integers; they
 * go through memory to be scaled and added to the running ones, which stay in 16 registers.
 *
 * The scales, one for 32 columns, bound it. A group of 16 rows and 16 outputs is 8,192 products, 16
 * cycles of the tile unit; scaling and adding its 256 sums are 48 vector operations on two ports,
 * 24 cycles, and 40 rows of tiles and 32 operands are read on two more, 36. So 230 products a cycle
 * are the most of the 1,024 that tiles can do, against 102 of byte products in vectors, which pay
 * the same for scaling. Measured on an Emerald Rapids core, 3072 x 1024 by 256 rows: Q8_0 487
 * GOP/s, Q4_0 521, where byte products in vectors give 359 and 371, and running sums in memory 331.
 *
 * Wide codes of x are 256 h + l (tensor/quant.h): 16 rows' h are the first tile, their l the
 * second, and the sums are put together as integers.
 */
#pragma once

#include "cpu/x86/amx.h"
#include "cpu/x86/gemm.h"
#include "cpu/x86/int8.h"
#include "cpu/x86/tile.h"

#if defined(AMX_TILES_ARE_THERE) && defined(VEC_INT8) && VEC_LANES == 16

enum {
    AMX_INT8_COLS_MAX = 1 << 16,
    AMX_INT8_FEW = 8,
    AMX_INT8_BLOCK = 1024 /* columns of a block: 22 KiB of weights stay in the first-level cache */
};

/* 32 columns of a panel. */
struct amx_int8_weights {
    uint8_t codes[INT8_WORDS][64]; /* the type's zero taken off */
    float d[2][PACKED_LANES];
    float m[PACKED_LANES];
};

/* 32 columns of 16 rows of x. */
struct amx_int8_x {
    float scale[AMX_ROWS];
    float sum[AMX_ROWS]; /* for types with a minimum: scale times the codes' sum */
    int8_t codes[][AMX_ROWS][QUANT_GROUP]; /* of 8 bits, or h and l of wide ones */
};

VEC_INLINE size_t amx_int8_x_bytes(bool wide)
{
    return sizeof(struct amx_int8_x) + (wide ? 2 : 1) * AMX_ROWS * QUANT_GROUP;
}

/* See gemm_unpack_fn. */
VEC_INLINE void amx_int8_unpack(enum dtype dtype, const struct packed *w, uint32_t panel,
                                uint32_t k, uint32_t n, struct amx_int8_weights *out)
{
    const veci zero = vec_set1_word((uint32_t)packed_code_zero(dtype) * 0x01010101u);
    const uint8_t *codes = w->codes + panel * w->panel_code_bytes;
    const uint8_t *scales = w->scales + panel * w->panel_scale_bytes;

    for (; n > 0; n -= QUANT_GROUP, k += QUANT_GROUP, out++) {
        struct weights open = weights_open(dtype, codes, scales, k, 0);

        vec_store(out->d[0], open.d[0]);
        if (int8_scale_words(dtype) < INT8_WORDS) {
            vec_store(out->d[1], open.d[1]);
        }
        if (packed_has_minimum(dtype)) {
            vec_store(out->m, open.m[0]);
        }
#pragma GCC unroll 8
        for (uint32_t j = 0; j < INT8_WORDS; j++) {
            veci word = int8_word(dtype, INT8_DOT, open.codes, 0, j);

            vec_store_words(out->codes[j],
                            packed_code_zero(dtype) == 0 ? word : vec_sub_bytes(word, zero));
        }
    }
}

/* The codes of group `at` of x (counted through all rows) as those of row i. */
VEC_INLINE void amx_int8_codes(bool wide, const struct quant *q, size_t at, uint32_t i,
                               struct amx_int8_x *out)
{
    if (!wide) {
        memcpy(out->codes[0][i], q->codes + at * QUANT_GROUP, QUANT_GROUP);
        return;
    }
    for (uint32_t k = 0; k < QUANT_GROUP; k++) {
        int32_t code = q->wide[at * QUANT_GROUP + quant_wide_at(k)];
        int32_t high = (code + 128) >> 8;

        out->codes[0][i][k] = (int8_t)high;
        out->codes[1][i][k] = (int8_t)(code - 256 * high);
    }
}

/* See gemm_pack_fn. Rows beyond the last are zero. */
VEC_INLINE void amx_int8_pack(enum dtype dtype, bool wide, const struct cpu_matmul *args,
                              uint32_t row, uint32_t n, uint8_t *out)
{
    const struct quant *q = &args->q;

    for (uint32_t g = 0; g < q->n_groups; g++, out += amx_int8_x_bytes(wide)) {
        struct amx_int8_x *x = (void *)out;

        if (n < AMX_ROWS) {
            memset(x, 0, amx_int8_x_bytes(wide));
        }
        for (uint32_t i = 0; i < n; i++) {
            size_t at = (size_t)(row + i) * q->n_groups + g;

            amx_int8_codes(wide, q, at, i, x);
            x->scale[i] = q->scales[at];
            x->sum[i] = packed_has_minimum(dtype) ? q->scales[at] * (float)q->sums[at] : 0;
        }
    }
}

/* The running sums of a tile. As in tile.h they are written out one by one and no array is left. */
#define AMX_EACH(DO) \
    DO(0)            \
    DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

struct amx_int8_run {
#define AMX_ROW(i) vecf row##i;
    AMX_EACH(AMX_ROW)
#undef AMX_ROW
};

VEC_INLINE struct amx_int8_run amx_int8_begin(const struct gemm_tile *tile)
{
    struct amx_int8_run run;

#define AMX_ROW(i) run.row##i = tile->add ? vec_load(tile->sums + (i)*PACKED_LANES) : vec_zero();
    AMX_EACH(AMX_ROW)
#undef AMX_ROW
    return run;
}

VEC_INLINE void amx_int8_end(const struct gemm_tile *tile, const struct amx_int8_run *run)
{
#define AMX_ROW(i) vec_store(tile->sums + (i)*PACKED_LANES, run->row##i);
    AMX_EACH(AMX_ROW)
#undef AMX_ROW
}

/* Integer sums on their way. */
typedef int32_t amx_int8_sums[2][AMX_ROWS][PACKED_LANES];

/* The products of half h (or all) of a group. Two follow each other in different tiles, odd or not,
 * so that one is scaled while the next is computed. */
VEC_INLINE void amx_int8_dot(enum dtype dtype, bool wide, bool odd,
                             const struct amx_int8_weights *w, const struct amx_int8_x *x,
                             uint32_t h)
{
    const uint32_t word = h * int8_scale_words(dtype);

    if (odd) {
        amx_zero(1);
        amx_load(5, x->codes[0][0] + 4 * word, QUANT_GROUP);
        amx_load(7, w->codes[word], AMX_ROW_BYTES);
        amx_dot_signed(1, 5, 7);
        if (wide) {
            amx_zero(3);
            amx_load(5, x->codes[1][0] + 4 * word, QUANT_GROUP);
            amx_dot_signed(3, 5, 7);
        }
        return;
    }
    amx_zero(0);
    amx_load(4, x->codes[0][0] + 4 * word, QUANT_GROUP);
    amx_load(6, w->codes[word], AMX_ROW_BYTES);
    amx_dot_signed(0, 4, 6);
    if (wide) {
        amx_zero(2);
        amx_load(4, x->codes[1][0] + 4 * word, QUANT_GROUP);
        amx_dot_signed(2, 4, 6);
    }
}

/* The integer sums of row i. */
VEC_INLINE veci amx_int8_sum(bool wide, amx_int8_sums sums, uint32_t i)
{
    const veci sum = vec_load_words(sums[0][i]);

    return wide ? vec_add_words(vec_shl(sum, 8), vec_load_words(sums[1][i])) : sum;
}

/* Those of amx_int8_dot, scaled and added to the running ones. */
VEC_INLINE void amx_int8_fold(enum dtype dtype, bool wide, bool odd,
                              const struct amx_int8_weights *w, const struct amx_int8_x *x,
                              uint32_t h, amx_int8_sums sums, struct amx_int8_run *run)
{
    const vecf d = vec_load(w->d[h]);
    const vecf m = packed_has_minimum(dtype) ? vec_load(w->m) : vec_zero();

    if (odd) {
        amx_store(1, sums[0], AMX_ROW_BYTES);
        if (wide) {
            amx_store(3, sums[1], AMX_ROW_BYTES);
        }
    } else {
        amx_store(0, sums[0], AMX_ROW_BYTES);
        if (wide) {
            amx_store(2, sums[1], AMX_ROW_BYTES);
        }
    }
#define AMX_ROW(i)                                                         \
    run->row##i = vec_fma(vec_from_words(amx_int8_sum(wide, sums, i)),     \
                          vec_mul(d, vec_set1(x->scale[i])), run->row##i); \
    if (packed_has_minimum(dtype)) {                                       \
        run->row##i = vec_fma(m, vec_set1(x->sum[i]), run->row##i);        \
    }
    AMX_EACH(AMX_ROW)
#undef AMX_ROW
}

/* See gemm_tile_fn; for 16 rows and one panel. */
VEC_INLINE void amx_int8_compute(enum dtype dtype, bool wide, const struct gemm_tile *tile)
{
    const uint32_t halves = INT8_WORDS / int8_scale_words(dtype);
    const uint32_t n = tile->n / QUANT_GROUP * halves;
    const struct amx_int8_weights *w = tile->w;
    const uint8_t *x = tile->x;
    const uint8_t *fetch = tile->fetch;
    struct amx_int8_run run = amx_int8_begin(tile);
    _Alignas(CACHE_LINE) amx_int8_sums even_sums;
    _Alignas(CACHE_LINE) amx_int8_sums odd_sums;

    amx_int8_dot(dtype, wide, false, w, (const void *)x, 0);
    for (uint32_t i = 0; i < n; i += 2) {
        /* the halves of a group, or two groups */
        const struct amx_int8_weights *odd_w = halves == 2 ? w : w + 1;
        const uint8_t *odd_x = halves == 2 ? x : x + amx_int8_x_bytes(wide);
        const struct amx_int8_weights *next_w = odd_w + 1;
        const uint8_t *next_x = odd_x + amx_int8_x_bytes(wide);

        fetch = gemm_fetch(tile, false, fetch);
        if (i + 1 < n) {
            amx_int8_dot(dtype, wide, true, odd_w, (const void *)odd_x, halves - 1);
        }
        amx_int8_fold(dtype, wide, false, w, (const void *)x, 0, even_sums, &run);
        if (i + 1 == n) {
            break;
        }
        if (halves == 1) {
            fetch = gemm_fetch(tile, false, fetch);
        }
        if (i + 2 < n) {
            amx_int8_dot(dtype, wide, false, next_w, (const void *)next_x, 0);
        }
        amx_int8_fold(dtype, wide, true, odd_w, (const void *)odd_x, halves - 1, odd_sums, &run);
        w = next_w;
        x = next_x;
    }
    amx_int8_end(tile, &run);
}

/* Whether tiles are for this product: there are more rows of x than a vector kernel takes at once,
 * and its codes fit the scratch memory. */
static bool amx_int8_takes(const struct cpu_matmul *args)
{
    return args->m > AMX_INT8_FEW && (size_t)args->q.n_groups * QUANT_GROUP <= AMX_INT8_COLS_MAX;
}

/* All that one type needs for x's codes of one width. */
#define AMX_INT8_PRODUCT(name, type, wide)                                                  \
    static void amx_compute_##name(const struct gemm_tile *tile)                            \
    {                                                                                       \
        amx_int8_compute(type, wide, tile);                                                 \
    }                                                                                       \
    static void amx_pack_##name(const struct cpu_matmul *args, uint32_t row, uint32_t n,    \
                                void *out)                                                  \
    {                                                                                       \
        amx_int8_pack(type, wide, args, row, n, out);                                       \
    }                                                                                       \
    static const struct gemm_isa isa_amx_##name = {                                         \
        .rows = AMX_ROWS,                                                                   \
        .row_unit = AMX_ROWS,                                                               \
        .integers = true,                                                                   \
        .granule = QUANT_GROUP,                                                             \
        .x_granule = sizeof(struct amx_int8_x) + ((wide) ? 2 : 1) * AMX_ROWS * QUANT_GROUP, \
        .pack = amx_pack_##name,                                                            \
        .panels = 1,                                                                        \
        .cols = AMX_INT8_BLOCK,                                                             \
        .weight_bytes = AMX_INT8_BLOCK / QUANT_GROUP * sizeof(struct amx_int8_weights),     \
        .x_bytes = TILE_X_BYTES,                                                            \
        .tile_any = amx_compute_##name,                                                     \
        .add = tile_add,                                                                    \
        .write = tile_write,                                                                \
    };

#define AMX_INT8_TYPE(name, type)                                                                 \
    AMX_INT8_PRODUCT(int8_##name, type, false)                                                    \
    AMX_INT8_PRODUCT(wide_##name, type, true)                                                     \
    static void amx_unpack_##name(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, \
                                  float *out, size_t stride)                                      \
    {                                                                                             \
        (void)stride;                                                                             \
        amx_int8_unpack(type, w, panel, k, n, (struct amx_int8_weights *)(void *)out);            \
    }                                                                                             \
    static void matmul_amx_int8_##name(const struct cpu_matmul *args)                             \
    {                                                                                             \
        bool wide = args->q.wide != NULL;                                                         \
                                                                                                  \
        amx_begin(4 * int8_scale_words(type));                                                    \
        gemm(args, wide ? &isa_amx_wide_##name : &isa_amx_int8_##name, amx_unpack_##name);        \
        amx_end();                                                                                \
        vec_leave();                                                                              \
    }

AMX_INT8_TYPE(q8_0, DTYPE_Q8_0)
AMX_INT8_TYPE(q4_0, DTYPE_Q4_0)
AMX_INT8_TYPE(q4_1, DTYPE_Q4_1)
AMX_INT8_TYPE(q5_0, DTYPE_Q5_0)
AMX_INT8_TYPE(q5_1, DTYPE_Q5_1)
AMX_INT8_TYPE(q4_k, DTYPE_Q4_K)
AMX_INT8_TYPE(q5_k, DTYPE_Q5_K)
AMX_INT8_TYPE(q6_k, DTYPE_Q6_K)

static void (*const amx_int8_products[DTYPE_COUNT])(const struct cpu_matmul *args) = {
    [DTYPE_Q8_0] = matmul_amx_int8_q8_0, [DTYPE_Q4_0] = matmul_amx_int8_q4_0,
    [DTYPE_Q4_1] = matmul_amx_int8_q4_1, [DTYPE_Q5_0] = matmul_amx_int8_q5_0,
    [DTYPE_Q5_1] = matmul_amx_int8_q5_1, [DTYPE_Q4_K] = matmul_amx_int8_q4_k,
    [DTYPE_Q5_K] = matmul_amx_int8_q5_k, [DTYPE_Q6_K] = matmul_amx_int8_q6_k,
};

#endif
