/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct combine_sums in vectors. Whoever includes this defines VECTOR, the type, and VECTOR_LOAD,
 * VECTOR_STORE and VECTOR_ADD; x86-64 alone. What is less than a vector is added one by one: put
 * together in memory to a vector, a few floats would be waited for.
 */
#pragma once

#include "comm/combine.h"

#ifdef VECTOR
#include <immintrin.h>

enum { VECTOR_LANES = sizeof(VECTOR) / sizeof(float) };

static void vector_sum(void *out, const void *a, const void *b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;
    size_t i = 0;

    for (; i + VECTOR_LANES <= n; i += VECTOR_LANES) {
        VECTOR_STORE(z + i, VECTOR_ADD(VECTOR_LOAD(x + i), VECTOR_LOAD(y + i)));
    }
    for (; i < n; i++) {
        _mm_store_ss(z + i, _mm_add_ss(_mm_load_ss(x + i), _mm_load_ss(y + i)));
    }
}

static void vector_add_sum(float *restrict x, const float *restrict a, const float *restrict b,
                           size_t n)
{
    size_t i = 0;

    for (; i + VECTOR_LANES <= n; i += VECTOR_LANES) {
        VECTOR both = VECTOR_ADD(VECTOR_LOAD(a + i), VECTOR_LOAD(b + i));

        VECTOR_STORE(x + i, VECTOR_ADD(VECTOR_LOAD(x + i), both));
    }
    for (; i < n; i++) {
        x[i] = x[i] + (a[i] + b[i]);
    }
}

#endif
