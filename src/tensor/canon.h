/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canonical elementary functions: each a written sequence of IEEE operations and fused
 * multiply-adds, so that every implementation, scalar or vector, gives the same bits. No libm
 * function but fma and sqrt, which IEEE 754 defines to the bit. This file is the definition;
 * kernels for an instruction set repeat the sequences and are tested for equality. Pure; any
 * thread; flush-to-zero is expected to be on where denormals can arise (base/float_env.h), and both
 * settings give the same for ordinary arguments.
 */
#pragma once

#include <math.h>

#include "base/base.h"

/* Argument range of canon_exp outside which the result is 0 or infinity: ln(2^-126), ln(2^127.5).
 */
#define CANON_EXP_LOW   (-87.336544f)
#define CANON_EXP_HIGH  88.376259f
#define CANON_LOG2_E    1.44269504f
#define CANON_LN2_HIGH  0.693359375f      /* 9 bits: n * this is exact for |n| < 2^15 */
#define CANON_LN2_LOW   (-2.12194440e-4f) /* ln 2 minus the above */
#define CANON_ROUND_BIG 12582912.0f       /* 1.5 * 2^23: adding it rounds to an integer */

/* Polynomial of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, highest power first (Moshier, Cephes
 * expf). */
#define CANON_EXP_C0 1.9875691500e-4f
#define CANON_EXP_C1 1.3981999507e-3f
#define CANON_EXP_C2 8.3334519073e-3f
#define CANON_EXP_C3 4.1665795894e-2f
#define CANON_EXP_C4 1.6666665459e-1f
#define CANON_EXP_C5 5.0000001201e-1f

/* exp(x), relative error below 2e-7. NaN gives NaN. */
static inline float canon_exp(float x)
{
    float big = fmaf(x, CANON_LOG2_E, CANON_ROUND_BIG);
    float n = big - CANON_ROUND_BIG;
    float r = fmaf(n, -CANON_LN2_LOW, fmaf(n, -CANON_LN2_HIGH, x));
    float p = CANON_EXP_C0;
    uint32_t bits;
    float scale;

    if (x < CANON_EXP_LOW) {
        return 0.0f;
    }
    if (x > CANON_EXP_HIGH) {
        return INFINITY;
    }
    p = fmaf(p, r, CANON_EXP_C1);
    p = fmaf(p, r, CANON_EXP_C2);
    p = fmaf(p, r, CANON_EXP_C3);
    p = fmaf(p, r, CANON_EXP_C4);
    p = fmaf(p, r, CANON_EXP_C5);
    p = fmaf(p, r * r, r) + 1.0f;
    memcpy(&bits, &big, sizeof(bits)); /* its low bits hold n; 0x4b400000 is CANON_ROUND_BIG */
    bits = (bits - 0x4b400000u + 127u) << 23;
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

/* x * sigmoid(x). */
static inline float canon_silu(float x)
{
    return x / (1.0f + canon_exp(-x));
}

/* 1 / sqrt(x), two correctly rounded operations. */
static inline float canon_rsqrt(float x)
{
    return 1.0f / sqrtf(x);
}

/* Doubles, for tables that are computed once (rotary angles): error below 4 units of 2^-52 (pow:
 * times 1 + |power ln base|). */
double canon_log_f64(double x);                                    /* x > 0 and finite */
double canon_exp_f64(double x);                                    /* |x| < 700 */
double canon_pow_f64(double base, double power);                   /* base > 0 */
void canon_sincos_f64(double x, double *ret_sin, double *ret_cos); /* |x| < 2^30 */
