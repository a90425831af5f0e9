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

/* sum + two products of halves in every word. In instructions, or compilers make one product of
 * all. */
static inline __m256i add_products(__m256i sum, __m256i x)
{
    __m256i product;

    __asm__("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(x));
    return sum;
}

double cpu_peak_int8_avx2(uint32_t n)
{
    const __m256i x = _mm256_set1_epi16(3);
    __m256i a = x;
    __m256i b = x;
    __m256i c = x;
    __m256i d = x;

    for (uint32_t round = 0; round < n; round++) {
        a = add_products(a, x);
        b = add_products(b, x);
        c = add_products(c, x);
        d = add_products(d, x);
        a = add_products(a, x);
        b = add_products(b, x);
        c = add_products(c, x);
        d = add_products(d, x);
    }
    __asm__ volatile("" ::"x"(a), "x"(b), "x"(c), "x"(d)); /* the results count as used */
    return 2.0 * 2 * LANES * 8 * n;
}
