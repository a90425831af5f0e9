/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with VNNI: 16 lanes; only the integer products differ from the level below. */
#include "cpu/kernels.h"
#include "cpu/x86/matmul_int8.h"

void cpu_kernels_init_avx512vnni(struct cpu_kernels *kernels)
{
    kernels->level = "avx512-vnni";
    matmul_int8_init(kernels);
}
