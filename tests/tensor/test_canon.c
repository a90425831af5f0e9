/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical functions against the C library's in double (or long double) precision. */
#include "tensor/canon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { SAMPLES = 200000 };

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [low, high). */
static double uniform(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(next(state) >> 11) * 0x1p-53;
}

static void test_exp(void **state)
{
    uint64_t random = 1;
    double worst = 0.0;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        float x = (float)uniform(&random, CANON_EXP_LOW, CANON_EXP_HIGH);
        double exact = exp((double)x);

        worst = fmax(worst, fabs((double)canon_exp(x) - exact) / exact);
    }
    print_message("exp: relative error %.3g\n", worst);
    assert_true(worst < 2e-7);
}

static void test_exp_ends(void **state)
{
    (void)state;
    assert_true(canon_exp(0.0f) == 1.0f);
    assert_true(canon_exp(-0.0f) == 1.0f);
    assert_true(canon_exp(nextafterf(CANON_EXP_LOW, -INFINITY)) == 0.0f);
    assert_true(canon_exp(-INFINITY) == 0.0f);
    assert_true(canon_exp(CANON_EXP_LOW) >= 0x1p-126f);
    assert_true(isfinite(canon_exp(87.0f)));
    assert_true(canon_exp(nextafterf(CANON_EXP_HIGH, INFINITY)) == INFINITY);
    assert_true(canon_exp(INFINITY) == INFINITY);
    assert_true(isnan(canon_exp(NAN)));
}

static void test_silu(void **state)
{
    uint64_t random = 2;
    double worst = 0.0;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        float x = (float)uniform(&random, -80.0, 80.0);
        double exact = (double)x / (1.0 + exp(-(double)x));

        worst = fmax(worst, fabs((double)canon_silu(x) - exact) / fabs(exact));
    }
    print_message("silu: relative error %.3g\n", worst);
    assert_true(worst < 4e-7);
    assert_true(canon_silu(0.0f) == 0.0f);
    assert_true(canon_silu(200.0f) == 200.0f);
    assert_true(canon_silu(-200.0f) == 0.0f);
    assert_true(isnan(canon_silu(NAN)));
}

static void test_rsqrt(void **state)
{
    uint64_t random = 3;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        float x = (float)exp(uniform(&random, -60.0, 60.0));
        double exact = 1.0 / sqrt((double)x);

        assert_true(fabs((double)canon_rsqrt(x) - exact) / exact < 1.2e-7);
    }
}

/* Errors below in units of 2^-52 relative. */
static void test_log_exp_pow_f64(void **state)
{
    uint64_t random = 4;
    long double worst_log = 0.0L;
    long double worst_exp = 0.0L;
    long double worst_pow = 0.0L;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        double x = exp(uniform(&random, -600.0, 600.0));
        double y = uniform(&random, -690.0, 690.0);
        double base = uniform(&random, 2.0, 1e6);
        double power = uniform(&random, -1.0, 1.0);
        long double exact = logl((long double)x);

        worst_log = fmaxl(worst_log, fabsl(canon_log_f64(x) - exact) / fabsl(exact));
        exact = expl((long double)y);
        worst_exp = fmaxl(worst_exp, fabsl(canon_exp_f64(y) - exact) / exact);
        exact = powl((long double)base, (long double)power);
        worst_pow = fmaxl(worst_pow, fabsl(canon_pow_f64(base, power) - exact) / exact);
    }
    print_message("log, exp, pow: %.2Lf, %.2Lf, %.2Lf units\n", worst_log * 0x1p52L,
                  worst_exp * 0x1p52L, worst_pow * 0x1p52L);
    assert_true(worst_log < 4 * 0x1p-52L);
    assert_true(worst_exp < 4 * 0x1p-52L);
    /* the logarithm's error is multiplied by |power log base| < 14 */
    assert_true(worst_pow < 40 * 0x1p-52L);
    assert_true(canon_log_f64(1.0) == 0.0);
    assert_true(canon_exp_f64(0.0) == 1.0);
}

static void test_sincos_f64(void **state)
{
    uint64_t random = 5;
    long double worst = 0.0L;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        /* angles of positions: small ones, and up to a million */
        double x = uniform(&random, -1.0, 1.0) * (i % 2 == 0 ? 10.0 : 1e6);
        double s;
        double c;

        canon_sincos_f64(x, &s, &c);
        worst = fmaxl(worst, fabsl(s - sinl((long double)x)));
        worst = fmaxl(worst, fabsl(c - cosl((long double)x)));
    }
    print_message("sin, cos: %.2Lf units of 2^-52\n", worst * 0x1p52L);
    assert_true(worst < 4 * 0x1p-52L);
}

static void test_sincos_quadrants(void **state)
{
    double s;
    double c;

    (void)state;
    canon_sincos_f64(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
    for (int quadrant = -8; quadrant < 8; quadrant++) {
        double x = quadrant * 1.5707963267948966 + 0.3;

        canon_sincos_f64(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 1e-15 && fabs(c - cos(x)) < 1e-15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_exp_ends),
        cmocka_unit_test(test_silu),
        cmocka_unit_test(test_rsqrt),
        cmocka_unit_test(test_log_exp_pow_f64),
        cmocka_unit_test(test_sincos_f64),
        cmocka_unit_test(test_sincos_quadrants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
