/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_EMULATED 16
#include "cpu/emulated/emulated.h"

#include "cpu/x86/attention.h"
#include "cpu/x86/mass.h"
#include "cpu/x86/matmul.h"
#include "cpu/x86/matmul_int8.h"
#include "cpu/x86/rows.h"

void emulated_kernels_init_16(struct cpu_kernels *kernels)
{
    kernels->level = "emulated avx512-vnni";
    matmul_init(kernels);
    matmul_int8_init(kernels);
    rows_init(kernels);
    attention_init(kernels);
    mass_init(kernels);
}
