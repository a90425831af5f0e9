/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator interface: everything a model's forward pass does on a device, as one table of
 * functions (`struct ops`). A back end exports one such table (cpu/cpu.h). Model code calls
 * operators in the order of the paper and knows nothing of threads, instruction sets or memory
 * kinds.
 *
 * Memory handed to operators comes from the back end's alloc, or is host memory where a comment
 * says so. Matrices of activations are row-major f32, one row a token, with a row stride in
 * elements. Operators of one device are called from one thread, between step_enter and step_leave;
 * each returns when its results may be used by the next. What it was asked to do may wait longer (a
 * CPU gathers operators on rows, a GPU enqueues): whoever else reads results, or changes what
 * arguments point to, calls sync before; arguments themselves are copied. Every operator follows
 * DESIGN.md's canonical arithmetic: its result depends on its inputs alone, not on threads,
 * instruction set, batch or chunk.
 */
#pragma once

#include "base/err.h"
#include "ops/act.h"
#include "tensor/mass.h"
#include "tensor/packed.h"

enum { OPS_PAGE_TOKENS = 64 }; /* keys in a KV page, and in an attention block */

/* Row stride in elements of an activation buffer of dim columns: rows are 64-byte aligned and can
 * be read some way past dim. Buffers handed to linear as x have this stride (for dim = its cols) or
 * more. */
#define OPS_STRIDE(dim) (round_up((dim), 32) + 32)

struct ops_device;

/* Products that may differ in how many rows of x are few: with plain weights, BF16 at 12 bits,
 * integers. */
enum ops_product { OPS_PLAIN, OPS_BF16_12, OPS_INTEGERS, OPS_PRODUCTS };

enum { OPS_FEW_ROWS_MAX = 4 };

enum { OPS_LINEAR_MAX = 8 }; /* matrices of one call */

/* Choices of speed alone: none changes a bit of a result. Zero: as built in. */
struct ops_tune {
    /* Products of up to so many rows read the weights once, as a stream; of more they are taken
     * apart for all rows first. At most OPS_FEW_ROWS_MAX; 0: that. */
    uint32_t few_rows[OPS_PRODUCTS];
    uint32_t few_threads; /* threads that share a product of up to OPS_FEW_ROWS_MAX rows; 0: all */
    enum { OPS_UNKNOWN, OPS_NO, OPS_YES } likes_bf16_12; /* see the function of that name */
};

struct ops_config {
    uint32_t n_threads; /* 0: one for each core this process may use */
    const char *level;  /* highest instruction set allowed ("ref", "avx2", ...), NULL: the best */
    /* NULL, or called now and then while a long operator computes, on the thread that called it: a
     * sign of life. Must be short. */
    void (*tick)(void *arg);
    void *tick_arg;
};

/* One sequence's rows in a step: rows [row, row + n) are its positions [pos, pos + n). pages[p] is
 * the page that holds positions [64 p, 64 p + 64); enough for pos + n. Borrowed for the call. */
struct ops_segment {
    uint32_t row;
    uint32_t n;
    uint32_t pos;
    const uint32_t *pages;
};

/* Shape of a KV cache on one device. A page holds OPS_PAGE_TOKENS positions of every layer and KV
 * head owned here. */
struct ops_kv {
    uint32_t n_layers;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    enum kv_type type;
    uint32_t n_pages;
    size_t page_bytes; /* set by kv_bytes */
    void *pages;       /* [n_pages] of page_bytes, borrowed */
};

/* y[i] = W x[i] (+ bias) for i < n: several matrices that share x in one call, each with its own y.
 * One without rows is skipped.
 * A row-parallel matrix (leaves with n_roots > 1) writes root r at y + r * root_stride, without
 * bias. */
struct ops_linear_out {
    const struct packed *w;
    const float *bias; /* [rows] or NULL */
    float *y;
    size_t y_stride;
    size_t root_stride;
    bool wide; /* where x becomes integers: of 16 bits instead of 8 (tensor/quant.h) */
};

struct ops_linear {
    const float *x;  /* [n][cols], 64-byte aligned */
    size_t x_stride; /* multiple of 16, at least OPS_STRIDE(cols) */
    uint32_t n;
    enum act act; /* how x is rounded first */
    const struct ops_linear_out *out;
    uint32_t n_out; /* up to OPS_LINEAR_MAX */
};

/* y[i] = x[i] * rsqrt(mean(x[i]^2) + eps) * w, each row of `groups` independent vectors of dim. */
struct ops_rmsnorm {
    const float *x;
    size_t x_stride;
    float *y; /* may be x */
    size_t y_stride;
    const float *w; /* [dim] */
    uint32_t n;
    uint32_t groups; /* 1, or heads for the norm of q and k */
    uint32_t dim;
    float eps;
};

/* Rotary embedding in place, pairs (j, j + rot / 2) of the first rot dimensions of every head. */
struct ops_rope {
    float *x; /* [n][n_heads * head_dim] */
    size_t x_stride;
    const float *cos; /* [n][rot / 2] */
    const float *sin;
    uint32_t n;
    uint32_t n_heads;
    uint32_t head_dim;
    uint32_t rot;
};

struct ops_kv_write {
    const struct ops_kv *kv;
    uint32_t layer;
    const float *k; /* [n][n_kv_heads * head_dim], after norm and rotary */
    const float *v;
    size_t stride; /* of both */
    const struct ops_segment *segments;
    uint32_t n_segments;
};

/* out = softmax(q k^T * scale, causal) v for every query head; query head h reads the KV head
 * kv_head_of[h] (an index into the heads owned here). */
struct ops_attention {
    const struct ops_kv *kv;
    uint32_t layer;
    const float *q; /* [n][n_heads * head_dim] */
    size_t q_stride;
    float *out; /* likewise */
    size_t out_stride;
    const uint32_t *kv_head_of; /* [n_heads], ascending */
    uint32_t n_heads;
    float scale;
    const struct ops_segment *segments;
    uint32_t n_segments;
};

struct ops {
    const char *name; /* "cpu" */

    NODISCARD enum status (*create)(const struct ops_config *config, struct ops_device **ret_device,
                                    struct err *err);
    void (*destroy)(struct ops_device **device);
    void (*tune)(struct ops_device *device, const struct ops_tune *tune); /* between operators */

    /* Makes room for a linear of up to rows x by cols inputs, quantised ones of up to `groups`
     * groups a row (quant_n_groups; 0 if there are none); call before the first step. */
    NODISCARD enum status (*reserve)(struct ops_device *device, uint32_t rows, uint32_t cols,
                                     uint32_t groups, struct err *err);

    /* The arithmetic class: results are equal bit for bit within one class. Static text. */
    const char *(*arith_class)(const struct ops_device *device);
    const char *(*level)(const struct ops_device *device); /* "avx512" */
    uint32_t (*n_threads)(const struct ops_device *device);
    /* Whether products with few rows are faster with BF16 at 12 bits than with BF16. */
    bool (*likes_bf16_12)(const struct ops_device *device);

    /* Zeroed device memory, 64-byte aligned; NULL when it is gone. */
    void *(*alloc)(struct ops_device *device, size_t bytes);
    void (*release)(struct ops_device *device, void *memory, size_t bytes);

    /* Around every step, from the thread that calls the operators: sets its float environment to
     * flush-to-zero and puts the caller's back. */
    void (*step_enter)(struct ops_device *device);
    void (*step_leave)(struct ops_device *device);

    /* Returns when all operators called before are done; step_leave and has_nan do that, too. */
    void (*sync)(struct ops_device *device);

    /* out[i] = row tokens[i] of w as f32, rounded to bf16 never (a stored value is exact). */
    void (*embed)(struct ops_device *device, const struct packed *w, const int32_t *tokens,
                  uint32_t n, float *out, size_t out_stride);
    void (*rmsnorm)(struct ops_device *device, const struct ops_rmsnorm *args);
    void (*linear)(struct ops_device *device, const struct ops_linear *args);
    void (*rope)(struct ops_device *device, const struct ops_rope *args);
    /* y[i][j] = silu(gate[i][j]) * up[i][j], j < dim; strides in elements, y may be gate. */
    void (*silu_mul)(struct ops_device *device, const float *gate, const float *up, size_t stride,
                     float *y, size_t y_stride, uint32_t n, uint32_t dim);
    /* x[i] += y[i], n rows of dim. */
    void (*add)(struct ops_device *device, float *x, size_t x_stride, const float *y,
                size_t y_stride, uint32_t n, uint32_t dim);

    size_t (*kv_page_bytes)(const struct ops_kv *kv);
    /* Zeroes a page when a sequence takes it. */
    void (*kv_page_clear)(struct ops_device *device, const struct ops_kv *kv, uint32_t page);
    void (*kv_write)(struct ops_device *device, const struct ops_kv_write *args);
    void (*attention)(struct ops_device *device, const struct ops_attention *args);

    /* True if any of the n * dim values is not a number. */
    bool (*has_nan)(struct ops_device *device, const float *x, size_t x_stride, uint32_t n,
                    uint32_t dim);

    /* How the sampler weighs logits in host memory on this device, for as long as that lives. The
     * functions are called by the operators' thread, in the canonical float environment, which
     * there need not be that of a step. */
    struct mass_table (*masses)(struct ops_device *device);
};
