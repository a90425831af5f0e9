/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products for few rows of x (GEMV): bound by the bytes of the weights. Some panels are read side
 * by side, as that many streams in different memory pages, in steps of 32 columns; codes become
 * weights in registers and each is used for every row of x. Software prefetch runs some bytes ahead
 * in every stream and, at the end of the panels, in the next ones, so that the queue of outstanding
 * lines never runs dry.
 *
 * Sums live in args->scratch as a stack of [panel][row of x][16 lanes]: the running sum of the
 * current leaf on top, sums of finished leaves below it, merged as the leaf plan says.
 */
#pragma once

#include "cpu/x86/gemm.h"
#include "cpu/x86/weights.h"

#ifdef VEC_LANES

enum { GEMV_ROWS = 4, GEMV_PANELS = 8 };

/* How many panels are read side by side. They lie a multiple of 4 KiB apart as a rule, so that all
 * want the same lines of a cache: of eight ways, eight streams leave none for what is fetched ahead
 * (bench/results/2026-11-26-decode.md). Where arithmetic is the bound, more panels hide more of it.
 */
VEC_INLINE uint32_t gemv_panels(enum dtype dtype, uint32_t m)
{
    return VEC_LANES == 8 && m == 1 && !weights_are_codes(dtype) ? GEMV_PANELS / 2 : GEMV_PANELS;
}

/* How many bytes of all panels together are fetched before they are read. */
enum { GEMV_AHEAD = 16384 };

/* In how many parts a step is worked on. Streams are read by turns, and the shorter the turns the
 * better memory keeps up (256 bytes instead of 1 KB: 8 %); codes are short enough whole. */
VEC_INLINE uint32_t gemv_parts(enum dtype dtype)
{
    return weights_are_codes(dtype) ? 1 : 4;
}

/* What one group of panels needs while it is worked on. */
struct gemv {
    const struct cpu_matmul *args;
    gemm_unpack_fn *unpack; /* for the ends of leaves */
    uint32_t panel;         /* the first */
    uint32_t n_panels;      /* 1 .. gemv_panels */
    float *sums;            /* the stack */
    size_t level;           /* floats from one level of the stack to the next */
    uint32_t x_group;       /* integer activations: the next leaf's first group of x */
};

/* The accumulators of one row of x. Rows are written out one by one below, so that both compilers
 * keep them in registers. */
struct gemv_row {
    vecf e;
    vecf o;
};

/* The rows of x, from the step's first column. */
struct gemv_x {
    const float *row;
    size_t stride;
};

/* Eight columns. */
VEC_INLINE void gemv_eight(const float *x, const vecf w[8], struct gemv_row *row)
{
    row->e = vec_fma(vec_set1(x[0]), w[0], row->e);
    row->o = vec_fma(vec_set1(x[1]), w[1], row->o);
    row->e = vec_fma(vec_set1(x[2]), w[2], row->e);
    row->o = vec_fma(vec_set1(x[3]), w[3], row->o);
    row->e = vec_fma(vec_set1(x[4]), w[4], row->e);
    row->o = vec_fma(vec_set1(x[5]), w[5], row->o);
    row->e = vec_fma(vec_set1(x[6]), w[6], row->e);
    row->o = vec_fma(vec_set1(x[7]), w[7], row->o);
}

/* Where the sums of one panel (or half of it) lie; rows of x are PACKED_LANES apart in each. */
struct gemv_sums {
    float *run; /* the leaf's */
    float *e;   /* between the parts of a step */
    float *o;
};

/* Row i at the beginning of a part. */
VEC_INLINE struct gemv_row gemv_begin(const struct gemv_sums *sums, uint32_t i, bool fresh)
{
    struct gemv_row row;

    row.e = fresh ? vec_zero() : vec_load(sums->e + i * PACKED_LANES);
    row.o = fresh ? vec_zero() : vec_load(sums->o + i * PACKED_LANES);
    return row;
}

/* And at the end: put away, or with the step's last part added to the running sum. */
VEC_INLINE void gemv_end(const struct gemv_sums *sums, uint32_t i, bool last, struct gemv_row row)
{
    float *run = sums->run + i * PACKED_LANES;

    if (last) {
        vec_store(run, vec_add(vec_load(run), vec_add(row.e, row.o)));
    } else {
        vec_store(sums->e + i * PACKED_LANES, row.e);
        vec_store(sums->o + i * PACKED_LANES, row.o);
    }
}

/* Columns [8 first, 8 end) of a whole step, for m rows of x. */
VEC_INLINE void gemv_part(enum dtype dtype, uint32_t m, const struct weights *w, uint32_t first,
                          uint32_t end, const struct gemv_x *x, const struct gemv_sums *sums)
{
    const bool fresh = first == 0;
    const bool last = end == 4;
    struct gemv_row row0 = gemv_begin(sums, 0, fresh);
    struct gemv_row row1 = gemv_begin(sums, m > 1 ? 1 : 0, fresh);
    struct gemv_row row2 = gemv_begin(sums, m > 2 ? 2 : 0, fresh);
    struct gemv_row row3 = gemv_begin(sums, m > 3 ? 3 : 0, fresh);

#pragma GCC unroll 4
    for (uint32_t j = first; j < end; j++) {
        vecf eight[8];

        weights_eight(dtype, w, j, eight);
        gemv_eight(x->row + 8 * j, eight, &row0);
        if (m > 1) {
            gemv_eight(x->row + x->stride + 8 * j, eight, &row1);
        }
        if (m > 2) {
            gemv_eight(x->row + 2 * x->stride + 8 * j, eight, &row2);
        }
        if (m > 3) {
            gemv_eight(x->row + 3 * x->stride + 8 * j, eight, &row3);
        }
    }
    gemv_end(sums, 0, last, row0);
    if (m > 1) {
        gemv_end(sums, 1, last, row1);
    }
    if (m > 2) {
        gemv_end(sums, 2, last, row2);
    }
    if (m > 3) {
        gemv_end(sums, 3, last, row3);
    }
}

/* The same for n <= 32 columns that lie in values as f32. */
static void gemv_rest(uint32_t m, const float *values, uint32_t n, const float *x, size_t x_stride,
                      float *run)
{
    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
            const float *w = values + lane;
            float *at = run + i * PACKED_LANES + lane;
            vecf e = vec_zero();
            vecf o = vec_zero();

            for (uint32_t c = 0; c < n; c++) {
                vecf factor = vec_set1(x[i * x_stride + c]);

                if (c % 2 == 0) {
                    e = vec_fma(factor, vec_load(w + c * PACKED_LANES), e);
                } else {
                    o = vec_fma(factor, vec_load(w + c * PACKED_LANES), o);
                }
            }
            if (n < WEIGHTS_STEP) {
                e = vec_add(e, vec_zero());
                o = vec_add(o, vec_zero());
            }
            vec_store(at, vec_add(vec_load(at), vec_add(e, o)));
        }
    }
}

/* Fetches one part of a step's codes, and its scales with the first. */
VEC_INLINE void gemv_prefetch(enum dtype dtype, uint32_t part, const uint8_t *codes,
                              const uint8_t *scales)
{
    const uint32_t bytes = weights_code_bytes(dtype) / gemv_parts(dtype);

#pragma GCC unroll 32
    for (uint32_t i = 0; i < bytes; i += CACHE_LINE) {
        __builtin_prefetch(codes + part * bytes + i, 0, 2);
    }
    if (part == 0 && weights_scale_bytes(dtype) > 0) {
        __builtin_prefetch(scales, 0, 2);
    }
}

/* What to prefetch, from the beginning of a panel on. */
struct gemv_later {
    size_t code_bytes;
    size_t scale_bytes;
};

/* While columns from k on are worked on: some steps later, of this panel or of the one that its
 * stream goes on with. */
VEC_INLINE struct gemv_later gemv_later(enum dtype dtype, uint32_t panels, const struct packed *w,
                                        uint32_t k)
{
    const uint32_t step_bytes = weights_code_bytes(dtype);
    const uint32_t n_steps = w->cols / WEIGHTS_STEP;
    uint32_t step = k / WEIGHTS_STEP + GEMV_AHEAD / panels / step_bytes;
    uint32_t skip = step < n_steps ? 0 : panels;

    step = skip == 0 ? step : MIN(step - n_steps, n_steps);
    return (struct gemv_later){
        .code_bytes = skip * w->panel_code_bytes + (size_t)step * step_bytes,
        .scale_bytes = skip * w->panel_scale_bytes + (size_t)step * weights_scale_bytes(dtype),
    };
}

/* Columns [k, k + 32) of the group's panels, whole and (codes) one group, added to run. */
VEC_INLINE void gemv_step(enum dtype dtype, uint32_t m, const struct gemv *group, uint32_t k,
                          float *run)
{
    const struct packed *w = group->args->w;
    const struct gemv_x x = {group->args->x + k, group->args->x_stride};
    const struct gemv_later later = gemv_later(dtype, gemv_panels(dtype, m), w, k);
    float parts[GEMV_PANELS * GEMV_ROWS * PACKED_LANES * 2];

#pragma GCC unroll 4
    for (uint32_t part = 0; part < gemv_parts(dtype); part++) {
        const uint32_t eights = 4 / gemv_parts(dtype);

        for (uint32_t p = 0; p < group->n_panels; p++) {
            size_t panel = group->panel + p;
            const uint8_t *codes = w->codes + panel * w->panel_code_bytes;
            const uint8_t *scales =
                weights_are_codes(dtype) ? w->scales + panel * w->panel_scale_bytes : NULL;

            gemv_prefetch(dtype, part, codes + later.code_bytes,
                          scales == NULL ? NULL : scales + later.scale_bytes);
            for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
                struct weights open = weights_open(dtype, codes, scales, k, lane);
                float *e = parts + p * GEMV_ROWS * PACKED_LANES * 2 + lane;
                const struct gemv_sums sums = {.run = run + p * m * PACKED_LANES + lane,
                                               .e = e,
                                               .o = e + GEMV_ROWS * PACKED_LANES};

                gemv_part(dtype, m, &open, part * eights, (part + 1) * eights, &x, &sums);
            }
        }
    }
}

/* n sums become +0; memset would be a string instruction, which begins slowly. */
VEC_INLINE void gemv_clear(float *sums, size_t n)
{
    for (size_t i = 0; i < n; i += VEC_LANES) {
        vec_store(sums + i, vec_zero());
    }
}

/* Columns [k, end), 32 or fewer, that are no whole step. */
static void gemv_leaf_end(uint32_t m, const struct gemv *group, uint32_t k, uint32_t end,
                          float *run)
{
    const struct cpu_matmul *args = group->args;
    float values[WEIGHTS_STEP * PACKED_LANES];

    for (uint32_t p = 0; p < group->n_panels; p++) {
        group->unpack(args->w, group->panel + p, k, end - k, values, PACKED_LANES);
        gemv_rest(m, values, end - k, args->x + k, args->x_stride, run + p * m * PACKED_LANES);
    }
}

/* See gemv_leaf_fn. */
VEC_INLINE void gemv_leaf(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                          float *run)
{
    const struct cpu_matmul *args = group->args;
    const uint32_t k0 = args->w->leaves.bounds[leaf];
    const uint32_t k1 = args->w->leaves.bounds[leaf + 1];

    gemv_clear(run, group->level);
    for (uint32_t k = k0; k < k1; k += WEIGHTS_STEP) {
        uint32_t n = MIN(k1 - k, WEIGHTS_STEP);

        if (n == WEIGHTS_STEP && (!weights_are_codes(dtype) || k % WEIGHTS_STEP == 0)) {
            gemv_step(dtype, m, group, k, run);
            continue;
        }
        gemv_leaf_end(m, group, k, k + n, run);
    }
}

/* sums[level] += sums[level + 1] */
static void gemv_merge(float *sums, size_t level)
{
    for (size_t i = 0; i < level; i += VEC_LANES) {
        vec_store(sums + i, vec_add(vec_load(sums + i), vec_load(sums + level + i)));
    }
}

static void gemv_write(const struct gemv *group, uint32_t m)
{
    const struct cpu_matmul *args = group->args;

    for (uint32_t r = 0; r < args->w->leaves.n_roots; r++) {
        for (uint32_t p = 0; p < group->n_panels; p++) {
            size_t row = (size_t)(group->panel + p) * PACKED_LANES;
            size_t n = MIN(PACKED_LANES, args->w->rows - row);

            for (uint32_t i = 0; i < m; i++) {
                memcpy(args->y + i * args->y_stride + r * args->root_stride + row,
                       group->sums + r * group->level + (p * m + i) * PACKED_LANES,
                       n * sizeof(float));
            }
        }
    }
}

/* Leaf number `leaf` of the group's panels, to run ([panel][m][16]). */
typedef void gemv_leaf_fn(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                          float *run);

/* y = W x for m <= GEMV_ROWS rows, so many panels side by side; all but args are constants. */
VEC_INLINE void gemv_walk(enum dtype dtype, uint32_t m, uint32_t panels,
                          const struct cpu_matmul *args, gemm_unpack_fn *unpack, gemv_leaf_fn *leaf)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    struct gemv group = {
        .args = args, .unpack = unpack, .sums = args->scratch, .level = panels * m * PACKED_LANES};

    ENSURE_OP(leaves->depth * group.level * sizeof(float), <=, CPU_SCRATCH_BYTES);
    for (group.panel = args->panel_begin; group.panel < args->panel_end; group.panel += panels) {
        float *top = group.sums;

        group.n_panels = MIN(panels, args->panel_end - group.panel);
        group.x_group = 0;
        for (uint32_t i = 0; i < leaves->n_leaves; i++) {
            leaf(dtype, m, &group, i, top);
            for (uint32_t j = 0; j < leaves->merges[i]; j++) {
                top -= group.level;
                gemv_merge(top, group.level);
            }
            top += group.level;
        }
        gemv_write(&group, m);
    }
}

VEC_INLINE void gemv(enum dtype dtype, uint32_t m, const struct cpu_matmul *args,
                     gemm_unpack_fn *unpack)
{
    gemv_walk(dtype, m, gemv_panels(dtype, m), args, unpack, gemv_leaf);
}

#endif
