/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference kernels: canonical arithmetic written as plainly as it can be, one element at a
 * time. Boring on purpose: every other implementation is compared with this one for equality.
 */
#include "cpu/kernels.h"
#include "tensor/canon.h"

enum { STEP = 32, LANES = 16, KEYS = 64 };

/* e and o of one step of n columns, added; see kernels.h. w[i * w_stride] is the weight of column
 * i. */
static float step_sum(const float *x, const float *w, size_t w_stride, uint32_t n)
{
    float e = 0.0f;
    float o = 0.0f;

    for (uint32_t i = 0; i < n; i++) {
        if (i % 2 == 0) {
            e = fmaf(x[i], w[i * w_stride], e);
        } else {
            o = fmaf(x[i], w[i * w_stride], o);
        }
    }
    if (n < STEP) {
        e += 0.0f;
        o += 0.0f;
    }
    return e + o;
}

/* The product over columns [k0, k1) of one row, whose weights lie in w. */
static float chain(const float *x, const float *w, uint32_t k0, uint32_t k1)
{
    float run = 0.0f;

    for (uint32_t k = k0; k < k1; k += STEP) {
        run += step_sum(x + k, w + k, 1, MIN(STEP, k1 - k));
    }
    return run;
}

/* All leaves of one row by one x; writes n_roots values, root_stride apart. */
static void row_product(const struct leaf_plan *leaves, const float *x, const float *w,
                        float *stack, float *y, size_t root_stride)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        stack[n++] = chain(x, w, leaves->bounds[i], leaves->bounds[i + 1]);
        for (uint32_t j = 0; j < leaves->merges[i]; j++) {
            n--;
            stack[n - 1] += stack[n];
        }
    }
    for (uint32_t r = 0; r < n; r++) {
        y[r * root_stride] = stack[r];
    }
}

static void matmul(const struct cpu_matmul *args)
{
    const struct packed *w = args->w;
    float *values = args->scratch;
    float *stack = values + round_up(w->cols, LANES);
    uint32_t end = MIN(args->panel_end * LANES, w->rows);

    ENSURE_OP((w->cols + LANES + w->leaves.depth) * sizeof(float), <=, CPU_SCRATCH_BYTES);
    for (uint32_t row = args->panel_begin * LANES; row < end; row++) {
        for (uint32_t k = 0; k < w->cols; k++) {
            values[k] = packed_value(w, row, k);
        }
        for (uint32_t i = 0; i < args->m; i++) {
            row_product(&w->leaves, args->x + i * args->x_stride, values, stack,
                        args->y + i * args->y_stride + row, args->root_stride);
        }
    }
}

/* x's code of column k of group g. */
static int32_t code_of(const struct quant *q, size_t g, uint32_t k)
{
    return q->wide != NULL ? q->wide[g * QUANT_GROUP + quant_wide_at(k)]
                           : q->codes[g * QUANT_GROUP + k];
}

/* The integer chain of row over the columns [k0, k1), whose first group is number g of x's row i.
 */
static float integer_chain(const struct cpu_matmul *args, uint32_t i, uint32_t row, uint32_t k0,
                           uint32_t k1, size_t g)
{
    const struct quant *q = &args->q;
    bool halves = args->w->dtype == DTYPE_Q6_K;
    uint32_t k = k0 / QUANT_GROUP * QUANT_GROUP;
    float run = 0.0f;

    g += (size_t)i * q->n_groups;
    for (size_t end = g + quant_leaf_groups(k0, k1); g < end; g++) {
        struct packed_group w = packed_group(args->w, row, k);
        int32_t dots[2] = {0, 0};

        for (uint32_t j = 0; j < QUANT_GROUP; j++) {
            dots[halves ? j / 16 : 0] += w.codes[j] * code_of(q, g, j);
        }
        run = fmaf((float)dots[0], w.d[0] * q->scales[g], run);
        if (halves) {
            run = fmaf((float)dots[1], w.d[1] * q->scales[g], run);
        }
        if (packed_has_minimum(args->w->dtype)) {
            run = fmaf(w.m, q->scales[g] * (float)q->sums[g], run);
        }
        k += QUANT_GROUP;
    }
    return run;
}

static void matmul_int8(const struct cpu_matmul *args)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    float *stack = args->scratch;
    uint32_t end = MIN(args->panel_end * LANES, args->w->rows);

    for (uint32_t row = args->panel_begin * LANES; row < end; row++) {
        for (uint32_t i = 0; i < args->m; i++) {
            float *y = args->y + i * args->y_stride + row;
            uint32_t n = 0;
            size_t g = 0;

            for (uint32_t l = 0; l < leaves->n_leaves; l++) {
                uint32_t k0 = leaves->bounds[l];
                uint32_t k1 = leaves->bounds[l + 1];

                stack[n++] = integer_chain(args, i, row, k0, k1, g);
                g += quant_leaf_groups(k0, k1);
                for (uint32_t j = 0; j < leaves->merges[l]; j++) {
                    n--;
                    stack[n - 1] += stack[n];
                }
            }
            for (uint32_t r = 0; r < n; r++) {
                y[r * args->root_stride] = stack[r];
            }
        }
    }
}

/* 16 lanes to one: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
static float lanes_sum(float lanes[LANES])
{
    for (uint32_t half = LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

static void rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    float lanes[LANES] = {0};
    float r;

    for (uint32_t i = 0; i < n; i++) {
        lanes[i % LANES] = fmaf(x[i], x[i], lanes[i % LANES]);
    }
    r = canon_rsqrt(lanes_sum(lanes) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) {
        y[i] = x[i] * r * w[i];
    }
}

static void round_bf16(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = f32_from_bf16(bf16_from_f32(x[i]));
    }
}

static void silu_mul(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = canon_silu(gate[i]) * up[i];
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

static void rope(float *x, const float *cos, const float *sin, uint32_t half)
{
    for (uint32_t j = 0; j < half; j++) {
        float a = x[j];
        float b = x[j + half];

        x[j] = fmaf(-b, sin[j], a * cos[j]);
        x[j + half] = fmaf(a, sin[j], b * cos[j]);
    }
}

/* The product of query i and key j, whose matrix K is. */
static float key_product(const struct cpu_attn_block *args, const struct packed *keys, uint32_t i,
                         uint32_t j)
{
    float *row = args->scratch;

    if (args->kv == KV_INT8) {
        return integer_chain(&(struct cpu_matmul){.w = keys, .q = args->q8}, i, j, 0, keys->cols,
                             0);
    }
    for (uint32_t d = 0; d < args->head_dim; d++) {
        row[d] = packed_value(keys, j, d);
    }
    return chain(args->q + i * args->q_stride, row, 0, args->head_dim);
}

/* Dimension d of o: the sum over `valid` keys of their weights p times V. */
static float value_product(const struct cpu_attn_block *args, const struct packed *values,
                           const float p[KEYS], uint32_t valid, uint32_t d)
{
    const float *scales =
        (const float *)(const void *)(args->v + cpu_v8_scale_offset(args->head_dim));
    uint32_t group = d / QUANT_GROUP;
    float weights[KEYS] = {0};
    float column[KEYS] = {0};

    for (uint32_t j = 0; j < valid; j++) {
        if (args->kv == KV_INT8) {
            size_t at = ((size_t)group * KEYS + j) * QUANT_GROUP + d % QUANT_GROUP;

            weights[j] = p[j] * scales[group * KEYS + j];
            column[j] = (float)(int8_t)args->v[at];
        } else {
            weights[j] = p[j];
            column[j] = packed_value(values, d, j);
        }
    }
    return chain(weights, column, 0, KEYS);
}

/* One query against one block. keys and values are the page's K and V as packed matrices. */
static void attn_one(const struct cpu_attn_block *args, const struct packed *keys,
                     const struct packed *values, uint32_t i)
{
    uint32_t valid = args->valid[i];
    float p[KEYS] = {0};
    float lanes[LANES] = {0};
    float m = -INFINITY;

    for (uint32_t j = 0; j < valid; j++) {
        p[j] = key_product(args, keys, i, j) * args->scale;
        m = p[j] > m ? p[j] : m;
    }
    for (uint32_t j = 0; j < valid; j++) {
        p[j] = canon_exp(p[j] - m);
        lanes[j % LANES] += p[j];
    }
    args->m[i] = m;
    args->l[i] = lanes_sum(lanes);
    if (args->kv == KV_BF16) {
        round_bf16(p, p, KEYS);
    }
    for (uint32_t d = 0; d < args->head_dim; d++) {
        args->o[i * args->o_stride + d] = value_product(args, values, p, valid, d);
    }
}

static void attn_block(const struct cpu_attn_block *args)
{
    enum dtype dtype = args->kv == KV_BF16 ? DTYPE_BF16 : DTYPE_F32;
    struct packed keys;
    struct packed values;

    if (args->kv == KV_INT8) {
        ENSURE(
            packed_init(&keys, DTYPE_Q8_0, KEYS, (uint32_t)round_up(args->head_dim, QUANT_GROUP)));
    } else {
        ENSURE(packed_init(&keys, dtype, KEYS, args->head_dim));
    }
    ENSURE(packed_init(&values, dtype, args->head_dim, KEYS)); /* INT8: not used */
    packed_attach(&keys, args->k);
    packed_attach(&values, args->v);
    for (uint32_t i = 0; i < args->n_q; i++) {
        attn_one(args, &keys, &values, i);
    }
}

static void attn_merge(float *m, float *l, float *o, const float *m_b, const float *l_b,
                       const float *o_b, uint32_t n)
{
    float top = *m_b > *m ? *m_b : *m;
    float ca = canon_exp(*m - top);
    float cb = canon_exp(*m_b - top);

    *l = fmaf(*l_b, cb, *l * ca);
    for (uint32_t i = 0; i < n; i++) {
        o[i] = fmaf(o_b[i], cb, o[i] * ca);
    }
    *m = top;
}

static void attn_finish(float *out, const float *o, float l, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = o[i] / l;
    }
}

void cpu_kernels_init_ref(struct cpu_kernels *kernels)
{
    *kernels = (struct cpu_kernels){
        .level = "ref",
        .quant_row = quant_row,
        .rmsnorm = rmsnorm,
        .round_bf16 = round_bf16,
        .silu_mul = silu_mul,
        .add = add,
        .rope = rope,
        .attn_block = attn_block,
        .attn_merge = attn_merge,
        .attn_finish = attn_finish,
        .mass_max = mass_block_max,
        .mass_sum = mass_block_sum,
    };
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        kernels->matmul[i] = matmul;
        kernels->matmul_int8[i] = dtype_is_quantised((enum dtype)i) ? matmul_int8 : NULL;
    }
}
