/* SPDX-License-Identifier: Apache-2.0 */
/* The products of BF16 weights and x rounded to bf16 over tile_dot.h. */
#pragma once

#include "cpu/x86/gemv_dot.h"
#include "cpu/x86/tile_dot.h"

#ifdef VEC_DOT_BF16

#define DOT_TILE(name, height, n_panels, weights)                         \
    static void dot_##name##_##height(const struct gemm_tile *tile)       \
    {                                                                     \
        dot_compute((struct dot_shape){height, n_panels, weights}, tile); \
    }
#define DOT_FEW(height)                                           \
    DOT_TILE(pairs, height, 1, DOT_PAIRS)                         \
    static void dot_twelve_##height(const struct gemm_tile *tile) \
    {                                                             \
        dot_compute_12(height, tile);                             \
    }
#define DOT_MANY(height) \
    DOT_TILE(one, height, 1, DOT_WORDS) DOT_TILE(two, height, 2, DOT_WORDS) DOT_FEW(height)

DOT_MANY(1)
DOT_MANY(2)
DOT_MANY(3)
DOT_MANY(4)
DOT_MANY(5)
DOT_MANY(6)
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

static void dot_unpack_f32(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                           float *out, size_t stride)
{
    unpack(DTYPE_BF16, w, panel, k, n, out, stride);
}

#define DOT_SIX(name)                                                                     \
    NULL, dot_##name##_1, dot_##name##_2, dot_##name##_3, dot_##name##_4, dot_##name##_5, \
        dot_##name##_6
#define DOT_FOURTEEN(name)                                                          \
    DOT_SIX(name), dot_##name##_7, dot_##name##_8, dot_##name##_9, dot_##name##_10, \
        dot_##name##_11, dot_##name##_12, dot_##name##_13, dot_##name##_14

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
    .tile = {{NULL}, {DOT_SIX(one)}, {DOT_SIX(two)}},
    .add = tile_add,
    .write = tile_write,
};

/* Of few rows. */
static const struct gemm_isa isa_dot_few = {
    .rows = DOT_FEW_ROWS,
    .rows_bf16 = DOT_FEW_ROWS,
    .bf16_rows_max = UINT32_MAX,
    .as_packed = true,
    .steps = true,
    .granule = WEIGHTS_STEP,
    .x_granule = (size_t)DOT_QUADS * 2 * DOT_FEW_STRIDE * sizeof(uint32_t),
    .panels = 1,
    .x_bytes = DOT_X_BYTES,
    .pack = dot_pack_few,
    .tile = {{NULL}, {DOT_FOURTEEN(twelve)}},
    .tile_bf16 = {{NULL}, {DOT_FOURTEEN(pairs)}},
    .add = tile_add,
    .write = tile_write,
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
