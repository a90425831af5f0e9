/* SPDX-License-Identifier: Apache-2.0 */
/* AMX: products of BF16 weights where x is rounded to bf16, and of integers, by more than a few
 * rows. */
#include "cpu/kernels.h"
#include "cpu/x86/kernels_avx512.h"
#include "cpu/x86/tile_amx.h"
#include "cpu/x86/tile_amx_int8.h"

static void matmul_bf16_amx(const struct cpu_matmul *args)
{
    (tile_amx_takes(args) ? matmul_amx : matmul_bf16_avx512)(args);
}

static void matmul_bf16_12_amx(const struct cpu_matmul *args)
{
    (tile_amx_takes(args) ? matmul_amx : matmul_bf16_12_avx512)(args);
}

static void matmul_int8_amx(const struct cpu_matmul *args)
{
    (amx_int8_takes(args) ? amx_int8_products[args->w->dtype] : matmul_int8_avx512vnni)(args);
}

void cpu_kernels_init_amx(struct cpu_kernels *kernels)
{
    kernels->level = "amx";
    kernels->matmul[DTYPE_BF16] = matmul_bf16_amx;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_12_amx;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (amx_int8_products[i] != NULL) {
            kernels->matmul_int8[i] = matmul_int8_amx;
        }
    }
}
