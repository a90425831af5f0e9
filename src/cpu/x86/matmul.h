/* SPDX-License-Identifier: Apache-2.0 */
/* The products of one instruction set: few rows by gemv.h, more by gemm.h over tile.h. */
#pragma once

#include "cpu/x86/bf16_12.h"
#include "cpu/x86/gemm.h"
#include "cpu/x86/gemv.h"
#include "cpu/x86/tile.h"
#include "cpu/x86/unpack.h"

#ifdef VEC_LANES

/* The functions for one height, with f32 or BF16 weights. */
#define TILE_F32(rows, panels)                                                                   \
    static void tile_##rows##x##panels(const struct gemm_tile *tile)                             \
    {                                                                                            \
        tile_compute((struct tile_shape){rows, (panels)*PACKED_LANES / VEC_LANES, false}, tile); \
    }
#define TILE_BF16(rows, panels)                                                                 \
    static void tile_bf16_##rows##x##panels(const struct gemm_tile *tile)                       \
    {                                                                                           \
        tile_compute((struct tile_shape){rows, (panels)*PACKED_LANES / VEC_LANES, true}, tile); \
    }

#define TILE_HEIGHT(rows, panels) TILE_F32(rows, panels) TILE_BF16(rows, panels)

TILE_HEIGHT(1, 1)
TILE_HEIGHT(2, 1)
TILE_HEIGHT(3, 1)
TILE_HEIGHT(4, 1)
#if VEC_LANES == 16
TILE_HEIGHT(5, 1)
TILE_HEIGHT(6, 1)
TILE_HEIGHT(7, 1)
TILE_BF16(8, 1)
TILE_HEIGHT(1, 2)
TILE_HEIGHT(2, 2)
TILE_HEIGHT(3, 2)
TILE_HEIGHT(4, 2)
TILE_HEIGHT(5, 2)
TILE_HEIGHT(6, 2)
TILE_HEIGHT(7, 2)
TILE_BF16(8, 2)
#endif

static const struct gemm_isa isa = {
    .rows = TILE_ROWS,
    .rows_bf16 = TILE_ROWS_BF16,
    .bf16_rows_max = TILE_BF16_MAX,
    .panels = TILE_PANELS,
    .granule = 1,
    .x_granule = TILE_STRIDE * sizeof(float),
    .weight_panel = PACKED_LANES * sizeof(float),
    .weight_bytes = sizeof(float[TILE_PANELS][GEMM_BLOCK_COLS][PACKED_LANES]),
    .x_bytes = TILE_X_BYTES,
    .pack = tile_pack,
#if VEC_LANES == 16
    .tile = {{NULL},
             {NULL, tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1},
             {NULL, tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2}},
    .tile_bf16 = {{NULL},
                  {NULL, tile_bf16_1x1, tile_bf16_2x1, tile_bf16_3x1, tile_bf16_4x1, tile_bf16_5x1,
                   tile_bf16_6x1, tile_bf16_7x1, tile_bf16_8x1},
                  {NULL, tile_bf16_1x2, tile_bf16_2x2, tile_bf16_3x2, tile_bf16_4x2, tile_bf16_5x2,
                   tile_bf16_6x2, tile_bf16_7x2, tile_bf16_8x2}},
#else
    .tile = {{NULL}, {NULL, tile_1x1, tile_2x1, tile_3x1, tile_4x1}},
    .tile_bf16 = {{NULL}, {NULL, tile_bf16_1x1, tile_bf16_2x1, tile_bf16_3x1, tile_bf16_4x1}},
#endif
    .pairs = pairs_bf16_12,
    .pairs_bytes = GEMM_PAIRS_BYTES(GEMM_BLOCK_COLS),
    .add = tile_add,
    .write = tile_write,
};

/* dtype is a constant. */
VEC_INLINE void matmul(enum dtype dtype, const struct cpu_matmul *args, gemm_unpack_fn *unpack_fn)
{
    switch (cpu_few_rows(args)) {
    case 0:
        break;
    case 1:
        gemv(dtype, 1, args, unpack_fn);
        break;
    case 2:
        gemv(dtype, 2, args, unpack_fn);
        break;
    case 3:
        gemv(dtype, 3, args, unpack_fn);
        break;
    case 4:
        gemv(dtype, 4, args, unpack_fn);
        break;
    default:
        gemm(args, &isa, unpack_fn);
        break;
    }
    vec_leave();
}

static void unpack_f32(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                       size_t stride)
{
    unpack(DTYPE_F32, w, panel, k, n, out, stride);
}

static void matmul_f32(const struct cpu_matmul *args)
{
    matmul(DTYPE_F32, args, unpack_f32);
}

static void unpack_f16(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                       size_t stride)
{
    unpack(DTYPE_F16, w, panel, k, n, out, stride);
}

static void matmul_f16(const struct cpu_matmul *args)
{
    matmul(DTYPE_F16, args, unpack_f16);
}

static void unpack_bf16(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_BF16, w, panel, k, n, out, stride);
}

static void matmul_bf16(const struct cpu_matmul *args)
{
    matmul(DTYPE_BF16, args, unpack_bf16);
}

static void matmul_bf16_12(const struct cpu_matmul *args)
{
    switch (cpu_few_rows(args)) {
    case 0:
        break;
    case 1:
        gemv_12(1, args);
        break;
    case 2:
        gemv_12(2, args);
        break;
    case 3:
        gemv_12(3, args);
        break;
    case 4:
        gemv_12(4, args);
        break;
    default:
        gemm(args, &isa, unpack_bf16_12);
        break;
    }
    vec_leave();
}

static void unpack_q8_0(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q8_0, w, panel, k, n, out, stride);
}

static void matmul_q8_0(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q8_0, args, unpack_q8_0);
}

static void unpack_q4_0(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q4_0, w, panel, k, n, out, stride);
}

static void matmul_q4_0(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q4_0, args, unpack_q4_0);
}

static void unpack_q4_1(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q4_1, w, panel, k, n, out, stride);
}

static void matmul_q4_1(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q4_1, args, unpack_q4_1);
}

static void unpack_q5_0(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q5_0, w, panel, k, n, out, stride);
}

static void matmul_q5_0(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q5_0, args, unpack_q5_0);
}

static void unpack_q5_1(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q5_1, w, panel, k, n, out, stride);
}

static void matmul_q5_1(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q5_1, args, unpack_q5_1);
}

static void unpack_q4_k(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q4_K, w, panel, k, n, out, stride);
}

static void matmul_q4_k(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q4_K, args, unpack_q4_k);
}

static void unpack_q5_k(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q5_K, w, panel, k, n, out, stride);
}

static void matmul_q5_k(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q5_K, args, unpack_q5_k);
}

static void unpack_q6_k(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, float *out,
                        size_t stride)
{
    unpack(DTYPE_Q6_K, w, panel, k, n, out, stride);
}

static void matmul_q6_k(const struct cpu_matmul *args)
{
    matmul(DTYPE_Q6_K, args, unpack_q6_k);
}

static void matmul_init(struct cpu_kernels *kernels)
{
    kernels->matmul[DTYPE_F32] = matmul_f32;
    kernels->matmul[DTYPE_F16] = matmul_f16;
    kernels->matmul[DTYPE_BF16] = matmul_bf16;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_12;
    kernels->matmul[DTYPE_Q8_0] = matmul_q8_0;
    kernels->matmul[DTYPE_Q4_0] = matmul_q4_0;
    kernels->matmul[DTYPE_Q4_1] = matmul_q4_1;
    kernels->matmul[DTYPE_Q5_0] = matmul_q5_0;
    kernels->matmul[DTYPE_Q5_1] = matmul_q5_1;
    kernels->matmul[DTYPE_Q4_K] = matmul_q4_k;
    kernels->matmul[DTYPE_Q5_K] = matmul_q5_k;
    kernels->matmul[DTYPE_Q6_K] = matmul_q6_k;
}

#endif
