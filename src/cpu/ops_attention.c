/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV cache and attention over it.
 *
 * A page holds 64 positions: for each layer, for each KV head, K then V, both in the layout of
 * struct packed (K: 64 rows of head_dim columns, V: head_dim rows of 64 columns), so that both
 * products of attention are the ordinary canonical product.
 *
 * One work item is a tile: up to MAX_TILE queries (rows of one segment times the query heads of one
 * KV head) whose positions lie in the same block of 64. They all see the same number of blocks, so
 * their merge trees have the same shape: a tile walks its blocks in order, pushes each block's (m,
 * l, o) on a stack and merges as the tree over [0, n_blocks) says. Threads take tiles in turn; a
 * tile's result does not depend on which thread computes it.
 */
#include <stdatomic.h>

#include "cpu/device.h"

enum { MAX_TILE = 64, MAX_STACK = 28, KEYS = OPS_PAGE_TOKENS };

static enum dtype kv_dtype(const struct ops_kv *kv)
{
    return kv->type == KV_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

/* Shapes of one layer and head of a page; without storage. */
static void kv_shapes(const struct ops_kv *kv, struct packed *keys, struct packed *values)
{
    ENSURE(packed_init(keys, kv_dtype(kv), KEYS, kv->head_dim));
    ENSURE(packed_init(values, kv_dtype(kv), kv->head_dim, KEYS));
}

static size_t head_bytes(const struct packed *keys, const struct packed *values)
{
    return round_up(packed_bytes(keys), CACHE_LINE) + round_up(packed_bytes(values), CACHE_LINE);
}

size_t cpu_op_kv_page_bytes(const struct ops_kv *kv)
{
    struct packed keys;
    struct packed values;

    kv_shapes(kv, &keys, &values);
    return head_bytes(&keys, &values) * kv->n_layers * kv->n_kv_heads;
}

/* The K of one layer and head of a page; V follows at round_up(packed_bytes(keys), 64). */
static uint8_t *page_head(const struct ops_kv *kv, const struct packed *keys,
                          const struct packed *values, uint32_t page, size_t layer_head)
{
    return (uint8_t *)kv->pages + (size_t)page * kv->page_bytes +
           layer_head * head_bytes(keys, values);
}

void cpu_op_kv_page_clear(struct ops_device *device, const struct ops_kv *kv, uint32_t page)
{
    (void)device;
    memset((uint8_t *)kv->pages + (size_t)page * kv->page_bytes, 0, kv->page_bytes);
}

/* Key `lane` of a panel of K: one element in each column. */
static void write_key(const struct ops_kv *kv, uint8_t *panel, uint32_t lane, const float *from)
{
    uint32_t dim = kv->head_dim;

    if (kv->type == KV_BF16) { /* [d / 2][16 keys][2] */
        for (uint32_t d = 0; d < dim; d += 2) {
            uint32_t pair = bf16_from_f32(from[d]) | (uint32_t)bf16_from_f32(from[d + 1]) << 16;

            memcpy(panel + ((size_t)(d / 2) * PACKED_LANES + lane) * 4, &pair, sizeof(pair));
        }
    } else { /* [d][16 keys] */
        for (uint32_t d = 0; d < dim; d++) {
            memcpy(panel + ((size_t)d * PACKED_LANES + lane) * 4, &from[d], sizeof(from[d]));
        }
    }
}

/* Column `key` of V: one element in each row, 16 rows to a panel. */
static void write_value(const struct ops_kv *kv, uint8_t *panels, size_t panel_bytes, uint32_t key,
                        const float *from)
{
    for (uint32_t d = 0; d < kv->head_dim; d++) {
        uint8_t *panel = panels + d / PACKED_LANES * panel_bytes;
        uint32_t lane = d % PACKED_LANES;

        if (kv->type == KV_BF16) { /* [key / 2][16 dimensions][2] */
            uint16_t half = bf16_from_f32(from[d]);

            memcpy(panel + ((size_t)(key / 2) * PACKED_LANES + lane) * 4 + key % 2 * 2, &half,
                   sizeof(half));
        } else { /* [key][16 dimensions] */
            memcpy(panel + ((size_t)key * PACKED_LANES + lane) * 4, &from[d], sizeof(from[d]));
        }
    }
}

static void write_token(const struct ops_kv_write *args, const struct ops_segment *segment,
                        uint32_t i)
{
    const struct ops_kv *kv = args->kv;
    uint32_t pos = segment->pos + i;
    size_t row = (size_t)(segment->row + i) * args->stride;
    struct packed keys;
    struct packed values;

    kv_shapes(kv, &keys, &values);
    for (uint32_t head = 0; head < kv->n_kv_heads; head++) {
        uint8_t *k = page_head(kv, &keys, &values, segment->pages[pos / KEYS],
                               (size_t)args->layer * kv->n_kv_heads + head);
        uint8_t *v = k + round_up(packed_bytes(&keys), CACHE_LINE);
        uint32_t key = pos % KEYS;

        write_key(kv, k + key / PACKED_LANES * keys.panel_code_bytes, key % PACKED_LANES,
                  args->k + row + (size_t)head * kv->head_dim);
        write_value(kv, v, values.panel_code_bytes, key,
                    args->v + row + (size_t)head * kv->head_dim);
    }
}

static void kv_write_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct ops_kv_write *args = arg;

    for (uint32_t s = 0; s < args->n_segments; s++) {
        uint32_t begin;
        uint32_t end;

        pool_share(args->segments[s].n, 1, thread, n_threads, &begin, &end);
        for (uint32_t i = begin; i < end; i++) {
            write_token(args, &args->segments[s], i);
        }
    }
}

void cpu_op_kv_write(struct ops_device *device, const struct ops_kv_write *args)
{
    uint32_t n = 0;

    for (uint32_t s = 0; s < args->n_segments; s++) {
        n += args->segments[s].n;
    }
    if (n < 16) {
        kv_write_share((void *)args, 0, 1);
    } else {
        pool_run(device->pool, kv_write_share, (void *)args);
    }
}

struct attn_job {
    struct ops_device *device;
    const struct ops_attention *args;
    struct packed keys;
    struct packed values;
    uint32_t max_rows; /* rows of a segment in one tile */
    uint32_t n_tiles;
    _Atomic uint32_t next;
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
    size_t o_stride;
    float *q; /* [rows * n_heads][o_stride] */
    uint32_t valid[MAX_TILE];
    struct partial stack[MAX_STACK];
};

/* Rows of segment from `first` that one tile takes: no more than max_rows, all in one block. */
static uint32_t tile_rows(const struct ops_segment *segment, uint32_t first, uint32_t max_rows)
{
    uint32_t in_block = KEYS - (segment->pos + first) % KEYS;

    return MIN(MIN(segment->n - first, in_block), max_rows);
}

/* Finds tile number `index`: tiles are numbered segment by segment, KV head by KV head, row by row.
 */
static void find_tile(const struct attn_job *job, uint32_t index, struct tile *tile)
{
    const struct ops_attention *args = job->args;

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
        for (uint32_t skip = index % per_head; skip > 0; skip--) {
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
}

/* Lays the tile's buffers out in scratch and copies (for bf16: rounds) its queries. */
static void prepare_tile(const struct attn_job *job, struct tile *tile, float *scratch)
{
    const struct ops_attention *args = job->args;
    uint32_t dim = args->kv->head_dim;
    uint32_t n_q = tile->rows * tile->n_heads;
    uint32_t depth = 2;

    for (uint32_t n = tile->n_blocks; n > 1; n = leaves_split(n)) {
        depth++;
    }
    tile->o_stride = round_up(dim, PACKED_LANES);
    ENSURE_OP(depth, <=, MAX_STACK);
    ENSURE_OP((n_q * tile->o_stride + depth * (n_q * (tile->o_stride + 2) + 2 * PACKED_LANES)) *
                  sizeof(float),
              <=, CPU_SCRATCH_BYTES / 2);
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
    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t row = tile->first + i / tile->n_heads;
        const float *from = args->q + (size_t)(tile->segment->row + row) * args->q_stride +
                            (size_t)(tile->head + i % tile->n_heads) * dim;

        if (args->kv->type == KV_BF16) {
            job->device->kernels.round_bf16(tile->q + i * tile->o_stride, from, dim);
        } else {
            memcpy(tile->q + i * tile->o_stride, from, dim * sizeof(float));
        }
    }
}

static void compute_tile(const struct attn_job *job, struct tile *tile, float *kernel_scratch)
{
    const struct ops_attention *args = job->args;
    const struct ops_kv *kv = args->kv;
    const struct cpu_kernels *kernels = &job->device->kernels;
    uint32_t n_q = tile->rows * tile->n_heads;
    uint32_t n = 0;

    for (uint32_t block = 0; block < tile->n_blocks; block++) {
        const uint8_t *k = page_head(kv, &job->keys, &job->values, tile->segment->pages[block],
                                     (size_t)args->layer * kv->n_kv_heads + tile->kv_head);
        struct partial *top = &tile->stack[n++];

        for (uint32_t i = 0; i < n_q; i++) {
            uint32_t pos = tile->segment->pos + tile->first + i / tile->n_heads;

            tile->valid[i] = MIN(pos + 1 - block * KEYS, KEYS);
        }
        kernels->attn_block(&(struct cpu_attn_block){
            .k = k,
            .v = k + round_up(packed_bytes(&job->keys), CACHE_LINE),
            .head_dim = kv->head_dim,
            .kv = kv->type,
            .scale = args->scale,
            .q = tile->q,
            .q_stride = tile->o_stride,
            .n_q = n_q,
            .valid = tile->valid,
            .m = top->m,
            .l = top->l,
            .o = top->o,
            .o_stride = tile->o_stride,
            .scratch = kernel_scratch,
        });
        for (uint32_t j = leaves_merges_after(tile->n_blocks, block); j > 0; j--, n--) {
            struct partial *a = &tile->stack[n - 2];
            struct partial *b = &tile->stack[n - 1];

            for (uint32_t i = 0; i < n_q; i++) {
                kernels->attn_merge(&a->m[i], &a->l[i], a->o + i * tile->o_stride, &b->m[i],
                                    &b->l[i], b->o + i * tile->o_stride, kv->head_dim);
            }
        }
    }
    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t row = tile->first + i / tile->n_heads;

        kernels->attn_finish(args->out + (size_t)(tile->segment->row + row) * args->out_stride +
                                 (size_t)(tile->head + i % tile->n_heads) * kv->head_dim,
                             tile->stack[0].o + i * tile->o_stride, tile->stack[0].l[i],
                             kv->head_dim);
    }
}

static void attention_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct attn_job *job = arg;
    float *scratch = job->device->scratch[thread];

    (void)n_threads;
    for (;;) {
        uint32_t index = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        struct tile tile;

        if (index >= job->n_tiles) {
            return;
        }
        find_tile(job, index, &tile);
        if (tile.n_heads > 0) {
            prepare_tile(job, &tile, scratch);
            compute_tile(job, &tile, scratch + CPU_SCRATCH_BYTES / 2 / sizeof(float));
            device_tick(job->device, thread);
        }
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

void cpu_op_attention(struct ops_device *device, const struct ops_attention *args)
{
    struct attn_job job = {.device = device, .args = args};
    uint32_t group = widest_group(args);
    uint32_t tile = args->kv->head_dim <= 256 ? MAX_TILE : MAX_TILE / 4;

    ENSURE_OP(group, <=, MAX_TILE);
    kv_shapes(args->kv, &job.keys, &job.values);
    job.max_rows = MAX(tile / group, 1);
    for (uint32_t s = 0; s < args->n_segments; s++) {
        const struct ops_segment *segment = &args->segments[s];

        for (uint32_t row = 0; row < segment->n; row += tile_rows(segment, row, job.max_rows)) {
            job.n_tiles += args->kv->n_kv_heads;
        }
    }
    pool_run(device->pool, attention_share, &job);
}
