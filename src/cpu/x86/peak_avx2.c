/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "cpu/peak_priv.h"

enum { CHAINS = 12, LANES = 8 };

double cpu_peak_avx2(uint32_t n)
{
    __m256 acc[CHAINS];
    const __m256 half = _mm256_set1_ps(0.5f);

    for (int i = 0; i < CHAINS; i++) {
        acc[i] = _mm256_set1_ps((float)i);
    }
    for (uint32_t round = 0; round < n; round++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm256_fmadd_ps(acc[i], half, half);
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        __asm__ volatile("" ::"x"(acc[i])); /* the results count as used */
    }
    return 2.0 * LANES * CHAINS * n;
}
