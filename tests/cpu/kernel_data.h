/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data for tests that compare kernels with the reference: random numbers of awkward kinds, packed
 * matrices of random codes, leaf plans, and the comparison (equal bits; any NaN equals any NaN).
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"

struct kernel_random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea and Flood, 2014). */
static inline uint64_t kernel_next(struct kernel_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint32_t kernel_below(struct kernel_random *random, uint32_t n)
{
    return (uint32_t)(kernel_next(random) % n);
}

/* NORMAL: near 1. TINY: such that products of x and w lie around 2^-126, where sums and products
 * flush to zero of either sign. WIDE: forty binades, zeros of both signs. SPECIAL: NORMAL with
 * infinities, NaNs, denormals and zeros among them. */
enum kernel_kind { KIND_NORMAL, KIND_TINY, KIND_WIDE, KIND_SPECIAL, KIND_COUNT };

static inline float kernel_float(uint32_t sign, int exponent, uint32_t mantissa)
{
    uint32_t bits = sign << 31 | (uint32_t)(exponent + 127) << 23 | mantissa;
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* One value; TINY lies at 2^tiny. */
static inline float kernel_value(struct kernel_random *random, enum kernel_kind kind, int tiny)
{
    uint64_t r = kernel_next(random);
    uint32_t sign = (uint32_t)(r & 1);
    uint32_t mantissa = (uint32_t)(r >> 8) & 0x7fffff;
    uint32_t dice = (uint32_t)(r >> 40) % 64;

    switch (kind) {
    case KIND_TINY:
        if (dice % 8 == 0) {
            return sign != 0 ? -0.0f : 0.0f;
        }
        return kernel_float(sign, tiny + (int)(dice % 4) - 2, dice < 32 ? mantissa : 0);
    case KIND_WIDE:
        if (dice % 8 == 0) {
            return sign != 0 ? -0.0f : 0.0f;
        }
        return kernel_float(sign, (int)(dice % 40) - 20, mantissa);
    case KIND_SPECIAL:
        if (dice == 0) {
            return kernel_float(sign, 128, 0);
        }
        if (dice == 1 && mantissa % 8 == 0) {
            return kernel_float(sign, 128, 0x400000);
        }
        if (dice < 6) {
            return dice % 2 == 0 ? kernel_float(sign, -127, mantissa) : kernel_float(sign, -127, 0);
        }
        /* fallthrough */
    default:
        return kernel_float(sign, (int)(dice % 4) - 2, mantissa);
    }
}

static inline uint16_t kernel_half(struct kernel_random *random, enum kernel_kind kind)
{
    uint16_t bits = (uint16_t)kernel_next(random);

    if (kind == KIND_TINY) {
        return bits & 0x87ff; /* denormal halves and the binade above */
    }
    return (bits & 0x7c00) == 0x7c00 ? bits & 0xbfff : bits; /* no infinity, no NaN */
}

static inline bool kernel_has_f16_scales(enum dtype dtype)
{
    return dtype_is_quantised(dtype) || dtype == DTYPE_F16;
}

/* The power of two at which TINY values of x meet weights of dtype at 2^-126. */
static inline int kernel_x_tiny(enum dtype dtype)
{
    return kernel_has_f16_scales(dtype) ? -108 : -63;
}

/* n values for rows of x, of w and the like, 64-byte aligned. */
static inline float *kernel_floats(struct kernel_random *random, size_t n, enum kernel_kind kind,
                                   int tiny)
{
    float *values = aligned_alloc(64, round_up(MAX(n, 1) * sizeof(float), 64));

    assert_non_null(values);
    for (size_t i = 0; i < n; i++) {
        values[i] = kernel_value(random, kind, tiny);
    }
    return values;
}

static inline void kernel_fill_halves(struct kernel_random *random, uint8_t *at, size_t n,
                                      enum kernel_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half = kernel_half(random, kind);

        memcpy(at + 2 * i, &half, sizeof(half));
    }
}

/* Random codes and scales. Padded rows and columns are random too: they must not matter. */
static inline void kernel_fill_packed(struct kernel_random *random, struct packed *w,
                                      enum kernel_kind kind)
{
    size_t code_bytes = w->panel_code_bytes * w->n_panels;
    uint8_t *codes = (uint8_t *)w->codes;
    uint8_t *scales = (uint8_t *)w->scales;
    size_t record;

    for (size_t i = 0; i < code_bytes; i++) {
        codes[i] = (uint8_t)kernel_next(random);
    }
    if (w->dtype == DTYPE_F16) {
        kernel_fill_halves(random, codes, code_bytes / 2, kind);
    } else if (w->dtype == DTYPE_F32) {
        for (size_t i = 0; i < code_bytes; i += 4) {
            float value = kernel_value(random, kind, -63);

            memcpy(codes + i, &value, sizeof(value));
        }
    } else if (w->dtype == DTYPE_BF16) {
        for (size_t i = 0; i < code_bytes; i += 2) {
            uint16_t value = bf16_from_f32(kernel_value(random, kind, -63));

            memcpy(codes + i, &value, sizeof(value));
        }
    }
    if (scales == NULL) {
        return;
    }
    record = w->dtype == DTYPE_Q6_K ? 288 : w->dtype >= DTYPE_Q4_K ? 256 : 64;
    for (size_t i = 0; i < w->panel_scale_bytes * w->n_panels; i++) {
        scales[i] = (uint8_t)kernel_next(random);
    }
    for (size_t i = 0; i < w->panel_scale_bytes * w->n_panels; i += record) {
        size_t left = w->panel_scale_bytes * w->n_panels - i;

        kernel_fill_halves(random, scales + i, MIN(left, w->dtype == DTYPE_Q6_K ? 32 : 64) / 2,
                           kind);
    }
}

/* A matrix without leaves, in storage of its exact size. */
static inline void kernel_packed_init(struct packed *w, enum dtype dtype, uint32_t rows,
                                      uint32_t cols)
{
    void *storage;

    assert_true(packed_init(w, dtype, rows, cols));
    storage = aligned_alloc(64, round_up(packed_bytes(w), 64));
    assert_non_null(storage);
    packed_attach(w, storage);
}

static inline void kernel_packed_release(struct packed *w)
{
    leaf_plan_release(&w->leaves);
    free((void *)w->codes);
    *w = (struct packed){0};
}

/* Leaves [first, first + count) of `total`, cutting cols at random even places (multiples of
 * `unit`, which is even). */
static inline void kernel_plan_init(struct kernel_random *random, struct leaf_plan *plan,
                                    uint32_t cols, uint32_t unit, uint32_t total, uint32_t first,
                                    uint32_t count)
{
    uint32_t *bounds = xcalloc(total + 1, sizeof(*bounds));
    uint32_t *own = bounds + first;

    for (uint32_t i = 0; i < first; i++) {
        bounds[i + 1] = bounds[i] + 32;
    }
    for (uint32_t i = 1; i < count; i++) { /* keeps at least one unit for those that follow */
        uint32_t room = (cols - (own[i - 1] - own[0])) / unit - (count - i);

        own[i] = own[i - 1] + unit * (1 + (room > 1 ? kernel_below(random, room) : 0));
    }
    own[count] = own[0] + cols;
    for (uint32_t i = first + count; i < total; i++) {
        bounds[i + 1] = bounds[i] + 32;
    }
    leaf_plan_init(plan, bounds, total, first, count);
    free(bounds);
}

/* Index of the first element whose bits differ, n if none does. */
static inline size_t kernel_differs(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool both_nan = a[i] != a[i] && b[i] != b[i];

        if (!both_nan && memcmp(&a[i], &b[i], sizeof(a[i])) != 0) {
            return i;
        }
    }
    return n;
}

/* The levels this machine has beside the reference. Says which it has not. */
static inline uint32_t kernel_levels(struct cpu_kernels levels[2])
{
    enum cpu_level supported = cpu_level_supported();
    uint32_t n = 0;

#if defined(__x86_64__)
    if (supported >= CPU_LEVEL_AVX2) {
        cpu_kernels_init_ref(&levels[n]);
        cpu_kernels_init_avx2(&levels[n++]);
    }
    if (supported >= CPU_LEVEL_AVX512) {
        cpu_kernels_init_ref(&levels[n]);
        cpu_kernels_init_avx512(&levels[n++]);
    }
#endif
    for (int level = (int)supported + 1; level < CPU_LEVEL_COUNT; level++) {
        print_message("%s kernels are not tested: this processor cannot run them\n",
                      cpu_level_name((enum cpu_level)level));
    }
    return n;
}
