/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-VNNI: 8 lanes; only the integer products differ from the level below. */
#include "cpu/kernels.h"
#include "cpu/x86/matmul_int8.h"

void cpu_kernels_init_avxvnni(struct cpu_kernels *kernels)
{
    kernels->level = "avx-vnni";
    matmul_int8_init(kernels);
}
