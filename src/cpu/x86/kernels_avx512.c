/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/x86/kernels_avx512.h"

#include "cpu/x86/attention.h"
#include "cpu/x86/mass.h"
#include "cpu/x86/matmul.h"
#include "cpu/x86/quant_row.h"
#include "cpu/x86/rows.h"

void matmul_bf16_avx512(const struct cpu_matmul *args)
{
    matmul_bf16(args);
}

void matmul_bf16_12_avx512(const struct cpu_matmul *args)
{
    matmul_bf16_12(args);
}

void cpu_kernels_init_avx512(struct cpu_kernels *kernels)
{
    kernels->level = "avx512";
    matmul_init(kernels);
    quant_row_init(kernels);
    rows_init(kernels);
    attention_init(kernels);
    mass_init(kernels);
}
