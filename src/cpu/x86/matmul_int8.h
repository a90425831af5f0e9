/* SPDX-License-Identifier: Apache-2.0 */
/* The products with integer activations: few rows by gemv_int8.h, more by gemm.h over tile_int8.h
 * or tile_int8_tall.h. */
#pragma once

#include "cpu/x86/gemv_int8.h"
#include "cpu/x86/tile_int8.h"
#include "cpu/x86/tile_int8_tall.h"

#ifdef VEC_INT8

/* dtype and wide are constants. */
VEC_INLINE void matmul_int8(enum dtype dtype, bool wide, const struct cpu_matmul *args,
                            const struct gemm_isa *isa_int8, gemm_unpack_fn *unpack_fn)
{
    switch (cpu_few_rows(args)) {
    case 0:
        break;
    case 1:
        gemv_int8(dtype, wide, 1, args);
        break;
    case 2:
        gemv_int8(dtype, wide, 2, args);
        break;
    case 3:
        gemv_int8(dtype, wide, 3, args);
        break;
    case 4:
        gemv_int8(dtype, wide, 4, args);
        break;
    default:
        gemm(args, isa_int8, unpack_fn);
        break;
    }
    vec_leave();
}

#define INT8_TILE(name, type, wide, rows)                          \
    static void tile_##name##_##rows(const struct gemm_tile *tile) \
    {                                                              \
        INT8_COMPUTE(type, wide, rows, tile);                      \
    }

#if VEC_LANES == 16
#define INT8_COMPUTE tall_compute
#define INT8_PACK    tall_pack
#define INT8_HEIGHTS(name, type, wide) \
    INT8_TILE(name, type, wide, 2)     \
    INT8_TILE(name, type, wide, 4)     \
    INT8_TILE(name, type, wide, 6)     \
    INT8_TILE(name, type, wide, 8)     \
    INT8_TILE(name, type, wide, 10)    \
    INT8_TILE(name, type, wide, 12)    \
    INT8_TILE(name, type, wide, 14)    \
    INT8_TILE(name, type, wide, 16)
#define INT8_TILES(name)                                                                        \
    [2] = tile_##name##_2, [4] = tile_##name##_4, [6] = tile_##name##_6, [8] = tile_##name##_8, \
    [10] = tile_##name##_10, [12] = tile_##name##_12, [14] = tile_##name##_14,                  \
    [16] = tile_##name##_16
#define INT8_UNPACK(name, type, wide) static gemm_unpack_fn *const unpack_##name = NULL;
#define INT8_SHAPE(type, wide)                                                            \
    .rows = TALL_ROWS, .row_unit = TALL_UNIT, .as_packed = true, .x_bytes = TILE_X_BYTES, \
    .x_granule = sizeof(struct tall_x) + QUANT_GROUP * TALL_ROWS * ((wide) ? 2 : 1)
#else
#define INT8_COMPUTE tile_int8_compute
#define INT8_PACK    tile_int8_pack
#define INT8_HEIGHTS(name, type, wide) \
    INT8_TILE(name, type, wide, 1)     \
    INT8_TILE(name, type, wide, 2)     \
    INT8_TILE(name, type, wide, 3)     \
    INT8_TILE(name, type, wide, 4)
#define INT8_TILES(name) NULL, tile_##name##_1, tile_##name##_2, tile_##name##_3, tile_##name##_4
#define INT8_UNPACK(name, type, wide)                                                         \
    static void unpack_##name(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, \
                              float *out, size_t stride)                                      \
    {                                                                                         \
        (void)stride;                                                                         \
        tile_int8_unpack(type, wide, w, panel, k, n, (struct int8_weights *)(void *)out);     \
    }
#define INT8_SHAPE(type, wide)                                                   \
    .rows = TILE_INT8_ROWS, .x_bytes = TILE_INT8_X_BYTES,                        \
    .weight_bytes = GEMM_BLOCK_COLS / QUANT_GROUP * sizeof(struct int8_weights), \
    .x_granule = sizeof(struct int8_x) +                                         \
                 QUANT_GROUP * TILE_INT8_ROWS * ((wide) || TILE_INT8_SPLITS(type) ? 2 : 1)
#endif

/* All that one type needs for x's codes of one width. */
#define INT8_PRODUCT(name, type, wide)                                                          \
    INT8_HEIGHTS(name, type, wide)                                                              \
    static void pack_##name(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *out) \
    {                                                                                           \
        INT8_PACK(type, wide, args, row, n, out);                                               \
    }                                                                                           \
    INT8_UNPACK(name, type, wide)                                                               \
    static const struct gemm_isa isa_##name = {                                                 \
        INT8_SHAPE(type, wide), .integers = true,    .granule = QUANT_GROUP,                    \
        .pack = pack_##name,    .panels = 1,         .tile = {{NULL}, {INT8_TILES(name)}},      \
        .add = tile_add,        .write = tile_write,                                            \
    };                                                                                          \
    static void matmul_##name(const struct cpu_matmul *args)                                    \
    {                                                                                           \
        matmul_int8(type, wide, args, &isa_##name, unpack_##name);                              \
    }

#define INT8_TYPE(name, type)                                                   \
    INT8_PRODUCT(int8_##name, type, false)                                      \
    INT8_PRODUCT(wide_##name, type, true)                                       \
    static void matmul_either_##name(const struct cpu_matmul *args)             \
    {                                                                           \
        (args->q.wide != NULL ? matmul_wide_##name : matmul_int8_##name)(args); \
    }

INT8_TYPE(q8_0, DTYPE_Q8_0)
INT8_TYPE(q4_0, DTYPE_Q4_0)
INT8_TYPE(q4_1, DTYPE_Q4_1)
INT8_TYPE(q5_0, DTYPE_Q5_0)
INT8_TYPE(q5_1, DTYPE_Q5_1)
INT8_TYPE(q4_k, DTYPE_Q4_K)
INT8_TYPE(q5_k, DTYPE_Q5_K)
INT8_TYPE(q6_k, DTYPE_Q6_K)

static void matmul_int8_init(struct cpu_kernels *kernels)
{
    kernels->matmul_int8[DTYPE_Q8_0] = matmul_either_q8_0;
    kernels->matmul_int8[DTYPE_Q4_0] = matmul_either_q4_0;
    kernels->matmul_int8[DTYPE_Q4_1] = matmul_either_q4_1;
    kernels->matmul_int8[DTYPE_Q5_0] = matmul_either_q5_0;
    kernels->matmul_int8[DTYPE_Q5_1] = matmul_either_q5_1;
    kernels->matmul_int8[DTYPE_Q4_K] = matmul_either_q4_k;
    kernels->matmul_int8[DTYPE_Q5_K] = matmul_either_q5_k;
    kernels->matmul_int8[DTYPE_Q6_K] = matmul_either_q6_k;
}

#endif
