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

/* Puts the patches of columns [k, k + n) into their pairs; k and n are multiples of the unit. */
static void patch_pairs(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                        uint8_t *pairs)
{
    uint32_t n_patches;
    const uint32_t *patches = bf16_12_patches(w, panel, k, n, &n_patches);

    for (uint32_t i = 0; i < n_patches; i++) {
        uint32_t c = (patches[i] >> 12) - k;
        uint32_t lane = patches[i] >> 8 & 15;

        pairs[c / 2 * PAIR_LINE + lane * 4 + c % 2 * 2 + 1] = (uint8_t)patches[i];
    }
}

/* Whole units from column k on as lines of pairs. */
VEC_INLINE void unpack_units(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n_units,
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
    patch_pairs(w, panel, k, n_units * BF16_12_UNIT, pairs - (size_t)n_units * 4 * PAIR_LINE);
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

/* How the panels of a product of few rows are read; see gemv.h. */
enum { PANELS_12 = VEC_LANES == 16 ? 8 : 4, AHEAD_12 = VEC_LANES == 16 ? 2048 : 3072 };

/* Where the step at column k of the group's panels lies as pairs: NULL where it is to become
 * weights from its codes. memory is STEP_PAIRS for each panel. */
VEC_INLINE void find_pairs(const struct gemv *group, uint32_t k, uint8_t *memory,
                           const uint8_t *pairs[PANELS_12])
{
    const struct packed *w = group->args->w;

    for (uint32_t p = 0; p < group->n_panels; p++) {
        uint32_t panel = group->panel + p;
        const struct bf16_12_head *head = bf16_12_head(w, panel);

        pairs[p] = NULL;
        if (head->n_patches == BF16_12_PLAIN) {
            pairs[p] = plain_pairs(w, panel, k);
        } else if (bf16_12_is_patched(head, k)) {
            pairs[p] = memory + p * STEP_PAIRS;
            unpack_units(w, panel, k, WEIGHTS_STEP / BF16_12_UNIT, memory + p * STEP_PAIRS);
        }
    }
}

/* What to prefetch while columns from k on are worked on, from the beginning of a panel's codes:
 * some steps later, of this panel or of the one that its stream goes on with. */
VEC_INLINE size_t later_12(const struct packed *w, uint32_t k)
{
    size_t at = (size_t)(k / BF16_12_UNIT) * BF16_12_UNIT_BYTES + AHEAD_12;

    return at < w->panel_code_bytes ? at : at + (PANELS_12 - 1) * w->panel_code_bytes;
}

/* Columns [k, k + 32) of the group's panels, added to run; k is a multiple of BF16_12_UNIT. Streams
 * are read by turns of a unit. */
VEC_INLINE void gemv_step_12(uint32_t m, const struct gemv *group, uint32_t k, float *run)
{
    const struct packed *w = group->args->w;
    const struct gemv_x x = {group->args->x + k, group->args->x_stride};
    const size_t later = later_12(w, k);
    float parts[PANELS_12 * GEMV_ROWS * PACKED_LANES * 2];
    _Alignas(64) uint8_t memory[PANELS_12 * STEP_PAIRS];
    const uint8_t *pairs[PANELS_12];

    find_pairs(group, k, memory, pairs);
#pragma GCC unroll 4
    for (uint32_t part = 0; part < 4; part++) {
        for (uint32_t p = 0; p < group->n_panels; p++) {
            size_t panel = group->panel + p;
            const uint8_t *codes = w->codes + panel * w->panel_code_bytes;

#pragma GCC unroll 3
            for (uint32_t i = 0; i < BF16_12_UNIT_BYTES; i += CACHE_LINE) {
                __builtin_prefetch(codes + later + part * BF16_12_UNIT_BYTES + i, 0, 2);
            }
            for (uint32_t lane = 0; lane < PACKED_LANES; lane += VEC_LANES) {
                float *e = parts + p * GEMV_ROWS * PACKED_LANES * 2 + lane;
                const struct gemv_sums sums = {.run = run + p * m * PACKED_LANES + lane,
                                               .e = e,
                                               .o = e + GEMV_ROWS * PACKED_LANES};

                if (__builtin_expect(pairs[p] == NULL, 1)) {
                    struct weights open = weights_open(
                        DTYPE_BF16_12, codes, w->scales + panel * w->panel_scale_bytes, k, lane);

                    gemv_part(DTYPE_BF16_12, m, &open, part, part + 1, &x, &sums);
                } else {
                    struct weights open = weights_open(DTYPE_BF16, pairs[p], NULL, 0, lane);

                    gemv_part(DTYPE_BF16, m, &open, part, part + 1, &x, &sums);
                }
            }
        }
    }
}

/* Adds leaf number `leaf` of the group's panels to run. */
VEC_INLINE void gemv_leaf_12(uint32_t m, const struct gemv *group, uint32_t leaf, float *run)
{
    const struct cpu_matmul *args = group->args;
    const uint32_t k0 = args->w->leaves.bounds[leaf];
    const uint32_t k1 = args->w->leaves.bounds[leaf + 1];
    float values[WEIGHTS_STEP * PACKED_LANES];

    for (uint32_t k = k0; k < k1; k += WEIGHTS_STEP) {
        uint32_t n = MIN(k1 - k, WEIGHTS_STEP);

        if (n == WEIGHTS_STEP && k % BF16_12_UNIT == 0) {
            gemv_step_12(m, group, k, run);
            continue;
        }
        for (uint32_t p = 0; p < group->n_panels; p++) {
            unpack_bf16_12(args->w, group->panel + p, k, n, values, PACKED_LANES);
            gemv_rest(m, values, n, args->x + k, args->x_stride, run + p * m * PACKED_LANES);
        }
    }
}

/* y = W x for m <= GEMV_ROWS rows; m is a constant. */
VEC_INLINE void gemv_12(uint32_t m, const struct cpu_matmul *args)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    struct gemv group = {
        .args = args, .sums = args->scratch, .level = PANELS_12 * m * PACKED_LANES};

    ENSURE_OP(leaves->depth * group.level * sizeof(float), <=, CPU_SCRATCH_BYTES);
    for (group.panel = args->panel_begin; group.panel < args->panel_end; group.panel += PANELS_12) {
        float *top = group.sums;

        group.n_panels = MIN(PANELS_12, args->panel_end - group.panel);
        for (uint32_t i = 0; i < leaves->n_leaves; i++) {
            memset(top, 0, group.level * sizeof(float));
            gemv_leaf_12(m, &group, i, top);
            for (uint32_t j = 0; j < leaves->merges[i]; j++) {
                top -= group.level;
                gemv_merge(top, group.level);
            }
            top += group.level;
        }
        gemv_write(&group, m);
    }
}

#endif
