/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_EMULATED 16
#define AMX_EMULATED
#include "cpu/emulated/emulated.h"

#include "cpu/x86/tile_amx.h"
#include "cpu/x86/tile_amx_int8.h"

static void matmul_bf16_amx(const struct cpu_matmul *args)
{
    struct cpu_kernels ref;

    if (tile_amx_takes(args)) {
        matmul_amx(args);
        return;
    }
    cpu_kernels_init_ref(&ref);
    ref.matmul[args->w->dtype](args);
}

static void matmul_int8_amx(const struct cpu_matmul *args)
{
    struct cpu_kernels ref;

    if (amx_int8_takes(args)) {
        amx_int8_products[args->w->dtype](args);
        return;
    }
    cpu_kernels_init_ref(&ref);
    ref.matmul_int8[args->w->dtype](args);
}

void emulated_kernels_init_amx(struct cpu_kernels *kernels)
{
    kernels->level = "emulated amx";
    kernels->matmul[DTYPE_BF16] = matmul_bf16_amx;
    kernels->matmul[DTYPE_BF16_12] = matmul_bf16_amx;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (amx_int8_products[i] != NULL) {
            kernels->matmul_int8[i] = matmul_int8_amx;
        }
    }
}
