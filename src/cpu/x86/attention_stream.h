/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products of attention for a few queries (decoding) with a cache in BF16, where memory is the
 * bound: panels of K, then of V, are read one after the other as they lie, sums stay in registers,
 * and the lines some KiB ahead are fetched, past the end of K those of V and past that of V those
 * of the next block. Two queries are computed at a time: of more, the others find the panel in the
 * first-level cache. The order of additions is that of matmul.h's products over one leaf.
 */
#pragma once

#include "cpu/x86/canon_vec.h"
#include "cpu/x86/weights.h"

#ifdef VEC_LANES

enum {
    STREAM_ROWS = 8,                /* queries up to which this is faster than tiles */
    STREAM_AHEAD = 4096,            /* bytes between what is read and what is fetched */
    STREAM_OUTPUTS = 2 * VEC_LANES, /* computed at a time: a panel, or two side by side */
};

/* One of the two matrices, in panels of 16 outputs by `cols` columns, of which n are used. */
struct stream {
    const uint8_t *w;
    const uint8_t *next; /* what is read behind it */
    size_t bytes;        /* of it all */
    size_t panel_bytes;
    uint32_t n_outputs;
    uint32_t n;
    const float *x; /* [m] rows */
    size_t x_stride;
    float *y; /* [m] rows of n_outputs */
    size_t y_stride;
    uint32_t m;
};

/* Two columns of two vectors of outputs. */
struct stream_pair {
    vecf even0;
    vecf odd0;
    vecf even1;
    vecf odd1;
};

/* Sums of one query: of a step's even and odd columns, and of the steps. */
struct stream_sums {
    vecf e0;
    vecf o0;
    vecf e1;
    vecf o1;
    vecf run0;
    vecf run1;
};

/* What to fetch while the columns at `at` are read: of two panels side by side the next two. */
VEC_INLINE const uint8_t *stream_ahead(const struct stream *s, size_t at)
{
    size_t later = at + (VEC_LANES == PACKED_LANES ? 2 * s->panel_bytes : STREAM_AHEAD);

    return later < s->bytes ? s->w + later : s->next + (later - s->bytes);
}

VEC_INLINE struct stream_pair stream_load(const uint8_t *line, size_t second)
{
    struct stream_pair pair;

    weights_bf16_pair(line, &pair.even0, &pair.odd0);
    weights_bf16_pair(line + second, &pair.even1, &pair.odd1);
    return pair;
}

VEC_INLINE void stream_even(const struct stream_pair *w, const float *x, struct stream_sums *sums)
{
    vecf even = vec_set1(x[0]);

    sums->e0 = vec_fma(even, w->even0, sums->e0);
    sums->e1 = vec_fma(even, w->even1, sums->e1);
}

VEC_INLINE void stream_both(const struct stream_pair *w, const float *x, struct stream_sums *sums)
{
    vecf odd = vec_set1(x[1]);

    stream_even(w, x, sums);
    sums->o0 = vec_fma(odd, w->odd0, sums->o0);
    sums->o1 = vec_fma(odd, w->odd1, sums->o1);
}

VEC_INLINE void stream_begin(struct stream_sums *sums)
{
    sums->e0 = vec_zero();
    sums->o0 = vec_zero();
    sums->e1 = vec_zero();
    sums->o1 = vec_zero();
}

/* A step's end; a shorter one adds +0 to both sums first. */
VEC_INLINE void stream_end(bool shorter, struct stream_sums *sums)
{
    if (shorter) {
        sums->e0 = vec_add(sums->e0, vec_zero());
        sums->o0 = vec_add(sums->o0, vec_zero());
        sums->e1 = vec_add(sums->e1, vec_zero());
        sums->o1 = vec_add(sums->o1, vec_zero());
    }
    sums->run0 = vec_add(sums->run0, vec_add(sums->e0, sums->o0));
    sums->run1 = vec_add(sums->run1, vec_add(sums->e1, sums->o1));
}

/* n columns, 32 or fewer, for one query or two; at is where they lie in s->w, second how far from
 * there the second vector's do. */
VEC_INLINE void stream_step(bool two, const struct stream *s, size_t at, size_t second, uint32_t n,
                            const float *x, struct stream_sums *sums)
{
    const uint8_t *w = s->w + at;
    const uint8_t *ahead = stream_ahead(s, at);
    const size_t x_stride = s->x_stride;

    stream_begin(&sums[0]);
    stream_begin(&sums[1]);
#pragma GCC unroll 4
    for (uint32_t c = 0; c + 1 < n; c += 2) {
        struct stream_pair pair = stream_load(w + c / 2 * CACHE_LINE, second);

        __builtin_prefetch(ahead + c / 2 * CACHE_LINE, 0, 3);
        if (VEC_LANES == PACKED_LANES) {
            __builtin_prefetch(ahead + s->panel_bytes + c / 2 * CACHE_LINE, 0, 3);
        }
        stream_both(&pair, x + c, &sums[0]);
        if (two) {
            stream_both(&pair, x + x_stride + c, &sums[1]);
        }
    }
    if (n % 2 != 0) {
        struct stream_pair pair = stream_load(w + n / 2 * CACHE_LINE, second);

        stream_even(&pair, x + n - 1, &sums[0]);
        if (two) {
            stream_even(&pair, x + x_stride + n - 1, &sums[1]);
        }
    }
    stream_end(n < WEIGHTS_STEP, &sums[0]);
    if (two) {
        stream_end(n < WEIGHTS_STEP, &sums[1]);
    }
}

/* Outputs from `first` on for the queries from `row` on, one or two. */
VEC_INLINE void stream_outputs(bool two, const struct stream *s, uint32_t first, uint32_t row)
{
    const uint32_t left = s->n_outputs - first;
    const float *x = s->x + row * s->x_stride;
    float *y = s->y + row * s->y_stride + first;
    size_t at = first / PACKED_LANES * s->panel_bytes;
    /* the second vector: the other half of the panel, the next panel, or (a last one alone) none */
    const size_t second = VEC_LANES < PACKED_LANES ? 32 : left > VEC_LANES ? s->panel_bytes : 0;
    struct stream_sums sums[2];

    for (uint32_t i = 0; i < 2; i++) {
        sums[i].run0 = vec_zero();
        sums[i].run1 = vec_zero();
    }
    for (uint32_t k = 0; k < s->n; k += WEIGHTS_STEP) {
        if (s->n - k >= WEIGHTS_STEP) {
            stream_step(two, s, at, second, WEIGHTS_STEP, x + k, sums);
        } else {
            stream_step(two, s, at, second, s->n - k, x + k, sums);
        }
        at += WEIGHTS_STEP / 2 * CACHE_LINE;
    }
    for (uint32_t i = 0; i < (two ? 2 : 1); i++) {
        vec_store_upto(y + i * s->y_stride, sums[i].run0, left);
        if (left > VEC_LANES) {
            vec_store_upto(y + i * s->y_stride + VEC_LANES, sums[i].run1, left - VEC_LANES);
        }
    }
}

static void stream_product(const struct stream *s)
{
    for (uint32_t first = 0; first < s->n_outputs; first += STREAM_OUTPUTS) {
        uint32_t row = 0;

        for (; row + 1 < s->m; row += 2) {
            stream_outputs(true, s, first, row);
        }
        if (row < s->m) {
            stream_outputs(false, s, first, row);
        }
    }
}

#endif
