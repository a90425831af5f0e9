/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels over one row: norms, rotary embedding, activation, sums. All are bound by the bytes they
 * read and write (the cache's, as a rule); the end of a row is done with partial loads and stores.
 */
#pragma once

#include "cpu/kernels.h"
#include "cpu/x86/canon_vec.h"

#ifdef VEC_LANES

enum { ROWS_LANES = 16, ROWS_VECTORS = ROWS_LANES / VEC_LANES };

/* The canonical sum of 16 lanes: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
VEC_INLINE float rows_lanes_sum(const vecf sums[ROWS_VECTORS])
{
    float lanes[ROWS_LANES];

    for (uint32_t v = 0; v < ROWS_VECTORS; v++) {
        vec_store(lanes + v * VEC_LANES, sums[v]);
    }
    for (uint32_t half = ROWS_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

static void rows_rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    vecf sums[ROWS_VECTORS];
    vecf r;

    for (uint32_t v = 0; v < ROWS_VECTORS; v++) {
        sums[v] = vec_zero();
    }
    for (uint32_t i = 0; i < n; i += ROWS_LANES) {
        /* lanes beyond n add 0 * 0 to a sum that is never -0 */
        for (uint32_t v = 0; v < ROWS_VECTORS && i + v * VEC_LANES < n; v++) {
            vecf a = vec_load_upto(x + i + v * VEC_LANES, n - i - v * VEC_LANES);

            sums[v] = vec_fma(a, a, sums[v]);
        }
    }
    r = vec_set1(canon_rsqrt(rows_lanes_sum(sums) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        vecf scaled = vec_mul(vec_load_upto(x + i, n - i), r);

        vec_store_upto(y + i, vec_mul(scaled, vec_load_upto(w + i, n - i)), n - i);
    }
    vec_leave();
}

static void rows_round_bf16(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES) {
        vec_store_upto(y + i, canon_round_bf16_vec(vec_load_upto(x + i, n - i)), n - i);
    }
    vec_leave();
}

static void rows_silu_mul(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES) {
        vecf activated = canon_silu_vec(vec_load_upto(gate + i, n - i));

        vec_store_upto(y + i, vec_mul(activated, vec_load_upto(up + i, n - i)), n - i);
    }
    vec_leave();
}

static void rows_add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES) {
        vecf sum = vec_add(vec_load_upto(x + i, n - i), vec_load_upto(y + i, n - i));

        vec_store_upto(x + i, sum, n - i);
    }
    vec_leave();
}

static void rows_rope(float *x, const float *cos, const float *sin, uint32_t half)
{
    for (uint32_t j = 0; j < half; j += VEC_LANES) {
        uint32_t n = half - j;
        vecf a = vec_load_upto(x + j, n);
        vecf b = vec_load_upto(x + half + j, n);
        vecf c = vec_load_upto(cos + j, n);
        vecf s = vec_load_upto(sin + j, n);

        vec_store_upto(x + j, vec_fnma(b, s, vec_mul(a, c)), n);
        vec_store_upto(x + half + j, vec_fma(a, s, vec_mul(b, c)), n);
    }
    vec_leave();
}

static void rows_init(struct cpu_kernels *kernels)
{
    kernels->rmsnorm = rows_rmsnorm;
    kernels->round_bf16 = rows_round_bf16;
    kernels->silu_mul = rows_silu_mul;
    kernels->add = rows_add;
    kernels->rope = rows_rope;
}

#endif
