/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NEON: 8 lanes in two registers; only cpu/x86/vec.h includes this. There are 32 registers of four
 * lanes, that is 16 such pairs, as many as AVX2 has: what is tuned to its registers fits these, and
 * two independent operations at a time hide what each waits for.
 *
 * Both factors of a byte product are signed (VEC_SIGNED). With the dot product's flag (files named
 * *_neondot.c) four of them are summed in 32 bits by one instruction.
 */
#pragma once

#include "base/base.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define VEC_LANES  8
#define VEC_SIGNED 1
#ifdef __ARM_FEATURE_DOTPROD
#define VEC_DOT 1
#else
#define VEC_DOT 0
#endif

/* Lanes 0 .. 3 and 4 .. 7. */
typedef struct {
    float32x4_t low;
    float32x4_t high;
} vecf;

typedef struct {
    uint32x4_t low;
    uint32x4_t high;
} veci;

/* No state is left behind that other code could mind. */
VEC_INLINE void vec_leave(void)
{
}

VEC_INLINE vecf vec_set1(float x)
{
    float32x4_t four = vdupq_n_f32(x);

    return (vecf){four, four};
}

VEC_INLINE vecf vec_zero(void)
{
    return vec_set1(0.0f);
}

VEC_INLINE vecf vec_load(const float *p)
{
    return (vecf){vld1q_f32(p), vld1q_f32(p + 4)};
}

VEC_INLINE void vec_store(float *p, vecf a)
{
    vst1q_f32(p, a.low);
    vst1q_f32(p + 4, a.high);
}

/* The first n < VEC_LANES lanes; the others are zero. */
VEC_INLINE vecf vec_load_part(const float *p, uint32_t n)
{
    float lanes[VEC_LANES] = {0};

    memcpy(lanes, p, n * sizeof(float));
    return vec_load(lanes);
}

VEC_INLINE void vec_store_part(float *p, vecf a, uint32_t n)
{
    float lanes[VEC_LANES];

    vec_store(lanes, a);
    memcpy(p, lanes, n * sizeof(float));
}

VEC_INLINE vecf vec_add(vecf a, vecf b)
{
    return (vecf){vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}

VEC_INLINE vecf vec_sub(vecf a, vecf b)
{
    return (vecf){vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
}

VEC_INLINE vecf vec_mul(vecf a, vecf b)
{
    return (vecf){vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}

VEC_INLINE vecf vec_div(vecf a, vecf b)
{
    return (vecf){vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
}

/* a b + c */
VEC_INLINE vecf vec_fma(vecf a, vecf b, vecf c)
{
    return (vecf){vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}

/* *x times every lane of b, plus c. */
VEC_INLINE vecf vec_fma_set1(const float *x, vecf b, vecf c)
{
    return vec_fma(vec_set1(*x), b, c);
}

/* -(a b) + c */
VEC_INLINE vecf vec_fnma(vecf a, vecf b, vecf c)
{
    return (vecf){vfmsq_f32(c.low, a.low, b.low), vfmsq_f32(c.high, a.high, b.high)};
}

/* a > b ? a : b in every lane, b if either is not a number or both are zeros: vmaxq orders the
 * zeros, and keeps what is no number. */
VEC_INLINE float32x4_t vec_max_four(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

VEC_INLINE vecf vec_max(vecf a, vecf b)
{
    return (vecf){vec_max_four(a.low, b.low), vec_max_four(a.high, b.high)};
}

/* a in the lanes with x < y, else b; b where x or y is not a number. */
VEC_INLINE vecf vec_select_less(vecf x, vecf y, vecf a, vecf b)
{
    return (vecf){vbslq_f32(vcltq_f32(x.low, y.low), a.low, b.low),
                  vbslq_f32(vcltq_f32(x.high, y.high), a.high, b.high)};
}

/* Words of all ones in the first n lanes. */
VEC_INLINE veci vec_lanes_below(uint32_t n)
{
    const uint32x4_t number = {0, 1, 2, 3};
    uint32x4_t end = vdupq_n_u32(n);

    return (veci){vcltq_u32(number, end), vcltq_u32(vaddq_u32(number, vdupq_n_u32(4)), end)};
}

/* a in the first n lanes, b in the others. */
VEC_INLINE vecf vec_select_below(uint32_t n, vecf a, vecf b)
{
    veci below = vec_lanes_below(n);

    return (vecf){vbslq_f32(below.low, a.low, b.low), vbslq_f32(below.high, a.high, b.high)};
}

/* a in the lanes where x is not a number, else b. */
VEC_INLINE veci vec_select_nan(vecf x, veci a, veci b)
{
    return (veci){vbslq_u32(vceqq_f32(x.low, x.low), b.low, a.low),
                  vbslq_u32(vceqq_f32(x.high, x.high), b.high, a.high)};
}

/* The sign flipped, also of zero. */
VEC_INLINE vecf vec_neg(vecf a)
{
    return (vecf){vnegq_f32(a.low), vnegq_f32(a.high)};
}

VEC_INLINE veci vec_load_words(const void *p)
{
    const uint8_t *bytes = p;

    return (veci){vreinterpretq_u32_u8(vld1q_u8(bytes)),
                  vreinterpretq_u32_u8(vld1q_u8(bytes + 16))};
}

VEC_INLINE void vec_store_words(void *p, veci a)
{
    uint8_t *bytes = p;

    vst1q_u8(bytes, vreinterpretq_u8_u32(a.low));
    vst1q_u8(bytes + 16, vreinterpretq_u8_u32(a.high));
}

VEC_INLINE veci vec_set1_word(uint32_t x)
{
    uint32x4_t four = vdupq_n_u32(x);

    return (veci){four, four};
}

VEC_INLINE veci vec_and(veci a, veci b)
{
    return (veci){vandq_u32(a.low, b.low), vandq_u32(a.high, b.high)};
}

VEC_INLINE veci vec_or(veci a, veci b)
{
    return (veci){vorrq_u32(a.low, b.low), vorrq_u32(a.high, b.high)};
}

VEC_INLINE veci vec_xor(veci a, veci b)
{
    return (veci){veorq_u32(a.low, b.low), veorq_u32(a.high, b.high)};
}

VEC_INLINE veci vec_add_words(veci a, veci b)
{
    return (veci){vaddq_u32(a.low, b.low), vaddq_u32(a.high, b.high)};
}

/* Logical shifts of every word; operators, because intrinsics want a literal count when not
 * optimising. */
VEC_INLINE veci vec_shr(veci a, unsigned n)
{
    return (veci){a.low >> n, a.high >> n};
}

VEC_INLINE veci vec_shl(veci a, unsigned n)
{
    return (veci){a.low << n, a.high << n};
}

VEC_INLINE vecf vec_as_float(veci a)
{
    return (vecf){vreinterpretq_f32_u32(a.low), vreinterpretq_f32_u32(a.high)};
}

VEC_INLINE veci vec_as_words(vecf a)
{
    return (veci){vreinterpretq_u32_f32(a.low), vreinterpretq_u32_f32(a.high)};
}

/* Signed integers, exactly. */
VEC_INLINE vecf vec_from_words(veci a)
{
    return (vecf){vcvtq_f32_s32(vreinterpretq_s32_u32(a.low)),
                  vcvtq_f32_s32(vreinterpretq_s32_u32(a.high))};
}

VEC_INLINE veci vec_load_u8(const uint8_t *p)
{
    uint16x8_t halves = vmovl_u8(vld1_u8(p));

    return (veci){vmovl_u16(vget_low_u16(halves)), vmovl_high_u16(halves)};
}

VEC_INLINE veci vec_load_i8(const uint8_t *p)
{
    int16x8_t halves = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));

    return (veci){vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(halves))),
                  vreinterpretq_u32_s32(vmovl_high_s16(halves))};
}

/* VEC_LANES halves, exactly (the conversion heeds no flushing of floats). */
VEC_INLINE vecf vec_load_halves(const uint8_t *p)
{
    float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(p));

    return (vecf){vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
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
    float32x4_t four = vec_max_four(a.low, a.high);
    float32x4_t two = vec_max_four(four, vextq_f32(four, four, 2));

    return vgetq_lane_f32(vec_max_four(two, vextq_f32(two, two, 1)), 0);
}

/* The byte of a table of 16 for each byte's low four bits; its high ones are clear. */
VEC_INLINE veci vec_load_table(const uint8_t table[16])
{
    uint32x4_t bytes = vreinterpretq_u32_u8(vld1q_u8(table));

    return (veci){bytes, bytes};
}

VEC_INLINE uint32x4_t vec_lookup_16(uint32x4_t table, uint32x4_t codes)
{
    return vreinterpretq_u32_u8(
        vqtbl1q_u8(vreinterpretq_u8_u32(table), vreinterpretq_u8_u32(codes)));
}

VEC_INLINE veci vec_lookup_bytes(veci table, veci codes)
{
    return (veci){vec_lookup_16(table.low, codes.low), vec_lookup_16(table.high, codes.high)};
}

VEC_INLINE uint32x4_t vec_zip_first(uint32x4_t a, uint32x4_t b)
{
    return vreinterpretq_u32_u8(vzip1q_u8(vreinterpretq_u8_u32(a), vreinterpretq_u8_u32(b)));
}

VEC_INLINE uint32x4_t vec_zip_last(uint32x4_t a, uint32x4_t b)
{
    return vreinterpretq_u32_u8(vzip2q_u8(vreinterpretq_u8_u32(a), vreinterpretq_u8_u32(b)));
}

/* Of each block of 16 bytes the first, or the last, eight of a and b by turns. */
VEC_INLINE veci vec_interleave_first(veci a, veci b)
{
    return (veci){vec_zip_first(a.low, b.low), vec_zip_first(a.high, b.high)};
}

VEC_INLINE veci vec_interleave_last(veci a, veci b)
{
    return (veci){vec_zip_last(a.low, b.low), vec_zip_last(a.high, b.high)};
}

/* Integer products. A word is four bytes of one lane. */

VEC_INLINE int8x16_t vec_bytes(uint32x4_t a)
{
    return vreinterpretq_s8_u32(a);
}

VEC_INLINE veci vec_sub_bytes(veci a, veci b)
{
    return (veci){vreinterpretq_u32_s8(vsubq_s8(vec_bytes(a.low), vec_bytes(b.low))),
                  vreinterpretq_u32_s8(vsubq_s8(vec_bytes(a.high), vec_bytes(b.high)))};
}

/* The same value; additions before it are not put off until after it (see vec_avx2.h). */
VEC_INLINE veci vec_now(veci a)
{
    __asm__("" : "+w"(a.low), "+w"(a.high));
    return a;
}

/* The same four bytes in every lane. */
VEC_INLINE veci vec_set1_bytes(const void *p)
{
    uint32_t word;

    memcpy(&word, p, sizeof(word));
    return vec_set1_word(word);
}

VEC_INLINE int16x8_t vec_halves(uint32x4_t a)
{
    return vreinterpretq_s16_u32(a);
}

VEC_INLINE uint32x4_t vec_even_16(uint32x4_t a)
{
    return vreinterpretq_u32_s16(vshrq_n_s16(vshlq_n_s16(vec_halves(a), 8), 8));
}

VEC_INLINE uint32x4_t vec_odd_16(uint32x4_t a)
{
    return vreinterpretq_u32_s16(vshrq_n_s16(vec_halves(a), 8));
}

/* The even, or the odd, bytes, signed, as halves. */
VEC_INLINE veci vec_even_bytes(veci a)
{
    return (veci){vec_even_16(a.low), vec_even_16(a.high)};
}

VEC_INLINE veci vec_odd_bytes(veci a)
{
    return (veci){vec_odd_16(a.low), vec_odd_16(a.high)};
}

VEC_INLINE uint32x4_t vec_dot_eight(uint32x4_t sum, int16x8_t a, int16x8_t b)
{
    int32x4_t first = vmull_s16(vget_low_s16(a), vget_low_s16(b));

    return vaddq_u32(sum, vreinterpretq_u32_s32(vpaddq_s32(first, vmull_high_s16(a, b))));
}

/* sum + the two products of every word's signed halves. */
VEC_INLINE veci vec_dot_halves(veci sum, veci a, veci b)
{
    return (veci){vec_dot_eight(sum.low, vec_halves(a.low), vec_halves(b.low)),
                  vec_dot_eight(sum.high, vec_halves(a.high), vec_halves(b.high))};
}

#if VEC_DOT

VEC_INLINE uint32x4_t vec_dot_four(uint32x4_t sum, uint32x4_t a, uint32x4_t b)
{
    return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sum), vec_bytes(a), vec_bytes(b)));
}

/* sum + the four products of every word, in 32 bits. Both are signed. */
VEC_INLINE veci vec_dot_bytes(veci sum, veci a, veci b)
{
    return (veci){vec_dot_four(sum.low, a.low, b.low), vec_dot_four(sum.high, a.high, b.high)};
}

#else

VEC_INLINE uint32x4_t vec_mul_16(uint32x4_t a, uint32x4_t b)
{
    int16x8_t first = vmull_s8(vget_low_s8(vec_bytes(a)), vget_low_s8(vec_bytes(b)));

    return vreinterpretq_u32_s16(vpaddq_s16(first, vmull_high_s8(vec_bytes(a), vec_bytes(b))));
}

/* Sums of two neighbouring products each, as halves, which must hold them. Both are signed. */
VEC_INLINE veci vec_mul_bytes(veci a, veci b)
{
    return (veci){vec_mul_16(a.low, b.low), vec_mul_16(a.high, b.high)};
}

VEC_INLINE veci vec_add_halves(veci a, veci b)
{
    return (veci){vreinterpretq_u32_s16(vaddq_s16(vec_halves(a.low), vec_halves(b.low))),
                  vreinterpretq_u32_s16(vaddq_s16(vec_halves(a.high), vec_halves(b.high)))};
}

/* Both signed halves of every word, added. */
VEC_INLINE veci vec_sum_halves(veci a)
{
    return (veci){vreinterpretq_u32_s32(vpaddlq_s16(vec_halves(a.low))),
                  vreinterpretq_u32_s32(vpaddlq_s16(vec_halves(a.high)))};
}

#endif

#endif
