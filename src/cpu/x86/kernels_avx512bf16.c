/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with products of BF16 pairs: BF16 weights where x is rounded to bf16, by more than a few
 * rows. */
#include "cpu/kernels.h"
#include "cpu/x86/kernels_avx512.h"
#include "cpu/x86/matmul_dot.h"

static void matmul_bf16_dot(const struct cpu_matmul *args)
{
    (dot_takes(args) ? matmul_dot : matmul_bf16_avx512)(args);
}

static void matmul_bf16_12_dot(const struct cpu_matmul *args)
{
    (dot_takes(args) ? matmul_dot : matmul_bf16_12_avx512)(args);
}

void cpu_kernels_init_avx512bf16(struct cpu_kernels *kernels)
{
    kernels->level = "avx512-bf16";
    kernels->matmul[DTYPE_BF16] = matmul_bf16_dot;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_12_dot;
}
