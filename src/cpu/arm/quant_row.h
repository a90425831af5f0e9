/* SPDX-License-Identifier: Apache-2.0 */
/* Activations to integers: whole groups in registers, the ends of leaves by the definition. */
#pragma once

#include "cpu/x86/vec.h"

#include "cpu/kernels.h"

#if defined(__aarch64__) && !defined(VEC_EMULATED)

enum { QUANT_FOURS = QUANT_GROUP / 4 };

/* The group of x by the definition. */
VEC_INLINE void quant_group_slow(bool wide, const float *x, uint32_t lead, uint32_t n, void *codes,
                                 float *ret_scale, int32_t *ret_sum)
{
    (wide ? quant_group_wide : quant_group)(x, lead, n, codes, ret_scale, ret_sum);
}

/* Eight numbers times factor as halves, to the nearest, ties to even; adds them to *sum. */
VEC_INLINE int16x8_t quant_eight(const float32x4_t *values, float factor, int32x4_t *sum)
{
    int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(values[0], factor));
    int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(values[1], factor));

    *sum = vaddq_s32(*sum, vaddq_s32(low, high));
    return vcombine_s16(vmovn_s32(low), vmovn_s32(high));
}

/* Fewer than 32 columns are left to the definition, and so are special values. */
VEC_INLINE void quant_group_either(bool wide, const float *x, uint32_t lead, uint32_t n,
                                   void *codes, float *ret_scale, int32_t *ret_sum)
{
    const float most = wide ? QUANT_MOST_WIDE : QUANT_MOST;
    float32x4_t values[QUANT_FOURS];
    uint32x4_t greatest = vdupq_n_u32(0);
    int32x4_t sum = vdupq_n_s32(0);
    uint32_t bits;
    float amax;

    if (n < QUANT_GROUP) {
        quant_group_slow(wide, x, lead, n, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t i = 0; i < QUANT_FOURS; i++) {
        values[i] = vld1q_f32(x + 4 * i);
        greatest = vmaxq_u32(greatest,
                             vandq_u32(vreinterpretq_u32_f32(values[i]), vdupq_n_u32(0x7fffffff)));
    }
    bits = vmaxvq_u32(greatest);
    memcpy(&amax, &bits, sizeof(amax));
    if (bits >= 0x7f800000 || amax < QUANT_SMALLEST) {
        quant_group_slow(wide, x, 0, QUANT_GROUP, codes, ret_scale, ret_sum);
        return;
    }
    for (uint32_t i = 0; i < QUANT_FOURS; i += 4) {
        int16x8_t low = quant_eight(values + i, most / amax, &sum);
        int16x8_t high = quant_eight(values + i + 2, most / amax, &sum);

        if (wide) {
            vst1q_s16((int16_t *)codes + 2 * i, vuzp1q_s16(low, high)); /* the even columns */
            vst1q_s16((int16_t *)codes + 2 * i + QUANT_GROUP / 2, vuzp2q_s16(low, high));
        } else {
            vst1q_s8((int8_t *)codes + 4 * i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
    }
    *ret_scale = amax / most;
    *ret_sum = vaddvq_s32(sum);
}

/* See quant_group_fn, here and below. */
static void quant_group_neon(const float *x, uint32_t lead, uint32_t n, void *codes,
                             float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(false, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_group_wide_neon(const float *x, uint32_t lead, uint32_t n, void *codes,
                                  float *ret_scale, int32_t *ret_sum)
{
    quant_group_either(true, x, lead, n, codes, ret_scale, ret_sum);
}

static void quant_row_neon(const float *x, const struct leaf_plan *leaves, const struct quant *out)
{
    if (out->wide != NULL) {
        quant_each(x, leaves, out->wide, sizeof(int16_t), out->scales, out->sums,
                   quant_group_wide_neon);
    } else {
        quant_each(x, leaves, out->codes, sizeof(int8_t), out->scales, out->sums, quant_group_neon);
    }
}

static void quant_row_init(struct cpu_kernels *kernels)
{
    kernels->quant_row = quant_row_neon;
}

#endif
