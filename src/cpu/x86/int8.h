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
 * Q6_K is signed in either case: its scales change within a group, and x's sums do not.
 *
 * Where both factors are signed (VEC_SIGNED) codes of 6 and 8 bits go in with the type's zero taken
 * off; those of 4 and 5 bits are the same in either reading.
 */
#pragma once

#include "cpu/x86/weights.h"

#ifdef VEC_INT8

enum { INT8_WORDS = 8 };

enum int8_sum { INT8_HALVES, INT8_WORDS_EACH, INT8_SIGNED, INT8_DOT };

VEC_INLINE enum int8_sum int8_sum_of(enum dtype dtype)
{
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

/* Whether codes have five bits. */
VEC_INLINE bool int8_is_five(enum dtype dtype)
{
    return dtype == DTYPE_Q5_0 || dtype == DTYPE_Q5_1 || dtype == DTYPE_Q5_K;
}

/* Whether a sum over the codes as they are wants zero * (sum of x's codes) taken off. */
VEC_INLINE bool int8_wants_zero(enum dtype dtype)
{
    return int8_sum_of(dtype) != INT8_SIGNED && packed_code_zero(dtype) != 0;
}

/* Words that share one scale. */
VEC_INLINE uint32_t int8_scale_words(enum dtype dtype)
{
    return dtype == DTYPE_Q6_K ? INT8_WORDS / 2 : INT8_WORDS;
}

/* Bits [4 j, 4 j + 4) of more, one to each byte, in place 4. */
VEC_INLINE veci int8_fifth(veci more, uint32_t j)
{
    veci four = vec_and(vec_shr(more, 4 * j), vec_set1_word(15));
    veci two = vec_or(four, vec_shl(four, 7));

    return vec_shl(vec_and(vec_or(two, vec_shl(two, 14)), vec_set1_word(0x01010101)), 4);
}

/* Bits [8 j, 8 j + 8) of more, two to each byte, in places 4 and 5. */
VEC_INLINE veci int8_top_two(veci more, uint32_t j)
{
    veci eight = vec_and(vec_shr(more, 8 * j), vec_set1_word(255));
    veci two = vec_or(eight, vec_shl(eight, 6));

    return vec_shl(vec_and(vec_or(two, vec_shl(two, 12)), vec_set1_word(0x03030303)), 4);
}

/* Word j of the group whose codes begin at `codes` (for lane 0: see tensor/packed.h), for the lanes
 * from `lane` on: unsigned, or (INT8_SIGNED) with the type's zero taken off. */
VEC_INLINE veci int8_word(enum dtype dtype, const uint8_t *codes, uint32_t lane, uint32_t j)
{
    const uint8_t *at = codes + lane * 4;
    veci word;

    if (dtype == DTYPE_Q8_0) {
        word = vec_load_words(at + j * 64);
        if (int8_sum_of(dtype) == INT8_SIGNED) {
            word = vec_xor(word, vec_set1_word(0x80808080)); /* - 128 */
        }
        return word;
    }
    word = vec_load_words(at + j / 2 * 64);
    word = vec_and(vec_shr(word, j % 2 * 4), vec_set1_word(0x0f0f0f0f));
    if (int8_is_five(dtype)) {
        return vec_or(word, int8_fifth(vec_load_words(at + 256), j));
    }
    if (dtype == DTYPE_Q6_K) { /* 0 .. 63 to -32 .. 31 */
        word = vec_or(word, int8_top_two(vec_load_words(at + 256 + j / 4 * 64), j % 4));
        return vec_sub_bytes(word, vec_set1_word(0x20202020));
    }
    return word;
}

/* Whether products want the magnitudes of signed codes beside the codes. */
VEC_INLINE bool int8_wants_magnitude(enum int8_sum how)
{
    return how == INT8_SIGNED && !VEC_SIGNED;
}

/* The magnitudes of word where they are wanted, else word. */
VEC_INLINE veci int8_magnitude(enum int8_sum how, veci word)
{
#if !VEC_SIGNED
    if (int8_wants_magnitude(how)) {
        return vec_abs_bytes(word);
    }
#else
    (void)how;
#endif
    return word;
}

/* sum + word times four codes of x; magnitude is int8_magnitude(word). */
VEC_INLINE veci int8_add(enum int8_sum how, veci sum, veci word, veci magnitude, veci x)
{
#if !VEC_SIGNED
    if (int8_wants_magnitude(how)) {
        x = vec_sign_bytes(x, word);
        word = magnitude;
    }
#else
    (void)magnitude;
#endif
#if VEC_DOT
    (void)how;
    return vec_dot_bytes(sum, word, x);
#else
    veci product = vec_mul_bytes(word, x);

    if (how == INT8_HALVES) {
        return vec_now(vec_add_halves(sum, product));
    }
    return vec_now(vec_add_words(sum, vec_sum_halves(product)));
#endif
}

/* The sums as numbers. zero: what to add to each, -(the type's zero) times the sum of x's codes. */
VEC_INLINE vecf int8_number(enum dtype dtype, veci sum, veci zero)
{
#if !VEC_DOT
    if (int8_sum_of(dtype) == INT8_HALVES) {
        sum = vec_sum_halves(sum);
    }
#endif
    if (int8_wants_zero(dtype)) {
        sum = vec_add_words(sum, zero);
    }
    return vec_from_words(sum);
}

#endif
