/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM with integer activations in tile registers: up to 32 rows of x by one
 * panel, a group of 32 columns (or half of one, where scales change there) at a time. The words of
 * a group as they are unpacked (struct int8_weights) are the second factor as they lie, the codes
 * of 16 rows of x the first. The sums are exact integers, and go through memory to be scaled and
 * added as in tile_int8.h.
 *
 * Counted, not measured, for no such machine was at hand: a group of 16 rows and 16 outputs is
 * 8,192 products, 16 cycles of the tile unit. Scaling and adding its 256 sums are about 64 vector
 * operations, 32 cycles on two ports; the sums go through memory twice, about 84 lines read and 32
 * written, 42 cycles. So the scales, one for 32 columns, bound it to 140 to 195 products a cycle of
 * the 1,024 that tiles can do, against about 85 of byte dot products in vectors, which pay the same
 * for scaling: twice as fast, not six times.
 *
 * Wide codes of x are 256 h + l (tensor/quant.h): 16 rows' h are the first tile, their l the
 * second, and the sums are put together as integers.
 */
#pragma once

#include "cpu/x86/amx.h"
#include "cpu/x86/gemm.h"
#include "cpu/x86/tile_int8.h"

#if defined(AMX_TILES_ARE_THERE) && defined(VEC_INT8) && VEC_LANES == 16

enum { AMX_INT8_ROWS = 2 * AMX_ROWS, AMX_INT8_COLS_MAX = 1 << 16, AMX_INT8_FEW = 8 };

/* A group of columns of a tile's rows. */
struct amx_int8_x {
    int8_t codes[AMX_INT8_ROWS][QUANT_GROUP];
    struct tile_int8_row rows[AMX_INT8_ROWS];
};

/* The codes of group `at` of x (counted through all rows) as those of row i: of 8 bits, or h and l
 * of wide ones. */
VEC_INLINE void amx_int8_codes(bool wide, const struct quant *q, size_t at, uint32_t i,
                               struct amx_int8_x *out)
{
    if (!wide) {
        memcpy(out->codes[i], q->codes + at * QUANT_GROUP, QUANT_GROUP);
        return;
    }
    for (uint32_t k = 0; k < QUANT_GROUP; k++) {
        int32_t code = q->wide[at * QUANT_GROUP + quant_wide_at(k)];
        int32_t high = (code + 128) >> 8;

        out->codes[i][k] = (int8_t)high;
        out->codes[AMX_ROWS + i][k] = (int8_t)(code - 256 * high);
    }
}

/* See gemm_pack_fn. The codes of rows beyond the last are zero. */
VEC_INLINE void amx_int8_pack(enum dtype dtype, bool wide, const struct cpu_matmul *args,
                              uint32_t row, uint32_t n, struct amx_int8_x *out)
{
    const struct quant *q = &args->q;

    for (uint32_t g = 0; g < q->n_groups; g++, out++) {
        memset(out->codes, 0, sizeof(out->codes));
        for (uint32_t i = 0; i < n; i++) {
            size_t at = (size_t)(row + i) * q->n_groups + g;

            amx_int8_codes(wide, q, at, i, out);
            out->rows[i] = (struct tile_int8_row){
                .scale = q->scales[at],
                .zero = -packed_code_zero(dtype) * q->sums[at],
                .sum = packed_has_minimum(dtype) ? q->scales[at] * (float)q->sums[at] : 0,
            };
        }
    }
}

/* The integer sums of 16 rows, or of 32, over half h (or all) of a group. */
VEC_INLINE void amx_int8_dot(enum dtype dtype, const struct int8_weights *w,
                             const struct amx_int8_x *x, uint32_t h, bool tall,
                             int32_t sums[AMX_INT8_ROWS][PACKED_LANES])
{
    const bool is_signed = int8_is_signed(dtype, int8_sum_of(dtype, false));
    const uint32_t word = h * int8_scale_words(dtype);

    amx_zero(0);
    amx_load(6, w->first[word], AMX_ROW_BYTES);
    amx_load(4, x->codes[0] + 4 * word, QUANT_GROUP);
    if (is_signed) {
        amx_dot_signed(0, 4, 6);
    } else {
        amx_dot_unsigned(0, 4, 6);
    }
    amx_store(0, sums[0], AMX_ROW_BYTES);
    if (tall) {
        amx_zero(1);
        amx_load(5, x->codes[AMX_ROWS] + 4 * word, QUANT_GROUP);
        if (is_signed) {
            amx_dot_signed(1, 5, 6);
        } else {
            amx_dot_unsigned(1, 5, 6);
        }
        amx_store(1, sums[AMX_ROWS], AMX_ROW_BYTES);
    }
}

/* See gemm_tile_fn; for any number of rows up to AMX_INT8_ROWS, or AMX_ROWS of wide codes, one
 * panel.
 */
VEC_INLINE void amx_int8_compute(enum dtype dtype, bool wide, const struct gemm_tile *tile)
{
    const enum int8_sum how = int8_sum_of(dtype, false);
    _Alignas(CACHE_LINE) int32_t sums[AMX_INT8_ROWS][PACKED_LANES];
    const struct int8_weights *w = tile->w;
    const struct amx_int8_x *x = tile->x;
    const uint8_t *fetch = tile->fetch;

    for (uint32_t i = 0; !tile->add && i < tile->rows; i++) {
        vec_store(tile->sums + i * PACKED_LANES, vec_zero());
    }
    for (uint32_t n = tile->n / QUANT_GROUP; n > 0; n--, w++, x++) {
        fetch = gemm_fetch(tile, false, fetch);
        for (uint32_t h = 0; h < INT8_WORDS / int8_scale_words(dtype); h++) {
            amx_int8_dot(dtype, w, x, h, wide || tile->rows > AMX_ROWS, sums);
            for (uint32_t i = 0; i < tile->rows; i++) {
                veci sum = vec_load_words(sums[i]);

                if (wide) {
                    sum = vec_add_words(vec_shl(sum, 8), vec_load_words(sums[AMX_ROWS + i]));
                }
                tile_int8_fold(dtype, how, w, &x->rows[i], h, 0, sum,
                               tile->sums + i * PACKED_LANES);
            }
        }
    }
}

/* Whether tiles are for this product: there are more rows of x than a vector kernel takes at once,
 * and its codes fit the scratch memory. */
static bool amx_int8_takes(const struct cpu_matmul *args)
{
    return args->m > AMX_INT8_FEW && (size_t)args->q.n_groups * QUANT_GROUP <= AMX_INT8_COLS_MAX;
}

/* All that one type needs for x's codes of one width. */
#define AMX_INT8_PRODUCT(name, type, wide)                                                        \
    static void amx_compute_##name(const struct gemm_tile *tile)                                  \
    {                                                                                             \
        amx_int8_compute(type, wide, tile);                                                       \
    }                                                                                             \
    static void amx_pack_##name(const struct cpu_matmul *args, uint32_t row, uint32_t n,          \
                                void *out)                                                        \
    {                                                                                             \
        amx_int8_pack(type, wide, args, row, n, out);                                             \
    }                                                                                             \
    static void amx_unpack_##name(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, \
                                  float *out, size_t stride)                                      \
    {                                                                                             \
        (void)stride;                                                                             \
        tile_int8_unpack(type, false, w, panel, k, n, (struct int8_weights *)(void *)out);        \
    }                                                                                             \
    static const struct gemm_isa isa_amx_##name = {                                               \
        .rows = wide ? AMX_ROWS : AMX_INT8_ROWS,                                                  \
        .integers = true,                                                                         \
        .granule = QUANT_GROUP,                                                                   \
        .x_granule = sizeof(struct amx_int8_x),                                                   \
        .pack = amx_pack_##name,                                                                  \
        .panels = 1,                                                                              \
        .weight_bytes = GEMM_BLOCK_COLS / QUANT_GROUP * sizeof(struct int8_weights),              \
        .x_bytes = TILE_X_BYTES,                                                                  \
        .tile_any = amx_compute_##name,                                                           \
        .add = tile_add,                                                                          \
    };

#define AMX_INT8_TYPE(name, type)                                      \
    AMX_INT8_PRODUCT(int8_##name, type, false)                         \
    AMX_INT8_PRODUCT(wide_##name, type, true)                          \
    static void matmul_amx_int8_##name(const struct cpu_matmul *args)  \
    {                                                                  \
        bool wide = args->q.wide != NULL;                              \
                                                                       \
        amx_begin(4 * int8_scale_words(type));                         \
        gemm(args, wide ? &isa_amx_wide_##name : &isa_amx_int8_##name, \
             wide ? amx_unpack_wide_##name : amx_unpack_int8_##name);  \
        amx_end();                                                     \
        vec_leave();                                                   \
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
