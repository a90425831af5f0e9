/* SPDX-License-Identifier: Apache-2.0 */
#include <arm_neon.h>

#include "cpu/peak_priv.h"

enum { CHAINS = 24, LANES = 4 };

double cpu_peak_int8_neondot(uint32_t n)
{
    int32x4_t acc[CHAINS];
    const int8x16_t bytes = vdupq_n_s8(3);

    for (int i = 0; i < CHAINS; i++) {
        acc[i] = vdupq_n_s32(i);
    }
    for (uint32_t round = 0; round < n; round++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = vdotq_s32(acc[i], bytes, bytes);
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        __asm__ volatile("" ::"w"(acc[i])); /* the results count as used */
    }
    return 2.0 * 4 * LANES * CHAINS * n;
}
