/* SPDX-License-Identifier: Apache-2.0 */
#include <arm_neon.h>

#include "cpu/peak_priv.h"

enum { CHAINS = 24, LANES = 4 };

double cpu_peak_neon(uint32_t n)
{
    float32x4_t acc[CHAINS];
    const float32x4_t half = vdupq_n_f32(0.5f);

    for (int i = 0; i < CHAINS; i++) {
        acc[i] = vdupq_n_f32((float)i);
    }
    for (uint32_t round = 0; round < n; round++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = vfmaq_f32(half, acc[i], half);
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        __asm__ volatile("" ::"w"(acc[i])); /* the results count as used */
    }
    return 2.0 * LANES * CHAINS * n;
}
