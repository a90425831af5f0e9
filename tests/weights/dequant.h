/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value of element k of a stored row, one element at a time, written from the format's
 * definition and from nothing in src/weights: what the packed layout must give back, bit for bit.
 */
#pragma once

#include <math.h>

#include "tensor/dtype.h"

static inline float dequant_f16(const uint8_t *at)
{
    return f32_from_f16((uint16_t)(at[0] | at[1] << 8));
}

/* Groups of 32: nibble k of 16 bytes, element k in the low half of byte k, k + 16 in the high one.
 */
static inline unsigned dequant_nibble(const uint8_t *q, unsigned k)
{
    return k < 16 ? q[k] & 15u : q[k - 16] >> 4;
}

static inline unsigned dequant_bit(const uint8_t *bits, unsigned k)
{
    return bits[k / 8] >> (k % 8) & 1u;
}

/* Twelve bytes hold eight 6-bit scales and eight minima. The first four of each lie in the low six
 * bits of bytes 0 to 3 and 4 to 7; of the rest, the low four bits are in bytes 8 to 11 (scale low,
 * minimum high) and the upper two in the top bits of bytes 0 to 3 and 4 to 7. */
static inline void dequant_scale_min(const uint8_t *s, unsigned i, unsigned *ret_d, unsigned *ret_m)
{
    if (i < 4) {
        *ret_d = s[i] & 63u;
        *ret_m = s[4 + i] & 63u;
    } else {
        *ret_d = (s[4 + i] & 15u) + (s[i - 4] >> 6) * 16u;
        *ret_m = (s[4 + i] >> 4) + (s[i] >> 6) * 16u;
    }
}

/* Q4_K (bits NULL) and Q5_K. */
static inline float dequant_k4(const uint8_t *at, const uint8_t *bits, const uint8_t *q, unsigned k)
{
    unsigned chunk = k / 64;
    unsigned half = k % 64 / 32;
    unsigned code = q[chunk * 32 + k % 32] >> (4 * half) & 15u;
    unsigned scale;
    unsigned minimum;

    if (bits != NULL) {
        code += (bits[k % 32] >> (2 * chunk + half) & 1u) * 16;
    }
    dequant_scale_min(at + 4, k / 32, &scale, &minimum);
    return fmaf((float)code, dequant_f16(at) * (float)scale,
                -(dequant_f16(at + 2) * (float)minimum));
}

static inline float dequant_q6_k(const uint8_t *at, unsigned k)
{
    unsigned half = k / 128; /* 128 elements: four runs of 32 */
    unsigned run = k % 128 / 32;
    unsigned l = k % 32;
    unsigned byte = at[half * 64 + (run % 2) * 32 + l];
    unsigned low = run < 2 ? byte & 15u : byte >> 4;
    unsigned high = at[128 + half * 32 + l] >> (2 * run) & 3u;
    int code = (int)(low + high * 16) - 32;

    return fmaf((float)code, dequant_f16(at + 208) * (float)(int8_t)at[192 + k / 16], 0.0f);
}

static inline float dequant(enum dtype dtype, const uint8_t *row, uint32_t col)
{
    uint32_t group = dtype_info(dtype)->group;
    const uint8_t *at = row + (size_t)(col / group) * dtype_info(dtype)->group_bytes;
    unsigned k = col % group;
    float value;

    switch (dtype) {
    case DTYPE_F32:
        memcpy(&value, at, sizeof(value));
        return value;
    case DTYPE_F16:
        return dequant_f16(at);
    case DTYPE_BF16:
        return f32_from_bf16((uint16_t)(at[0] | at[1] << 8));
    case DTYPE_Q8_0:
        return fmaf((float)(int8_t)at[2 + k], dequant_f16(at), 0.0f);
    case DTYPE_Q4_0:
        return fmaf((float)dequant_nibble(at + 2, k) - 8.0f, dequant_f16(at), 0.0f);
    case DTYPE_Q4_1:
        return fmaf((float)dequant_nibble(at + 4, k), dequant_f16(at), dequant_f16(at + 2));
    case DTYPE_Q5_0:
        return fmaf((float)(dequant_nibble(at + 6, k) + 16 * dequant_bit(at + 2, k)) - 16.0f,
                    dequant_f16(at), 0.0f);
    case DTYPE_Q5_1:
        return fmaf((float)(dequant_nibble(at + 8, k) + 16 * dequant_bit(at + 4, k)),
                    dequant_f16(at), dequant_f16(at + 2));
    case DTYPE_Q4_K:
        return dequant_k4(at, NULL, at + 16, k);
    case DTYPE_Q5_K:
        return dequant_k4(at, at + 16, at + 48, k);
    default:
        return dequant_q6_k(at, k);
    }
}
