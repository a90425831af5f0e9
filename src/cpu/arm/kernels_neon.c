/* SPDX-License-Identifier: Apache-2.0 */
/* NEON, which every arm64 processor has: 8 lanes in two registers (vec_neon.h). */
#include "cpu/kernels.h"

#include "cpu/arm/quant_row.h"
#include "cpu/x86/attention.h"
#include "cpu/x86/mass.h"
#include "cpu/x86/matmul.h"
#include "cpu/x86/matmul_int8.h"
#include "cpu/x86/rows.h"

void cpu_kernels_init_neon(struct cpu_kernels *kernels)
{
    kernels->level = "neon";
    matmul_init(kernels);
    matmul_int8_init(kernels);
    quant_row_init(kernels);
    rows_init(kernels);
    attention_init(kernels);
    mass_init(kernels);
}
