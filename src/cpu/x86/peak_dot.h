/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of products of bytes, four of which one instruction sums in each word. Whoever includes
 * this defines PEAK_DOT, the instruction (an asm text of the sum and a factor); the width is that
 * of the instruction set which the file is compiled for. As many chains as the instruction's
 * latency wants, written out: gcc leaves an array of them in memory.
 */
#pragma once

#include "cpu/peak_priv.h"

#ifdef PEAK_DOT
#include <immintrin.h>

#ifdef __AVX512F__
typedef __m512i peak_words;
#define PEAK_SET _mm512_set1_epi32
#else
typedef __m256i peak_words;
#define PEAK_SET _mm256_set1_epi32
#endif

enum { PEAK_CHAINS = 12 };

static inline peak_words peak_add(peak_words sum, peak_words x)
{
    __asm__(PEAK_DOT : "+v"(sum) : "v"(x));
    return sum;
}

static double peak_dot(uint32_t n)
{
    const peak_words x = PEAK_SET(0x01020304);
    peak_words a = x;
    peak_words b = x;
    peak_words c = x;
    peak_words d = x;
    peak_words e = x;
    peak_words f = x;
    peak_words g = x;
    peak_words h = x;
    peak_words i = x;
    peak_words j = x;
    peak_words k = x;
    peak_words l = x;

    for (uint32_t round = 0; round < n; round++) {
        a = peak_add(a, x);
        b = peak_add(b, x);
        c = peak_add(c, x);
        d = peak_add(d, x);
        e = peak_add(e, x);
        f = peak_add(f, x);
        g = peak_add(g, x);
        h = peak_add(h, x);
        i = peak_add(i, x);
        j = peak_add(j, x);
        k = peak_add(k, x);
        l = peak_add(l, x);
    }
    /* the results count as used */
    __asm__ volatile("" ::"v"(a), "v"(b), "v"(c), "v"(d), "v"(e), "v"(f));
    __asm__ volatile("" ::"v"(g), "v"(h), "v"(i), "v"(j), "v"(k), "v"(l));
    return 2.0 * sizeof(peak_words) * PEAK_CHAINS * n;
}

#endif
