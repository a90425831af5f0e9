/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of CPU kernels: what one thread computes. ref/ fills all of it and is the definition;
 * an instruction set overrides what it does faster and must give the reference's bits for every
 * input (NaNs aside: any NaN equals any NaN). The operators in cpu/ops_*.c cut the work for threads
 * and call these.
 *
 * Shared conventions. Every kernel runs with flush-to-zero and denormals-are-zero on
 * (base/float_env.h). The product of x and a row w over columns [k0, k1) ("chain") begins with
 * run = +0 and goes in steps of 32 columns from k0, the last of which may be shorter:
 *
 *   - e = o = +0
 *   - for k of the step, ascending: where k - k0 is even e = fma(x[k], w[k], e), else
 *     o = fma(x[k], w[k], o)
 *   - in a shorter step e = e + 0, o = o + 0 (what zero padding would do: -0 becomes +0)
 *   - run = run + (e + o)
 *
 * A matrix product over several leaves is a chain for each, added as its leaf_plan says.
 *
 * The product of integer activations and a row of quantised w over a leaf ("integer chain") is
 * run = +0, and for each group of the leaf in ascending order, with q, d and s = sum of q as
 * tensor/quant.h makes them and c, D, M as struct packed_group has them:
 *
 *   - run = fma((float)(sum of c[k] q[k]), D d, run); for Q6_K columns 0..15, then 16..31, each by
 *     its own D
 *   - for types with a minimum run = fma(M, d (float)s, run)
 *
 * The sum over k is an exact integer in whatever order: below 2^24, so that a float has it exactly,
 * or with wide codes below 2^28 and rounded to the nearest once.
 */
#pragma once

#include "ops/ops.h"
#include "tensor/mass.h"
#include "tensor/packed.h"
#include "tensor/quant.h"

/* One thread's share of y = W x: panels [panel_begin, panel_end) for m rows of x. */
struct cpu_matmul {
    const struct packed *w;
    const float *x;  /* [m][cols], already rounded; rows readable up to round_up(cols, 32) + 32 */
    size_t x_stride; /* multiple of 16 elements; x is 64-byte aligned */
    bool x_bf16;     /* x is rounded to bf16 */
    struct quant q;  /* instead of x: the m rows, wide or not, for matmul_int8 */
    float *y;        /* y[i * y_stride + row]; root r of w->leaves at y + r * root_stride */
    size_t y_stride; /* only rows < w->rows are written */
    size_t root_stride;
    uint32_t m;
    uint32_t few; /* rows up to which weights are streamed (struct ops_tune), at most 4; 0: 4 */
    uint32_t panel_begin;
    uint32_t panel_end;
    float *scratch; /* this thread's, CPU_SCRATCH_BYTES, 64-byte aligned */
    /* The last product in this scratch memory had the same x, m, type and leaves: what the kernel
     * made of x may still be there. */
    bool same_x;
};

/* m if so many rows are few, else more than any few. */
static inline uint32_t cpu_few_rows(const struct cpu_matmul *args)
{
    return args->m <= (args->few == 0 ? 4 : args->few) ? args->m : UINT32_MAX;
}

/* Enough for every kernel: unpacked panels, packed x, stacks of partial sums. Of x as wide as no
 * model is, 2^20, one tile; what is not touched takes no memory. */
enum { CPU_SCRATCH_BYTES = 40 << 20 };

/*
 * One KV block (page) against some queries of one KV head. Keys at and after `valid` count as
 * absent. What lies in a page for one layer and KV head:
 *
 *   F32, BF16  K: as struct packed, 64 rows (keys) by head_dim columns, of that type
 *              V: as struct packed, head_dim rows by 64 columns (keys)
 *   INT8       Each group of 32 dimensions of one position's k, and of its v, is a group of
 *              tensor/quant.h, from the head's first dimension on (the last may be shorter).
 *              K: as struct packed, Q8_0, 64 rows by head_dim columns rounded up to whole groups;
 *              the scale is quant_group's, rounded to f16
 *              V: i8 [group][64 keys][32 dimensions], then f32 [group][64 keys], the scales
 *              Bytes of keys and dimensions that are not there may be anything finite.
 */
struct cpu_attn_block {
    const uint8_t *k;
    const uint8_t *v;
    const uint8_t *next; /* any address: what to have in the second-level cache soon */
    uint32_t head_dim;
    enum kv_type kv;
    float scale;
    const float *q; /* [n_q] rows of head_dim, already rounded; not for INT8 */
    size_t q_stride;
    struct quant q8; /* INT8: the rows of q */
    /* INT8: a level's matmul_int8 for Q8_0; BF16: a level's matmul for BF16; which level's is all
     * the same. */
    void (*product)(const struct cpu_matmul *args);
    uint32_t n_q;
    bool same_q; /* the last block in this scratch memory had these very queries, and valid 64 */
    const uint32_t *valid; /* [n_q] 1 .. 64 */
    float *m;              /* [n_q] greatest score */
    float *l;              /* [n_q] sum of p = exp(score - m) */
    float *o;              /* [n_q] rows of o_stride: sum of p v, head_dim values */
    size_t o_stride;
    float *scratch; /* this thread's, CPU_SCRATCH_BYTES / 2 */
};

/* V of INT8: where the scales begin, and all of it. */
static inline size_t cpu_v8_scale_offset(uint32_t head_dim)
{
    return (size_t)round_up(head_dim, QUANT_GROUP) * OPS_PAGE_TOKENS;
}

static inline size_t cpu_v8_bytes(uint32_t head_dim)
{
    return cpu_v8_scale_offset(head_dim) +
           div_up(head_dim, QUANT_GROUP) * OPS_PAGE_TOKENS * sizeof(float);
}

struct cpu_kernels {
    const char *level;

    /* By type of w. */
    void (*matmul[DTYPE_COUNT])(const struct cpu_matmul *args);
    /* The same with integer activations: integer chains instead of chains. NULL for plain types. */
    void (*matmul_int8[DTYPE_COUNT])(const struct cpu_matmul *args);
    /* That of tensor/quant.h. x is readable up to round_up(columns, 32) + 32. */
    void (*quant_row)(const float *x, const struct leaf_plan *leaves, const struct quant *out);

    /* y[i] = x[i] r w[i], r = rsqrt(sum / n + eps); sum of squares over 16 lanes (lane i: fma over
     * indices congruent to i, ascending, from +0), lanes added 8+8, 4+4, 2+2, 1+1 (i with i +
     * half). */
    void (*rmsnorm)(float *y, const float *x, const float *w, uint32_t n, float eps);
    /* Nearest-even to bf16 and back; y may be x. */
    void (*round_bf16)(float *y, const float *x, size_t n);
    /* y[i] = canon_silu(gate[i]) * up[i]; y may be gate. */
    void (*silu_mul)(float *y, const float *gate, const float *up, size_t n);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, size_t n);
    /* One head: a = x[j], b = x[j + half]: x[j] = fma(-b, sin[j], a cos[j]), x[j + half] =
     * fma(a, sin[j], b cos[j]), j < half. */
    void (*rope)(float *x, const float *cos, const float *sin, uint32_t half);

    /* score = product * scale, where product is chain(q, k) over one leaf of head_dim, or for INT8
     * the integer chain; m = max over valid keys; p = canon_exp(score - m), 0 for absent keys; l
     * over 16 lanes (lane i: keys i, i + 16, ... ascending from +0) added as in rmsnorm. BF16: p is
     * then rounded to bf16. o = chain(p, v) over 64 columns with absent keys as zero columns; for
     * INT8 chain(p s, c), where s is the key's scale in the dimension's group (p s one product in
     * f32, +0 for absent keys) and c the code. */
    void (*attn_block)(const struct cpu_attn_block *args);
    /* (m, l, o) of a := merge of a (earlier keys) and b: m = max; ca = canon_exp(ma - m), cb
     * likewise; l = fma(lb, cb, la ca), o[i] = fma(ob[i], cb, oa[i] ca). */
    void (*attn_merge)(float *m, float *l, float *o, const float *m_b, const float *l_b,
                       const float *o_b, uint32_t n);
    /* out[i] = o[i] / l */
    void (*attn_finish)(float *out, const float *o, float l, uint32_t n);

    /* mass_block_max and mass_block_sum of tensor/mass.h. */
    float (*mass_max)(const float *logits, uint32_t n);
    float (*mass_sum)(const float *logits, uint32_t n, float max, float inv_temperature,
                      float *masses);
};

/* The reference: every entry set. */
void cpu_kernels_init_ref(struct cpu_kernels *kernels);
/* Override entries, and level, with what the instruction set offers; call in ascending order. */
void cpu_kernels_init_avx2(struct cpu_kernels *kernels);
void cpu_kernels_init_avxvnni(struct cpu_kernels *kernels);
void cpu_kernels_init_avx512(struct cpu_kernels *kernels);
void cpu_kernels_init_avx512vnni(struct cpu_kernels *kernels);
void cpu_kernels_init_avx512bf16(struct cpu_kernels *kernels);
void cpu_kernels_init_amx(struct cpu_kernels *kernels);
void cpu_kernels_init_neon(struct cpu_kernels *kernels);
void cpu_kernels_init_neondot(struct cpu_kernels *kernels);
