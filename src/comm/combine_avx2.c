/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for AVX2: half the instructions for each line that comes from another core. */
#if defined(__x86_64__)
#include <immintrin.h>

#define COMBINE_VECTOR 32
#include "comm/combine_kernels.h"

#define VECTOR       __m256
#define VECTOR_LOAD  _mm256_loadu_ps
#define VECTOR_STORE _mm256_storeu_ps
#define VECTOR_ADD   _mm256_add_ps
#include "comm/combine_vector.h"

enum { LANES = 8 };

static void widen_f16(void *out, const void *in, size_t n)
{
    const uint16_t *from = in;
    float *to = out;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(from + i));

        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
    }
    for (; i < n; i++) {
        to[i] = _cvtsh_ss(from[i]);
    }
}

static void narrow_f16(void *out, const void *in, size_t n)
{
    const float *from = in;
    uint16_t *to = out;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);

        _mm_storeu_si128((__m128i *)(void *)(to + i), half);
    }
    for (; i < n; i++) {
        to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
    }
}

const struct combine_sums combine_sums_avx2 = {"avx2", vector_sum, vector_add_sum};

const struct combine_kernels combine_kernels_avx2 = {
    .name = "avx2",
    .combine = COMBINE_TABLE,
    .widen_f16 = widen_f16,
    .narrow_f16 = narrow_f16,
    .widen_bf16 = widen_bf16,
    .narrow_bf16 = narrow_bf16,
};
#endif
