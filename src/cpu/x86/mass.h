/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masses of a block of logits (tensor/mass.h), MASS_LANES rows a step. The maximum is bound by the
 * bytes it reads, the sum by the operations of exp, about 25 a vector.
 */
#pragma once

#include "cpu/kernels.h"
#include "cpu/x86/canon_vec.h"
#include "cpu/x86/rows.h"

#ifdef VEC_LANES

enum { MASS_VECTORS = MASS_LANES / VEC_LANES };

static float mass_max(const float *logits, uint32_t n)
{
    const vecf lowest = vec_set1(-INFINITY);
    float lanes[MASS_LANES];
    uint32_t bad[VEC_LANES];
    veci any_bad = vec_set1_word(0);
    vecf max[MASS_VECTORS];

    for (uint32_t v = 0; v < MASS_VECTORS; v++) {
        max[v] = lowest;
    }
    for (uint32_t i = 0; i < n; i += MASS_LANES) {
        for (uint32_t v = 0; v < MASS_VECTORS && i + v * VEC_LANES < n; v++) {
            uint32_t left = n - i - v * VEC_LANES;
            vecf x = vec_load_upto(logits + i + v * VEC_LANES, left);

            x = left < VEC_LANES ? vec_select_below(left, x, lowest) : x;
            max[v] = vec_max(x, max[v]);
            any_bad = vec_select_nan(x, vec_set1_word(1), any_bad);
        }
    }
    for (uint32_t v = 0; v < MASS_VECTORS; v++) {
        vec_store(lanes + v * VEC_LANES, max[v]);
    }
    vec_store_words(bad, any_bad);
    vec_leave();
    for (uint32_t half = MASS_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
        }
    }
    for (uint32_t i = 1; i < VEC_LANES; i++) {
        bad[0] |= bad[i];
    }
    return bad[0] != 0 ? NAN : lanes[0] + 0.0f;
}

static float mass_sum(const float *logits, uint32_t n, float max, float inv_temperature,
                      float *masses)
{
    vecf sums[MASS_VECTORS];
    float sum;

    if (max == -INFINITY) { /* rare: all rows are impossible */
        return mass_block_sum(logits, n, max, inv_temperature, masses);
    }
    for (uint32_t v = 0; v < MASS_VECTORS; v++) {
        sums[v] = vec_zero();
    }
    for (uint32_t i = 0; i < n; i += MASS_LANES) {
        for (uint32_t v = 0; v < MASS_VECTORS && i + v * VEC_LANES < n; v++) {
            uint32_t row = i + v * VEC_LANES;
            vecf x = vec_load_upto(logits + row, n - row);
            vecf e = canon_exp_vec(vec_mul(vec_sub(x, vec_set1(max)), vec_set1(inv_temperature)));

            /* no logit is above max: what is not below it equals it */
            e = vec_select_less(x, vec_set1(max), e, vec_set1(1.0f));
            e = n - row < VEC_LANES ? vec_select_below(n - row, e, vec_zero()) : e;
            sums[v] = vec_add(sums[v], e);
            if (masses != NULL) {
                vec_store_upto(masses + row, e, n - row);
            }
        }
    }
    sum = rows_lanes_sum(sums);
    vec_leave();
    return sum;
}

static void mass_init(struct cpu_kernels *kernels)
{
    kernels->mass_max = mass_max;
    kernels->mass_sum = mass_sum;
}

#endif
