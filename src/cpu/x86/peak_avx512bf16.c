/* SPDX-License-Identifier: Apache-2.0 */
#define PEAK_DOT "vdpbf16ps %1, %1, %0"
#include "cpu/x86/peak_dot.h"

double cpu_peak_avx512bf16(uint32_t n)
{
    return peak_dot(n) / 2; /* two products a word, not four */
}
