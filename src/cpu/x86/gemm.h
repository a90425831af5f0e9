/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops of GEMM around an instruction set's inner product: blocks of x's rows, leaves and the
 * stack of their sums, blocks of columns, tiles. No instruction set of its own. Any thread; works
 * in args->scratch.
 */
#pragma once

#include "cpu/kernels.h"

enum { GEMM_ROWS_MAX = 16, GEMM_PANELS_MAX = 2, GEMM_BLOCK_COLS = 256 };

/* Columns of a block where tiles read the weights as packed: no copy of them has to stay in the
 * first-level cache, and what is fetched has more time (8 rows of Q8_0: 10 %, 512: 2). */
enum { GEMM_PACKED_COLS = 512 };

/* Adds the products of `n` columns to the running sums of one tile. */
struct gemm_tile {
    const void *w; /* unpacked weights, or pairs of BF16 of the first panel; or NULL, and they */
    const struct packed *packed; /* are columns [k, k + n) of this panel: isa.as_packed */
    uint32_t panel;
    uint32_t k;
    size_t panel_bytes; /* of pairs, from panel to panel */
    const void *x;      /* packed */
    float *sums;        /* [rows][outputs] */
    uint32_t rows;
    uint32_t panels;
    uint32_t n; /* whole steps of 32, but for the end of a leaf */
    bool add;   /* false: sums counts as zero (the first columns of a leaf) */
    /* Codes of the first panel to have in the second-level cache soon, and as many of the second:
     * at most fetch_lines cache lines with each step of 32 columns. A burst of them would fill the
     * queue of misses, and everything wait (8 rows of x: 23 %). */
    const uint8_t *fetch;
    const uint8_t *fetch_end;
    size_t fetch_panel_bytes; /* from panel to panel */
    uint32_t fetch_lines;
};

/* One step's part of tile->fetch; returns where the next one's begins. */
static inline const uint8_t *gemm_fetch(const struct gemm_tile *tile, bool two_panels,
                                        const uint8_t *fetch)
{
    for (uint32_t i = tile->fetch_lines; i > 0 && fetch < tile->fetch_end; i--) {
        __builtin_prefetch(fetch, 0, 2);
        if (two_panels) {
            __builtin_prefetch(fetch + tile->fetch_panel_bytes, 0, 2);
        }
        fetch += CACHE_LINE;
    }
    return fetch;
}

/* The number of rows and of outputs is the function's own, but for tile_any. */
typedef void gemm_tile_fn(const struct gemm_tile *tile);

/* Columns [k, k + n) of a panel as f32 to out[c * stride + lane]; for integer products k and n are
 * multiples of 32 and out is [n / 32] of struct int8_weights. */
typedef void gemm_unpack_fn(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                            float *out, size_t stride);

/* Columns [k, k + n) of a panel at 12 bits as pairs of BF16; k is even. Returns where they are: in
 * out, which has GEMM_PAIRS_BYTES(n), or where the panel lies. */
typedef const uint8_t *gemm_pairs_fn(const struct packed *w, uint32_t panel, uint32_t k, uint32_t n,
                                     uint8_t *out);
#define GEMM_PAIRS_BYTES(n) ((n)*32 + 256)

/* Packs rows [row, row + n) of the product's x, all columns, as the tiles want them; writes up to
 * GEMM_PACK_MORE bytes more. */
typedef void gemm_pack_fn(const struct cpu_matmul *args, uint32_t row, uint32_t n, void *out);
enum { GEMM_PACK_MORE = 1024 };

/* What an instruction set offers. */
struct gemm_isa {
    uint32_t rows;      /* of the tallest tile */
    uint32_t rows_bf16; /* of the tallest of tile_bf16 */
    uint32_t row_unit;  /* tiles' rows are a multiple (0: of one), the last ones perhaps unwanted */
    bool as_packed;     /* tiles other than those of pairs read weights as they are packed */
    bool integers;      /* x is cpu_matmul.q: its columns are those of its groups, leaf by leaf */
    bool steps;         /* x is packed leaf by leaf, in whole steps of 32 columns */
    uint32_t granule;   /* columns of x that are packed together */
    size_t x_granule;   /* and how many bytes they take for a tile's rows */
    gemm_pack_fn *pack;
    uint32_t cols;       /* of a block; 0: GEMM_PACKED_COLS or GEMM_BLOCK_COLS */
    uint32_t panels;     /* of the widest */
    size_t weight_panel; /* bytes from panel to panel in unpacked weights */
    size_t weight_bytes; /* of unpacked weights for a block's columns of `panels` panels */
    size_t x_bytes;      /* of packed x that may lie in the second-level cache */
    gemm_tile_fn *tile[GEMM_PANELS_MAX + 1][GEMM_ROWS_MAX + 1]; /* [panels][rows], f32 weights */
    /* For pairs of BF16: BF16 weights as packed, for this many rows of x or fewer. */
    uint32_t bf16_rows_max;
    gemm_pairs_fn *pairs; /* of weights at 12 bits; NULL: those are unpacked like others */
    size_t pairs_bytes;   /* of a panel for a block's columns, GEMM_PAIRS_BYTES */
    gemm_tile_fn *tile_bf16[GEMM_PANELS_MAX + 1][GEMM_ROWS_MAX + 1];
    gemm_tile_fn *tile_any; /* instead of the tables: one for all numbers of rows and panels */
    void (*add)(float *x, const float *y, size_t n);
    /* The first n of each row's `outputs` sums, to rows of y. */
    void (*write)(const float *sums, uint32_t rows, size_t outputs, size_t n, float *y,
                  size_t y_stride);
};

/* y = W x as cpu_kernels.matmul, for any number of rows. */
void gemm(const struct cpu_matmul *args, const struct gemm_isa *isa, gemm_unpack_fn *unpack);
