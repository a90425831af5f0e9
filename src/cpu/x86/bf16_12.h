/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BF16 at 12 bits (tensor/bf16_12.h): pairs of BF16 for tiles, f32 for the ends of leaves, and the
 * leaf of few rows of x. Steps of 32 columns without patches become weights in registers; one with
 * patches (of normally distributed weights one in twenty) is first unpacked to pairs and patched,
 * and goes on as BF16, as do panels that lie plain: the values are the same, and so are all sums.
 */
#pragma once

#include "cpu/x86/gemv.h"
#include "cpu/x86/unpack.h"

#ifdef VEC_LANES

enum { PAIR_LINE = 64, STEP_PAIRS = WEIGHTS_STEP / 2 * PAIR_LINE };

/* The first n < 32 columns of a step of pairs, zeros behind them: what lies there is another
 * leaf's, or nobody's. */
static inline void pairs_rest(const uint8_t *pairs, uint32_t n, uint8_t step[STEP_PAIRS])
{
    size_t whole = (size_t)(n / 2) * PAIR_LINE;

    memset(step, 0, STEP_PAIRS);
    memcpy(step, pairs, whole);
    for (size_t i = 0; n % 2 != 0 && i < PAIR_LINE; i += 4) {
        memcpy(step + whole + i, pairs + whole + i, sizeof(uint16_t));
    }
}

/* Where the high byte of lane 0 and column c is in pairs, from the column on that c counts from. */
VEC_INLINE size_t place_in_pairs(uint32_t c)
{
    return c / 2 * PAIR_LINE + c % 2 * 2 + 1;
}

/* Puts the patches of columns [k, k + n) into what was unpacked from column k on; k and n are
 * multiples of the unit. place is a constant; lanes are four bytes apart. */
VEC_INLINE void put_patches(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                            size_t (*place)(uint32_t), uint8_t *out)
{
    uint32_t n_patches;
    const uint32_t *patches = bf16_12_patches(w, panel, k, n, &n_patches);

    for (uint32_t i = 0; i < n_patches; i++) {
        uint32_t lane = patches[i] >> 8 & 15;

        out[place((patches[i] >> 12) - k) + lane * 4] = (uint8_t)patches[i];
    }
}

/* Whole units from column k on as lines of pairs. */
static void unpack_units(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n_units,
                         uint8_t *pairs)
{
    const uint8_t *unit =
        w->codes + panel * w->panel_code_bytes + (size_t)(k / BF16_12_UNIT) * BF16_12_UNIT_BYTES;
    const veci table = vec_load_table(bf16_12_head(w, panel)->table);

    for (uint32_t i = 0; i < n_units; i++) {
        for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
            veci four[4];

            weights_unit_12(unit + lane * 4, table, four);
#pragma GCC unroll 4
            for (uint32_t c = 0; c < 4; c++) {
                vec_store_words(pairs + c * PAIR_LINE + lane * 4, four[c]);
            }
        }
        unit += BF16_12_UNIT_BYTES;
        pairs += 4 * PAIR_LINE;
    }
    put_patches(w, panel, k, n_units * BF16_12_UNIT, place_in_pairs,
                pairs - (size_t)n_units * 4 * PAIR_LINE);
}

static const uint8_t *plain_pairs(const struct packed *w, uint32_t panel, uint32_t k)
{
    return w->plain + panel * w->panel_plain_bytes + (size_t)(k / 2) * PAIR_LINE;
}

static bool is_plain(const struct packed *w, uint32_t panel)
{
    return bf16_12_head(w, panel)->n_patches == BF16_12_PLAIN;
}

/* See gemm_pairs_fn. */
static const uint8_t *pairs_bf16_12(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                                    uint8_t *pairs)
{
    uint32_t skip = k % BF16_12_UNIT;

    if (is_plain(w, panel)) {
        return plain_pairs(w, panel, k);
    }
    unpack_units(w, panel, k - skip, (uint32_t)div_up(skip + n, BF16_12_UNIT), pairs);
    return pairs + (size_t)(skip / 2) * PAIR_LINE;
}

static void unpack_bf16_12(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                           float *out, size_t stride)
{
    uint8_t memory[STEP_PAIRS + 4 * PAIR_LINE];

    while (n > 0) {
        uint32_t now = MIN(n, (uint32_t)WEIGHTS_STEP);
        const uint8_t *pairs = pairs_bf16_12(w, panel, k, now, memory);

        if (now == WEIGHTS_STEP) {
            unpack_step(DTYPE_BF16, pairs, NULL, 0, out, stride);
        } else {
            unpack_rest(DTYPE_BF16, pairs, 0, now, out, stride);
        }
        k += now;
        n -= now;
        out += now * stride;
    }
}

/* How the panels of a product of few rows are read; see gemv.h. Measured with AVX2: 4 panels and
 * 3 KB ahead give 14.6 * 10^9 elements a second, 2 panels or half as much more ahead 13.9. With
 * AVX-512, two threads, decode of qwen3-0.6b: 8 panels and 2 KB ahead 24.8 to 27 tokens/s, 4 and 4
 * KB 29 to 30, 4 and 8 KB 33.5, 4 and 16 KB 31.6, 2 and 4 to 16 KB 29 to 31.6, one 30.2. */
enum { PANELS_12 = 4, AHEAD_12 = VEC_LANES == 16 ? 8192 : 3072 };

/* VEC_LANES lanes of a panel's units from the step's first on. */
struct lanes_12 {
    const uint8_t *units;
    veci table;
    float *run; /* sums of the first row of x; others PACKED_LANES apart */
};

/* Four columns as two vectors of pairs. */
VEC_INLINE void line_pairs(const struct lanes_12 *lanes, uint32_t unit, uint32_t line,
                           veci pairs[2])
{
    const uint8_t *at = lanes->units + unit * BF16_12_UNIT_BYTES;
    veci codes = vec_load_words(at + 128);
    veci low = vec_load_words(at + line * 64);
    veci high = vec_lookup_bytes(
        lanes->table, vec_and(line == 0 ? codes : vec_shr(codes, 4), vec_set1_word(0x0f0f0f0f)));

    pairs[0] = vec_interleave_first(low, high);
    pairs[1] = vec_interleave_last(low, high);
}

/* Two columns, for one row of x. */
VEC_INLINE void add_pair(veci pair, const float *x, struct gemv_row *row)
{
    vecf even;
    vecf odd;

    weights_split_pair(pair, &even, &odd);
    row->e = vec_fma(vec_set1(x[0]), even, row->e);
    row->o = vec_fma(vec_set1(x[1]), odd, row->o);
}

VEC_INLINE void add_row(const struct lanes_12 *lanes, uint32_t i, struct gemv_row row)
{
    float *run = lanes->run + i * PACKED_LANES;

    vec_store(run, vec_add(vec_load(run), vec_add(row.e, row.o)));
}

/* Where the sums of a vector are between the units of a step. */
struct sums_12 {
    float e[PACKED_LANES];
    float o[PACKED_LANES];
};

VEC_INLINE struct gemv_row begin_unit(const struct sums_12 *sums, uint32_t lane, uint32_t unit)
{
    if (unit == 0) {
        return (struct gemv_row){vec_zero(), vec_zero()};
    }
    return (struct gemv_row){vec_load(sums->e + lane), vec_load(sums->o + lane)};
}

VEC_INLINE void end_unit(const struct lanes_12 *lanes, struct sums_12 *sums, uint32_t lane,
                         uint32_t unit, struct gemv_row row)
{
    if (unit == 3) {
        add_row(lanes, 0, row);
    } else {
        vec_store(sums->e + lane, row.e);
        vec_store(sums->o + lane, row.o);
    }
}

/* A unit of two vectors for one row of x. The two take turns: a multiply-add waits for the one
 * before it in its sum, and the queue of those that wait is short. */
VEC_INLINE void unit_two(const struct lanes_12 *a, const struct lanes_12 *b, uint32_t unit,
                         const float *x, struct sums_12 *sums)
{
    const uint32_t lane = PACKED_LANES - VEC_LANES;
    struct gemv_row row_a = begin_unit(sums, 0, unit);
    struct gemv_row row_b = begin_unit(sums, lane, unit);

#pragma GCC unroll 2
    for (uint32_t line = 0; line < 2; line++) {
        const float *at = x + BF16_12_UNIT * unit + 4 * line;
        veci pairs_a[2];
        veci pairs_b[2];

        line_pairs(a, unit, line, pairs_a);
        line_pairs(b, unit, line, pairs_b);
        add_pair(pairs_a[0], at, &row_a);
        if (lane > 0) {
            add_pair(pairs_b[0], at, &row_b);
        }
        add_pair(pairs_a[1], at + 2, &row_a);
        if (lane > 0) {
            add_pair(pairs_b[1], at + 2, &row_b);
        }
    }
    end_unit(a, sums, 0, unit, row_a);
    if (lane > 0) {
        end_unit(b, sums, lane, unit, row_b);
    }
}

/* A step of one vector for m rows of x. */
VEC_INLINE void step_one(uint32_t m, const struct lanes_12 *lanes, const struct gemv_x *x)
{
    struct gemv_row row0 = {vec_zero(), vec_zero()};
    struct gemv_row row1 = {vec_zero(), vec_zero()};
    struct gemv_row row2 = {vec_zero(), vec_zero()};
    struct gemv_row row3 = {vec_zero(), vec_zero()};

#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; i++) {
        veci pairs[2];

        line_pairs(lanes, i / 2, i % 2, pairs);
#pragma GCC unroll 2
        for (uint32_t j = 0; j < 2; j++) {
            const float *at = x->row + 4 * i + 2 * j;

            add_pair(pairs[j], at, &row0);
            if (m > 1) {
                add_pair(pairs[j], at + x->stride, &row1);
            }
            if (m > 2) {
                add_pair(pairs[j], at + 2 * x->stride, &row2);
            }
            if (m > 3) {
                add_pair(pairs[j], at + 3 * x->stride, &row3);
            }
        }
    }
    add_row(lanes, 0, row0);
    if (m > 1) {
        add_row(lanes, 1, row1);
    }
    if (m > 2) {
        add_row(lanes, 2, row2);
    }
    if (m > 3) {
        add_row(lanes, 3, row3);
    }
}

/* A step of a group of panels. */
struct step_12 {
    const struct gemv *group;
    uint32_t k; /* a multiple of BF16_12_UNIT */
    float *run;
};

VEC_INLINE struct lanes_12 lanes_12(const struct step_12 *step, uint32_t m, uint32_t p,
                                    uint32_t lane)
{
    const struct packed *w = step->group->args->w;
    size_t panel = step->group->panel + p;

    return (struct lanes_12){
        .units = w->codes + panel * w->panel_code_bytes +
                 (size_t)(step->k / BF16_12_UNIT) * BF16_12_UNIT_BYTES + lane * 4,
        .table = vec_load_table(bf16_12_head(w, (uint32_t)panel)->table),
        .run = step->run + p * m * PACKED_LANES + lane,
    };
}

/* Whether the step cannot be taken from the codes of panel p of the group. */
VEC_INLINE bool needs_pairs(const struct step_12 *step, uint32_t p)
{
    const struct bf16_12_head *head = bf16_12_head(step->group->args->w, step->group->panel + p);

    return head->n_patches == BF16_12_PLAIN || bf16_12_is_patched(head, step->k);
}

/* The step of panel p as BF16. */
VEC_INLINE void step_pairs(const struct step_12 *step, uint32_t m, uint32_t p)
{
    const struct cpu_matmul *args = step->group->args;
    const struct gemv_x x = {args->x + step->k, args->x_stride};
    uint8_t memory[STEP_PAIRS];
    const uint8_t *pairs =
        pairs_bf16_12(args->w, step->group->panel + p, step->k, WEIGHTS_STEP, memory);

    for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
        struct weights open = weights_open(DTYPE_BF16, pairs, NULL, 0, lane);
        const struct gemv_sums sums = {.run = step->run + p * m * PACKED_LANES + lane};

        gemv_part(DTYPE_BF16, m, &open, 0, 4, &x, &sums);
    }
}

/* From where it is read to where it is fetched: of this panel, or of the one that its stream goes
 * on with. */
VEC_INLINE size_t later_12(uint32_t panels, const struct packed *w, uint32_t k)
{
    size_t at = (size_t)(k / BF16_12_UNIT) * BF16_12_UNIT_BYTES + AHEAD_12;

    return at < w->panel_code_bytes ? at : at + (panels - 1) * w->panel_code_bytes;
}

VEC_INLINE void fetch_12(const uint8_t *at, uint32_t n_units)
{
#pragma GCC unroll 12
    for (uint32_t i = 0; i < n_units * BF16_12_UNIT_BYTES; i += CACHE_LINE) {
        __builtin_prefetch(at + i, 0, 2);
    }
}

/* Columns [k, k + 32) of the group's panels for one row of x. Streams are read by turns of a unit;
 * longer ones read up to a quarter less. */
VEC_INLINE void gemv_step_one(const struct step_12 *step)
{
    const struct gemv *group = step->group;
    const struct packed *w = group->args->w;
    const float *x = group->args->x + step->k;
    const uint8_t *later =
        w->codes + group->panel * w->panel_code_bytes + later_12(PANELS_12, w, step->k);
    struct sums_12 sums[PANELS_12];
    bool pairs[PANELS_12];

    for (uint32_t p = 0; p < group->n_panels; p++) {
        pairs[p] = needs_pairs(step, p);
        if (__builtin_expect(pairs[p], 0)) {
            step_pairs(step, 1, p);
        }
    }
#pragma GCC unroll 4
    for (uint32_t unit = 0; unit < 4; unit++) {
        for (uint32_t p = 0; p < group->n_panels; p++) {
            const struct lanes_12 a = lanes_12(step, 1, p, 0);
            const struct lanes_12 b = lanes_12(step, 1, p, PACKED_LANES - VEC_LANES);

            fetch_12(later + p * w->panel_code_bytes + unit * BF16_12_UNIT_BYTES, 1);
            if (__builtin_expect(!pairs[p], 1)) {
                unit_two(&a, &b, unit, x, &sums[p]);
            }
        }
    }
}

/* The same for m rows, which take so long that turns of a step are short enough. */
VEC_INLINE void gemv_step_rows(uint32_t m, const struct step_12 *step)
{
    const struct gemv *group = step->group;
    const struct packed *w = group->args->w;
    const struct gemv_x x = {group->args->x + step->k, group->args->x_stride};
    const uint8_t *later =
        w->codes + group->panel * w->panel_code_bytes + later_12(PANELS_12, w, step->k);

    for (uint32_t p = 0; p < group->n_panels; p++) {
        fetch_12(later + p * w->panel_code_bytes, 4);
        if (__builtin_expect(needs_pairs(step, p), 0)) {
            step_pairs(step, m, p);
            continue;
        }
        for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
            const struct lanes_12 lanes = lanes_12(step, m, p, lane);

            step_one(m, &lanes, &x);
        }
    }
}

/* See gemv_leaf_fn. */
VEC_INLINE void gemv_leaf_12(enum dtype dtype, uint32_t m, struct gemv *group, uint32_t leaf,
                             float *run)
{
    const struct cpu_matmul *args = group->args;
    const uint32_t k0 = args->w->leaves.bounds[leaf];
    const uint32_t k1 = args->w->leaves.bounds[leaf + 1];

    (void)dtype;
    gemv_clear(run, group->level);
    for (uint32_t k = k0; k < k1; k += WEIGHTS_STEP) {
        uint32_t n = MIN(k1 - k, WEIGHTS_STEP);

        if (n == WEIGHTS_STEP && k % BF16_12_UNIT == 0) {
            const struct step_12 step = {group, k, run};

            if (m == 1) {
                gemv_step_one(&step);
            } else {
                gemv_step_rows(m, &step);
            }
            continue;
        }
        gemv_leaf_end(m, group, k, k + n, run);
    }
}

/* y = W x for m <= GEMV_ROWS rows; m is a constant. */
VEC_INLINE void gemv_12(uint32_t m, const struct cpu_matmul *args)
{
    gemv_walk(DTYPE_BF16_12, m, PANELS_12, args, unpack_bf16_12, gemv_leaf_12);
}

#endif
