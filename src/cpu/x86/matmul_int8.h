/* SPDX-License-Identifier: Apache-2.0 */
/* The products with integer activations: few rows by gemv_int8.h, more by gemm.h over tile_int8.h.
 */
#pragma once

#include "cpu/x86/gemv_int8.h"
#include "cpu/x86/tile_int8.h"

#ifdef VEC_INT8

/* dtype is a constant. */
VEC_INLINE void matmul_int8(enum dtype dtype, const struct cpu_matmul *args,
                            const struct gemm_isa *isa_int8, gemm_unpack_fn *unpack_fn)
{
    switch (cpu_few_rows(args)) {
    case 0:
        break;
    case 1:
        gemv_int8(dtype, 1, args);
        break;
    case 2:
        gemv_int8(dtype, 2, args);
        break;
    case 3:
        gemv_int8(dtype, 3, args);
        break;
    case 4:
        gemv_int8(dtype, 4, args);
        break;
    default:
        gemm(args, isa_int8, unpack_fn);
        break;
    }
    vec_leave();
}

#define INT8_TILE(name, type, rows)                                     \
    static void tile_int8_##name##_##rows(const struct gemm_tile *tile) \
    {                                                                   \
        tile_int8_compute(type, rows, tile);                            \
    }

#if VEC_LANES == 16
#define INT8_TALL(name, type) \
    INT8_TILE(name, type, 5)  \
    INT8_TILE(name, type, 6)  \
    INT8_TILE(name, type, 7)  \
    INT8_TILE(name, type, 8)
#define INT8_TILES(name)                                                                          \
    NULL, tile_int8_##name##_1, tile_int8_##name##_2, tile_int8_##name##_3, tile_int8_##name##_4, \
        tile_int8_##name##_5, tile_int8_##name##_6, tile_int8_##name##_7, tile_int8_##name##_8
#else
#define INT8_TALL(name, type)
#define INT8_TILES(name) \
    NULL, tile_int8_##name##_1, tile_int8_##name##_2, tile_int8_##name##_3, tile_int8_##name##_4
#endif

/* All that one type needs. */
#define INT8_TYPE(name, type)                                                                      \
    INT8_TILE(name, type, 1)                                                                       \
    INT8_TILE(name, type, 2)                                                                       \
    INT8_TILE(name, type, 3)                                                                       \
    INT8_TILE(name, type, 4)                                                                       \
    INT8_TALL(name, type)                                                                          \
    static void pack_int8_##name(const struct cpu_matmul *args, uint32_t row, uint32_t n,          \
                                 void *out)                                                        \
    {                                                                                              \
        tile_int8_pack(type, args, row, n, out);                                                   \
    }                                                                                              \
    static void unpack_int8_##name(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n, \
                                   float *out, size_t stride)                                      \
    {                                                                                              \
        (void)stride;                                                                              \
        tile_int8_unpack(type, w, panel, k, n, (struct int8_weights *)(void *)out);                \
    }                                                                                              \
    static const struct gemm_isa isa_int8_##name = {                                               \
        .rows = TILE_INT8_ROWS,                                                                    \
        .integers = true,                                                                          \
        .granule = QUANT_GROUP,                                                                    \
        .x_granule = sizeof(struct int8_x),                                                        \
        .pack = pack_int8_##name,                                                                  \
        .panels = 1,                                                                               \
        .weight_bytes = GEMM_BLOCK_COLS / QUANT_GROUP * sizeof(struct int8_weights),               \
        .x_bytes = TILE_X_BYTES,                                                                   \
        .tile = {{NULL}, {INT8_TILES(name)}},                                                      \
        .add = tile_add,                                                                           \
    };                                                                                             \
    static void matmul_int8_##name(const struct cpu_matmul *args)                                  \
    {                                                                                              \
        matmul_int8(type, args, &isa_int8_##name, unpack_int8_##name);                             \
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
    kernels->matmul_int8[DTYPE_Q8_0] = matmul_int8_q8_0;
    kernels->matmul_int8[DTYPE_Q4_0] = matmul_int8_q4_0;
    kernels->matmul_int8[DTYPE_Q4_1] = matmul_int8_q4_1;
    kernels->matmul_int8[DTYPE_Q5_0] = matmul_int8_q5_0;
    kernels->matmul_int8[DTYPE_Q5_1] = matmul_int8_q5_1;
    kernels->matmul_int8[DTYPE_Q4_K] = matmul_int8_q4_k;
    kernels->matmul_int8[DTYPE_Q5_K] = matmul_int8_q5_k;
    kernels->matmul_int8[DTYPE_Q6_K] = matmul_int8_q6_k;
}

#endif
