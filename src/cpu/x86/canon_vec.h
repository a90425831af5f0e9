/* SPDX-License-Identifier: Apache-2.0 */
/* tensor/canon.h and the rounding to bf16, VEC_LANES at a time: the same operations in the same
 * order. */
#pragma once

#include "cpu/x86/vec.h"
#include "tensor/canon.h"

#ifdef VEC_LANES

VEC_INLINE vecf canon_exp_vec(vecf x)
{
    vecf big = vec_fma(x, vec_set1(CANON_LOG2_E), vec_set1(CANON_ROUND_BIG));
    vecf n = vec_sub(big, vec_set1(CANON_ROUND_BIG));
    vecf r = vec_fnma(n, vec_set1(CANON_LN2_LOW), vec_fnma(n, vec_set1(CANON_LN2_HIGH), x));
    vecf p = vec_set1(CANON_EXP_C0);
    veci bits = vec_add_words(vec_as_words(big), vec_set1_word(127u - 0x4b400000u));

    p = vec_fma(p, r, vec_set1(CANON_EXP_C1));
    p = vec_fma(p, r, vec_set1(CANON_EXP_C2));
    p = vec_fma(p, r, vec_set1(CANON_EXP_C3));
    p = vec_fma(p, r, vec_set1(CANON_EXP_C4));
    p = vec_fma(p, r, vec_set1(CANON_EXP_C5));
    p = vec_add(vec_fma(p, vec_mul(r, r), r), vec_set1(1.0f));
    p = vec_mul(p, vec_as_float(vec_shl(bits, 23)));
    p = vec_select_less(x, vec_set1(CANON_EXP_LOW), vec_zero(), p);
    return vec_select_less(vec_set1(CANON_EXP_HIGH), x, vec_set1(INFINITY), p);
}

VEC_INLINE vecf canon_silu_vec(vecf x)
{
    return vec_div(x, vec_add(vec_set1(1.0f), canon_exp_vec(vec_neg(x))));
}

/* Nearest-even to bf16 and back; a NaN stays a NaN. */
VEC_INLINE vecf canon_round_bf16_vec(vecf x)
{
    const veci top = vec_set1_word(0xffff0000);
    veci bits = vec_as_words(x);
    veci even = vec_and(vec_shr(bits, 16), vec_set1_word(1));
    veci rounded = vec_add_words(vec_add_words(bits, vec_set1_word(0x7fff)), even);
    veci quiet = vec_or(bits, vec_set1_word(0x400000));

    return vec_as_float(vec_and(vec_select_nan(x, quiet, rounded), top));
}

#endif
