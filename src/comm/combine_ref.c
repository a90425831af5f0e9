/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for any processor, and the conversions of f16 written out. */
#define COMBINE_VECTOR 16
#include "comm/combine_kernels.h"

static void add_sum(float *restrict x, const float *restrict a, const float *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + (a[i] + b[i]);
    }
}

static void widen_f16(void *out, const void *in, size_t n)
{
    const uint16_t *from = in;
    float *to = out;

    for (size_t i = 0; i < n; i++) {
        to[i] = f32_from_f16(from[i]);
    }
}

static void narrow_f16(void *out, const void *in, size_t n)
{
    const float *from = in;
    uint16_t *to = out;

    for (size_t i = 0; i < n; i++) {
        to[i] = f16_from_f32(from[i]);
    }
}

const struct combine_sums combine_sums_ref = {"ref", sum_f32, add_sum};

const struct combine_kernels combine_kernels_ref = {
    .name = "ref",
    .combine = COMBINE_TABLE,
    .widen_f16 = widen_f16,
    .narrow_f16 = narrow_f16,
    .widen_bf16 = widen_bf16,
    .narrow_bf16 = narrow_bf16,
};
