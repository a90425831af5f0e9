/* SPDX-License-Identifier: Apache-2.0 */
/* The products of BF16 weights and x rounded to bf16 over tile_dot.h. */
#pragma once

#include "cpu/x86/gemv_dot.h"
#include "cpu/x86/tile_dot.h"

#ifdef VEC_DOT_BF16

#define DOT_TILE(rows, panels, few)                                         \
    static void dot_##rows##x##panels##_##few(const struct gemm_tile *tile) \
    {                                                                       \
        dot_compute((struct dot_shape){rows, panels, (few) != 0}, tile);    \
    }
#define DOT_MANY(rows) DOT_TILE(rows, 1, 0) DOT_TILE(rows, 2, 0)
#define DOT_FEW(rows)  DOT_TILE(rows, 1, 1)

DOT_MANY(1)
DOT_MANY(2)
DOT_MANY(3)
DOT_MANY(4)
DOT_MANY(5)
DOT_MANY(6)
DOT_MANY(7)
DOT_FEW(1)
DOT_FEW(2)
DOT_FEW(3)
DOT_FEW(4)
DOT_FEW(5)
DOT_FEW(6)
DOT_FEW(7)
DOT_FEW(8)
DOT_FEW(9)
DOT_FEW(10)
DOT_FEW(11)
DOT_FEW(12)
DOT_FEW(13)
DOT_FEW(14)

static void dot_pack_many(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *out)
{
    dot_pack(false, args, row, n, out);
}

static void dot_pack_few(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *out)
{
    dot_pack(true, args, row, n, out);
}

static void dot_unpack_plain(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                             float *out, size_t stride)
{
    (void)stride;
    dot_unpack(dot_plain_pairs, w, panel, k, n, out);
}

static void dot_unpack_12(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                          float *out, size_t stride)
{
    (void)stride;
    dot_unpack(pairs_bf16_12, w, panel, k, n, out);
}

static void dot_unpack_f32(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                           float *out, size_t stride)
{
    unpack(DTYPE_BF16, w, panel, k, n, out, stride);
}

static const struct gemm_isa isa_dot = {
    .rows = DOT_ROWS,
    .steps = true,
    .granule = WEIGHTS_STEP,
    .x_granule = (size_t)DOT_QUADS * 2 * DOT_STRIDE * sizeof(uint32_t),
    .panels = 2,
    .weight_panel = DOT_PANEL_BYTES,
    .weight_bytes = (size_t)2 * DOT_PANEL_BYTES,
    .x_bytes = DOT_X_BYTES,
    .pack = dot_pack_many,
    .tile = {{NULL},
             {NULL, dot_1x1_0, dot_2x1_0, dot_3x1_0, dot_4x1_0, dot_5x1_0, dot_6x1_0, dot_7x1_0},
             {NULL, dot_1x2_0, dot_2x2_0, dot_3x2_0, dot_4x2_0, dot_5x2_0, dot_6x2_0, dot_7x2_0}},
    .add = tile_add,
};

static const struct gemm_isa isa_dot_few = {
    .rows_bf16 = DOT_FEW_ROWS,
    .bf16_rows_max = UINT32_MAX,
    .steps = true,
    .granule = WEIGHTS_STEP,
    .x_granule = (size_t)DOT_QUADS * 2 * DOT_FEW_STRIDE * sizeof(uint32_t),
    .panels = 1,
    .weight_bytes = GEMM_PAIRS_BYTES,
    .x_bytes = DOT_X_BYTES,
    .pack = dot_pack_few,
    .tile_bf16 = {{NULL},
                  {NULL, dot_1x1_1, dot_2x1_1, dot_3x1_1, dot_4x1_1, dot_5x1_1, dot_6x1_1,
                   dot_7x1_1, dot_8x1_1, dot_9x1_1, dot_10x1_1, dot_11x1_1, dot_12x1_1, dot_13x1_1,
                   dot_14x1_1}},
    .pairs = pairs_bf16_12,
    .add = tile_add,
};

/* Whether this is for the product: x is bf16, and more of it than memory alone bounds. */
static bool dot_takes(const struct cpu_matmul *args)
{
    return args->x_bf16 && args->m > 2;
}

/* m is a constant, 3 or 4. */
VEC_INLINE void matmul_dot_few(uint32_t m, const struct cpu_matmul *args)
{
    if (args->w->dtype == DTYPE_BF16) {
        gemv_dot(DTYPE_BF16, m, args, dot_unpack_f32);
    } else {
        gemv_dot(DTYPE_BF16_12, m, args, unpack_bf16_12);
    }
}

/* A product of BF16 or BF16_12 weights that dot_takes. */
static void matmul_dot(const struct cpu_matmul *args)
{
    switch (cpu_few_rows(args)) {
    case 3:
        matmul_dot_few(3, args);
        break;
    case 4:
        matmul_dot_few(4, args);
        break;
    default:
        if (args->m <= DOT_FEW_MAX) {
            gemm(args, &isa_dot_few, NULL);
        } else {
            gemm(args, &isa_dot, args->w->dtype == DTYPE_BF16 ? dot_unpack_plain : dot_unpack_12);
        }
        break;
    }
    vec_leave();
}

#endif
