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

/* Eight products of bytes as halves, added in pairs to words. */
double cpu_peak_int8_neon(uint32_t n)
{
    int32x4_t acc[CHAINS];
    const int8x8_t x = vdup_n_s8(3);

    for (int i = 0; i < CHAINS; i++) {
        acc[i] = vdupq_n_s32(i);
    }
    for (uint32_t round = 0; round < n; round++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            int8x8_t w = x;

            __asm__ volatile("" : "+w"(w)); /* another value each time, as far as one can see */
            acc[i] = vpadalq_s16(acc[i], vmull_s8(w, x));
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        __asm__ volatile("" ::"w"(acc[i]));
    }
    return 2.0 * 8 * CHAINS * n;
}
