/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector of the instruction set that the including file is compiled for, under one set of
 * names, so that a kernel is written once. A file named *_avx512.c or *_avx2.c gets its flags from
 * the build; in a file without such flags this header, and every header built on it, is empty.
 *
 * All operations are IEEE's, one rounding each; vec_fma and vec_fnma are fused. Loads and stores
 * need no alignment. `word` is a vector of VEC_LANES 32-bit words, one for each lane of a panel.
 *
 * VEC_DOT is 1 where bytes are multiplied and summed in 32 bits by one instruction, VEC_SIGNED
 * where both factors of such products are signed (else the first is not), and VEC_INT8 is defined
 * where there are integer products at all. With VEC_EMULATED defined (8 or 16 lanes) plain C takes
 * the instructions' place, so that the tests run kernels that the machine cannot.
 */
#pragma once

#include "base/base.h"

#define VEC_INLINE static inline __attribute__((always_inline, unused))

#if defined(VEC_EMULATED)
#include "cpu/x86/vec_emulated.h"
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    defined(__AVX512DQ__)
#include "cpu/x86/vec_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "cpu/x86/vec_avx2.h"
#elif defined(__aarch64__)
#include "cpu/arm/vec_neon.h"
#endif

#ifdef VEC_LANES

#ifndef VEC_SIGNED
#define VEC_SIGNED 0
#endif

#if VEC_DOT || VEC_LANES == 8
#define VEC_INT8
#endif

/* The first n lanes (all, if n is VEC_LANES or more); the others are zero. */
VEC_INLINE vecf vec_load_upto(const float *p, size_t n)
{
    return n >= VEC_LANES ? vec_load(p) : vec_load_part(p, (uint32_t)n);
}

VEC_INLINE void vec_store_upto(float *p, vecf a, size_t n)
{
    if (n >= VEC_LANES) {
        vec_store(p, a);
    } else {
        vec_store_part(p, a, (uint32_t)n);
    }
}

#endif
