/* SPDX-License-Identifier: Apache-2.0 */
/* What the levels above AVX-512 leave to it. */
#pragma once

#include "cpu/kernels.h"

void matmul_bf16_avx512(const struct cpu_matmul *args);
void matmul_bf16_12_avx512(const struct cpu_matmul *args);
void matmul_int8_avx512vnni(const struct cpu_matmul *args); /* of any quantised weights */
