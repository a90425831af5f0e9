/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer products, one group of 32 columns: codes of VEC_LANES lanes of a panel times codes of a
 * row of x, summed. A word is the codes of four neighbouring columns of one lane, so that a group
 * is eight words, and the same four columns of x are broadcast to all lanes.
 *
 * Bytes are multiplied by an instruction that takes one side unsigned. Where it sums all four
 * products in 32 bits (VEC_DOT), codes go in as they are stored and the type's zero is taken off
 * the sum. Where it adds two products in 16 bits, saturating, what fits there decides how a type is
 * summed; nothing ever saturates:
 *   4 bits        2 x 15 x 127 = 3,810: eight words are summed in 16 bits
 *   5 bits        2 x 31 x 127 = 7,874: each word goes on to 32 bits
 *   6 and 8 bits  signed, |c| <= 128: |c| times x with c's sign, 2 x 128 x 127 = 32,512; to 32 bits
 * Q6_K is signed in either case: its scales change within a group, and x's sums do not, but for
 * tiles that make sums of halves (tile_int8_tall.h).
 *
 * Where both factors are signed (VEC_SIGNED) codes of 6 and 8 bits go in with the type's zero taken
 * off; those of 4 and 5 bits are the same in either reading.
 *
 * Where x's codes are wide (tensor/quant.h) a word is split into the halves of its even columns and
 * those of its odd ones, and each pair of halves is multiplied into 32 bits. Codes of 8 bits have
 * 128 taken off, those of Q6_K 32, the others go in as they are stored.
 */
#pragma once

#include "cpu/x86/weights.h"

#ifdef VEC_INT8

enum { INT8_WORDS = 8 };

enum int8_sum { INT8_HALVES, INT8_WORDS_EACH, INT8_SIGNED, INT8_DOT, INT8_WIDE };

VEC_INLINE enum int8_sum int8_sum_of(enum dtype dtype, bool wide)
{
    if (wide) {
        return INT8_WIDE;
    }
    switch (dtype) {
    case DTYPE_Q6_K:
        return INT8_SIGNED;
    case DTYPE_Q8_0:
        return VEC_DOT && !VEC_SIGNED ? INT8_DOT : INT8_SIGNED;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
        return VEC_DOT ? INT8_DOT : INT8_WORDS_EACH;
    default:
        return VEC_DOT ? INT8_DOT : INT8_HALVES;
    }
}

/* Whether codes are signed, the type's zero taken off. */
VEC_INLINE bool int8_is_signed(enum dtype dtype, enum int8_sum how)
{
    return how == INT8_SIGNED || (how == INT8_WIDE && (dtype == DTYPE_Q8_0 || dtype == DTYPE_Q6_K));
}

/* Whether codes have five bits. */
VEC_INLINE bool int8_is_five(enum dtype dtype)
{
    return dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1 || dtype == DTYPE_Q5_K;
}

/* Whether a sum over the codes as they are wants zero * (sum of x's codes) taken off. */
VEC_INLINE bool int8_wants_zero(enum dtype dtype, enum int8_sum how)
{
    return !int8_is_signed(dtype, how) && packed_code_zero(dtype) != 0;
}

/* Words that share one scale. */
VEC_INLINE uint32_t int8_scale_words(enum dtype dtype)
{
    return dtype == DTYPE_Q6_K ? INT8_WORDS / 2 : INT8_WORDS;
}

/* Bits from `bit` on, a multiple of four, in place 4. */
VEC_INLINE veci int8_at_four(veci more, uint32_t bit)
{
    return bit == 0 ? vec_shl(more, 4) : vec_shr(more, bit - 4);
}

/* Bits [4 j, 4 j + 4) of more, one to each byte, in place 4. */
VEC_INLINE veci int8_fifth(veci more, uint32_t j)
{
#if VEC_LANES == 16
    /* Their byte four times, one of its upper bits left in each, and that brought down to 16: half
     * as many instructions (5 rows of Q5_0: 345 GOP/s instead of 280; one row of Q5_K: 27 %). A
     * mask of the bits and an addition under it are fewer yet, but test where products run (16
     * rows: 346 instead of 360). */
    static const uint8_t four_times[4][16] = {
        {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12},
        {1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9, 13, 13, 13, 13},
        {2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14},
        {3, 3, 3, 3, 7, 7, 7, 7, 11, 11, 11, 11, 15, 15, 15, 15},
    };
    veci byte = vec_lookup_bytes(more, vec_load_table(four_times[j / 2]));

    byte = vec_and(j % 2 == 0 ? vec_shl(byte, 4) : byte, vec_set1_word(0x80402010));
    return vec_min_bytes(byte, vec_set1_word(0x10101010));
#else
    veci four = vec_and(int8_at_four(more, 4 * j), vec_set1_word(0xf0));
    veci two = vec_or(four, vec_shl(four, 7));

    return vec_and(vec_or(two, vec_shl(two, 14)), vec_set1_word(0x10101010));
#endif
}

/* Bits [8 j, 8 j + 8) of more, two to each byte, in places 4 and 5. */
VEC_INLINE veci int8_top_two(veci more, uint32_t j)
{
    veci eight = vec_and(int8_at_four(more, 8 * j), vec_set1_word(0xff0));
    veci two = vec_or(eight, vec_shl(eight, 6));

    return vec_and(vec_or(two, vec_shl(two, 12)), vec_set1_word(0x30303030));
}

/* Word j of the group whose codes begin at `codes` (for lane 0: see tensor/packed.h), for the lanes
 * from `lane` on. */
VEC_INLINE veci int8_word(enum dtype dtype, enum int8_sum how, const uint8_t *codes, uint32_t lane,
                          uint32_t j)
{
    const uint8_t *at = codes + lane * 4;
    veci word;

    if (dtype == DTYPE_Q8_0) {
        word = vec_load_words(at + j * 64);
        if (int8_is_signed(dtype, how)) {
            word = vec_xor(word, vec_set1_word(0x80808080)); /* - 128 */
        }
        return word;
    }
    word = vec_load_words(at + j / 2 * 64);
    word = vec_and(vec_shr(word, j % 2 * 4), vec_set1_word(0x0f0f0f0f));
    if (int8_is_five(dtype)) {
        return vec_or(word, int8_fifth(vec_load_words(at + 256), j));
    }
    if (dtype == DTYPE_Q6_K) { /* 0 .. 63, or -32 .. 31 */
        word = vec_or(word, int8_top_two(vec_load_words(at + 256 + j / 4 * 64), j % 4));
        if (int8_is_signed(dtype, how)) {
            word = vec_sub_bytes(word, vec_set1_word(0x20202020));
        }
    }
    return word;
}

/* A word as products take it: with INT8_WIDE its even columns and its odd ones; else as it is, and
 * the magnitudes of signed codes where bytes are multiplied unsigned by signed. */
struct int8_factor {
    veci first;
    veci second;
};

VEC_INLINE bool int8_has_second(enum int8_sum how)
{
    return how == INT8_WIDE || (how == INT8_SIGNED && !VEC_SIGNED);
}

VEC_INLINE struct int8_factor int8_factor(enum int8_sum how, veci word)
{
    if (how == INT8_WIDE) {
        return (struct int8_factor){vec_even_bytes(word), vec_odd_bytes(word)};
    }
#if !VEC_SIGNED
    if (how == INT8_SIGNED) {
        return (struct int8_factor){word, vec_abs_bytes(word)};
    }
#endif
    return (struct int8_factor){word, word};
}

/* Words of x's codes: wide ones take two, the second (of odd columns) INT8_WORDS after the first.
 */
VEC_INLINE uint32_t int8_x_words(enum int8_sum how)
{
    return how == INT8_WIDE ? 2 * INT8_WORDS : INT8_WORDS;
}

/* sum + w times a word of x's wide codes. */
VEC_INLINE veci int8_add_halves(veci sum, veci w, const uint8_t *x)
{
#if VEC_LANES == 16
    return vec_dot_halves_set1(sum, w, x);
#else
    return vec_dot_halves(sum, w, vec_set1_bytes(x));
#endif
}

/* sum + w times a word of x's codes. Of wide ones that is two; step: bytes from word to word. */
VEC_INLINE veci int8_add(enum int8_sum how, veci sum, struct int8_factor w, const uint8_t *x,
                         size_t step)
{
    veci four = vec_set1_bytes(x);

    if (how == INT8_WIDE) {
        sum = int8_add_halves(sum, w.first, x);
        return int8_add_halves(sum, w.second, x + INT8_WORDS * step);
    }
#if !VEC_SIGNED
    if (how == INT8_SIGNED) {
        four = vec_sign_bytes(four, w.first);
        w.first = w.second;
    }
#endif
#if VEC_DOT
    return vec_dot_bytes(sum, w.first, four);
#else
    veci product = vec_mul_bytes(w.first, four);

    if (how == INT8_HALVES) {
        return vec_now(vec_add_halves(sum, product));
    }
    return vec_now(vec_add_words(sum, vec_sum_halves(product)));
#endif
}

/* The sums as numbers. zero: what to add to each, -(the type's zero) times the sum of x's codes. */
VEC_INLINE vecf int8_number(enum dtype dtype, enum int8_sum how, veci sum, veci zero)
{
#if !VEC_DOT
    if (how == INT8_HALVES) {
        sum = vec_sum_halves(sum);
    }
#endif
    if (int8_wants_zero(dtype, how)) {
        sum = vec_add_words(sum, zero);
    }
    return vec_from_words(sum);
}

#endif
