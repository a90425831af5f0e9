/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From packed codes to weights, in registers: the value of every type as tensor/packed.h defines
 * it. The type is a constant wherever these are used, so that each use compiles to the few
 * instructions of that type. Quantised values are one form, fma(code, d, m): with an unsigned code,
 * m is -128 d, -8 d, -16 d or -32 d where the definition subtracts from the code (the same value,
 * see packed.h), the stored minimum otherwise.
 */
#pragma once

#include "cpu/x86/vec.h"

#include "tensor/bf16_12.h"

#ifdef VEC_LANES

enum { WEIGHTS_STEP = 32 }; /* columns of one accumulation step and of one group of codes */

/* Bytes of codes, and of scales, for 32 columns of a panel. */
VEC_INLINE uint32_t weights_code_bytes(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return 2048;
    case DTYPE_F16:
    case DTYPE_BF16:
        return 1024;
    case DTYPE_BF16_12:
        return WEIGHTS_STEP / BF16_12_UNIT * BF16_12_UNIT_BYTES;
    case DTYPE_Q8_0:
        return 512;
    case DTYPE_Q4_0:
    case DTYPE_Q4_1:
    case DTYPE_Q4_K:
        return 256;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
        return 320;
    default: /* Q6_K */
        return 384;
    }
}

VEC_INLINE uint32_t weights_scale_bytes(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_F16:
    case DTYPE_BF16:
    case DTYPE_BF16_12: /* its records are no scales */
        return 0;
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
        return 64;
    case DTYPE_Q6_K:
        return 288 / 8;
    default: /* for Q4_K and Q5_K an eighth of the record */
        return 32;
    }
}

VEC_INLINE bool weights_are_codes(enum dtype dtype)
{
    return weights_scale_bytes(dtype) > 0;
}

/* Columns that share a record of scales. */
VEC_INLINE uint32_t weights_scale_group(enum dtype dtype)
{
    return dtype == DTYPE_Q4_K || dtype == DTYPE_Q5_K || dtype == DTYPE_Q6_K ? 256 : WEIGHTS_STEP;
}

/* 32 columns of VEC_LANES lanes of a panel, ready to be read eight columns at a time. */
struct weights {
    const uint8_t *codes; /* of the step, from the first of these lanes */
    vecf d[2];            /* [1]: of the second 16 columns, for Q6_K alone */
    vecf m[2];
    veci table; /* of BF16_12 alone */
};

/* The 6-bit scale and minimum of sub-block j (of 8) from twelve planes of 16 bytes. */
VEC_INLINE void weights_scale_min(const uint8_t *planes, uint32_t j, vecf *ret_scale, vecf *ret_min)
{
    const veci low4 = vec_set1_word(15);
    const veci low6 = vec_set1_word(63);
    veci scale;
    veci min;

    if (j < 4) {
        scale = vec_and(vec_load_u8(planes + j * 16), low6);
        min = vec_and(vec_load_u8(planes + (j + 4) * 16), low6);
    } else {
        veci both = vec_load_u8(planes + (j + 4) * 16);
        veci scale_top = vec_shr(vec_load_u8(planes + (j - 4) * 16), 6);
        veci min_top = vec_shr(vec_load_u8(planes + j * 16), 6);

        scale = vec_or(vec_and(both, low4), vec_shl(scale_top, 4));
        min = vec_or(vec_shr(both, 4), vec_shl(min_top, 4));
    }
    *ret_scale = vec_from_words(scale);
    *ret_min = vec_from_words(min);
}

/* Opens columns [k, k + 32) of a panel's lanes from `lane` on; k is a multiple of 32 for the
 * quantised types, of 8 for BF16_12 (scales: the record, and no column is patched), even for BF16,
 * and all 32 columns exist. */
VEC_INLINE struct weights weights_open(enum dtype dtype, const uint8_t *codes,
                                       const uint8_t *scales, uint32_t k, uint32_t lane)
{
    struct weights w;
    const uint32_t group = weights_scale_group(dtype);
    const size_t record_bytes = (size_t)weights_scale_bytes(dtype) * (group / WEIGHTS_STEP);
    const uint8_t *record = NULL;
    vecf scale;
    vecf min;

    w.codes = codes + (size_t)k * (weights_code_bytes(dtype) / WEIGHTS_STEP) +
              lane * (dtype == DTYPE_F16 ? 2 : 4);
    if (weights_are_codes(dtype)) {
        record = scales + k / group * record_bytes + lane * 2;
    }
    switch (dtype) {
    case DTYPE_Q8_0:
        w.d[0] = vec_load_halves(record);
        w.m[0] = vec_mul(w.d[0], vec_set1(-128.0f));
        break;
    case DTYPE_Q4_0:
        w.d[0] = vec_load_halves(record);
        w.m[0] = vec_mul(w.d[0], vec_set1(-8.0f));
        break;
    case DTYPE_Q5_0:
        w.d[0] = vec_load_halves(record);
        w.m[0] = vec_mul(w.d[0], vec_set1(-16.0f));
        break;
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
        w.d[0] = vec_load_halves(record);
        w.m[0] = vec_load_halves(record + 32);
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        weights_scale_min(record - lane + 64, k % 256 / 32, &scale, &min);
        w.d[0] = vec_mul(vec_load_halves(record), scale);
        w.m[0] = vec_neg(vec_mul(vec_load_halves(record + 32), min));
        break;
    case DTYPE_Q6_K:
        for (uint32_t h = 0; h < 2; h++) {
            scale = vec_from_words(vec_load_i8(record - lane + 32 + (k % 256 / 16 + h) * 16));
            w.d[h] = vec_mul(vec_load_halves(record), scale);
            w.m[h] = vec_mul(w.d[h], vec_set1(-32.0f));
        }
        break;
    case DTYPE_BF16_12:
        w.table = vec_load_table(scales);
        break;
    default:
        break;
    }
    return w;
}

/* Columns 2 c and 2 c + 1 from a word of BF16 pairs. */
VEC_INLINE void weights_split_pair(veci pair, vecf *ret_even, vecf *ret_odd)
{
    *ret_even = vec_as_float(vec_shl(pair, 16));
    *ret_odd = vec_as_float(vec_and(pair, vec_set1_word(0xffff0000)));
}

VEC_INLINE void weights_bf16_pair(const uint8_t *line, vecf *ret_even, vecf *ret_odd)
{
    weights_split_pair(vec_load_words(line), ret_even, ret_odd);
}

/* Four pairs of BF16 from a unit at 12 bits. */
VEC_INLINE void weights_unit_12(const uint8_t *unit, veci table, veci pairs[4])
{
    const veci low4 = vec_set1_word(0x0f0f0f0f);
    veci codes = vec_load_words(unit + 128);
    veci first = vec_load_words(unit);
    veci second = vec_load_words(unit + 64);
    veci high = vec_lookup_bytes(table, vec_and(codes, low4));

    pairs[0] = vec_interleave_first(first, high);
    pairs[1] = vec_interleave_last(first, high);
    high = vec_lookup_bytes(table, vec_and(vec_shr(codes, 4), low4));
    pairs[2] = vec_interleave_first(second, high);
    pairs[3] = vec_interleave_last(second, high);
}

/* Columns 8 j .. 8 j + 7 of the 32. */
VEC_INLINE void weights_eight(enum dtype dtype, const struct weights *w, uint32_t j, vecf out[8])
{
    const uint8_t *codes = w->codes;
    veci pairs[4];
    veci word;
    veci more;

    switch (dtype) {
    case DTYPE_F32:
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            out[c] = vec_as_float(vec_load_words(codes + (8 * j + c) * 64));
        }
        return;
    case DTYPE_F16:
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            out[c] = vec_load_halves(codes + (8 * j + c) * 32);
        }
        return;
    case DTYPE_BF16:
#pragma GCC unroll 4
        for (uint32_t c = 0; c < 4; c++) {
            weights_bf16_pair(codes + (4 * j + c) * 64, &out[2 * c], &out[2 * c + 1]);
        }
        return;
    case DTYPE_BF16_12:
        weights_unit_12(codes + j * BF16_12_UNIT_BYTES, w->table, pairs);
#pragma GCC unroll 4
        for (uint32_t c = 0; c < 4; c++) {
            weights_split_pair(pairs[c], &out[2 * c], &out[2 * c + 1]);
        }
        return;
    case DTYPE_Q8_0:
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            word = vec_load_words(codes + (2 * j + c / 4) * 64);
            out[c] = vec_fma(vec_byte(word, c % 4), w->d[0], w->m[0]);
        }
        return;
    case DTYPE_Q4_0:
    case DTYPE_Q4_1:
    case DTYPE_Q4_K:
        word = vec_load_words(codes + j * 64);
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            /* byte c % 4, low nibble for c < 4 */
            out[c] = vec_fma(vec_nibble(word, 8 * (c % 4) + c / 4 * 4), w->d[0], w->m[0]);
        }
        return;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K:
        word = vec_load_words(codes + j * 64);
        more = vec_load_words(codes + 256);
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            out[c] = vec_fma(vec_nibble_1(word, 8 * (c % 4) + c / 4 * 4, more, 8 * j + c), w->d[0],
                             w->m[0]);
        }
        return;
    default: /* Q6_K */
        word = vec_load_words(codes + j * 64);
        more = vec_load_words(codes + 256 + j / 2 * 64);
#pragma GCC unroll 8
        for (uint32_t c = 0; c < 8; c++) {
            out[c] =
                vec_fma(vec_nibble_2(word, 8 * (c % 4) + c / 4 * 4, more, 2 * ((8 * j + c) % 16)),
                        w->d[j / 2], w->m[j / 2]);
        }
        return;
    }
}

#endif
