/* SPDX-License-Identifier: Apache-2.0 */
/* Private to cpu/: loops of n rounds of independent fused multiply-adds, or of products of bytes;
 * they return the operations. */
#pragma once

#include "base/base.h"

double cpu_peak_avx2(uint32_t n);
double cpu_peak_avx512(uint32_t n);
double cpu_peak_avx512bf16(uint32_t n); /* of pairs of BF16 */
double cpu_peak_bf16_amx(uint32_t n);
double cpu_peak_neon(uint32_t n);

double cpu_peak_int8_avx2(uint32_t n);
double cpu_peak_int8_avxvnni(uint32_t n);
double cpu_peak_int8_avx512vnni(uint32_t n);
double cpu_peak_int8_amx(uint32_t n);
double cpu_peak_int8_neon(uint32_t n);
double cpu_peak_int8_neondot(uint32_t n);
