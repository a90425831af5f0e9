/* SPDX-License-Identifier: Apache-2.0 */
/* Four by four floats, for packing rows of x into columns. */
#pragma once

#include "base/base.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* out[c * stride + i] = from[i][k + c], i and c below 4. */
static inline __attribute__((always_inline)) void
transpose_four(const float *const from[4], uint32_t k, float *out, uint32_t stride)
{
#if defined(__x86_64__)
    __m128 column[4] = {_mm_loadu_ps(from[0] + k), _mm_loadu_ps(from[1] + k),
                        _mm_loadu_ps(from[2] + k), _mm_loadu_ps(from[3] + k)};

    _MM_TRANSPOSE4_PS(column[0], column[1], column[2], column[3]);
    for (uint32_t c = 0; c < 4; c++) {
        _mm_storeu_ps(out + c * stride, column[c]);
    }
#elif defined(__aarch64__)
    float32x4x2_t a = vzipq_f32(vld1q_f32(from[0] + k), vld1q_f32(from[2] + k));
    float32x4x2_t b = vzipq_f32(vld1q_f32(from[1] + k), vld1q_f32(from[3] + k));

    for (uint32_t c = 0; c < 4; c += 2) {
        float32x4x2_t columns = vzipq_f32(a.val[c / 2], b.val[c / 2]);

        vst1q_f32(out + c * stride, columns.val[0]);
        vst1q_f32(out + (c + 1) * stride, columns.val[1]);
    }
#endif
}
