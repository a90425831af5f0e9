/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of some queries over one block of 64 keys, and the merging of blocks. Both products are
 * the ordinary ones of matmul.h, as a page holds K and V as packed matrices:
 *
 *   scores [n_q][64] = q K^T     keys are the outputs; all up to the greatest `valid`
 *   p = exp(scores - m), l       in registers, a query at a time
 *   o [n_q][head_dim] = p V      keys are the columns: as many as the query has, which is what
 *                                zero columns for the others give (they turn -0 into +0, as the
 *                                end of a shorter step does)
 *
 * Queries with different `valid`, in the block on the diagonal, do the second product together too,
 * up to the greatest: their p is zero beyond their own. That may turn the sign of a zero e or o,
 * which no running sum shows (it begins with +0), as long as every value is finite; where one is
 * not, each run of queries with the same `valid` is done by itself.
 */
#pragma once

#include "cpu/x86/attention_int8.h"
#include "cpu/x86/attention_stream.h"
#include "cpu/x86/canon_vec.h"
#include "cpu/x86/matmul.h"
#include "cpu/x86/rows.h"

#ifdef VEC_LANES

enum { ATTN_KEYS = 64, ATTN_QUERIES = 128, ATTN_VECTORS = ATTN_KEYS / VEC_LANES };

/* Bytes of scratch for p and for products with it; what is behind is that of products with q, where
 * packed queries stay from block to block. Heads up to ATTN_DIMS leave each its part. */
enum { ATTN_P_BYTES = 4 << 20, ATTN_DIMS = 1024 };

/* Queries of a block whose keys end at the same half of it are worth a product of their own if they
 * are so many. */
enum { ATTN_HALF_QUERIES = 64 };

/* Some of a block's queries. */
struct attn {
    const struct cpu_attn_block *args;
    uint32_t first; /* queries [first, first + n) */
    uint32_t n;
    float *p;         /* [n][ATTN_KEYS] */
    float *scratch;   /* of products with p */
    float *q_scratch; /* and with q, */
    bool same_q;      /* in which these queries are packed */
};

/* m rows of x times w, of which `outputs` rows count, read on as `next`: as it lies for a few rows
 * of x, else as matrix products. */
static void attn_product(const struct attn *attn, struct packed *w, uint32_t outputs, uint32_t m,
                         const uint8_t *next, struct cpu_matmul *args)
{
    uint32_t bounds[2] = {0, w->cols};
    uint8_t merges[1] = {0};

    if (attn->args->kv == KV_BF16 && m <= STREAM_ROWS) {
        stream_product(&(struct stream){
            .w = w->codes,
            .next = next,
            .bytes = w->n_panels * w->panel_code_bytes,
            .panel_bytes = w->panel_code_bytes,
            .n_outputs = outputs,
            .n = w->cols,
            .x = args->x,
            .x_stride = args->x_stride,
            .y = args->y,
            .y_stride = args->y_stride,
            .m = m,
        });
        return;
    }
    w->leaves = (struct leaf_plan){
        .n_leaves = 1, .n_roots = 1, .depth = 1, .bounds = bounds, .merges = merges};
    args->w = w;
    args->m = m;
    args->panel_end = (uint32_t)div_up(outputs, PACKED_LANES);
    if (attn->args->kv == KV_BF16) {
        args->x_bf16 = true;
        attn->args->product(args);
    } else {
        matmul_f32(args);
    }
}

/* The greatest `valid`. */
static uint32_t attn_most(const struct attn *attn)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < attn->n; i++) {
        most = MAX(most, attn->args->valid[attn->first + i]);
    }
    return most;
}

static void attn_scores_int8(const struct attn *attn)
{
    const struct quant *q8 = &attn->args->q8;
    size_t group = (size_t)attn->first * q8->n_groups;
    uint32_t bounds[2] = {0, q8->n_groups * QUANT_GROUP};
    uint8_t merges[1] = {0};
    struct packed keys;

    ENSURE(packed_init(&keys, DTYPE_Q8_0, ATTN_KEYS, bounds[1]));
    packed_attach(&keys, attn->args->k);
    keys.leaves = (struct leaf_plan){
        .n_leaves = 1, .n_roots = 1, .depth = 1, .bounds = bounds, .merges = merges};
    attn->args->product(&(struct cpu_matmul){
        .w = &keys,
        .q = {.n_groups = q8->n_groups,
              .codes = q8->codes + group * QUANT_GROUP,
              .scales = q8->scales + group,
              .sums = q8->sums + group},
        .y = attn->p,
        .y_stride = ATTN_KEYS,
        .m = attn->n,
        .panel_end = (uint32_t)div_up(attn_most(attn), PACKED_LANES),
        .scratch = attn->q_scratch,
        .same_x = attn->same_q,
    });
}

static void attn_scores(const struct attn *attn)
{
    const struct cpu_attn_block *args = attn->args;
    struct packed keys;

    ENSURE(packed_init(&keys, args->kv == KV_BF16 ? DTYPE_BF16 : DTYPE_F32, ATTN_KEYS,
                       args->head_dim));
    packed_attach(&keys, args->k);
    attn_product(attn, &keys, (uint32_t)round_up(attn_most(attn), PACKED_LANES), attn->n, args->v,
                 &(struct cpu_matmul){
                     .x = args->q + attn->first * args->q_stride,
                     .x_stride = args->q_stride,
                     .y = attn->p,
                     .y_stride = ATTN_KEYS,
                     .scratch = attn->q_scratch,
                     .same_x = attn->same_q,
                 });
}

/* The greatest of the valid scores: the first of them where zeros of both signs tie. */
VEC_INLINE float attn_max(const vecf scores[ATTN_VECTORS], uint32_t valid)
{
    vecf most = vec_set1(-INFINITY);
    float values[ATTN_KEYS];
    float m;

    for (uint32_t v = 0; v < ATTN_VECTORS; v++) {
        most = vec_max(scores[v], most);
    }
    m = vec_reduce_max(most);
    if (m == 0.0f) {
        for (uint32_t v = 0; v < ATTN_VECTORS; v++) {
            vec_store(values + v * VEC_LANES, scores[v]);
        }
        for (uint32_t j = valid; j-- > 0;) {
            m = values[j] == 0.0f ? values[j] : m;
        }
    }
    return m;
}

/* Scores of one query to weights p, in place; m and l. */
static void attn_softmax(const struct cpu_attn_block *args, uint32_t query, float *p)
{
    uint32_t valid = args->valid[query];
    vecf scores[ATTN_VECTORS];
    vecf sums[ROWS_VECTORS];
    float m;

#pragma GCC unroll 8
    for (uint32_t v = 0; v < ATTN_VECTORS; v++) {
        uint32_t first = v * VEC_LANES;

        /* a NaN, which no maximum heeds, stands for an absent key */
        scores[v] = vec_mul(vec_load(p + first), vec_set1(args->scale));
        scores[v] = vec_select_below(valid > first ? valid - first : 0, scores[v], vec_set1(NAN));
    }
    m = attn_max(scores, valid);
    for (uint32_t v = 0; v < ROWS_VECTORS; v++) {
        sums[v] = vec_zero();
    }
#pragma GCC unroll 8
    for (uint32_t v = 0; v < ATTN_VECTORS; v++) {
        uint32_t first = v * VEC_LANES;
        vecf weight = canon_exp_vec(vec_sub(scores[v], vec_set1(m)));

        weight = vec_select_below(valid > first ? valid - first : 0, weight, vec_zero());
        sums[v % ROWS_VECTORS] = vec_add(sums[v % ROWS_VECTORS], weight);
        vec_store(p + first, args->kv == KV_BF16 ? canon_round_bf16_vec(weight) : weight);
    }
    args->m[query] = m;
    args->l[query] = rows_lanes_sum(sums);
}

/* Whether no value of the block is infinite or not a number: only those times zero are not zero. */
static bool attn_finite(const struct packed *values, bool bf16)
{
    const uint8_t *codes = values->codes;
    const uint8_t *end = codes + values->n_panels * values->panel_code_bytes;
    vecf even_sum = vec_zero();
    vecf odd_sum = vec_zero();
    float lanes[VEC_LANES];
    bool finite = true;

    while (codes < end) {
        vecf even;
        vecf odd;

        if (bf16) {
            weights_bf16_pair(codes, &even, &odd);
            codes += VEC_LANES * sizeof(float);
        } else {
            even = vec_as_float(vec_load_words(codes));
            odd = vec_as_float(vec_load_words(codes + VEC_LANES * sizeof(float)));
            codes += 2 * VEC_LANES * sizeof(float);
        }
        even_sum = vec_fma(even, vec_zero(), even_sum);
        odd_sum = vec_fma(odd, vec_zero(), odd_sum);
    }
    vec_store(lanes, vec_add(even_sum, odd_sum));
    for (uint32_t i = 0; i < VEC_LANES; i++) {
        finite &= lanes[i] == 0.0f;
    }
    return finite;
}

/* Queries from the first on that have the same number of valid keys. */
static uint32_t attn_run(const uint32_t *valid, uint32_t n)
{
    uint32_t run = 1;

    while (run < n && valid[run] == valid[0]) {
        run++;
    }
    return run;
}

static void attn_values(const struct attn *attn)
{
    const struct cpu_attn_block *args = attn->args;
    struct packed values;
    uint32_t run;

    ENSURE(packed_init(&values, args->kv == KV_BF16 ? DTYPE_BF16 : DTYPE_F32, args->head_dim,
                       ATTN_KEYS));
    packed_attach(&values, args->v);
    for (uint32_t i = 0; i < attn->n; i += run) {
        const uint32_t *valid = args->valid + attn->first + i;

        run = attn_run(valid, attn->n - i);
        values.cols = valid[0];
        if (i == 0 && run < attn->n && attn_finite(&values, args->kv == KV_BF16)) {
            run = attn->n;
            for (uint32_t j = 0; j < run; j++) {
                values.cols = MAX(values.cols, valid[j]);
            }
        }
        attn_product(attn, &values, args->head_dim, run, args->next,
                     &(struct cpu_matmul){
                         .x = attn->p + i * ATTN_KEYS,
                         .x_stride = ATTN_KEYS,
                         .y = args->o + (attn->first + i) * args->o_stride,
                         .y_stride = args->o_stride,
                         .scratch = attn->scratch,
                     });
    }
}

static void attn_values_int8(const struct attn *attn)
{
    const struct cpu_attn_block *args = attn->args;
    const float *scales = (const void *)(args->v + cpu_v8_scale_offset(args->head_dim));
    float *weights = attn->scratch;

    for (uint32_t dim = 0; dim < args->head_dim; dim += V8_DIMS) {
        v8_weights(attn->p, scales, args->valid + attn->first, attn->n, weights);
        v8_product(&(struct v8_group){
            .codes = args->v + (size_t)dim * V8_KEYS,
            .next = args->next + (size_t)(dim / V8_DIMS) * V8_NEXT_BYTES,
            .weights = weights,
            .n = attn->n,
            .n_keys = (uint32_t)round_up(attn_most(attn), 2),
            .o = args->o + attn->first * args->o_stride + dim,
            .o_stride = args->o_stride,
            .dims = MIN(args->head_dim - dim, V8_DIMS),
            .scratch = weights + ATTN_QUERIES * V8_KEYS,
        });
        scales += V8_KEYS;
    }
}

/* How many queries from `first` on are done together: with many whose last keys lie in the first
 * half of the block, those alone. */
static uint32_t attn_together(const struct cpu_attn_block *args, uint32_t first)
{
    uint32_t n = MIN(args->n_q - first, ATTN_QUERIES);
    uint32_t half = 0;

    while (half < n && args->valid[first + half] <= ATTN_KEYS / 2) {
        half++;
    }
    return half >= ATTN_HALF_QUERIES ? half : n;
}

static void attn_block(const struct cpu_attn_block *args)
{
    struct attn attn = {.args = args, .p = args->scratch};

    attn.scratch = attn.p + ATTN_QUERIES * ATTN_KEYS;
    attn.q_scratch = attn.p + ATTN_P_BYTES / sizeof(float);
    for (; attn.first < args->n_q; attn.first += attn.n) {
        attn.n = attn_together(args, attn.first);
        attn.same_q = args->same_q && attn.n == args->n_q && args->head_dim <= ATTN_DIMS;
        if (args->kv == KV_INT8) {
            attn_scores_int8(&attn);
        } else {
            attn_scores(&attn);
        }
        for (uint32_t i = 0; i < attn.n; i++) {
            attn_softmax(args, attn.first + i, attn.p + i * ATTN_KEYS);
        }
        if (args->kv == KV_INT8) {
            attn_values_int8(&attn);
        } else {
            attn_values(&attn);
        }
    }
    vec_leave();
}

static void attn_merge(float *m, float *l, float *o, const float *m_b, const float *l_b,
                       const float *o_b, uint32_t n)
{
    float top = *m_b > *m ? *m_b : *m;
    float ca = canon_exp(*m - top);
    float cb = canon_exp(*m_b - top);

    *l = fmaf(*l_b, cb, *l * ca);
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        vecf scaled = vec_mul(vec_load_upto(o + i, n - i), vec_set1(ca));

        vec_store_upto(o + i, vec_fma(vec_load_upto(o_b + i, n - i), vec_set1(cb), scaled), n - i);
    }
    *m = top;
    vec_leave();
}

static void attn_finish(float *out, const float *o, float l, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        vec_store_upto(out + i, vec_div(vec_load_upto(o + i, n - i), vec_set1(l)), n - i);
    }
    vec_leave();
}

static void attention_init(struct cpu_kernels *kernels)
{
    kernels->attn_block = attn_block;
    kernels->attn_merge = attn_merge;
    kernels->attn_finish = attn_finish;
}

#endif
