/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_EMULATED 16
#include "cpu/emulated/emulated.h"

#include "cpu/x86/matmul_dot.h"

static void matmul_bf16_dot(const struct cpu_matmul *args)
{
    struct cpu_kernels ref;

    if (dot_takes(args)) {
        matmul_dot(args);
        return;
    }
    cpu_kernels_init_ref(&ref);
    ref.matmul[args->w->dtype](args);
}

void emulated_kernels_init_dot(struct cpu_kernels *kernels)
{
    kernels->level = "emulated avx512-bf16";
    kernels->matmul[DTYPE_BF16] = matmul_bf16_dot;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_dot;
}
