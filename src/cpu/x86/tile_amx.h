/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner product of GEMM for BF16 weights and x rounded to bf16, in tile registers: up to 32
 * rows of x by one panel or two, four tiles of sums. Sixteen pairs of columns of a packed panel are
 * a tile as they lie; x is packed so that 16 rows by 32 columns are one, leaf by leaf, with zeros
 * where a leaf ends within its last step.
 *
 * Measured on an Emerald Rapids core: 2.6 TFLOP/s from registers, 2.1 to 2.8 with tiles out of the
 * caches, whole products 0.84 (3072 x 1024 by 512 rows), which is memory: without outputs that are
 * read before they are written up to 1.15. While a neighbour has the core's other thread, tiles out
 * of the first-level cache give 0.57 and whole products 0.4.
 */
#pragma once

#include "cpu/x86/amx.h"
#include "cpu/x86/bf16_12.h"
#include "cpu/x86/gemv.h"
#include "cpu/x86/tile.h"

#if defined(AMX_TILES_ARE_THERE) && defined(VEC_LANES)

enum {
    TILE_AMX_ROWS = 2 * AMX_ROWS,
    TILE_AMX_STEP = AMX_ROWS * AMX_ROW_BYTES, /* bytes of 32 columns of a panel, or of 16 rows */
    TILE_AMX_COLS_MAX = 1 << 16,
    TILE_AMX_BLOCK = 1024 /* columns of a block */
};

/* n columns of a row, whose x is readable up to 32. */
VEC_INLINE void tile_amx_pack_row(const float *x, uint32_t n, uint16_t *out)
{
    vec_store_words(out, vec_bf16_pack(vec_load_words(x), vec_load_words(x + VEC_LANES)));
    if (n < WEIGHTS_STEP) {
        memset(out + n, 0, (WEIGHTS_STEP - n) * sizeof(*out));
    }
}

/* See gemm_pack_fn: [step][2][16 rows][32]; of the rows beyond the last those in its half are zero.
 */
static void tile_amx_pack(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *packed)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    uint32_t n_rows = (uint32_t)round_up(n, AMX_ROWS);
    uint16_t *out = packed;

    for (uint32_t leaf = 0; leaf < leaves->n_leaves; leaf++) {
        const uint32_t end = leaves->bounds[leaf + 1];

        for (uint32_t k = leaves->bounds[leaf]; k < end; k += WEIGHTS_STEP) {
            uint32_t n_cols = MIN(end - k, (uint32_t)WEIGHTS_STEP);

            memset(out + n * WEIGHTS_STEP, 0, (n_rows - n) * AMX_ROW_BYTES);
            for (uint32_t i = 0; i < n; i++) {
                const float *x = args->x + (row + i) * args->x_stride + k;

                tile_amx_pack_row(x, n_cols, out + i * WEIGHTS_STEP);
            }
            out += 2 * TILE_AMX_STEP / sizeof(*out);
        }
    }
}

/* One step: the tiles of x at `x`, of the panels at w and `panel_bytes` behind it. */
VEC_INLINE void tile_amx_step(const uint8_t *x, const uint8_t *w, size_t panel_bytes, bool tall,
                              bool wide)
{
    amx_load(4, x, AMX_ROW_BYTES);
    amx_load(6, w, AMX_ROW_BYTES);
    amx_dot_bf16(0, 4, 6);
    if (wide) {
        amx_load(7, w + panel_bytes, AMX_ROW_BYTES);
        amx_dot_bf16(1, 4, 7);
    }
    if (tall) {
        amx_load(5, x + TILE_AMX_STEP, AMX_ROW_BYTES);
        amx_dot_bf16(2, 5, 6);
    }
    if (tall && wide) {
        amx_dot_bf16(3, 5, 7);
    }
}

/* The last step of a leaf, of n columns. */
static void tile_amx_rest(const uint8_t *x, const uint8_t *w, size_t panel_bytes, uint32_t n,
                          bool tall, bool wide)
{
    _Alignas(CACHE_LINE) uint8_t step[2][TILE_AMX_STEP];

    pairs_rest(w, n, step[0]);
    if (wide) {
        pairs_rest(w + panel_bytes, n, step[1]);
    }
    tile_amx_step(x, step[0], sizeof(step[0]), tall, wide);
}

/* The sums of up to four tiles, [rows][outputs] in memory. */
VEC_INLINE void tile_amx_begin(bool add, const float *sums, size_t stride, bool tall, bool wide)
{
    const float *low = sums + AMX_ROWS * stride;

    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    if (add) {
        amx_load(0, sums, stride * sizeof(float));
        if (wide) {
            amx_load(1, sums + PACKED_LANES, stride * sizeof(float));
        }
        if (tall) {
            amx_load(2, low, stride * sizeof(float));
        }
        if (tall && wide) {
            amx_load(3, low + PACKED_LANES, stride * sizeof(float));
        }
    }
}

VEC_INLINE void tile_amx_end(float *sums, size_t stride, bool tall, bool wide)
{
    float *low = sums + AMX_ROWS * stride;

    amx_store(0, sums, stride * sizeof(float));
    if (wide) {
        amx_store(1, sums + PACKED_LANES, stride * sizeof(float));
    }
    if (tall) {
        amx_store(2, low, stride * sizeof(float));
    }
    if (tall && wide) {
        amx_store(3, low + PACKED_LANES, stride * sizeof(float));
    }
}

/* See gemm_tile_fn; for any number of rows up to TILE_AMX_ROWS, one panel or two. */
static void tile_amx_compute(const struct gemm_tile *tile)
{
    const bool tall = tile->rows > AMX_ROWS;
    const bool wide = tile->panels > 1;
    const size_t stride = tile->panels * PACKED_LANES;
    const size_t bytes = tile->rows * stride * sizeof(float);
    _Alignas(CACHE_LINE) float part[TILE_AMX_ROWS * GEMM_PANELS_MAX * PACKED_LANES];
    bool whole = tile->rows % AMX_ROWS == 0; /* else tiles would reach into the next rows' sums */
    float *sums = whole ? tile->sums : part;
    const uint8_t *fetch = tile->fetch;
    const uint8_t *x = tile->x;
    const uint8_t *w = tile->w;
    uint32_t n = tile->n;

    if (!whole && tile->add) {
        memset(part, 0, sizeof(part));
        memcpy(part, tile->sums, bytes);
    }
    tile_amx_begin(tile->add, sums, stride, tall, wide);
    for (; n >= WEIGHTS_STEP; n -= WEIGHTS_STEP) {
        fetch = gemm_fetch(tile, wide, fetch);
        tile_amx_step(x, w, tile->panel_bytes, tall, wide);
        x += 2 * TILE_AMX_STEP;
        w += TILE_AMX_STEP;
    }
    if (n > 0) {
        gemm_fetch(tile, wide, fetch);
        tile_amx_rest(x, w, tile->panel_bytes, n, tall, wide);
    }
    tile_amx_end(sums, stride, tall, wide);
    if (!whole) {
        memcpy(tile->sums, part, bytes);
    }
}

static const struct gemm_isa isa_amx = {
    .rows = TILE_AMX_ROWS,
    .rows_bf16 = TILE_AMX_ROWS,
    .bf16_rows_max = UINT32_MAX,
    .steps = true,
    .panels = GEMM_PANELS_MAX,
    .granule = WEIGHTS_STEP,
    .x_granule = 2 * TILE_AMX_STEP,
    .cols = TILE_AMX_BLOCK,
    .weight_bytes = (size_t)GEMM_PANELS_MAX * GEMM_PAIRS_BYTES(TILE_AMX_BLOCK),
    .x_bytes = TILE_X_BYTES,
    .pack = tile_amx_pack,
    .tile_any = tile_amx_compute,
    .pairs = pairs_bf16_12,
    .pairs_bytes = GEMM_PAIRS_BYTES(TILE_AMX_BLOCK),
    .add = tile_add,
    .write = tile_write,
};

/* Whether tiles are for this product: x is bf16, there is more of it than GEMV takes, and four
 * tiles of packed x fit the scratch memory. */
static bool tile_amx_takes(const struct cpu_matmul *args)
{
    const struct packed *w = args->w;

    return args->x_bf16 && args->m > GEMV_ROWS &&
           w->cols + (size_t)w->leaves.n_leaves * WEIGHTS_STEP <= TILE_AMX_COLS_MAX;
}

/* Products of BF16 and BF16_12 weights that tile_amx_takes. */
static void matmul_amx(const struct cpu_matmul *args)
{
    amx_begin(AMX_ROW_BYTES);
    gemm(args, &isa_amx, NULL);
    amx_end();
    vec_leave();
}

#endif
