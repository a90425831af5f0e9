/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/quantise.h"

#include <math.h>

#include "tensor/canon.h"

enum { GROUP = 32 };

bool quantise_makes(enum dtype dtype)
{
    return dtype == DTYPE_Q8_0 || dtype == DTYPE_Q4_0;
}

/* The element of the greatest magnitude; a NaN if there is one. */
static float greatest(const float *x)
{
    float most = 0.0f;

    for (uint32_t i = 0; i < GROUP; i++) {
        if (isnan(x[i])) {
            return x[i];
        }
        if (fabsf(x[i]) > fabsf(most)) {
            most = x[i];
        }
    }
    return most;
}

static bool put_scale(float d, uint8_t *out, float *ret_d)
{
    uint16_t half = f16_from_f32(d);

    memcpy(out, &half, sizeof(half));
    *ret_d = f32_from_f16(half);
    return isfinite(*ret_d);
}

/* x / d to the nearest of the integers low .. high, ties to even; |x / d| is below 2^22. */
static float code_of(float x, float inverse, float low, float high)
{
    float code = x * inverse + CANON_ROUND_BIG - CANON_ROUND_BIG;

    code = code < low ? low : code;
    return code > high ? high : code;
}

static bool quantise_q8_0(const float *x, uint8_t *out)
{
    float d;

    if (!put_scale(fabsf(greatest(x)) / 127.0f, out, &d)) {
        return false;
    }
    for (uint32_t i = 0; i < GROUP; i++) {
        out[2 + i] = (uint8_t)(int8_t)(d == 0.0f ? 0.0f : code_of(x[i], 1.0f / d, -127.0f, 127.0f));
    }
    return true;
}

/* How much of the sum of squares the codes of x * inverse explain with the scale that fits them
 * best (xq / qq, by least squares): what is left is the squared error. */
static float fit_q4_0(const float *x, float inverse, float *ret_scale)
{
    float xq = 0.0f;
    float qq = 0.0f;

    for (uint32_t i = 0; i < GROUP; i++) {
        float code = code_of(x[i], inverse, -8.0f, 7.0f);

        xq += x[i] * code;
        qq += code * code;
    }
    *ret_scale = qq == 0.0f ? 0.0f : xq / qq;
    return xq * *ret_scale;
}

static bool quantise_q4_0(const float *x, uint8_t *out)
{
    /* where the element of the greatest magnitude goes: around either end of the codes */
    static const float ends[] = {-8.5f, -8.0f, -7.75f, -7.5f, -7.0f, 6.5f, 7.0f, 7.5f};
    float most = greatest(x);
    float best = 0.0f;
    float scale = 0.0f;
    uint8_t codes[GROUP];
    float d;

    if (!put_scale(most / 8.0f, out, &d)) { /* nor would the sums below be finite */
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(ends) && most != 0.0f; i++) {
        float fitted;
        float explained = fit_q4_0(x, ends[i] / most, &fitted);

        if (explained > best) {
            best = explained;
            scale = fitted;
        }
    }
    if (!put_scale(scale, out, &d)) {
        return false;
    }
    for (uint32_t i = 0; i < GROUP; i++) {
        codes[i] = (uint8_t)(8.0f + (d == 0.0f ? 0.0f : code_of(x[i], 1.0f / d, -8.0f, 7.0f)));
    }
    for (uint32_t i = 0; i < GROUP / 2; i++) {
        out[2 + i] = (uint8_t)(codes[i] | codes[i + GROUP / 2] << 4);
    }
    return true;
}

bool quantise_row(enum dtype dtype, const float *x, uint32_t n, uint8_t *out)
{
    uint32_t bytes = dtype_info(dtype)->group_bytes;
    bool ok = true;

    ENSURE(quantise_makes(dtype));
    for (uint32_t k = 0; k < n && ok; k += GROUP, out += bytes) {
        ok = dtype == DTYPE_Q8_0 ? quantise_q8_0(x + k, out) : quantise_q4_0(x + k, out);
    }
    return ok;
}
