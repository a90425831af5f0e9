/* SPDX-License-Identifier: Apache-2.0 */
/* Activations to integers: whole groups in registers, the ends of leaves by the definition. */
#pragma once

#include "cpu/x86/vec.h"

#include "cpu/kernels.h"

#if defined(__aarch64__) && !defined(VEC_EMULATED)

enum { QUANT_FOURS = QUANT_GROUP / 4 };

/* Four numbers in steps of a group to codes, to the nearest, ties to even. */
VEC_INLINE int32x4_t quant_codes(bool fine, float32x4_t steps)
{
    int32x4_t whole = vcvtnq_s32_f32(steps);

    if (!fine) {
        return whole;
    }
    return vcvtnq_s32_f32(vmulq_n_f32(vsubq_f32(steps, vcvtq_f32_s32(whole)), QUANT_FINE));
}

/* Eight numbers of -127 .. 127 as halves; adds them to *sum. */
VEC_INLINE int16x8_t quant_eight(bool fine, const float32x4_t *values, float factor, int32x4_t *sum)
{
    int32x4_t low = quant_codes(fine, vmulq_n_f32(values[0], factor));
    int32x4_t high = quant_codes(fine, vmulq_n_f32(values[1], factor));

    *sum = vaddq_s32(*sum, vaddq_s32(low, high));
    return vcombine_s16(vmovn_s32(low), vmovn_s32(high));
}

/* The group of x, or the fine one, by the definition. */
VEC_INLINE void quant_group_slow(bool fine, const float *x, uint32_t lead, uint32_t n,
                                 int8_t *codes, float *ret_scale, int32_t *ret_sum)
{
    (fine ? quant_group_fine : quant_group)(x, lead, n, codes, ret_scale, ret_sum);
}

/* Fewer than 32 columns are left to the definition, and so are special values. */
VEC_INLINE void quant_group_either(bool fine, const float *x, uint32_t lead, uint32_t n,
                                   int8_t *codes, float *ret_scale, int32_t *ret_sum)
{
    float32x4_t values[QUANT_FOURS];
    uint32x4_t most = vdupq_n_u32(0);
    int32x4_t sum = vdupq_n_s32(0);
    uint32_t bits;
    float amax;

    if (n < QUANT_GROUP) {
        quant_group_slow(fine, x, lead, n, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t i = 0; i < QUANT_FOURS; i++) {
        values[i] = vld1q_f32(x + 4 * i);
        most =
            vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(values[i]), vdupq_n_u32(0x7fffffff)));
    }
    bits = vmaxvq_u32(most);
    memcpy(&amax, &bits, sizeof(amax));
    if (bits >= 0x7f800000 || amax < QUANT_SMALLEST) {
        quant_group_slow(fine, x, 0, QUANT_GROUP, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t i = 0; i < QUANT_FOURS; i += 4) {
        int16x8_t low = quant_eight(fine, values + i, QUANT_MOST / amax, &sum);
        int16x8_t high = quant_eight(fine, values + i + 2, QUANT_MOST / amax, &sum);

        vst1q_s8(codes + 4 * i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    *ret_scale = fine ? amax / QUANT_MOST / QUANT_FINE : amax / QUANT_MOST;
    *ret_sum = vaddvq_s32(sum);
}

/* See quant_group_fn, here and below. */
static void quant_group_neon(const float *x, uint32_t lead, uint32_t n, int8_t *codes,
                             float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(false, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_group_fine_neon(const float *x, uint32_t lead, uint32_t n, int8_t *codes,
                                  float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(true, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_row_neon(const float *x, const struct leaf_plan *leaves, int8_t *codes,
                           float *scales, int32_t *sums)
{
    quant_each(x, leaves, codes, scales, sums, quant_group_neon);
}

static void quant_row_fine_neon(const float *x, const struct leaf_plan *leaves, int8_t *codes,
                                float *scales, int32_t *sums)
{
    quant_each(x, leaves, codes, scales, sums, quant_group_fine_neon);
}

static void quant_row_init(struct cpu_kernels *kernels)
{
    kernels->quant_row = quant_row_neon;
    kernels->quant_row_fine = quant_row_fine_neon;
}

#endif
