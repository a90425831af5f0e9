/* SPDX-License-Identifier: Apache-2.0 */
/* Sums for AVX-512: a quarter of the instructions for each line that comes from another core. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "comm/combine.h"

enum { LANES = 16 };

static void sum(void *out, const void *a, const void *b, size_t n)
{
    const float *x = a;
    const float *y = b;
    float *z = out;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        _mm512_storeu_ps(z + i, _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i)));
    }
    for (; i < n; i++) {
        z[i] = x[i] + y[i];
    }
}

static void add_sum(float *restrict x, const float *restrict a, const float *restrict b, size_t n)
{
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        __m512 both = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));

        _mm512_storeu_ps(x + i, _mm512_add_ps(_mm512_loadu_ps(x + i), both));
    }
    for (; i < n; i++) {
        x[i] = x[i] + (a[i] + b[i]);
    }
}

const struct combine_sums combine_sums_avx512 = {"avx512", sum, add_sum};
#endif
