/* SPDX-License-Identifier: Apache-2.0 */
/* NEON with the dot product of bytes: only the integer products differ from the level below. */
#include "cpu/kernels.h"
#include "cpu/x86/matmul_int8.h"

void cpu_kernels_init_neondot(struct cpu_kernels *kernels)
{
    kernels->level = "neon-dot";
    matmul_int8_init(kernels);
}
