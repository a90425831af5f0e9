/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with VNNI: 16 lanes; only the integer products differ from the level below. */
#include "cpu/kernels.h"
#include "cpu/x86/kernels_avx512.h"
#include "cpu/x86/matmul_int8.h"

void matmul_int8_avx512vnni(const struct cpu_matmul *args)
{
    struct cpu_kernels own;

    matmul_int8_init(&own);
    own.matmul_int8[args->w->dtype](args);
}

void cpu_kernels_init_avx512vnni(struct cpu_kernels *kernels)
{
    kernels->level = "avx512-vnni";
    matmul_int8_init(kernels);
}
