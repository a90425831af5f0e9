/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activations to integers. As many whole groups as a vector has lanes are taken at once, so that
 * one tree of exchanges finds the greatest value of each and another the sum of its codes, and one
 * division serves all (AVX-512: half of the time that AVX2 took one after the other). Fewer are
 * taken by themselves; the ends of leaves, and groups with special values, by the definition.
 */
#pragma once

#include "cpu/x86/vec.h"

#include "cpu/kernels.h"

#if defined(__AVX2__) && defined(VEC_LANES) && !defined(VEC_EMULATED)

enum {
    QUANT_VECTORS = QUANT_GROUP / VEC_LANES, /* of a group */
    QUANT_BATCH = VEC_LANES                  /* groups that are taken at once */
};

#if VEC_LANES == 16

VEC_INLINE veci quant_max(veci a, veci b)
{
    return _mm512_max_epu32(a, b);
}

VEC_INLINE uint32_t quant_greatest(veci a)
{
    return _mm512_reduce_max_epu32(a);
}

VEC_INLINE int32_t quant_sum(veci a)
{
    return _mm512_reduce_add_epi32(a);
}

/* To the nearest, ties to even. */
VEC_INLINE veci quant_round(vecf a)
{
    return _mm512_cvtps_epi32(a);
}

/* Whether all words, none of them negative, are at least `least` and less than `limit`. */
VEC_INLINE bool quant_between(veci a, uint32_t least, uint32_t limit)
{
    return (_mm512_cmpge_epu32_mask(a, vec_set1_word(least)) &
            _mm512_cmplt_epu32_mask(a, vec_set1_word(limit))) == 0xffff;
}

/* Of runs of 2^step words, every other one of a and of b in turn: the first ones, or the second. */
VEC_INLINE veci quant_exchange(uint32_t step, bool second, veci a, veci b)
{
    switch (step) {
    case 0:
        return second ? _mm512_unpackhi_epi32(a, b) : _mm512_unpacklo_epi32(a, b);
    case 1:
        return second ? _mm512_unpackhi_epi64(a, b) : _mm512_unpacklo_epi64(a, b);
    case 2:
        return second ? _mm512_shuffle_i32x4(a, b, 0xee) : _mm512_shuffle_i32x4(a, b, 0x44);
    default:
        return second ? _mm512_shuffle_i32x4(a, b, 0xdd) : _mm512_shuffle_i32x4(a, b, 0x88);
    }
}

/* Codes to memory; wide ones where quant_wide_at says. */
VEC_INLINE void quant_store(bool wide, const veci q[QUANT_VECTORS], uint8_t *codes)
{
    if (wide) {
        const veci even =
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const veci odd =
            _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        veci first = _mm512_permutex2var_epi32(q[0], even, q[1]);
        veci second = _mm512_permutex2var_epi32(q[0], odd, q[1]);

        _mm256_storeu_si256((void *)codes, _mm512_cvtepi32_epi16(first));
        _mm256_storeu_si256((void *)(codes + QUANT_GROUP), _mm512_cvtepi32_epi16(second));
    } else {
        _mm_storeu_si128((void *)codes, _mm512_cvtepi32_epi8(q[0]));
        _mm_storeu_si128((void *)(codes + VEC_LANES), _mm512_cvtepi32_epi8(q[1]));
    }
}

#else

VEC_INLINE veci quant_max(veci a, veci b)
{
    return _mm256_max_epu32(a, b);
}

/* The greatest of eight words, none of them negative. */
VEC_INLINE uint32_t quant_greatest(veci a)
{
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));

    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xb1)));
}

VEC_INLINE int32_t quant_sum(veci a)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));

    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

/* To the nearest, ties to even. */
VEC_INLINE veci quant_round(vecf a)
{
    return _mm256_cvtps_epi32(a);
}

/* Whether all words, none of them negative, are at least `least` and less than `limit`. */
VEC_INLINE bool quant_between(veci a, uint32_t least, uint32_t limit)
{
    veci outside = vec_or(_mm256_cmpgt_epi32(vec_set1_word(least), a),
                          _mm256_cmpgt_epi32(a, vec_set1_word(limit - 1)));

    return _mm256_testz_si256(outside, outside) != 0;
}

/* Of runs of 2^step words, every other one of a and of b in turn: the first ones, or the second. */
VEC_INLINE veci quant_exchange(uint32_t step, bool second, veci a, veci b)
{
    switch (step) {
    case 0:
        return second ? _mm256_unpackhi_epi32(a, b) : _mm256_unpacklo_epi32(a, b);
    case 1:
        return second ? _mm256_unpackhi_epi64(a, b) : _mm256_unpacklo_epi64(a, b);
    default:
        return second ? _mm256_permute2x128_si256(a, b, 0x31)
                      : _mm256_permute2x128_si256(a, b, 0x20);
    }
}

/* 32 words as bytes in their order: packing works within halves of a register. */
VEC_INLINE veci quant_pack(veci a, veci b, veci c, veci d)
{
    veci bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));

    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Every other one of 32 words as halves in their order: the even ones, or the odd ones. */
VEC_INLINE veci quant_pack_wide(bool odd, const veci q[QUANT_VECTORS])
{
    vecf a = vec_as_float(q[0]);
    vecf b = vec_as_float(q[1]);
    vecf c = vec_as_float(q[2]);
    vecf d = vec_as_float(q[3]);
    vecf first = odd ? _mm256_shuffle_ps(a, b, 0xdd) : _mm256_shuffle_ps(a, b, 0x88);
    vecf second = odd ? _mm256_shuffle_ps(c, d, 0xdd) : _mm256_shuffle_ps(c, d, 0x88);
    veci halves = _mm256_packs_epi32(vec_as_words(first), vec_as_words(second));

    return _mm256_permutevar8x32_epi32(halves, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Codes to memory; wide ones where quant_wide_at says. */
VEC_INLINE void quant_store(bool wide, const veci q[QUANT_VECTORS], uint8_t *codes)
{
    if (wide) {
        vec_store_words(codes, quant_pack_wide(false, q));
        vec_store_words(codes + QUANT_GROUP, quant_pack_wide(true, q));
    } else {
        vec_store_words(codes, quant_pack(q[0], q[1], q[2], q[3]));
    }
}

#endif

/* Bits of positive numbers are ordered as these are: those of QUANT_SMALLEST, and infinity. */
enum { QUANT_SMALLEST_BITS = (127 - 100) << 23, QUANT_INFINITE = 0x7f800000 };

VEC_INLINE float quant_most(bool wide)
{
    return wide ? QUANT_MOST_WIDE : QUANT_MOST;
}

/* The greatest |x| of each lane of a group, as bits. */
VEC_INLINE veci quant_magnitude(const float *x)
{
    veci greatest = vec_set1_word(0);

    for (uint32_t v = 0; v < QUANT_VECTORS; v++) {
        veci bits = vec_as_words(vec_load(x + v * VEC_LANES));

        greatest = quant_max(greatest, vec_and(bits, vec_set1_word(0x7fffffff)));
    }
    return greatest;
}

/* The codes of a group, stored; returns their sums by lanes. */
VEC_INLINE veci quant_codes(bool wide, const float *x, vecf factor, uint8_t *codes)
{
    veci q[QUANT_VECTORS];
    veci sum = vec_set1_word(0);

    for (uint32_t v = 0; v < QUANT_VECTORS; v++) {
        q[v] = quant_round(vec_mul(vec_load(x + v * VEC_LANES), factor));
        sum = vec_add_words(sum, q[v]);
    }
    quant_store(wide, q, codes);
    return sum;
}

/* Lane g of the result is the greatest, or the sum, of the lanes of v[g]. Overwrites v. */
VEC_INLINE veci quant_reduce(bool sum, veci v[QUANT_BATCH])
{
#pragma GCC unroll 4
    for (uint32_t step = 0; QUANT_BATCH >> step > 1; step++) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < (uint32_t)QUANT_BATCH >> (step + 1); i++) {
            veci first = quant_exchange(step, false, v[2 * i], v[2 * i + 1]);
            veci second = quant_exchange(step, true, v[2 * i], v[2 * i + 1]);

            v[i] = sum ? vec_add_words(first, second) : quant_max(first, second);
        }
    }
    return v[0];
}

/* QUANT_BATCH whole groups; false, and nothing done, where one has special values. */
VEC_INLINE bool quant_batch(bool wide, const float *x, uint8_t *codes, float *scales, int32_t *sums)
{
    const vecf most = vec_set1(quant_most(wide));
    const size_t code_bytes = wide ? sizeof(int16_t) : sizeof(int8_t);
    float factors[QUANT_BATCH];
    veci each[QUANT_BATCH];
    veci bits;

    for (uint32_t g = 0; g < QUANT_BATCH; g++) {
        each[g] = quant_magnitude(x + g * QUANT_GROUP);
    }
    bits = quant_reduce(false, each);
    if (!quant_between(bits, QUANT_SMALLEST_BITS, QUANT_INFINITE)) {
        return false;
    }
    vec_store(scales, vec_div(vec_as_float(bits), most));
    vec_store(factors, vec_div(most, vec_as_float(bits)));
    for (uint32_t g = 0; g < QUANT_BATCH; g++) {
        each[g] = quant_codes(wide, x + g * QUANT_GROUP, vec_set1(factors[g]),
                              codes + g * QUANT_GROUP * code_bytes);
    }
    vec_store_words((uint8_t *)sums, quant_reduce(true, each));
    return true;
}

/* One group of n columns: see quant_group_fn. */
VEC_INLINE void quant_one(bool wide, const float *x, uint32_t lead, uint32_t n, uint8_t *codes,
                          float *ret_scale, int32_t *ret_sum)
{
    uint32_t bits = n < QUANT_GROUP ? 0 : quant_greatest(quant_magnitude(x));
    float amax;

    if (bits < QUANT_SMALLEST_BITS || bits >= QUANT_INFINITE) {
        (wide ? quant_group_wide : quant_group)(x, lead, n, codes, ret_scale, ret_sum);
        return;
    }
    memcpy(&amax, &bits, sizeof(amax));
    *ret_scale = amax / quant_most(wide);
    *ret_sum = quant_sum(quant_codes(wide, x, vec_set1(quant_most(wide) / amax), codes));
}

/* The leaf behind those from `leaf` on that have no group in common with the next: groups of all of
 * them follow one another as if they were one. */
VEC_INLINE uint32_t quant_leaves(const struct leaf_plan *leaves, uint32_t leaf)
{
    do {
        leaf++;
    } while (leaf < leaves->n_leaves && leaves->bounds[leaf] % QUANT_GROUP == 0);
    return leaf;
}

VEC_INLINE void quant_row_either(bool wide, const float *x, const struct leaf_plan *leaves,
                                 uint8_t *codes, float *scales, int32_t *sums)
{
    const size_t code_bytes = QUANT_GROUP * (wide ? sizeof(int16_t) : sizeof(int8_t));
    uint32_t next;

    for (uint32_t leaf = 0; leaf < leaves->n_leaves; leaf = next) {
        uint32_t end;

        next = quant_leaves(leaves, leaf);
        end = leaves->bounds[next];
        for (uint32_t k = leaves->bounds[leaf]; k < end;) {
            uint32_t lead = k % QUANT_GROUP;
            uint32_t n = MIN(QUANT_GROUP - lead, end - k);
            uint32_t done = 1;

            if (lead == 0 && end - k >= QUANT_BATCH * QUANT_GROUP &&
                quant_batch(wide, x + k, codes, scales, sums)) {
                n = QUANT_BATCH * QUANT_GROUP;
                done = QUANT_BATCH;
            } else {
                quant_one(wide, x + k, lead, n, codes, scales, sums);
            }
            k += n;
            codes += done * code_bytes;
            scales += done;
            sums += done;
        }
    }
}

static void quant_row_vec(const float *x, const struct leaf_plan *leaves, const struct quant *out)
{
    if (out->wide != NULL) {
        quant_row_either(true, x, leaves, (uint8_t *)out->wide, out->scales, out->sums);
    } else {
        quant_row_either(false, x, leaves, (uint8_t *)out->codes, out->scales, out->sums);
    }
    vec_leave();
}

static void quant_row_init(struct cpu_kernels *kernels)
{
    kernels->quant_row = quant_row_vec;
}

#endif
