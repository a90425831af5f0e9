/* SPDX-License-Identifier: Apache-2.0 */
/*
 * for blocks of rows of x            as many as lie in half of the second-level cache; packed
 *   for groups of panels             two, or one
 *     for leaves                     running sums [row][output] on a stack, merged as the plan says
 *       for blocks of columns        unpacked once, into the first-level cache, or as packed
 *         for tiles of rows          the inner product
 */
#include "cpu/x86/gemm.h"

enum {
    BLOCK_ROWS_MAX = 512,
    FEW_TILES = 4,
    GEMM_STEP = 32,
    FEW_TILES_COLS = 1 << 18,
};

struct block {
    const struct cpu_matmul *args;
    const struct gemm_isa *isa;
    gemm_unpack_fn *unpack;
    bool pairs;    /* tiles read the weights as pairs of BF16 */
    uint32_t cols; /* of weights, for which all tiles are computed before the next ones */
    uint32_t tall; /* rows of the tallest tile */
    uint32_t row;  /* rows [row, row + n_rows) of x */
    uint32_t n_rows;
    uint32_t n_tiles;
    uint32_t unit;      /* tiles have so many rows or a multiple */
    uint32_t rows_each; /* of a tile, */
    uint32_t n_taller;  /* of which the first have a unit more */
    uint32_t panel;     /* panels [panel, panel + n_panels) */
    uint32_t n_panels;
    uint32_t x_cols;  /* columns of x */
    uint8_t *x;       /* packed, [n_tiles][x_cols / granule] of isa->x_granule bytes */
    uint8_t *weights; /* isa->weight_bytes */
    float *sums;      /* the stack */
    size_t level;     /* floats from one level to the next */
};

/* The block's rows are cut into tiles whose heights differ by one unit at most, the taller ones
 * first. */
static void cut(struct block *block)
{
    uint32_t units = (uint32_t)div_up(block->n_rows, block->unit);

    block->n_tiles = (uint32_t)div_up(block->n_rows, block->tall);
    block->rows_each = units / block->n_tiles * block->unit;
    block->n_taller = units % block->n_tiles;
}

/* The height of tile t. */
static uint32_t tile_rows(const struct block *block, uint32_t t)
{
    return block->rows_each + (t < block->n_taller ? block->unit : 0);
}

/* Column k of tile t, packed; k is a multiple of the granule. */
static uint8_t *tile_x(const struct block *block, uint32_t t, uint32_t k)
{
    const struct gemm_isa *isa = block->isa;

    return block->x + ((size_t)t * block->x_cols + k) / isa->granule * isa->x_granule;
}

/* Memory to have in the second-level cache soon: of the first panel that is read next. */
struct fetch {
    const uint8_t *codes;
    size_t code_lines;
};

/* What is read after columns up to k. Scales are few: they are asked for at once. */
static struct fetch fetch_next(const struct block *block, uint32_t k)
{
    const struct packed *w = block->args->w;
    uint32_t panel = k < w->cols ? block->panel : block->panel + block->n_panels;
    uint32_t column = k < w->cols ? k : 0;
    uint32_t n = MIN(block->cols, w->cols - column);
    struct fetch fetch = {.codes = w->codes};

    if (panel >= w->n_panels) {
        return fetch; /* nothing */
    }
    fetch.codes += panel * w->panel_code_bytes + w->panel_code_bytes * column / w->cols;
    fetch.code_lines = w->panel_code_bytes * n / w->cols / CACHE_LINE;
    for (uint32_t p = 0; p < block->n_panels && dtype_is_quantised(w->dtype); p++) {
        const uint8_t *scales = w->scales + (panel + p) * w->panel_scale_bytes +
                                w->panel_scale_bytes * column / w->cols;

        for (size_t i = 0; i < w->panel_scale_bytes * n / w->cols; i += CACHE_LINE) {
            __builtin_prefetch(scales + i, 0, 2);
        }
    }
    return fetch;
}

/* Where n rows of x go to, before they are written. */
static void fetch_outputs(const struct block *block, uint32_t row, uint32_t n)
{
    const struct cpu_matmul *args = block->args;
    const float *y =
        args->y + (size_t)(block->row + row) * args->y_stride + block->panel * PACKED_LANES;

    for (; n > 0; n--, y += args->y_stride) {
        for (uint32_t p = 0; p < block->n_panels; p++) {
            __builtin_prefetch(y + p * PACKED_LANES, 1, 2);
        }
    }
}

/* Some columns of a leaf. */
struct columns {
    uint32_t k;   /* of the weights */
    uint32_t x_k; /* and of x: the same, but for integer products */
    uint32_t n;
    uint32_t leaf;
    bool first; /* of the leaf's, */
    bool last;  /* or its last ones */
};

/* The roots of `rows` rows of the block from `row` on, to y. */
static void write_roots(const struct block *block, uint32_t row, uint32_t rows)
{
    const struct cpu_matmul *args = block->args;
    size_t outputs = block->n_panels * PACKED_LANES;
    size_t first = (size_t)block->panel * PACKED_LANES;
    size_t n = MIN(outputs, args->w->rows - first);
    float *y = args->y + (size_t)(block->row + row) * args->y_stride + first;

    for (uint32_t r = 0; r < args->w->leaves.n_roots; r++) {
        block->isa->write(block->sums + r * block->level + row * outputs,
                          MIN(rows, block->n_rows - row), outputs, n, y + r * args->root_stride,
                          args->y_stride);
    }
}

/* What follows a leaf, for `rows` rows of the block from `row` on, whose sums of it these are:
 * merges, and behind the last one the end. */
static void end_leaf(const struct block *block, uint32_t leaf, float *sums, uint32_t row,
                     uint32_t rows)
{
    const struct leaf_plan *leaves = &block->args->w->leaves;

    for (uint32_t j = 0; j < leaves->merges[leaf]; j++) {
        block->isa->add(sums - block->level, sums, (size_t)rows * block->n_panels * PACKED_LANES);
        sums -= block->level;
    }
    if (leaf + 1 == leaves->n_leaves) {
        write_roots(block, row, rows);
    }
}

/* The rows of the block in tiles; what follows a leaf is done while a tile's sums are near.
 * Meanwhile the next columns' codes are fetched, and with the last columns the lines of y. */
static void tiles(const struct block *block, const void *w, const struct columns *columns,
                  float *sums)
{
    const struct cpu_matmul *args = block->args;
    const struct fetch fetch = fetch_next(block, columns->k + columns->n);
    const size_t n_lines = div_up(fetch.code_lines, block->n_tiles); /* with each tile */
    const uint8_t *fetch_all = fetch.codes + fetch.code_lines * CACHE_LINE;
    const size_t x_bytes = (size_t)block->x_cols / block->isa->granule * block->isa->x_granule;
    const bool last = columns->k + columns->n == args->w->cols;
    gemm_tile_fn *const *of_rows =
        (block->pairs ? block->isa->tile_bf16 : block->isa->tile)[block->n_panels];
    struct gemm_tile tile = {
        .w = w,
        .packed = args->w,
        .panel = block->panel,
        .k = columns->k,
        .panel_bytes =
            args->w->dtype == DTYPE_BF16_12 ? block->isa->pairs_bytes : args->w->panel_code_bytes,
        .x = tile_x(block, 0, columns->x_k),
        .sums = sums,
        .panels = block->n_panels,
        .n = columns->n,
        .add = !columns->first,
        .fetch = fetch.codes,
        .fetch_panel_bytes = args->w->panel_code_bytes,
        .fetch_lines = (uint32_t)div_up(n_lines, div_up(columns->n, 32)),
    };

    for (uint32_t t = 0, row = 0; t < block->n_tiles; t++, row += tile.rows) {
        tile.rows = tile_rows(block, t);
        tile.fetch_end = MIN(tile.fetch + n_lines * CACHE_LINE, fetch_all);
        if (last) {
            fetch_outputs(block, row, MIN(tile.rows, block->n_rows - row));
        }
        (block->isa->tile_any != NULL ? block->isa->tile_any : of_rows[tile.rows])(&tile);
        if (columns->last) {
            end_leaf(block, columns->leaf, tile.sums, row, tile.rows);
        }
        tile.x = (const uint8_t *)tile.x + x_bytes;
        tile.sums += (size_t)tile.rows * block->n_panels * PACKED_LANES;
        tile.fetch = tile.fetch_end;
    }
}

/* Columns [k, k + n) of the block's panels as pairs of BF16, isa->pairs_bytes apart. */
static const void *pairs(const struct block *block, uint32_t k, uint32_t n)
{
    for (uint32_t p = 0; p < block->n_panels; p++) {
        uint8_t *out = block->weights + (size_t)p * block->isa->pairs_bytes;
        const uint8_t *at = block->isa->pairs(block->args->w, block->panel + p, k, n, out);

        if (block->n_panels == 1) {
            return at;
        }
        if (at != out) {
            memmove(out, at, div_up(n, 2) * 2 * PACKED_LANES * sizeof(uint16_t));
        }
    }
    return block->weights;
}

/* Columns [k, k + n) of the block's panels, ready for its tiles; NULL: as they are packed. */
static const void *weights(const struct block *block, uint32_t k, uint32_t n)
{
    const struct packed *w = block->args->w;

    if (block->pairs && w->dtype == DTYPE_BF16_12) {
        return pairs(block, k, n);
    }
    if (block->pairs) { /* 32 bytes a column */
        return w->codes + block->panel * w->panel_code_bytes + (size_t)k * 2 * PACKED_LANES;
    }
    if (block->isa->as_packed) {
        return NULL;
    }
    for (uint32_t p = 0; p < block->n_panels; p++) {
        block->unpack(w, block->panel + p, k, n,
                      (float *)(block->weights + p * block->isa->weight_panel),
                      block->n_panels * PACKED_LANES);
    }
    return block->weights;
}

/* Leaf i. An integer product takes whole groups: where the leaf's end is not one's, the codes of x
 * beyond it are zero. x_k is where the leaf's groups or steps begin in x; returns where the next
 * leaf's do. */
static uint32_t leaf(const struct block *block, uint32_t i, uint32_t x_k, float *sums)
{
    const uint32_t *bounds = block->args->w->leaves.bounds + i;
    struct columns columns = {.k = bounds[0], .x_k = bounds[0], .leaf = i, .first = true};
    uint32_t left = bounds[1] - bounds[0];

    if (left == 0) {
        memset(sums, 0, block->level * sizeof(float));
        end_leaf(block, i, sums, 0, block->n_rows);
    }
    if (block->isa->integers) {
        columns.k = bounds[0] / QUANT_GROUP * QUANT_GROUP;
        columns.x_k = x_k;
        left = quant_leaf_groups(bounds[0], bounds[1]) * QUANT_GROUP;
    }
    if (block->isa->steps) {
        columns.x_k = x_k;
    }
    for (; left > 0; left -= columns.n) {
        columns.n = MIN(block->cols, left);
        columns.last = columns.n == left;
        tiles(block, weights(block, columns.k, columns.n), &columns, sums);
        columns.k += columns.n;
        columns.x_k += block->isa->steps ? (uint32_t)round_up(columns.n, GEMM_STEP) : columns.n;
        columns.first = false;
    }
    return columns.x_k;
}

static void panels(const struct block *block)
{
    const struct leaf_plan *leaves = &block->args->w->leaves;
    float *top = block->sums;
    uint32_t x_k = 0;

    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        x_k = leaf(block, i, x_k, top);
        top += block->level;
        top -= leaves->merges[i] * block->level;
    }
}

/* The block's rows of x, tile by tile. */
static void pack(const struct block *block)
{
    uint32_t row = 0;

    for (uint32_t t = 0; t < block->n_tiles; t++) {
        block->isa->pack(block->args, block->row + row,
                         MIN(tile_rows(block, t), block->n_rows - row), tile_x(block, t, 0));
        row += tile_rows(block, t);
    }
}

/* Rows of x in a block: such that they fit the cache, but no fewer than make unpacking worth while,
 * unless they are wider than any model's. */
static uint32_t block_rows(const struct block *block)
{
    const struct gemm_isa *isa = block->isa;
    size_t tile_bytes = (size_t)block->x_cols / isa->granule * isa->x_granule;
    uint32_t tiles = (uint32_t)(isa->x_bytes / MAX(tile_bytes, 1));

    tiles = MAX(tiles, block->x_cols <= FEW_TILES_COLS ? FEW_TILES : 1);
    return MIN(tiles * block->tall, BLOCK_ROWS_MAX);
}

/* Columns of x as it is packed. */
static uint32_t x_cols(const struct cpu_matmul *args, const struct gemm_isa *isa)
{
    const struct leaf_plan *leaves = &args->w->leaves;
    uint32_t cols = 0;

    if (isa->integers) {
        return args->q.n_groups * QUANT_GROUP;
    }
    if (!isa->steps) {
        return args->w->cols;
    }
    for (uint32_t i = 0; i < leaves->n_leaves; i++) {
        cols += (uint32_t)round_up(leaves->bounds[i + 1] - leaves->bounds[i], GEMM_STEP);
    }
    return cols;
}

void gemm(const struct cpu_matmul *args, const struct gemm_isa *isa, gemm_unpack_fn *unpack)
{
    struct block block = {
        .args = args, .isa = isa, .unpack = unpack, .weights = (uint8_t *)args->scratch};
    uint32_t n_blocks;

    block.x_cols = x_cols(args, isa);
    block.cols = isa->cols != 0 ? isa->cols : isa->as_packed ? GEMM_PACKED_COLS : GEMM_BLOCK_COLS;
    block.unit = MAX(isa->row_unit, 1);
    block.pairs =
        (args->w->dtype == DTYPE_BF16 || (args->w->dtype == DTYPE_BF16_12 && isa->pairs != NULL)) &&
        args->m <= isa->bf16_rows_max;
    block.tall = block.pairs ? isa->rows_bf16 : isa->rows;
    n_blocks = (uint32_t)div_up(args->m, block_rows(&block));
    block.x = block.weights + isa->weight_bytes;
    for (uint32_t b = 0; b < n_blocks; b++) {
        block.n_rows = (uint32_t)((uint64_t)(b + 1) * args->m / n_blocks) - block.row;
        cut(&block);
        block.sums = (float *)(tile_x(&block, block.n_tiles, 0) + GEMM_PACK_MORE);
        if (!args->same_x || n_blocks > 1) {
            pack(&block);
        }
        for (block.panel = args->panel_begin; block.panel < args->panel_end;
             block.panel += block.n_panels) {
            block.n_panels = MIN(isa->panels, args->panel_end - block.panel);
            block.level = round_up(block.n_rows, block.unit) * block.n_panels * PACKED_LANES;
            ENSURE_OP(block.sums + args->w->leaves.depth * block.level, <=,
                      args->scratch + CPU_SCRATCH_BYTES / sizeof(float));
            panels(&block);
        }
        block.row += block.n_rows;
    }
}
