/* SPDX-License-Identifier: Apache-2.0 */
/* Activations to integers: whole groups in registers, the ends of leaves by the definition. */
#pragma once

#include "cpu/x86/vec.h"

#include "cpu/kernels.h"

#if defined(__AVX2__) && VEC_LANES == 8

enum { QUANT_VECTORS = QUANT_GROUP / VEC_LANES };

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

/* The group of x by the definition. */
VEC_INLINE void quant_group_slow(bool wide, const float *x, uint32_t lead, uint32_t n, void *codes,
                                 float *ret_scale, int32_t *ret_sum)
{
    (wide ? quant_group_wide : quant_group)(x, lead, n, codes, ret_scale, ret_sum);
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

/* Fewer than 32 columns are left to the definition, and so are special values. */
VEC_INLINE void quant_group_either(bool wide, const float *x, uint32_t lead, uint32_t n,
                                   void *codes, float *ret_scale, int32_t *ret_sum)
{
    const float most = wide ? QUANT_MOST_WIDE : QUANT_MOST;
    vecf values[QUANT_VECTORS];
    veci q[QUANT_VECTORS];
    veci greatest = vec_set1_word(0);
    uint32_t bits;
    float amax;

    if (n < QUANT_GROUP) {
        quant_group_slow(wide, x, lead, n, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t v = 0; v < QUANT_VECTORS; v++) {
        values[v] = vec_load(x + v * VEC_LANES);
        greatest =
            _mm256_max_epu32(greatest, vec_and(vec_as_words(values[v]), vec_set1_word(0x7fffffff)));
    }
    bits = quant_greatest(greatest);
    memcpy(&amax, &bits, sizeof(amax));
    if (bits >= 0x7f800000 || amax < QUANT_SMALLEST) {
        quant_group_slow(wide, x, 0, QUANT_GROUP, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t v = 0; v < QUANT_VECTORS; v++) { /* to the nearest, ties to even */
        q[v] = _mm256_cvtps_epi32(vec_mul(values[v], vec_set1(most / amax)));
    }
    *ret_scale = amax / most;
    *ret_sum = quant_sum(vec_add_words(vec_add_words(q[0], q[1]), vec_add_words(q[2], q[3])));
    quant_store(wide, q, codes);
}

/* See quant_group_fn, here and below. */
static void quant_group_vec(const float *x, uint32_t lead, uint32_t n, void *codes,
                            float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(false, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_group_wide_vec(const float *x, uint32_t lead, uint32_t n, void *codes,
                                 float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(true, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_row_vec(const float *x, const struct leaf_plan *leaves, const struct quant *out)
{
    if (out->wide != NULL) {
        quant_each(x, leaves, out->wide, sizeof(int16_t), out->scales, out->sums,
                   quant_group_wide_vec);
    } else {
        quant_each(x, leaves, out->codes, sizeof(int8_t), out->scales, out->sums, quant_group_vec);
    }
    vec_leave();
}

static void quant_row_init(struct cpu_kernels *kernels)
{
    kernels->quant_row = quant_row_vec;
}

#endif
