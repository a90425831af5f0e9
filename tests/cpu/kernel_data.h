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
#include "cpu/emulated/emulated.h"
#include "kernel_random.h"

/* Random elements at 12 bits. Of three panels one has values of 2^-100 sprinkled in, which are
 * patches, and one so many binades that it lies plain, unless it is small. */
static inline void kernel_fill_bf16_12(struct kernel_random *random, struct packed *w,
                                       enum kernel_kind kind)
{
    uint8_t *elements = xcalloc((size_t)w->cols * PACKED_LANES, 2);

    memset((uint8_t *)w->codes, 0, packed_bytes(w));
    memset((uint8_t *)w->plain, 0, packed_plain_bytes(w)); /* the padding of an odd column, too */
    for (uint32_t panel = 0; panel < w->n_panels; panel++) {
        uint32_t n_lanes = MIN(w->rows - panel * PACKED_LANES, (uint32_t)PACKED_LANES);
        size_t n = (size_t)n_lanes * w->cols;
        const uint8_t *rows[PACKED_LANES] = {NULL};
        uint8_t *plain = (uint8_t *)w->plain + panel * w->panel_plain_bytes;
        uint32_t form = kernel_below(random, 3);

        for (size_t i = 0; i < n; i++) {
            bool odd = form == 1 && kernel_below(random, 300) == 0;
            uint16_t element = bf16_from_f32(kernel_value(random, kind, -63));

            if (odd || form == 2) {
                element = (uint16_t)(element ^ kernel_next(random) % 16 << 9);
            }
            memcpy(elements + 2 * i, &element, sizeof(element));
        }
        for (uint32_t lane = 0; lane < n_lanes; lane++) {
            rows[lane] = elements + (size_t)lane * w->cols * 2;
        }
        if (bf16_12_pack(w, rows, (uint8_t *)w->codes + panel * w->panel_code_bytes,
                         (uint8_t *)w->scales + panel * w->panel_scale_bytes)) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            memcpy(plain + (i % w->cols / 2 * PACKED_LANES + i / w->cols) * 4 + i % w->cols % 2 * 2,
                   elements + 2 * i, 2);
        }
    }
    free(elements);
}

/* Random codes and scales. Padded rows and columns are random too: they must not matter. */
static inline void kernel_fill_packed(struct kernel_random *random, struct packed *w,
                                      enum kernel_kind kind)
{
    size_t code_bytes = w->panel_code_bytes * w->n_panels;
    uint8_t *codes = (uint8_t *)w->codes;
    uint8_t *scales = (uint8_t *)w->scales;
    size_t record;

    if (w->dtype == DTYPE_BF16_12) {
        kernel_fill_bf16_12(random, w, kind);
        return;
    }
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
    if (packed_plain_bytes(w) > 0) {
        w->plain = aligned_alloc(64, packed_plain_bytes(w));
        assert_non_null(w->plain);
    }
}

static inline void kernel_packed_release(struct packed *w)
{
    leaf_plan_release(&w->leaves);
    free((void *)w->codes);
    free((void *)w->plain);
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

enum { KERNEL_LEVELS_MAX = CPU_LEVEL_COUNT + 3 };

/* The levels this machine has beside the reference. Says which it has not. */
static inline uint32_t kernel_levels(struct cpu_kernels levels[KERNEL_LEVELS_MAX])
{
    uint32_t n = 0;

    for (enum cpu_level level = CPU_LEVEL_REF + 1; level < CPU_LEVEL_COUNT; level++) {
        if (!cpu_level_is_supported(level)) {
            print_message("%s kernels are not tested: this processor cannot run them\n",
                          cpu_level_name(level));
            continue;
        }
        cpu_kernels_init_ref(&levels[n]);
        cpu_kernels_add_level(&levels[n++], level);
    }
    return n;
}

/* And what stands in for levels it may lack, behind the first n. */
static inline uint32_t kernel_stand_ins(struct cpu_kernels levels[KERNEL_LEVELS_MAX], uint32_t n)
{
#ifdef KERNEL_STAND_INS
    if (cpu_level_is_supported(CPU_LEVEL_AVX2)) { /* what they are compiled for */
        cpu_kernels_init_ref(&levels[n]);
        emulated_kernels_init_16(&levels[n++]);
        cpu_kernels_init_ref(&levels[n]);
        emulated_kernels_init_8(&levels[n++]);
        cpu_kernels_init_ref(&levels[n]);
        emulated_kernels_init_dot(&levels[n++]);
        cpu_kernels_init_ref(&levels[n]);
        emulated_kernels_init_amx(&levels[n++]);
    }
#else
    (void)levels;
#endif
    return n;
}
