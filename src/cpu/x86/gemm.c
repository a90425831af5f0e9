/* SPDX-License-Identifier: Apache-2.0 */
/*
 * for blocks of rows of x            as many as lie in half of the second-level cache; packed
 *   for groups of panels             two, or one
 *     for leaves                     running sums [row][output] on a stack, merged as the plan says
 *       for blocks of columns        unpacked once, into the first-level cache
 *         for tiles of rows          the inner product
 */
#include "cpu/x86/gemm.h"

enum {
    BLOCK_COLS = 256,            /* two panels of f32 weights: 32 KiB */
    BLOCK_X_BYTES = 1280 * 1024, /* of x, which every group of panels reads again */
    BLOCK_ROWS_MAX = 512,
    FEW_TILES = 4,
    FEW_TILES_COLS = 1 << 18,
    PACK_MORE = 16, /* columns of room after the packed ones; a whole number of cache lines */
};

struct block {
    const struct cpu_matmul *args;
    const struct gemm_isa *isa;
    gemm_unpack_fn *unpack;
    uint32_t row; /* rows [row, row + n_rows) of x */
    uint32_t n_rows;
    uint32_t n_tiles;
    uint32_t panel; /* panels [panel, panel + n_panels) */
    uint32_t n_panels;
    float *x;       /* packed, [n_tiles][cols][stride] */
    float *weights; /* BLOCK_COLS * n_panels * 16 */
    float *sums;    /* the stack */
    size_t level;   /* floats from one level to the next */
};

/* The block's rows are cut into tiles whose heights differ by one at most: where tile t begins. */
static uint32_t tile_begin(const struct block *block, uint32_t t)
{
    return (uint32_t)((uint64_t)t * block->n_rows / block->n_tiles);
}

/* Column k of tile t, packed. */
static float *tile_x(const struct block *block, uint32_t t, uint32_t k)
{
    return block->x + ((size_t)t * block->args->w->cols + k) * block->isa->stride;
}

/* Memory to have in the second-level cache soon, a few lines at a time. */
struct fetch {
    const uint8_t *at;
    const uint8_t *end;
};

enum { FETCHES = 2 * GEMM_PANELS_MAX };

/* The codes and scales that are unpacked after columns up to k. */
static void fetch_init(const struct block *block, uint32_t k, struct fetch fetches[FETCHES])
{
    const struct packed *w = block->args->w;
    uint32_t panel = k < w->cols ? block->panel : block->panel + block->n_panels;
    uint32_t column = k < w->cols ? k : 0;
    uint32_t n = MIN(BLOCK_COLS, w->cols - column);

    memset(fetches, 0, FETCHES * sizeof(*fetches));
    for (uint32_t p = 0; p < block->n_panels && panel + p < w->n_panels; p++) {
        const uint8_t *codes = w->codes + (panel + p) * w->panel_code_bytes;

        fetches[2 * p].at = codes + w->panel_code_bytes * column / w->cols;
        fetches[2 * p].end = fetches[2 * p].at + w->panel_code_bytes * n / w->cols;
        if (w->panel_scale_bytes > 0) {
            const uint8_t *scales = w->scales + (panel + p) * w->panel_scale_bytes;

            fetches[2 * p + 1].at = scales + w->panel_scale_bytes * column / w->cols;
            fetches[2 * p + 1].end = fetches[2 * p + 1].at + w->panel_scale_bytes * n / w->cols;
        }
    }
}

static void fetch_some(struct fetch fetches[FETCHES], uint32_t n_lines)
{
    for (uint32_t f = 0; f < FETCHES; f++) {
        for (uint32_t i = 0; i < n_lines && fetches[f].at < fetches[f].end; i++) {
            __builtin_prefetch(fetches[f].at, 0, 2);
            fetches[f].at += CACHE_LINE;
        }
    }
}

/* Where rows of x go to, before they are written. */
static void fetch_outputs(const struct block *block, uint32_t row, uint32_t end)
{
    const struct cpu_matmul *args = block->args;

    for (; row < end; row++) {
        const float *y =
            args->y + (block->row + row) * args->y_stride + block->panel * PACKED_LANES;

        for (uint32_t p = 0; p < block->n_panels; p++) {
            __builtin_prefetch(y + p * PACKED_LANES, 1, 2);
        }
    }
}

/* The rows of the block in tiles. Meanwhile the next columns'
 * codes are fetched, and with the last columns the lines of y. */
static void tiles(const struct block *block, uint32_t k, uint32_t n, bool add, float *sums)
{
    const struct cpu_matmul *args = block->args;
    uint32_t outputs = block->n_panels * PACKED_LANES;
    struct fetch fetches[FETCHES];
    uint32_t n_lines;

    fetch_init(block, k + n, fetches);
    n_lines =
        (uint32_t)div_up((size_t)(fetches[0].end - fetches[0].at) / CACHE_LINE, block->n_tiles);
    for (uint32_t t = 0; t < block->n_tiles; t++) {
        uint32_t row = tile_begin(block, t);
        uint32_t end = tile_begin(block, t + 1);

        fetch_some(fetches, n_lines);
        if (k + n == args->w->cols) {
            fetch_outputs(block, row, end);
        }
        block->isa->tile[block->n_panels][end - row](&(struct gemm_tile){
            .w = block->weights,
            .x = tile_x(block, t, k),
            .sums = sums + (size_t)row * outputs,
            .n = n,
            .add = add,
        });
    }
}

static void leaf(const struct block *block, uint32_t k0, uint32_t k1, float *sums)
{
    if (k0 == k1) {
        memset(sums, 0, block->level * sizeof(float));
    }
    for (uint32_t k = k0; k < k1; k += BLOCK_COLS) {
        uint32_t n = MIN(BLOCK_COLS, k1 - k);

        for (uint32_t p = 0; p < block->n_panels; p++) {
            block->unpack(block->args->w, block->panel + p, k, n, block->weights + p * PACKED_LANES,
                          block->n_panels * PACKED_LANES);
        }
        tiles(block, k, n, k > k0, sums);
    }
}

static void write_roots(const struct block *block)
{
    const struct cpu_matmul *args = block->args;
    size_t outputs = block->n_panels * PACKED_LANES;
    size_t first = (size_t)block->panel * PACKED_LANES;
    size_t n = MIN(outputs, args->w->rows - first);

    for (uint32_t r = 0; r < args->w->leaves.n_roots; r++) {
        const float *sums = block->sums + r * block->level;
        float *y = args->y + block->row * args->y_stride + r * args->root_stride + first;

        for (uint32_t i = 0; i < block->n_rows; i++) {
            if (n == PACKED_LANES * GEMM_PANELS_MAX) { /* a constant, so that no call is made */
                memcpy(y, sums, PACKED_LANES * GEMM_PANELS_MAX * sizeof(float));
            } else {
                memcpy(y, sums, n * sizeof(float));
            }
            y += args->y_stride;
            sums += outputs;
        }
    }
}

static void panels(const struct block *block)
{
    const struct leaf_plan *leaves = &block->args->w->leaves;
    float *top = block->sums;

    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        leaf(block, leaves->bounds[i], leaves->bounds[i + 1], top);
        for (uint32_t j = 0; j < leaves->merges[i]; j++) {
            block->isa->add(top - block->level, top, block->level);
            top -= block->level;
        }
        top += block->level;
    }
    write_roots(block);
}

/* The block's rows of x, tile by tile. */
static void pack(const struct block *block)
{
    const struct cpu_matmul *args = block->args;

    for (uint32_t t = 0; t < block->n_tiles; t++) {
        uint32_t row = tile_begin(block, t);

        block->isa->pack(args->x + (block->row + row) * args->x_stride, args->x_stride,
                         tile_begin(block, t + 1) - row, args->w->cols, tile_x(block, t, 0));
    }
}

/* Rows of x in a block: such that they fit the cache, but no fewer than make unpacking worth while,
 * unless they are wider than any model's. */
static uint32_t block_rows(const struct gemm_isa *isa, uint32_t cols)
{
    uint32_t tiles = BLOCK_X_BYTES / sizeof(float) / isa->stride / cols;

    tiles = MAX(tiles, cols <= FEW_TILES_COLS ? FEW_TILES : 1);
    return MIN(tiles * isa->rows, BLOCK_ROWS_MAX);
}

void gemm(const struct cpu_matmul *args, const struct gemm_isa *isa, gemm_unpack_fn *unpack)
{
    struct block block = {.args = args, .isa = isa, .unpack = unpack, .weights = args->scratch};
    uint32_t n_blocks = (uint32_t)div_up(args->m, block_rows(isa, args->w->cols));
    block.x = block.weights + BLOCK_COLS * isa->panels * PACKED_LANES;
    for (uint32_t b = 0; b < n_blocks; b++) {
        block.n_rows = (uint32_t)((uint64_t)(b + 1) * args->m / n_blocks) - block.row;
        block.n_tiles = (uint32_t)div_up(block.n_rows, isa->rows);
        block.sums = tile_x(&block, block.n_tiles, PACK_MORE);
        pack(&block);
        for (block.panel = args->panel_begin; block.panel < args->panel_end;
             block.panel += block.n_panels) {
            block.n_panels = MIN(isa->panels, args->panel_end - block.panel);
            block.level = (size_t)block.n_rows * block.n_panels * PACKED_LANES;
            ENSURE_OP(block.sums + args->w->leaves.depth * block.level, <=,
                      args->scratch + CPU_SCRATCH_BYTES / sizeof(float));
            panels(&block);
        }
        block.row += block.n_rows;
    }
}
