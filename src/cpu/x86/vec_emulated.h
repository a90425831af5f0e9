/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VEC_EMULATED lanes (8 or 16) in plain C; only vec.h includes this. The operations of vec_avx2.h
 * and vec_avx512.h, with their special cases, and bytes summed in 32 bits (VEC_DOT). For tests
 * alone: kernels for what this machine lacks run over it.
 */
#pragma once

#include <math.h>

#include "base/base.h"

/* Calls: written out in every kernel, these loops take a compiler minutes. */
#define VEC_CALL static __attribute__((noinline, unused))

#define VEC_LANES VEC_EMULATED
#define VEC_DOT   1

/* Compilers note that vectors wider than the registers are passed in another way than in a file
 * that has such registers; none of these functions is called from another file. */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef float vecf __attribute__((vector_size(VEC_LANES * 4)));
typedef uint32_t veci __attribute__((vector_size(VEC_LANES * 4)));
typedef int32_t vec_signed __attribute__((vector_size(VEC_LANES * 4)));
typedef uint8_t vec_bytes __attribute__((vector_size(VEC_LANES * 4)));
typedef uint16_t vec_halves __attribute__((vector_size(VEC_LANES * 4)));
typedef int16_t vec_signed_halves __attribute__((vector_size(VEC_LANES * 4)));
typedef int8_t vec_signed_bytes __attribute__((vector_size(VEC_LANES * 4)));

VEC_CALL void vec_leave(void)
{
}

VEC_CALL vecf vec_set1(float x)
{
    return x - (vecf){0};
}

VEC_CALL vecf vec_zero(void)
{
    return (vecf){0};
}

VEC_CALL vecf vec_load(const float *p)
{
    vecf a;

    memcpy(&a, p, sizeof(a));
    return a;
}

VEC_CALL void vec_store(float *p, vecf a)
{
    memcpy(p, &a, sizeof(a));
}

typedef bool vec_flag;

VEC_CALL vec_flag vec_all(bool all)
{
    return all;
}

VEC_CALL vecf vec_load_if(vec_flag all, const float *p)
{
    return all ? vec_load(p) : vec_zero();
}

/* The first n < VEC_LANES lanes; the others are zero. */
VEC_CALL vecf vec_load_part(const float *p, uint32_t n)
{
    vecf a = {0};

    for (uint32_t i = 0; i < n; i++) {
        a[i] = p[i];
    }
    return a;
}

VEC_CALL void vec_store_part(float *p, vecf a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        p[i] = a[i];
    }
}

VEC_CALL vecf vec_add(vecf a, vecf b)
{
    return a + b;
}

VEC_CALL vecf vec_sub(vecf a, vecf b)
{
    return a - b;
}

VEC_CALL vecf vec_mul(vecf a, vecf b)
{
    return a * b;
}

VEC_CALL vecf vec_div(vecf a, vecf b)
{
    return a / b;
}

/* a b + c */
VEC_CALL vecf vec_fma(vecf a, vecf b, vecf c)
{
    for (uint32_t i = 0; i < VEC_LANES; i++) {
        c[i] = fmaf(a[i], b[i], c[i]);
    }
    return c;
}

/* *x times every lane of b, plus c. */
VEC_CALL vecf vec_fma_set1(const float *x, vecf b, vecf c)
{
    return vec_fma(vec_set1(*x), b, c);
}

/* -(a b) + c */
VEC_CALL vecf vec_fnma(vecf a, vecf b, vecf c)
{
    return vec_fma(-a, b, c);
}

VEC_CALL vecf vec_as_float(veci a)
{
    return (vecf)a;
}

VEC_CALL veci vec_as_words(vecf a)
{
    return (veci)a;
}

/* a where the words of mask are all ones, b where they are all zeros. */
VEC_CALL veci vec_blend(veci mask, veci a, veci b)
{
    return (a & mask) | (b & ~mask);
}

/* a > b ? a : b in every lane, b if either is not a number or both are zeros. */
VEC_CALL vecf vec_max(vecf a, vecf b)
{
    return vec_as_float(vec_blend((veci)(a > b), vec_as_words(a), vec_as_words(b)));
}

/* a in the lanes with x < y, else b; b where x or y is not a number. */
VEC_CALL vecf vec_select_less(vecf x, vecf y, vecf a, vecf b)
{
    return vec_as_float(vec_blend((veci)(x < y), vec_as_words(a), vec_as_words(b)));
}

/* a in the first n lanes, b in the others. */
VEC_CALL vecf vec_select_below(uint32_t n, vecf a, vecf b)
{
    for (uint32_t i = 0; i < n && i < VEC_LANES; i++) {
        b[i] = a[i];
    }
    return b;
}

/* a in the lanes where x is not a number, else b. */
VEC_CALL veci vec_select_nan(vecf x, veci a, veci b)
{
    return vec_blend((veci)(x == x), b, a);
}

/* The sign flipped, also of zero. */
VEC_CALL vecf vec_neg(vecf a)
{
    return vec_as_float(vec_as_words(a) ^ 0x80000000u);
}

VEC_CALL veci vec_load_words(const void *p)
{
    veci a;

    memcpy(&a, p, sizeof(a));
    return a;
}

VEC_CALL void vec_store_words(void *p, veci a)
{
    memcpy(p, &a, sizeof(a));
}

VEC_CALL veci vec_set1_word(uint32_t x)
{
    return x - (veci){0};
}

VEC_CALL veci vec_and(veci a, veci b)
{
    return a & b;
}

VEC_CALL veci vec_or(veci a, veci b)
{
    return a | b;
}

VEC_CALL veci vec_xor(veci a, veci b)
{
    return a ^ b;
}

VEC_CALL veci vec_add_words(veci a, veci b)
{
    return a + b;
}

VEC_CALL veci vec_shr(veci a, unsigned n)
{
    return a >> n;
}

VEC_CALL veci vec_shl(veci a, unsigned n)
{
    return a << n;
}

/* Signed integers, to the nearest. */
VEC_CALL vecf vec_from_words(veci a)
{
    return __builtin_convertvector((vec_signed)a, vecf);
}

VEC_CALL veci vec_load_u8(const uint8_t *p)
{
    veci a;

    for (uint32_t i = 0; i < VEC_LANES; i++) {
        a[i] = p[i];
    }
    return a;
}

VEC_CALL veci vec_load_i8(const uint8_t *p)
{
    veci a;

    for (uint32_t i = 0; i < VEC_LANES; i++) {
        a[i] = (uint32_t)(int32_t)(int8_t)p[i];
    }
    return a;
}

/* VEC_LANES halves, exactly (the conversion heeds no denormals-are-zero). */
VEC_CALL vecf vec_load_halves(const uint8_t *p)
{
    vecf a;

    for (uint32_t i = 0; i < VEC_LANES; i++) {
        uint16_t half;

        memcpy(&half, p + 2 * i, sizeof(half));
        a[i] = f32_from_f16(half);
    }
    return a;
}

/* Bits [n, n + 4) of every word as a number. */
VEC_CALL vecf vec_nibble(veci word, unsigned n)
{
    return vec_from_words(word >> n & 15);
}

/* The same four bits and, above them, bit k of more. */
VEC_CALL vecf vec_nibble_1(veci word, unsigned n, veci more, unsigned k)
{
    return vec_from_words((word >> n & 15) | (more >> k & 1) << 4);
}

/* The same four bits and, above them, bits [k, k + 2) of more. */
VEC_CALL vecf vec_nibble_2(veci word, unsigned n, veci more, unsigned k)
{
    return vec_from_words((word >> n & 15) | (more >> k & 3) << 4);
}

/* Byte b of every word as a number 0 .. 255. */
VEC_CALL vecf vec_byte(veci word, unsigned b)
{
    return vec_from_words(word >> 8 * b & 255);
}

/* The byte of a table of 16 for each byte's low four bits; its high one is clear. */
VEC_CALL veci vec_load_table(const uint8_t table[16])
{
    veci a;

    for (uint32_t i = 0; i < VEC_LANES / 4; i++) {
        memcpy((uint8_t *)&a + 16 * i, table, 16);
    }
    return a;
}

VEC_CALL veci vec_lookup_bytes(veci table, veci codes)
{
    vec_bytes from = (vec_bytes)table;
    vec_bytes at = (vec_bytes)codes;

    for (uint32_t i = 0; i < sizeof(at); i++) {
        at[i] = from[i / 16 * 16 + at[i] % 16];
    }
    return (veci)at;
}

/* Of each block of 16 bytes eight, from `first` on, of a and b by turns. */
VEC_CALL veci vec_interleave(veci a, veci b, uint32_t first)
{
    vec_bytes even = (vec_bytes)a;
    vec_bytes odd = (vec_bytes)b;
    vec_bytes out;

    for (uint32_t i = 0; i < sizeof(out); i++) {
        uint32_t from = i / 16 * 16 + first + i % 16 / 2;

        out[i] = i % 2 == 0 ? even[from] : odd[from];
    }
    return (veci)out;
}

VEC_CALL veci vec_interleave_first(veci a, veci b)
{
    return vec_interleave(a, b, 0);
}

VEC_CALL veci vec_interleave_last(veci a, veci b)
{
    return vec_interleave(a, b, 8);
}

/* The largest lane; lanes are numbers, and a zero may have either sign. */
VEC_CALL float vec_reduce_max(vecf a)
{
    float max = a[0];

    for (uint32_t i = 1; i < VEC_LANES; i++) {
        max = a[i] > max ? a[i] : max;
    }
    return max;
}

/* Integer products. A word is four bytes of one lane. */

VEC_CALL veci vec_sub_bytes(veci a, veci b)
{
    return (veci)((vec_bytes)a - (vec_bytes)b);
}

/* The same four bytes in every lane. */
VEC_CALL veci vec_set1_bytes(const void *p)
{
    uint32_t word;

    memcpy(&word, p, sizeof(word));
    return vec_set1_word(word);
}

VEC_CALL veci vec_abs_bytes(veci a)
{
    vec_signed_bytes bytes = (vec_signed_bytes)a;
    vec_signed_bytes mask = bytes < 0;

    return (veci)((bytes ^ mask) - mask);
}

/* -a in every byte where b is below 0, else a. */
VEC_CALL veci vec_sign_bytes(veci a, veci b)
{
    vec_signed_bytes mask = (vec_signed_bytes)b < 0;

    return (veci)(((vec_signed_bytes)a ^ mask) - mask);
}

/* The even, or the odd, bytes, signed, as halves. */
VEC_CALL veci vec_even_bytes(veci a)
{
    return (veci)((vec_signed_halves)((vec_halves)a << 8) >> 8);
}

VEC_CALL veci vec_odd_bytes(veci a)
{
    return (veci)((vec_signed_halves)a >> 8);
}

/* sum + the two products of every word's signed halves. */
VEC_CALL veci vec_dot_halves(veci sum, veci a, veci b)
{
    vec_signed_halves u = (vec_signed_halves)a;
    vec_signed_halves s = (vec_signed_halves)b;

    for (uint32_t i = 0; i < sizeof(u) / sizeof(int16_t); i++) {
        sum[i / 2] += (uint32_t)(u[i] * s[i]);
    }
    return sum;
}

/* sum + the four products of every word, in 32 bits. a is unsigned, b signed. */
VEC_CALL veci vec_dot_bytes(veci sum, veci a, veci b)
{
    vec_bytes u = (vec_bytes)a;
    vec_signed_bytes s = (vec_signed_bytes)b;

    for (uint32_t i = 0; i < sizeof(u); i++) {
        sum[i / 4] += (uint32_t)(u[i] * s[i]);
    }
    return sum;
}

VEC_CALL veci vec_dot_halves_set1(veci sum, veci a, const void *x)
{
    return vec_dot_halves(sum, a, vec_set1_bytes(x));
}

VEC_CALL veci vec_dot_bytes_set1(veci sum, veci a, const void *x)
{
    return vec_dot_bytes(sum, a, vec_set1_bytes(x));
}

/* The lesser of unsigned bytes. */
VEC_CALL veci vec_min_bytes(veci a, veci b)
{
    vec_bytes x = (vec_bytes)a;
    vec_bytes y = (vec_bytes)b;
    vec_bytes less = (vec_bytes)(x < y);

    return (veci)((x & less) | (y & ~less));
}

#if VEC_LANES == 16

/* The upper halves of a's words, then of b's: of floats that are rounded to bf16, these. */
VEC_CALL veci vec_bf16_pack(veci a, veci b)
{
    veci out;
    uint16_t halves[2 * VEC_LANES];

    for (uint32_t i = 0; i < VEC_LANES; i++) {
        halves[i] = (uint16_t)(a[i] >> 16);
        halves[VEC_LANES + i] = (uint16_t)(b[i] >> 16);
    }
    memcpy(&out, halves, sizeof(out));
    return out;
}

#define VEC_DOT_BF16

/* Of two vectors of pairs of BF16 the lower halves of every word, the first's above the second's,
 */
VEC_CALL veci vec_lower_halves(veci a, veci b)
{
    return (a << 16) | (b & 0xffff);
}

/* or the upper ones. */
VEC_CALL veci vec_upper_halves(veci a, veci b)
{
    return (a & 0xffff0000) | (b >> 16);
}

/* Byte i is number places[i] of those of a (0 .. 63) and b (64 .. 127). */
VEC_CALL veci vec_merge_bytes(veci a, veci places, veci b)
{
    vec_bytes from[2] = {(vec_bytes)a, (vec_bytes)b};
    vec_bytes to;

    for (uint32_t i = 0; i < sizeof(to); i++) {
        uint8_t place = ((vec_bytes)places)[i];

        to[i] = from[place / 64][place % 64];
    }
    return (veci)to;
}

VEC_CALL vecf vec_dot_bf16(vecf sum, veci a, veci b)
{
    const veci upper = vec_set1_word(0xffff0000);

    sum = vec_fma(vec_as_float(a & upper), vec_as_float(b & upper), sum);
    return vec_fma(vec_as_float(a << 16), vec_as_float(b << 16), sum);
}

VEC_CALL vecf vec_dot_bf16_set1(vecf sum, veci a, const void *x)
{
    return vec_dot_bf16(sum, a, vec_set1_bytes(x));
}

#endif
