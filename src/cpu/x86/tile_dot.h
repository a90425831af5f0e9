/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM for BF16 weights and x rounded to bf16, where vectors multiply pairs of
 * BF16 (VEC_DOT_BF16): an element is two fused multiply-adds, the upper half of a word first. So a
 * word that holds columns k and k + 2 is two steps of the chain of even columns, and one that holds
 * k + 1 and k + 3 two of the odd ones: the canonical order at twice the rate of multiply-adds,
 * where a product of pairs takes no longer than they do (AMD Zen 4; Intel takes twice as long).
 *
 * Packed panels hold pairs of neighbouring columns. For few rows they are paired anew in registers
 * (out of the first-level cache 219 of 236 GFLOP/s), for many once for all tiles (236).
 *
 * x is packed leaf by leaf in steps of 32 columns, with zeros where a leaf ends within its last
 * one; of the weights, what lies there counts as zero, too.
 */
#pragma once

#include "cpu/x86/dot_words.h"
#include "cpu/x86/tile.h"

#ifdef VEC_DOT_BF16

enum {
    DOT_ROWS = 6,           /* of two panels side by side (7: 1 % slower), */
    DOT_FEW_ROWS = 14,      /* of one */
    DOT_STRIDE = 8,         /* words of packed x from even columns to odd ones */
    DOT_FEW_STRIDE = 16,    /* and so on */
    DOT_FEW_MAX = 48,       /* rows of x that are few */
    DOT_X_BYTES = 768 << 10 /* of the 1 MB of second-level cache that Zen 4 has */
};

/* Of panels that are paired anew; not a multiple of 4 KiB, at which lines would want one place. */
enum { DOT_PANEL_BYTES = GEMM_BLOCK_COLS / WEIGHTS_STEP * STEP_PAIRS + 256 };

/* What is constant wherever a tile is computed. */
struct dot_shape {
    uint32_t rows;
    uint32_t panels;
    enum { DOT_WORDS, DOT_PAIRS, DOT_TWELVE } w; /* words as unpacked; as packed, of one panel */
};

/* The sums of a step's even, or odd, columns: of up to 14 rows, or of six, and in 6 + i those of
 * row i for the second panel. Written out one by one: see tile.h. */
#define DOT_EACH(DO) \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)
#define DOT_EACH_TWO(DO) DO(0, 6) DO(1, 7) DO(2, 8) DO(3, 9) DO(4, 10) DO(5, 11)

struct dot_sums {
#define DOT_FIELD(i) vecf row##i;
    DOT_EACH(DOT_FIELD)
#undef DOT_FIELD
};

VEC_INLINE struct dot_sums dot_zero(void)
{
    const vecf zero = vec_zero();

    return (struct dot_sums){zero, zero, zero, zero, zero, zero, zero,
                             zero, zero, zero, zero, zero, zero, zero};
}

/* Two columns of each row, words of x one after the other. */
VEC_INLINE void dot_one_panel(uint32_t rows, veci w, const uint8_t *x, struct dot_sums *sums)
{
#define DOT_ROW(i)                                                      \
    if ((i) < rows) {                                                   \
        sums->row##i = vec_dot_bf16_set1(sums->row##i, w, x + 4 * (i)); \
    }
    DOT_EACH(DOT_ROW)
#undef DOT_ROW
}

VEC_INLINE void dot_two_panels(uint32_t rows, veci w0, veci w1, const uint8_t *x,
                               struct dot_sums *sums)
{
#define DOT_ROW(i, j)                                       \
    if ((i) < rows) {                                       \
        veci two = vec_set1_bytes(x + 4 * (i));             \
                                                            \
        sums->row##i = vec_dot_bf16(sums->row##i, w0, two); \
        sums->row##j = vec_dot_bf16(sums->row##j, w1, two); \
    }
    DOT_EACH_TWO(DOT_ROW)
#undef DOT_ROW
}

/* One quad of one panel, or of two, from w on. */
VEC_INLINE void dot_quad_one(uint32_t rows, struct dot_words words, const uint8_t *x,
                             struct dot_sums *e, struct dot_sums *o)
{
    dot_one_panel(rows, words.even, x, e);
    dot_one_panel(rows, words.odd, x + DOT_FEW_STRIDE * 4, o);
}

VEC_INLINE void dot_quad_two(struct dot_shape shape, const uint8_t *w, const uint8_t *x,
                             struct dot_sums *sums)
{
    veci w0 = vec_load_words(w);

    if (shape.panels == 1) {
        dot_one_panel(shape.rows, w0, x, sums);
    } else {
        dot_two_panels(shape.rows, w0, vec_load_words(w + DOT_PANEL_BYTES), x, sums);
    }
}

/* The running sums of a tile, in memory. */
struct dot_run {
    float *sums;  /* [rows][outputs] */
    vec_flag add; /* to what is there, or to zeros */
};

VEC_INLINE void dot_fold_row(vecf e, vecf o, struct dot_run to, uint32_t at)
{
    float *run = to.sums + at;

    vec_store(run, vec_add(vec_load_if(to.add, run), vec_add(e, o)));
}

/* to += e + o */
VEC_INLINE void dot_fold(struct dot_shape shape, const struct dot_sums *e, const struct dot_sums *o,
                         struct dot_run to)
{
    const uint32_t width = shape.panels * PACKED_LANES;

    if (shape.panels == 1) {
#define DOT_ROW(i)                                         \
    if ((i) < shape.rows) {                                \
        dot_fold_row(e->row##i, o->row##i, to, (i)*width); \
    }
        DOT_EACH(DOT_ROW)
#undef DOT_ROW
        return;
    }
#define DOT_ROW(i, j)                                                     \
    if ((i) < shape.rows) {                                               \
        dot_fold_row(e->row##i, o->row##i, to, (i)*width);                \
        dot_fold_row(e->row##j, o->row##j, to, (i)*width + PACKED_LANES); \
    }
    DOT_EACH_TWO(DOT_ROW)
#undef DOT_ROW
}

/* Bytes of packed x for the even, or the odd, columns of a quad. */
VEC_INLINE uint32_t dot_x_bytes(struct dot_shape shape)
{
    return (shape.w == DOT_WORDS ? DOT_STRIDE : DOT_FEW_STRIDE) * 4;
}

/* 32 columns; table: of BF16 at 12 bits. */
VEC_INLINE void dot_step(struct dot_shape shape, const uint8_t *w, veci table, const uint8_t *x,
                         struct dot_run to)
{
    struct dot_sums e = dot_zero();
    struct dot_sums o = dot_zero();

#pragma GCC unroll 8
    for (uint32_t quad = 0; quad < DOT_QUADS; quad++) {
        if (shape.w == DOT_TWELVE) {
            const uint8_t *unit = w + quad / 2 * BF16_12_UNIT_BYTES;

            dot_quad_one(shape.rows, dot_words_12(unit, quad % 2, table), x, &e, &o);
        } else if (shape.w == DOT_PAIRS) {
            dot_quad_one(shape.rows, dot_words(w + quad * DOT_QUAD_BYTES), x, &e, &o);
        } else {
            dot_quad_two(shape, w + quad * DOT_QUAD_BYTES, x, &e);
            dot_quad_two(shape, w + quad * DOT_QUAD_BYTES + DOT_QUAD_BYTES / 2, x + DOT_STRIDE * 4,
                         &o);
        }
        x += 2 * dot_x_bytes(shape);
    }
    dot_fold(shape, &e, &o, to);
}

/* See gemm_tile_fn; the shape is constant. */
VEC_INLINE void dot_compute(struct dot_shape shape, const struct gemm_tile *tile)
{
    const veci table = vec_set1_word(0); /* none */
    const uint8_t *x = tile->x;
    const uint8_t *w = tile->w;
    const uint8_t *fetch = tile->fetch;
    struct dot_run to = {tile->sums, vec_all(tile->add)};
    uint32_t n = tile->n;

    for (; shape.w == DOT_PAIRS ? n >= WEIGHTS_STEP : n > 0; n -= MIN(n, (uint32_t)WEIGHTS_STEP)) {
        fetch = gemm_fetch(tile, shape.panels > 1, fetch);
        dot_step(shape, w, table, x, to);
        to.add = vec_all(true);
        w += STEP_PAIRS;
        x += DOT_QUADS * 2 * dot_x_bytes(shape);
        __asm__("" : "+r"(to.sums)); /* or gcc keeps them in registers that are not there */
    }
    if (n > 0) {
        _Alignas(CACHE_LINE) uint8_t step[STEP_PAIRS];

        gemm_fetch(tile, shape.panels > 1, fetch);
        pairs_rest(w, n, step);
        dot_step(shape, step, table, x, to);
    }
}

/* The same for BF16 at 12 bits as packed: steps with patches, and panels that lie plain, as pairs.
 */
VEC_INLINE void dot_compute_12(uint32_t rows, const struct gemm_tile *tile)
{
    const struct dot_shape twelve = {.rows = rows, .panels = 1, .w = DOT_TWELVE};
    const struct dot_shape pairs = {.rows = rows, .panels = 1, .w = DOT_PAIRS};
    const struct packed *w = tile->packed;
    const struct bf16_12_head *head = bf16_12_head(w, tile->panel);
    const veci table = vec_load_table(head->table);
    const bool plain = head->n_patches == BF16_12_PLAIN || tile->k % BF16_12_UNIT != 0;
    const uint8_t *units = w->codes + tile->panel * w->panel_code_bytes +
                           (size_t)(tile->k / BF16_12_UNIT) * BF16_12_UNIT_BYTES;
    const uint8_t *x = tile->x;
    const uint8_t *fetch = tile->fetch;
    struct dot_run to = {tile->sums, vec_all(tile->add)};

    for (uint32_t k = 0; k < tile->n; k += WEIGHTS_STEP) {
        const uint32_t n = MIN(tile->n - k, (uint32_t)WEIGHTS_STEP);

        fetch = gemm_fetch(tile, false, fetch);
        if (n < WEIGHTS_STEP || plain || bf16_12_is_patched(head, tile->k + k)) {
            struct dot_step memory;

            dot_step(pairs, dot_pairs(pairs_bf16_12, w, tile->panel, tile->k + k, n, &memory),
                     table, x, to);
        } else {
            const uint8_t *same = x;

            __asm__("" : "+r"(same)); /* or gcc computes the addresses of both branches first */
            dot_step(twelve, units, table, same, to);
        }
        units += WEIGHTS_STEP / BF16_12_UNIT * BF16_12_UNIT_BYTES;
        x += DOT_QUADS * 2 * dot_x_bytes(twelve);
        to.add = vec_all(true);
        __asm__("" : "+r"(to.sums));
    }
}

/* Columns [k, k + 4) of four rows. */
VEC_INLINE void dot_pack_quad(const float *const from[4], uint32_t k, uint32_t stride,
                              uint32_t *out)
{
    uint32_t columns[4][4];

    transpose_four(from, k, (float *)(void *)columns, 4);
    for (uint32_t i = 0; i < 4; i++) {
        out[i] = dot_x_word(columns[0][i], columns[2][i]);
        out[stride + i] = dot_x_word(columns[1][i], columns[3][i]);
    }
}

/* n columns of four rows, one step. */
VEC_INLINE void dot_pack_step(const float *const from[4], uint32_t k, uint32_t n, uint32_t stride,
                              uint32_t *out)
{
    float rest[4][WEIGHTS_STEP];
    const float *rows[4] = {from[0] + k, from[1] + k, from[2] + k, from[3] + k};

    if (n < WEIGHTS_STEP) {
        memset(rest, 0, sizeof(rest));
        for (uint32_t i = 0; i < 4; i++) {
            memcpy(rest[i], rows[i], n * sizeof(float));
            rows[i] = rest[i];
        }
    }
    for (uint32_t quad = 0; quad < DOT_QUADS; quad++) {
        dot_pack_quad(rows, 4 * quad, stride, out + quad * 2 * stride);
    }
}

/* See gemm_pack_fn: [step][quad][even, odd][stride]; in rows beyond the last the last one's. */
VEC_INLINE void dot_pack(bool few, const struct cpu_matmul *args, uint32_t row, uint32_t n,
                         void *packed)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    const uint32_t stride = few ? DOT_FEW_STRIDE : DOT_STRIDE;
    const float *from[DOT_FEW_STRIDE];
    uint32_t *out = packed;

    for (uint32_t i = 0; i < stride; i++) {
        from[i] = args->x + (row + MIN(i, n - 1)) * args->x_stride;
    }
    for (uint32_t leaf = 0; leaf < leaves->n_leaves; leaf++) {
        const uint32_t end = leaves->bounds[leaf + 1];

        for (uint32_t k = leaves->bounds[leaf]; k < end; k += WEIGHTS_STEP) {
            for (uint32_t i = 0; i < MIN(stride, round_up(n, 4)); i += 4) {
                dot_pack_step(from + i, k, MIN(end - k, (uint32_t)WEIGHTS_STEP), stride, out + i);
            }
            out += DOT_QUADS * 2 * stride;
        }
    }
}

#endif
