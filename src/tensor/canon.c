/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/canon.h"

/* ln(x) = e ln 2 + 2 atanh((m - 1) / (m + 1)) with m in [sqrt(1/2), sqrt(2)). */
double canon_log_f64(double x)
{
    uint64_t bits;
    int exponent = 0;
    double m;
    double s;
    double z;
    double sum = 0.0;

    if (x < 0x1p-1000) { /* far below what any caller has; keeps the exponent field normal */
        x *= 0x1p+100;
        exponent = -100;
    }
    memcpy(&bits, &x, sizeof(bits));
    exponent += (int)(bits >> 52 & 0x7ff) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&m, &bits, sizeof(m));
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    s = (m - 1.0) / (m + 1.0);
    z = s * s;
    for (int k = 25; k >= 3; k -= 2) { /* z < 0.0295: the first dropped term is below 2^-66 */
        sum = fma(sum, z, 1.0 / k);
    }
    sum = fma(s * z, sum, s) * 2.0;
    return fma(exponent, 0.69314718055994530942, fma(exponent, 2.3190468138462996e-17, sum));
}

double canon_exp_f64(double x)
{
    double n = rint(x * 1.4426950408889634);
    double r = fma(n, -2.3190468138462996e-17, fma(n, -0.69314718055994530942, x));
    double p = 1.0;
    uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;

    for (int k = 14; k >= 1; k--) { /* |r| < 0.347: the first dropped term is below 2^-60 */
        p = fma(p, r / k, 1.0);
    }
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

double canon_pow_f64(double base, double power)
{
    return canon_exp_f64(power * canon_log_f64(base));
}

void canon_sincos_f64(double x, double *ret_sin, double *ret_cos)
{
    /* pi / 2 in two parts, the first rounded to double */
    double n = rint(x * 0.63661977236758134308);
    double r = fma(n, -6.123233995736766e-17, fma(n, -1.5707963267948966, x));
    double z = r * r;
    double s = 0.0;
    double c = 0.0;
    double out_sin;
    double out_cos;

    for (int k = 19; k >= 3; k -= 2) { /* |r| < 0.786 */
        s = (1.0 + s) * -z / (double)(k * (k - 1));
    }
    s = fma(s, r, r);
    for (int k = 18; k >= 2; k -= 2) {
        c = (1.0 + c) * -z / (double)(k * (k - 1));
    }
    c = 1.0 + c;
    switch ((int64_t)n & 3) {
    case 0:
        out_sin = s;
        out_cos = c;
        break;
    case 1:
        out_sin = c;
        out_cos = -s;
        break;
    case 2:
        out_sin = -s;
        out_cos = -c;
        break;
    default:
        out_sin = -c;
        out_cos = s;
        break;
    }
    *ret_sin = out_sin;
    *ret_cos = out_cos;
}
