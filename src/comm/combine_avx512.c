/* SPDX-License-Identifier: Apache-2.0 */
/* Sums for AVX-512: a quarter of the instructions for each line that comes from another core. */
#if defined(__x86_64__)
#define VECTOR       __m512
#define VECTOR_LOAD  _mm512_loadu_ps
#define VECTOR_STORE _mm512_storeu_ps
#define VECTOR_ADD   _mm512_add_ps
#include "comm/combine_vector.h"

const struct combine_sums combine_sums_avx512 = {"avx512", vector_sum, vector_add_sum};
#endif
