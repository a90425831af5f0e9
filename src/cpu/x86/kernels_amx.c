/* SPDX-License-Identifier: Apache-2.0 */
/* AMX: products of BF16 weights by more rows than a GEMV takes, where x is rounded to bf16. */
#include "cpu/kernels.h"
#include "cpu/x86/kernels_avx512.h"
#include "cpu/x86/tile_amx.h"

static void matmul_bf16_amx(const struct cpu_matmul *args)
{
    (tile_amx_takes(args) ? matmul_amx : matmul_bf16_avx512)(args);
}

static void matmul_bf16_12_amx(const struct cpu_matmul *args)
{
    (tile_amx_takes(args) ? matmul_amx : matmul_bf16_12_avx512)(args);
}

void cpu_kernels_init_amx(struct cpu_kernels *kernels)
{
    kernels->level = "amx";
    kernels->matmul[DTYPE_BF16] = matmul_bf16_amx;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_12_amx;
}
