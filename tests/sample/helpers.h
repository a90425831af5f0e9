/* SPDX-License-Identifier: Apache-2.0 */
/* What the sampler's tests share: a plain generator for inputs, and the chi-square threshold. */
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"

/* SplitMix64 (Steele, Lea, Flood 2014), so that inputs do not come from the generator under test.
 */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline double test_uniform(uint64_t *state)
{
    return (double)(test_random(state) >> 11) * 0x1p-53;
}

/* What a chi-square variable of df degrees exceeds with probability 1e-6: the cube of a normal
 * variable (Wilson and Hilferty 1931) at its quantile, 4.7534. */
static inline double chi_square_limit(double df)
{
    double v = 2.0 / (9.0 * df);

    return df * pow(1.0 - v + 4.753424 * sqrt(v), 3.0);
}

/* Fails if counts do not look like n draws with the given probabilities. Cells that expect fewer
 * than 8 are counted together; a cell of probability 0 must be empty. */
static inline void check_counts(const uint32_t *counts, const double *probabilities, size_t cells,
                                double n)
{
    double statistic = 0.0;
    double rest_expected = 0.0;
    double rest = 0.0;
    double df = -1.0;

    for (size_t i = 0; i < cells; i++) {
        double expected = probabilities[i] * n;

        if (probabilities[i] <= 0.0) {
            assert_int_equal(counts[i], 0);
        } else if (expected < 8.0) {
            rest_expected += expected;
            rest += counts[i];
        } else {
            statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
            df += 1.0;
        }
    }
    if (rest_expected >= 8.0) {
        statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
        df += 1.0;
    }
    if (df > 0.0 && statistic > chi_square_limit(df)) {
        fail_msg("chi-square %.1f with %.0f degrees, limit %.1f", statistic, df,
                 chi_square_limit(df));
    }
}
