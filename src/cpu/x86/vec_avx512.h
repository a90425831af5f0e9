/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 (F, BW, VL, DQ; VNNI in files compiled for it): 16 lanes; only vec.h includes this. */
#pragma once

#include "base/base.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>

#define VEC_LANES 16
#ifdef __AVX512VNNI__
#define VEC_DOT 1
#else
#define VEC_DOT 0
#endif

/* Short names for the intrinsic types, which differ between instruction sets. */
typedef __m512 vecf;
typedef __m512i veci;

/* Before a kernel returns: clears the upper halves of the registers, without which code that knows
 * nothing of them, the C library's, runs several times slower. Compilers do this by themselves, but
 * gcc 12 not on every path. */
VEC_INLINE void vec_leave(void)
{
    _mm256_zeroupper();
}

VEC_INLINE vecf vec_zero(void)
{
    return _mm512_setzero_ps();
}

VEC_INLINE vecf vec_set1(float x)
{
    return _mm512_set1_ps(x);
}

VEC_INLINE vecf vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

VEC_INLINE void vec_store(float *p, vecf a)
{
    _mm512_storeu_ps(p, a);
}

/* What lies at p, or zeros, which costs no branch: `all` is of vec_all. */
typedef __mmask16 vec_flag;

VEC_INLINE vec_flag vec_all(bool all)
{
    return all ? 0xffff : 0;
}

VEC_INLINE vecf vec_load_if(vec_flag all, const float *p)
{
    return _mm512_maskz_loadu_ps(all, p);
}

/* The first n < VEC_LANES lanes; the others are zero. */
VEC_INLINE vecf vec_load_part(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

VEC_INLINE void vec_store_part(float *p, vecf a, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

VEC_INLINE vecf vec_add(vecf a, vecf b)
{
    return _mm512_add_ps(a, b);
}

VEC_INLINE vecf vec_sub(vecf a, vecf b)
{
    return _mm512_sub_ps(a, b);
}

VEC_INLINE vecf vec_mul(vecf a, vecf b)
{
    return _mm512_mul_ps(a, b);
}

VEC_INLINE vecf vec_div(vecf a, vecf b)
{
    return _mm512_div_ps(a, b);
}

/* a b + c */
VEC_INLINE vecf vec_fma(vecf a, vecf b, vecf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* *x times every lane of b, plus c: one instruction with the load in it. */
VEC_INLINE vecf vec_fma_set1(const float *x, vecf b, vecf c)
{
    __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(c) : "m"(*x), "v"(b));
    return c;
}

/* -(a b) + c */
VEC_INLINE vecf vec_fnma(vecf a, vecf b, vecf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* a > b ? a : b in every lane, b if either is not a number or both are zeros. */
VEC_INLINE vecf vec_max(vecf a, vecf b)
{
    return _mm512_max_ps(a, b);
}

/* a in the lanes with x < y, else b; b where x or y is not a number. */
VEC_INLINE vecf vec_select_less(vecf x, vecf y, vecf a, vecf b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
}

/* a in the first n lanes, b in the others. */
VEC_INLINE vecf vec_select_below(uint32_t n, vecf a, vecf b)
{
    return _mm512_mask_blend_ps((__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1), b, a);
}

/* a in the lanes where x is not a number, else b. */
VEC_INLINE veci vec_select_nan(vecf x, veci a, veci b)
{
    return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), b, a);
}

/* The sign flipped, also of zero. */
VEC_INLINE vecf vec_neg(vecf a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}

VEC_INLINE veci vec_load_words(const void *p)
{
    return _mm512_loadu_si512(p);
}

VEC_INLINE veci vec_set1_word(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}

VEC_INLINE veci vec_and(veci a, veci b)
{
    return _mm512_and_si512(a, b);
}

VEC_INLINE veci vec_or(veci a, veci b)
{
    return _mm512_or_si512(a, b);
}

VEC_INLINE veci vec_xor(veci a, veci b)
{
    return _mm512_xor_si512(a, b);
}

VEC_INLINE veci vec_add_words(veci a, veci b)
{
    return _mm512_add_epi32(a, b);
}

/* Logical shifts of every word; operators, because intrinsics want a literal count when not
 * optimising. */
VEC_INLINE veci vec_shr(veci a, unsigned n)
{
    return (veci)((__v16su)a >> n);
}

VEC_INLINE veci vec_shl(veci a, unsigned n)
{
    return (veci)((__v16su)a << n);
}

VEC_INLINE vecf vec_as_float(veci a)
{
    return _mm512_castsi512_ps(a);
}

VEC_INLINE veci vec_as_words(vecf a)
{
    return _mm512_castps_si512(a);
}

VEC_INLINE void vec_store_words(void *p, veci a)
{
    _mm512_storeu_si512(p, a);
}

/* Signed integers, exactly. */
VEC_INLINE vecf vec_from_words(veci a)
{
    return _mm512_cvtepi32_ps(a);
}

VEC_INLINE veci vec_load_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}

VEC_INLINE veci vec_load_i8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
}

/* VEC_LANES halves, exactly (the conversion heeds no denormals-are-zero). */
VEC_INLINE vecf vec_load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

/* Bits [n, n + 4) of every word as a number: a table of 16, as the permutation heeds only the low
 * four bits of a word. */
VEC_INLINE vecf vec_nibble(veci word, unsigned n)
{
    const vecf table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    return _mm512_permutexvar_ps(vec_shr(word, n), table);
}

/* The same four bits and, above them, bit k of more. The table of 32 heeds the low five bits. */
VEC_INLINE vecf vec_nibble_1(veci word, unsigned n, veci more, unsigned k)
{
    const vecf low = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const vecf high =
        _mm512_setr_ps(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    veci fifth = k < 4 ? vec_shl(more, 4 - k) : vec_shr(more, k - 4);

    /* low four bits from the word, the rest from fifth */
    return _mm512_permutex2var_ps(
        low, _mm512_ternarylogic_epi32(vec_set1_word(15), vec_shr(word, n), fifth, 0xca), high);
}

/* The same four bits and, above them, bits [k, k + 2) of more. */
VEC_INLINE vecf vec_nibble_2(veci word, unsigned n, veci more, unsigned k)
{
    veci top = k < 4 ? vec_shl(more, 4 - k) : vec_shr(more, k - 4);
    veci code = _mm512_ternarylogic_epi32(vec_set1_word(15), vec_shr(word, n), top, 0xca);

    return vec_from_words(vec_and(code, vec_set1_word(63)));
}

/* Byte b of every word as a number 0 .. 255. */
VEC_INLINE vecf vec_byte(veci word, unsigned b)
{
    veci shifted = vec_shr(word, 8 * b);

    return vec_from_words(b == 3 ? shifted : vec_and(shifted, vec_set1_word(255)));
}

/* The byte of a table of 16 for each byte's low four bits; its high one is clear. */
VEC_INLINE veci vec_load_table(const uint8_t table[16])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
}

VEC_INLINE veci vec_lookup_bytes(veci table, veci codes)
{
    return _mm512_shuffle_epi8(table, codes);
}

/* Of each block of 16 bytes the first, or the last, eight of a and b by turns. */
VEC_INLINE veci vec_interleave_first(veci a, veci b)
{
    return _mm512_unpacklo_epi8(a, b);
}

VEC_INLINE veci vec_interleave_last(veci a, veci b)
{
    return _mm512_unpackhi_epi8(a, b);
}

/* The largest lane; lanes are numbers, and a zero may have either sign. */
VEC_INLINE float vec_reduce_max(vecf a)
{
    return _mm512_reduce_max_ps(a);
}

#if VEC_DOT

VEC_INLINE veci vec_sub_bytes(veci a, veci b)
{
    return _mm512_sub_epi8(a, b);
}

/* The same four bytes in every lane. */
VEC_INLINE veci vec_set1_bytes(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return _mm512_set1_epi32(word);
}

VEC_INLINE veci vec_abs_bytes(veci a)
{
    return _mm512_abs_epi8(a);
}

/* -a in every byte where b is below 0, else a. */
VEC_INLINE veci vec_sign_bytes(veci a, veci b)
{
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(b), _mm512_setzero_si512(), a);
}

/* The even, or the odd, bytes, signed, as halves. */
VEC_INLINE veci vec_even_bytes(veci a)
{
    return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8);
}

VEC_INLINE veci vec_odd_bytes(veci a)
{
    return _mm512_srai_epi16(a, 8);
}

/* sum + the two products of every word's signed halves. */
VEC_INLINE veci vec_dot_halves(veci sum, veci a, veci b)
{
    return _mm512_dpwssd_epi32(sum, a, b);
}

/* sum + the four products of every word, in 32 bits. a is unsigned, b signed. */
VEC_INLINE veci vec_dot_bytes(veci sum, veci a, veci b)
{
    return _mm512_dpbusd_epi32(sum, a, b);
}

/* The same two with the four bytes at x for every lane of b: one instruction with the load in it.
 */
VEC_INLINE veci vec_dot_halves_set1(veci sum, veci a, const void *x)
{
    const uint32_t *word = x;

    __asm__("vpdpwssd %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*word), "v"(a));
    return sum;
}

VEC_INLINE veci vec_dot_bytes_set1(veci sum, veci a, const void *x)
{
    const uint32_t *word = x;

    __asm__("vpdpbusd %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*word), "v"(a));
    return sum;
}

/* The lesser of unsigned bytes. */
VEC_INLINE veci vec_min_bytes(veci a, veci b)
{
    return _mm512_min_epu8(a, b);
}

#endif

/* The upper halves of a's words, then of b's: of floats that are rounded to bf16, these. */
VEC_INLINE veci vec_bf16_pack(veci a, veci b)
{
    const __m512i places =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);

    return _mm512_permutex2var_epi16(a, places, b);
}

#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define VEC_DOT_BF16

/* Of two vectors of pairs of BF16 the lower halves of every word, the first's above the second's,
 */
VEC_INLINE veci vec_lower_halves(veci a, veci b)
{
    return _mm512_mask_blend_epi16(0x55555555, _mm512_slli_epi32(a, 16), b);
}

/* or the upper ones. */
VEC_INLINE veci vec_upper_halves(veci a, veci b)
{
    return _mm512_mask_blend_epi16(0x55555555, a, _mm512_srli_epi32(b, 16));
}

/* sum + the product of every word's upper halves, rounded, + that of the lower ones, rounded: two
 * fused multiply-adds that flush denormals to zero. */
VEC_INLINE vecf vec_dot_bf16(vecf sum, veci a, veci b)
{
    __asm__("vdpbf16ps %1, %2, %0" : "+v"(sum) : "v"(b), "v"(a));
    return sum;
}

/* The same with the two at x for every lane: one instruction with the load in it. */
VEC_INLINE vecf vec_dot_bf16_set1(vecf sum, veci a, const void *x)
{
    const uint32_t *word = x;

    __asm__("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*word), "v"(a));
    return sum;
}

/* Byte i is number places[i] of those of a (0 .. 63) and b (64 .. 127). */
VEC_INLINE veci vec_merge_bytes(veci a, veci places, veci b)
{
    return _mm512_permutex2var_epi8(a, places, b);
}

#endif

#endif
