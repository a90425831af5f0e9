/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for instruction sets that this machine may lack, over plain C (cpu/x86/vec_emulated.h).
 */
#pragma once

#include "cpu/kernels.h"

/* What an AVX-512 machine with VNNI computes: 16 lanes, bytes summed in 32 bits. */
void emulated_kernels_init_16(struct cpu_kernels *kernels);
/* What AVX-VNNI adds to AVX2: integer products of 8 lanes, bytes summed in 32 bits. */
void emulated_kernels_init_8(struct cpu_kernels *kernels);
/* What products of BF16 pairs add to that. */
void emulated_kernels_init_dot(struct cpu_kernels *kernels);
/* What AMX adds to AVX-512: products of BF16 and of integers in tile registers. */
void emulated_kernels_init_amx(struct cpu_kernels *kernels);
