/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA and F16C: 8 lanes; only vec.h includes this. */
#pragma once

#include "base/base.h"

#if !defined(__AVX512F__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#define VEC_LANES 8
#ifdef __AVXVNNI__
#define VEC_DOT 1
#else
#define VEC_DOT 0
#endif

/* Short names for the intrinsic types, which differ between instruction sets. */
typedef __m256 vecf;
typedef __m256i veci;

/* Before a kernel returns: clears the upper halves of the registers, without which code that knows
 * nothing of them, the C library's, runs several times slower. Compilers do this by themselves, but
 * gcc 12 not on every path. */
VEC_INLINE void vec_leave(void)
{
    _mm256_zeroupper();
}

VEC_INLINE vecf vec_zero(void)
{
    return _mm256_setzero_ps();
}

VEC_INLINE vecf vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

VEC_INLINE vecf vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

VEC_INLINE void vec_store(float *p, vecf a)
{
    _mm256_storeu_ps(p, a);
}

/* Words of all ones in the first n lanes. */
VEC_INLINE __m256i vec_lanes_below(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n < VEC_LANES lanes; the others are zero. */
VEC_INLINE vecf vec_load_part(const float *p, uint32_t n)
{
    return _mm256_maskload_ps(p, vec_lanes_below(n));
}

VEC_INLINE void vec_store_part(float *p, vecf a, uint32_t n)
{
    _mm256_maskstore_ps(p, vec_lanes_below(n), a);
}

VEC_INLINE vecf vec_add(vecf a, vecf b)
{
    return _mm256_add_ps(a, b);
}

VEC_INLINE vecf vec_sub(vecf a, vecf b)
{
    return _mm256_sub_ps(a, b);
}

VEC_INLINE vecf vec_mul(vecf a, vecf b)
{
    return _mm256_mul_ps(a, b);
}

VEC_INLINE vecf vec_div(vecf a, vecf b)
{
    return _mm256_div_ps(a, b);
}

/* a b + c */
VEC_INLINE vecf vec_fma(vecf a, vecf b, vecf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* *x times every lane of b, plus c. */
VEC_INLINE vecf vec_fma_set1(const float *x, vecf b, vecf c)
{
    return vec_fma(vec_set1(*x), b, c);
}

/* -(a b) + c */
VEC_INLINE vecf vec_fnma(vecf a, vecf b, vecf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* a > b ? a : b in every lane, b if either is not a number or both are zeros. */
VEC_INLINE vecf vec_max(vecf a, vecf b)
{
    return _mm256_max_ps(a, b);
}

/* a in the lanes with x < y, else b; b where x or y is not a number. */
VEC_INLINE vecf vec_select_less(vecf x, vecf y, vecf a, vecf b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
}

/* a in the first n lanes, b in the others. */
VEC_INLINE vecf vec_select_below(uint32_t n, vecf a, vecf b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(vec_lanes_below(n)));
}

/* a in the lanes where x is not a number, else b. */
VEC_INLINE veci vec_select_nan(vecf x, veci a, veci b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}

/* The sign flipped, also of zero. */
VEC_INLINE vecf vec_neg(vecf a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}

VEC_INLINE veci vec_load_words(const void *p)
{
    return _mm256_loadu_si256(p);
}

VEC_INLINE veci vec_set1_word(uint32_t x)
{
    return _mm256_set1_epi32((int)x);
}

VEC_INLINE veci vec_and(veci a, veci b)
{
    return _mm256_and_si256(a, b);
}

VEC_INLINE veci vec_or(veci a, veci b)
{
    return _mm256_or_si256(a, b);
}

VEC_INLINE veci vec_xor(veci a, veci b)
{
    return _mm256_xor_si256(a, b);
}

VEC_INLINE veci vec_sub_bytes(veci a, veci b)
{
    return _mm256_sub_epi8(a, b);
}

VEC_INLINE veci vec_add_words(veci a, veci b)
{
    return _mm256_add_epi32(a, b);
}

/* Logical shifts of every word; operators, because intrinsics want a literal count when not
 * optimising. */
VEC_INLINE veci vec_shr(veci a, unsigned n)
{
    return (veci)((__v8su)a >> n);
}

VEC_INLINE veci vec_shl(veci a, unsigned n)
{
    return (veci)((__v8su)a << n);
}

VEC_INLINE vecf vec_as_float(veci a)
{
    return _mm256_castsi256_ps(a);
}

VEC_INLINE veci vec_as_words(vecf a)
{
    return _mm256_castps_si256(a);
}

VEC_INLINE void vec_store_words(void *p, veci a)
{
    _mm256_storeu_si256(p, a);
}

/* Signed integers, exactly. */
VEC_INLINE vecf vec_from_words(veci a)
{
    return _mm256_cvtepi32_ps(a);
}

VEC_INLINE veci vec_load_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}

VEC_INLINE veci vec_load_i8(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
}

/* VEC_LANES halves, exactly (the conversion heeds no denormals-are-zero). */
VEC_INLINE vecf vec_load_halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

/* Bits [n, n + 4) of every word as a number. */
VEC_INLINE vecf vec_nibble(veci word, unsigned n)
{
    return vec_from_words(vec_and(vec_shr(word, n), vec_set1_word(15)));
}

/* Bit or bits [k, ...) of more moved to bit 4. */
VEC_INLINE veci vec_to_bit_4(veci more, unsigned k)
{
    return k < 4 ? vec_shl(more, 4 - k) : vec_shr(more, k - 4);
}

/* The same four bits and, above them, bit k of more. */
VEC_INLINE vecf vec_nibble_1(veci word, unsigned n, veci more, unsigned k)
{
    veci low = vec_and(vec_shr(word, n), vec_set1_word(15));

    return vec_from_words(vec_or(low, vec_and(vec_to_bit_4(more, k), vec_set1_word(16))));
}

/* The same four bits and, above them, bits [k, k + 2) of more. */
VEC_INLINE vecf vec_nibble_2(veci word, unsigned n, veci more, unsigned k)
{
    veci low = vec_and(vec_shr(word, n), vec_set1_word(15));

    return vec_from_words(vec_or(low, vec_and(vec_to_bit_4(more, k), vec_set1_word(48))));
}

/* Byte b of every word as a number 0 .. 255. */
VEC_INLINE vecf vec_byte(veci word, unsigned b)
{
    veci shifted = vec_shr(word, 8 * b);

    return vec_from_words(b == 3 ? shifted : vec_and(shifted, vec_set1_word(255)));
}

/* The largest lane; lanes are numbers, and a zero may have either sign. */
VEC_INLINE float vec_reduce_max(vecf a)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The byte of a table of 16 for each byte's low four bits; its high one is clear. */
VEC_INLINE veci vec_load_table(const uint8_t table[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table));
}

VEC_INLINE veci vec_lookup_bytes(veci table, veci codes)
{
    return _mm256_shuffle_epi8(table, codes);
}

/* Of each block of 16 bytes the first, or the last, eight of a and b by turns. */
VEC_INLINE veci vec_interleave_first(veci a, veci b)
{
    return _mm256_unpacklo_epi8(a, b);
}

VEC_INLINE veci vec_interleave_last(veci a, veci b)
{
    return _mm256_unpackhi_epi8(a, b);
}

/* Integer products. A word is four bytes of one lane. */

/* The same value; additions before it are not put off until after it. Compilers may order those of
 * integers as they like: gcc does all products of a loop first, for which there are no registers.
 */
VEC_INLINE veci vec_now(veci a)
{
    __asm__("" : "+x"(a));
    return a;
}

/* The same four bytes in every lane. */
VEC_INLINE veci vec_set1_bytes(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return _mm256_set1_epi32(word);
}

/* Sums of two neighbouring products each, as halves; they saturate. a is unsigned, b signed. */
VEC_INLINE veci vec_mul_bytes(veci a, veci b)
{
    return _mm256_maddubs_epi16(a, b);
}

VEC_INLINE veci vec_add_halves(veci a, veci b)
{
    return _mm256_add_epi16(a, b);
}

/* Both signed halves of every word, added. */
VEC_INLINE veci vec_sum_halves(veci a)
{
    return _mm256_madd_epi16(a, _mm256_set1_epi16(1));
}

VEC_INLINE veci vec_abs_bytes(veci a)
{
    return _mm256_abs_epi8(a);
}

/* a, 0 or -a in every byte where b is above, equal to, below 0. */
VEC_INLINE veci vec_sign_bytes(veci a, veci b)
{
    return _mm256_sign_epi8(a, b);
}

/* The even, or the odd, bytes, signed, as halves. */
VEC_INLINE veci vec_even_bytes(veci a)
{
    return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
}

VEC_INLINE veci vec_odd_bytes(veci a)
{
    return _mm256_srai_epi16(a, 8);
}

#if VEC_DOT

/* sum + the two products of every word's signed halves. */
VEC_INLINE veci vec_dot_halves(veci sum, veci a, veci b)
{
    return _mm256_dpwssd_avx_epi32(sum, a, b);
}

/* sum + the four products of every word, in 32 bits. a is unsigned, b signed. */
VEC_INLINE veci vec_dot_bytes(veci sum, veci a, veci b)
{
    return _mm256_dpbusd_avx_epi32(sum, a, b);
}

#else

VEC_INLINE veci vec_dot_halves(veci sum, veci a, veci b)
{
    return vec_now(_mm256_add_epi32(sum, _mm256_madd_epi16(a, b)));
}

#endif

#endif
