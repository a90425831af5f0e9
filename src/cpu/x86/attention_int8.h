/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second product of attention with V as integers (KV_INT8): for some queries, 32 dimensions
 *
 *   weights [n][64] = p s                      s: the scale of each key in these dimensions
 *   o [n][32] = chain(weights, codes [64][32])
 *
 * For up to four queries, as in decoding, codes become floats in registers, once for all queries;
 * bound by the conversions, which cost half of what is computed for two queries, and the bytes. For
 * more the codes become a packed F32 matrix, in the nearest cache, for the ordinary product.
 *
 * Meanwhile the next block is fetched, a cache line at a time: pages lie anywhere, so that no
 * processor guesses where it goes on (28 layers of 8,192 keys, one core: 45 instead of 56 ms).
 *
 * Keys beyond the greatest `valid` are left out, two by two: their weights are +0, which changes no
 * running sum (see attention.h), and codes are always finite.
 */
#pragma once

#include "cpu/x86/matmul.h"

#ifdef VEC_LANES

enum { V8_KEYS = OPS_PAGE_TOKENS, V8_DIMS = QUANT_GROUP, V8_STEP = 32, V8_FEW = 4 };

/* About what a block has for 32 dimensions, K and V. */
enum { V8_NEXT_BYTES = V8_KEYS * V8_DIMS * 2 };

/* 32 dimensions of V and what some queries make of them. */
struct v8_group {
    const uint8_t *codes; /* [V8_KEYS][V8_DIMS], signed */
    const uint8_t *next;  /* V8_NEXT_BYTES to fetch */
    const float *weights; /* [n][V8_KEYS] */
    uint32_t n;
    uint32_t n_keys; /* to be heeded; even */
    float *o;        /* [n] rows of o_stride */
    size_t o_stride;
    uint32_t dims; /* that there are of the 32 */
    float *scratch;
};

/* n queries, `vectors` vectors of dimensions from `dim` on; both are constants, and so few that all
 * sums stay in registers. */
VEC_INLINE void v8_tile(const struct v8_group *args, uint32_t n, uint32_t vectors, uint32_t dim)
{
    const uint32_t fetch_bytes = V8_NEXT_BYTES / V8_DIMS * vectors * VEC_LANES / (V8_KEYS / 2);
    const uint8_t *fetch = args->next + V8_NEXT_BYTES / V8_DIMS * dim;
    vecf run[V8_FEW][4];
    vecf sums[V8_FEW][4][2]; /* even and odd keys */

    for (uint32_t i = 0; i < n * vectors; i++) {
        run[i / vectors][i % vectors] = vec_zero();
    }
    for (uint32_t first = 0; first < args->n_keys; first += V8_STEP) {
        uint32_t end = MIN(first + V8_STEP, args->n_keys);

        for (uint32_t i = 0; i < 2 * n * vectors; i++) {
            sums[i / 2 / vectors][i / 2 % vectors][i % 2] = vec_zero();
        }
        for (uint32_t key = first; key < end; key += 2, fetch += fetch_bytes) {
            for (uint32_t line = 0; line < fetch_bytes; line += CACHE_LINE) {
                __builtin_prefetch(fetch + line, 0, 2);
            }
            for (uint32_t odd = 0; odd < 2; odd++) {
                const uint8_t *at = args->codes + (size_t)(key + odd) * V8_DIMS + dim;

#pragma GCC unroll 4
                for (uint32_t v = 0; v < vectors; v++) {
                    vecf code = vec_from_words(vec_load_i8(at + v * VEC_LANES));

#pragma GCC unroll 4
                    for (uint32_t i = 0; i < n; i++) {
                        vecf weight = vec_set1(args->weights[i * V8_KEYS + key + odd]);

                        sums[i][v][odd] = vec_fma(weight, code, sums[i][v][odd]);
                    }
                }
            }
        }
        for (uint32_t i = 0; i < n * vectors; i++) {
            const vecf *both = sums[i / vectors][i % vectors];

            run[i / vectors][i % vectors] =
                vec_add(run[i / vectors][i % vectors], vec_add(both[0], both[1]));
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t v = 0; v < vectors && dim + v * VEC_LANES < args->dims; v++) {
            uint32_t at = dim + v * VEC_LANES;

            vec_store_upto(args->o + i * args->o_stride + at, run[i][v], args->dims - at);
        }
    }
}

/* All 32 dimensions, `vectors` at a time. */
VEC_INLINE void v8_few(const struct v8_group *args, uint32_t n, uint32_t vectors)
{
    for (uint32_t dim = 0; dim < args->dims; dim += vectors * VEC_LANES) {
        v8_tile(args, n, vectors, dim);
    }
}

static void v8_many(const struct v8_group *args)
{
    uint32_t bounds[2] = {0, args->n_keys};
    uint8_t merges[1] = {0};
    float *floats = args->scratch;
    struct packed w;

    ENSURE(packed_init(&w, DTYPE_F32, args->dims, V8_KEYS));
    packed_attach(&w, floats);
    w.cols = args->n_keys;
    w.leaves = (struct leaf_plan){
        .n_leaves = 1, .n_roots = 1, .depth = 1, .bounds = bounds, .merges = merges};
    for (uint32_t key = 0; key < args->n_keys; key++) {
        for (uint32_t dim = 0; dim < w.n_panels * PACKED_LANES; dim += VEC_LANES) {
            float *panel = floats + (size_t)(dim / PACKED_LANES) * V8_KEYS * PACKED_LANES;

            vec_store(panel + key * PACKED_LANES + dim % PACKED_LANES,
                      vec_from_words(vec_load_i8(args->codes + (size_t)key * V8_DIMS + dim)));
        }
    }
    matmul_f32(&(struct cpu_matmul){
        .w = &w,
        .x = args->weights,
        .x_stride = V8_KEYS,
        .y = args->o,
        .y_stride = args->o_stride,
        .m = args->n,
        .panel_end = w.n_panels,
        .scratch = floats + V8_DIMS * V8_KEYS,
    });
}

static void v8_product(const struct v8_group *args)
{
#if VEC_LANES == 16
    enum { ONE = 2, TWO = 2, MORE = 2 }; /* vectors at a time, that eight sums be under way */
#else
    enum { ONE = 4, TWO = 2, MORE = 1 };
#endif

    switch (args->n) {
    case 1:
        v8_few(args, 1, ONE);
        break;
    case 2:
        v8_few(args, 2, TWO);
        break;
    case 3:
        v8_few(args, 3, MORE);
        break;
    case 4:
        v8_few(args, 4, MORE);
        break;
    default:
        v8_many(args);
        break;
    }
}

/* weights = p s for n queries; +0 where a query has no key. */
static void v8_weights(const float *p, const float *scales, const uint32_t *valid, uint32_t n,
                       float *weights)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t key = 0; key < V8_KEYS; key += VEC_LANES) {
            vecf scaled = vec_mul(vec_load(p + i * V8_KEYS + key), vec_load(scales + key));

            scaled = vec_select_below(valid[i] > key ? valid[i] - key : 0, scaled, vec_zero());
            vec_store(weights + i * V8_KEYS + key, scaled);
        }
    }
}

#endif
