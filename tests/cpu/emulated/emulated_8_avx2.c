/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_EMULATED 8
#include "cpu/emulated/emulated.h"

#include "cpu/x86/matmul_int8.h"

void emulated_kernels_init_8(struct cpu_kernels *kernels)
{
    kernels->level = "emulated avx-vnni";
    matmul_int8_init(kernels);
}
