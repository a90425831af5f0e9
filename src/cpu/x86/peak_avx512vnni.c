/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "cpu/peak_priv.h"

/* As many chains as the instruction's latency wants, written out: gcc leaves an array in memory. */
enum { CHAINS = 12, LANES = 16 };

/* sum + four products of bytes in every word. */
static inline __m512i add_products(__m512i sum, __m512i x)
{
    __asm__("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x));
    return sum;
}

double cpu_peak_int8_avx512vnni(uint32_t n)
{
    const __m512i x = _mm512_set1_epi32(0x01020304);
    __m512i a = x;
    __m512i b = x;
    __m512i c = x;
    __m512i d = x;
    __m512i e = x;
    __m512i f = x;
    __m512i g = x;
    __m512i h = x;
    __m512i i = x;
    __m512i j = x;
    __m512i k = x;
    __m512i l = x;

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
    __asm__ volatile("" ::"v"(a), "v"(b), "v"(c), "v"(d), "v"(e),
                     "v"(f)); /* the results count as used */
    __asm__ volatile("" ::"v"(g), "v"(h), "v"(i), "v"(j), "v"(k), "v"(l));
    return 2.0 * 4 * LANES * CHAINS * n;
}
