/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking any range of columns of a panel to f32, for tiles and for the ends of leaves. */
#pragma once

#include "cpu/x86/weights.h"

#ifdef VEC_LANES

/* One group of 32 columns starting at k to out[c * stride + lane]. */
VEC_INLINE void unpack_step(enum dtype dtype, const uint8_t *codes, const uint8_t *scales,
                            uint32_t k, float *out, size_t stride)
{
    for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
        struct weights w = weights_open(dtype, codes, scales, k, lane);

#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4; j++) {
            vecf eight[8];

            weights_eight(dtype, &w, j, eight);
#pragma GCC unroll 8
            for (uint32_t c = 0; c < 8; c++) {
                vec_store(out + (8 * j + c) * stride + lane, eight[c]);
            }
        }
    }
}

/* Fewer than 32 columns of a plain type, touching nothing beyond them (but BF16's padding). */
VEC_INLINE void unpack_rest(enum dtype dtype, const uint8_t *codes, uint32_t k, uint32_t n,
                            float *out, size_t stride)
{
    for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
        for (uint32_t c = 0; c < n; c++) {
            float *to = out + c * stride + lane;
            size_t at = (size_t)(k + c) * PACKED_LANES + lane;
            vecf even;
            vecf odd;

            if (dtype == DTYPE_F32) {
                vec_store(to, vec_as_float(vec_load_words(codes + at * 4)));
            } else if (dtype == DTYPE_F16) {
                vec_store(to, vec_load_halves(codes + at * 2));
            } else { /* k is even */
                weights_bf16_pair(codes + (size_t)(k + c) / 2 * 64 + lane * 4, &even, &odd);
                vec_store(to, c % 2 == 0 ? even : odd);
            }
        }
    }
}

/* Columns [k, k + n) of a panel to out[c * stride + lane]. k is even. */
VEC_INLINE void unpack(enum dtype dtype, const struct packed *w, uint32_t panel, uint32_t k,
                       uint32_t n, float *out, size_t stride)
{
    const uint8_t *codes = w->codes + panel * w->panel_code_bytes;
    const uint8_t *scales =
        weights_are_codes(dtype) ? w->scales + panel * w->panel_scale_bytes : NULL;
    float group[WEIGHTS_STEP * PACKED_LANES];

    while (n > 0) {
        uint32_t skip = weights_are_codes(dtype) ? k % WEIGHTS_STEP : 0;
        uint32_t now = MIN(n, WEIGHTS_STEP - skip);

        if (now == WEIGHTS_STEP) {
            unpack_step(dtype, codes, scales, k, out, stride);
        } else if (weights_are_codes(dtype)) { /* a leaf begins or ends inside a group */
            unpack_step(dtype, codes, scales, k - skip, group, PACKED_LANES);
            for (uint32_t c = 0; c < now; c++) {
                memcpy(out + c * stride, group + (skip + c) * PACKED_LANES,
                       PACKED_LANES * sizeof(float));
            }
        } else {
            unpack_rest(dtype, codes, k, now, out, stride);
        }
        k += now;
        n -= now;
        out += now * stride;
    }
}

#endif
