/* SPDX-License-Identifier: Apache-2.0 */
/* Private to cpu/: loops of n rounds of independent fused multiply-adds; they return the
 * operations. */
#pragma once

#include "base/base.h"

double cpu_peak_avx2(uint32_t n);
double cpu_peak_avx512(uint32_t n);
double cpu_peak_neon(uint32_t n);
