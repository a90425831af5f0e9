/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over the KV cache, whose pages hold blocks of 64 positions (cpu/kv_page.h).
 *
 * One work item is a tile: up to MAX_TILE queries (rows of one segment times the query heads of one
 * KV head) whose positions lie in the same block of 64. They all see the same number of blocks, so
 * their merge trees have the same shape: a tile walks its blocks in order, pushes each block's (m,
 * l, o) on a stack and merges as the tree over [0, n_blocks) says. Threads take tiles in turn; a
 * tile's result does not depend on which thread computes it.
 *
 * Where there are fewer tiles than keep all threads busy (a long context, few KV heads), a tile is
 * cut into parts: the subtrees below one depth of the same tree, whose (m, l, o) wait in slots
 * until the thread that ends the last of them merges them. What is merged with what, and so the
 * result, is the same.
 */
#include <stdatomic.h>

#include "cpu/device.h"
#include "cpu/kv_page.h"

enum { MAX_TILE = 128, MAX_STACK = 28, KEYS = OPS_PAGE_TOKENS };

/* PART_BLOCKS: fewer are not worth a part. Parts are made while tiles are fewer than twice the
 * threads, so that a thread has four slots at most, behind the scratch of its tiles. */
enum { PART_BLOCKS = 8, PART_DEPTH = 6, PART_TILES = 256, THREAD_SLOTS = 4 };
enum { SLOT_BYTES = 256 << 10, TILE_BYTES = CPU_SCRATCH_BYTES / 2 - THREAD_SLOTS * SLOT_BYTES };

struct attn_job {
    struct ops_device *device;
    const struct ops_attention *args;
    struct kv_layout layout;
    uint32_t max_rows; /* rows of a segment in one tile */
    uint32_t n_tiles;
    uint32_t depth; /* a tile has 2^depth items, as many or fewer of which are its parts */
    _Atomic uint32_t next;
    _Atomic uint32_t left[PART_TILES]; /* items of a tile that have not ended; with depth > 0 */
};

/* One entry of a tile's stack. */
struct partial {
    float *m; /* [n_q] */
    float *l;
    float *o; /* [n_q][o_stride] */
};

struct tile {
    const struct ops_segment *segment;
    uint32_t first; /* rows [first, first + rows) of the segment */
    uint32_t rows;
    uint32_t kv_head;
    uint32_t head; /* query heads [head, head + n_heads) read kv_head */
    uint32_t n_heads;
    uint32_t n_blocks;
    uint32_t depth; /* it has 2^depth parts */
    size_t o_stride;
    float *q;        /* [rows * n_heads][o_stride] */
    struct quant q8; /* KV_INT8: the same as integers */
    uint32_t valid[MAX_TILE];
    struct partial stack[MAX_STACK];
};

/* Rows of segment from `first` that one tile takes: no more than max_rows, all in one block. */
static uint32_t tile_rows(const struct ops_segment *segment, uint32_t first, uint32_t max_rows)
{
    uint32_t in_block = KEYS - (segment->pos + first) % KEYS;

    return MIN(MIN(segment->n - first, in_block), max_rows);
}

/* Finds tile number `index`: tiles are numbered segment by segment, KV head by KV head, and those
 * of a head from the last rows to the first, so that the threads end with little ones. */
static void find_tile(const struct attn_job *job, uint32_t index, struct tile *tile)
{
    const struct ops_attention *args = job->args;

    tile->segment = args->segments;
    tile->first = 0;
    tile->rows = 0;
    tile->kv_head = 0;
    for (uint32_t s = 0; s < args->n_segments; s++) {
        const struct ops_segment *segment = &args->segments[s];
        uint32_t per_head = 0;

        for (uint32_t row = 0; row < segment->n; row += tile_rows(segment, row, job->max_rows)) {
            per_head++;
        }
        if (index >= per_head * args->kv->n_kv_heads) {
            index -= per_head * args->kv->n_kv_heads;
            continue;
        }
        tile->segment = segment;
        tile->kv_head = index / per_head;
        tile->first = 0;
        for (uint32_t skip = per_head - 1 - index % per_head; skip > 0; skip--) {
            tile->first += tile_rows(segment, tile->first, job->max_rows);
        }
        tile->rows = tile_rows(segment, tile->first, job->max_rows);
        break;
    }
    tile->head = 0;
    while (tile->head < args->n_heads && args->kv_head_of[tile->head] != tile->kv_head) {
        tile->head++;
    }
    tile->n_heads = 0;
    while (tile->head + tile->n_heads < args->n_heads &&
           args->kv_head_of[tile->head + tile->n_heads] == tile->kv_head) {
        tile->n_heads++;
    }
    tile->n_blocks = (tile->segment->pos + tile->first) / KEYS + 1;
    tile->o_stride = round_up(args->kv->head_dim, PACKED_LANES);
    tile->depth = job->depth;
    while (tile->depth > 0 && tile->n_blocks >> tile->depth < PART_BLOCKS) {
        tile->depth--;
    }
}

/* Bytes of the (m, l, o) of n_q queries. */
static size_t slot_bytes(size_t n_q, size_t o_stride)
{
    return (n_q * o_stride + 2 * round_up(n_q, PACKED_LANES)) * sizeof(float);
}

/* Where those of one item of a tile wait, in memory that all threads see. */
static struct partial slot_of(const struct attn_job *job, const struct tile *tile, uint32_t item)
{
    size_t n_q = (size_t)tile->rows * tile->n_heads;
    uint32_t number = item / job->device->n_threads;
    uint8_t *memory = (uint8_t *)job->device->scratch[item % job->device->n_threads];
    struct partial slot;

    ENSURE_OP(number, <, THREAD_SLOTS);
    ENSURE_OP(slot_bytes(n_q, tile->o_stride), <=, SLOT_BYTES);
    slot.o = (float *)(void *)(memory + TILE_BYTES + (size_t)number * SLOT_BYTES);
    slot.m = slot.o + n_q * tile->o_stride;
    slot.l = slot.m + round_up(n_q, PACKED_LANES);
    return slot;
}

/* Copies the tile's queries, rounded as the type of the cache wants them. */
static void load_queries(const struct attn_job *job, struct tile *tile)
{
    const struct ops_attention *args = job->args;
    const struct cpu_kernels *kernels = &job->device->kernels;
    uint32_t dim = args->kv->head_dim;
    uint32_t bounds[2] = {0, dim};
    struct leaf_plan plan = {.n_leaves = 1, .bounds = bounds};

    for (uint32_t i = 0; i < tile->rows * tile->n_heads; i++) {
        uint32_t row = tile->first + i / tile->n_heads;
        const float *from = args->q + (size_t)(tile->segment->row + row) * args->q_stride +
                            (size_t)(tile->head + i % tile->n_heads) * dim;
        float *to = tile->q + i * tile->o_stride;

        device_fetch(from + CPU_FETCH_ROWS * args->q_stride, dim);

        if (args->kv->type == KV_BF16) {
            kernels->round_bf16(to, from, dim);
            continue;
        }
        memcpy(to, from, dim * sizeof(float));
        if (args->kv->type == KV_INT8) {
            struct quant q8 = quant_from(tile->q8, i);

            kernels->quant_row(to, &plan, &q8);
        }
    }
}

/* Lays the tile's buffers out in scratch. */
static void prepare_tile(const struct attn_job *job, struct tile *tile, float *scratch)
{
    const struct ops_attention *args = job->args;
    uint32_t dim = args->kv->head_dim;
    uint32_t n_q = tile->rows * tile->n_heads;
    uint32_t n_groups = (uint32_t)div_up(dim, QUANT_GROUP);
    uint32_t depth = 2;
    size_t q8_bytes;

    for (uint32_t n = tile->n_blocks; n > 1; n = leaves_split(n)) {
        depth++;
    }
    ENSURE_OP(depth, <=, MAX_STACK);
    ENSURE(quant_bytes(n_q, n_groups, false, &q8_bytes));
    ENSURE_OP(q8_bytes +
                  (n_q * tile->o_stride + depth * (n_q * (tile->o_stride + 2) + 2 * PACKED_LANES)) *
                      sizeof(float),
              <=, TILE_BYTES);
    tile->q8 = quant_attach(scratch, n_q, n_groups, false);
    scratch += round_up(q8_bytes, CACHE_LINE) / sizeof(float);
    tile->q = scratch;
    scratch += n_q * tile->o_stride;
    for (uint32_t i = 0; i < depth; i++) {
        tile->stack[i].o = scratch;
        scratch += n_q * tile->o_stride;
        tile->stack[i].m = scratch;
        scratch += round_up(n_q, PACKED_LANES);
        tile->stack[i].l = scratch;
        scratch += round_up(n_q, PACKED_LANES);
    }
    load_queries(job, tile);
}

/* The K of one block of the tile's keys, or of another head's. */
static const uint8_t *tile_block(const struct attn_job *job, const struct tile *tile, uint32_t head,
                                 uint32_t block)
{
    return kv_page_head(job->args->kv, &job->layout, tile->segment->pages[block], job->args->layer,
                        head);
}

/* The K that is read after this block of blocks up to `end`: behind the last one that of the tile
 * which this thread most likely takes next, for with one row in a segment there is a tile to a
 * head.
 */
static const uint8_t *tile_next(const struct attn_job *job, const struct tile *tile, uint32_t block,
                                uint32_t end)
{
    uint32_t head = tile->kv_head + job->device->n_threads;

    if (block + 1 < end) {
        return tile_block(job, tile, tile->kv_head, block + 1);
    }
    return tile_block(job, tile, MIN(head, job->args->kv->n_kv_heads - 1), 0);
}

/* a := a merged with b, for each query of the tile. */
static void merge(const struct attn_job *job, const struct tile *tile, const struct partial *a,
                  const struct partial *b)
{
    uint32_t n_q = tile->rows * tile->n_heads;

    for (uint32_t i = 0; i < n_q; i++) {
        job->device->kernels.attn_merge(&a->m[i], &a->l[i], a->o + i * tile->o_stride, &b->m[i],
                                        &b->l[i], b->o + i * tile->o_stride,
                                        job->args->kv->head_dim);
    }
}

/* Block `block` of those in [begin, end), one after the other, to top. */
static void compute_block(const struct attn_job *job, struct tile *tile, uint32_t block,
                          uint32_t begin, uint32_t end, const struct partial *top, float *scratch)
{
    const struct ops_attention *args = job->args;
    const struct ops_kv *kv = args->kv;
    const struct cpu_kernels *kernels = &job->device->kernels;
    const uint8_t *k = tile_block(job, tile, tile->kv_head, block);
    uint32_t n_q = tile->rows * tile->n_heads;

    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t pos = tile->segment->pos + tile->first + i / tile->n_heads;

        tile->valid[i] = MIN(pos + 1 - block * KEYS, KEYS);
    }
    kernels->attn_block(&(struct cpu_attn_block){
        .k = k,
        .next = tile_next(job, tile, block, end),
        .v = k + job->layout.v_offset,
        .head_dim = kv->head_dim,
        .kv = kv->type,
        .scale = args->scale,
        .q = tile->q,
        .q_stride = tile->o_stride,
        .q8 = tile->q8,
        .product =
            kv->type == KV_INT8 ? kernels->matmul_int8[DTYPE_Q8_0] : kernels->matmul[DTYPE_BF16],
        .n_q = n_q,
        .same_q = block > begin,
        .valid = tile->valid,
        .m = top->m,
        .l = top->l,
        .o = top->o,
        .o_stride = tile->o_stride,
        .scratch = scratch,
    });
}

/* The blocks [begin, end), a subtree of the tile's, to stack[0]. */
static void compute_blocks(const struct attn_job *job, struct tile *tile, uint32_t begin,
                           uint32_t end, float *scratch)
{
    uint32_t n = 0;

    for (uint32_t block = begin; block < end; block++) {
        compute_block(job, tile, block, begin, end, &tile->stack[n++], scratch);
        for (uint32_t j = leaves_merges_after(end - begin, block - begin); j > 0; j--, n--) {
            merge(job, tile, &tile->stack[n - 2], &tile->stack[n - 1]);
        }
    }
}

static void finish(const struct attn_job *job, const struct tile *tile, const struct partial *root)
{
    const struct ops_attention *args = job->args;
    uint32_t dim = args->kv->head_dim;

    for (uint32_t i = 0; i < tile->rows * tile->n_heads; i++) {
        uint32_t row = tile->first + i / tile->n_heads;

        job->device->kernels.attn_finish(args->out +
                                             (size_t)(tile->segment->row + row) * args->out_stride +
                                             (size_t)(tile->head + i % tile->n_heads) * dim,
                                         root->o + i * tile->o_stride, root->l[i], dim);
    }
}

/* All parts of a tile whose first item this is: merged pair by pair, up to the root. */
static void finish_parts(const struct attn_job *job, const struct tile *tile, uint32_t item)
{
    uint32_t parts = UINT32_C(1) << tile->depth;
    struct partial root = slot_of(job, tile, item);

    for (uint32_t width = 1; width < parts; width *= 2) {
        for (uint32_t i = 0; i < parts; i += 2 * width) {
            struct partial a = slot_of(job, tile, item + i);
            struct partial b = slot_of(job, tile, item + i + width);

            merge(job, tile, &a, &b);
        }
    }
    finish(job, tile, &root);
}

/* Part `part` of the tile, whose slot is that of `item`. */
static void compute_part(const struct attn_job *job, struct tile *tile, uint32_t item,
                         uint32_t part, float *scratch)
{
    uint32_t begin = 0;
    uint32_t n = tile->n_blocks;

    for (uint32_t level = tile->depth; level > 0; level--) { /* down the tree */
        bool right = (part >> (level - 1) & 1) != 0;

        begin += right ? leaves_split(n) : 0;
        n = right ? n - leaves_split(n) : leaves_split(n);
    }
    tile->stack[0] = slot_of(job, tile, item);
    compute_blocks(job, tile, begin, begin + n, scratch);
}

/* One item: a tile, or a part of one. */
static void compute_item(struct attn_job *job, uint32_t item, uint32_t thread)
{
    float *scratch = job->device->scratch[thread];
    float *kernel_scratch = scratch + CPU_SCRATCH_BYTES / 2 / sizeof(float);
    uint32_t index = item >> job->depth;
    uint32_t first = index << job->depth;
    struct tile tile;

    find_tile(job, index, &tile);
    if (tile.n_heads == 0) {
        return;
    }
    if (item - first < UINT32_C(1) << tile.depth) { /* else it has not so many parts */
        prepare_tile(job, &tile, scratch);
        if (job->depth > 0) {
            compute_part(job, &tile, item, item - first, kernel_scratch);
        } else {
            compute_blocks(job, &tile, 0, tile.n_blocks, kernel_scratch);
            finish(job, &tile, &tile.stack[0]);
        }
    }
    if (job->depth > 0 &&
        atomic_fetch_sub_explicit(&job->left[index], 1, memory_order_acq_rel) == 1) {
        finish_parts(job, &tile, first);
    }
}

static void attention_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct attn_job *job = arg;

    (void)n_threads;
    for (;;) {
        uint32_t item = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);

        if (item >= job->n_tiles << job->depth) {
            return;
        }
        compute_item(job, item, thread);
        device_tick(job->device, thread);
    }
}

/* Most query heads that read one KV head. */
static uint32_t widest_group(const struct ops_attention *args)
{
    uint32_t widest = 1;
    uint32_t run = 0;

    for (uint32_t h = 0; h < args->n_heads; h++) {
        run = h > 0 && args->kv_head_of[h] == args->kv_head_of[h - 1] ? run + 1 : 1;
        widest = MAX(widest, run);
    }
    return widest;
}

/* How deep tiles are cut: as long as they are few, and threads would be idle. */
static uint32_t depth_of(uint32_t n_tiles, uint32_t n_threads)
{
    uint32_t depth = 0;

    while (n_threads > 1 && n_tiles <= PART_TILES && depth < PART_DEPTH &&
           n_tiles << depth < 2 * n_threads) {
        depth++;
    }
    return depth;
}

void cpu_op_attention(struct ops_device *device, const struct ops_attention *args)
{
    struct attn_job job = {.device = device, .args = args, .layout = kv_layout_of(args->kv)};
    uint32_t group = widest_group(args);
    uint32_t tile = args->kv->head_dim <= 256 ? MAX_TILE : MAX_TILE / 4;

    ENSURE_OP(group, <=, MAX_TILE);
    job.max_rows = MAX(tile / group, 1);
    for (uint32_t s = 0; s < args->n_segments; s++) {
        const struct ops_segment *segment = &args->segments[s];

        for (uint32_t row = 0; row < segment->n; row += tile_rows(segment, row, job.max_rows)) {
            job.n_tiles += args->kv->n_kv_heads;
        }
    }
    if (slot_bytes(MAX(tile, group), round_up(args->kv->head_dim, PACKED_LANES)) <= SLOT_BYTES) {
        job.depth = depth_of(job.n_tiles, device->n_threads);
    }
    for (uint32_t i = 0; job.depth > 0 && i < job.n_tiles; i++) {
        atomic_init(&job.left[i], UINT32_C(1) << job.depth);
    }
    row_sync(device);
    pool_run(device->pool, attention_share, &job);
}
