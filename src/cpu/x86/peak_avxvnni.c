/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "cpu/peak_priv.h"

/* As many chains as the instruction's latency wants, written out: gcc leaves an array in memory. */
enum { CHAINS = 12, LANES = 8 };

/* sum + four products of bytes in every word. */
static inline __m256i add_products(__m256i sum, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum) : "x"(x));
    return sum;
}

double cpu_peak_int8_avxvnni(uint32_t n)
{
    const __m256i x = _mm256_set1_epi32(0x01020304);
    __m256i a = x;
    __m256i b = x;
    __m256i c = x;
    __m256i d = x;
    __m256i e = x;
    __m256i f = x;
    __m256i g = x;
    __m256i h = x;
    __m256i i = x;
    __m256i j = x;
    __m256i k = x;
    __m256i l = x;

    for (uint32_t round = 0; round < n; round++) {
        a = add_products(a, x);
        b = add_products(b, x);
        c = add_products(c, x);
        d = add_products(d, x);
        e = add_products(e, x);
        f = add_products(f, x);
        g = add_products(g, x);
        h = add_products(h, x);
        i = add_products(i, x);
        j = add_products(j, x);
        k = add_products(k, x);
        l = add_products(l, x);
    }
    __asm__ volatile("" ::"x"(a), "x"(b), "x"(c), "x"(d), "x"(e),
                     "x"(f)); /* the results count as used */
    __asm__ volatile("" ::"x"(g), "x"(h), "x"(i), "x"(j), "x"(k), "x"(l));
    return 2.0 * 4 * LANES * CHAINS * n;
}
