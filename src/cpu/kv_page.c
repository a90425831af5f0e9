/* SPDX-License-Identifier: Apache-2.0 */
/* KV pages: their size, and how a position is written into one. */
#include "cpu/kv_page.h"

#include "cpu/device.h"

static enum dtype keys_dtype(enum kv_type type)
{
    static const enum dtype dtypes[KV_TYPE_COUNT] = {
        [KV_F32] = DTYPE_F32, [KV_BF16] = DTYPE_BF16, [KV_INT8] = DTYPE_Q8_0};

    return dtypes[type];
}

struct kv_layout kv_layout_of(const struct ops_kv *kv)
{
    enum dtype dtype = keys_dtype(kv->type);
    bool integers = kv->type == KV_INT8;
    struct kv_layout layout;
    size_t v_bytes;

    ENSURE(packed_init(&layout.keys, dtype, KV_PAGE_KEYS,
                       integers ? (uint32_t)round_up(kv->head_dim, QUANT_GROUP) : kv->head_dim));
    if (integers) {
        layout.values = (struct packed){0};
        v_bytes = cpu_v8_bytes(kv->head_dim);
    } else {
        ENSURE(packed_init(&layout.values, dtype, kv->head_dim, KV_PAGE_KEYS));
        v_bytes = packed_bytes(&layout.values);
    }
    layout.v_offset = round_up(packed_bytes(&layout.keys), CACHE_LINE);
    layout.head_bytes = layout.v_offset + round_up(v_bytes, CACHE_LINE);
    return layout;
}

size_t cpu_op_kv_page_bytes(const struct ops_kv *kv)
{
    return kv_layout_of(kv).head_bytes * kv->n_layers * kv->n_kv_heads;
}

void cpu_op_kv_page_clear(struct ops_device *device, const struct ops_kv *kv, uint32_t page)
{
    (void)device;
    memset((uint8_t *)kv->pages + (size_t)page * kv->page_bytes, 0, kv->page_bytes);
}

/* The upper half of a value that is rounded to bf16. */
static uint16_t half_of(float rounded)
{
    uint32_t bits;

    memcpy(&bits, &rounded, sizeof(bits));
    return (uint16_t)(bits >> 16);
}

/* Key `lane` of a panel of K: one element in each column. BF16: from is rounded. */
static void write_key(bool bf16, uint32_t dim, uint8_t *panel, uint32_t lane, const float *from)
{
    if (bf16) { /* [d / 2][16 keys][2] */
        for (uint32_t d = 0; d < dim; d += 2) {
            uint32_t pair = half_of(from[d]) | (uint32_t)half_of(from[d + 1]) << 16;

            memcpy(panel + ((size_t)(d / 2) * PACKED_LANES + lane) * 4, &pair, sizeof(pair));
        }
    } else { /* [d][16 keys] */
        for (uint32_t d = 0; d < dim; d++) {
            memcpy(panel + ((size_t)d * PACKED_LANES + lane) * 4, &from[d], sizeof(from[d]));
        }
    }
}

/* Column `key` of V: one element in each row, 16 rows to a panel. BF16: from is rounded. */
static void write_value(bool bf16, uint32_t dim, uint8_t *panels, size_t panel_bytes, uint32_t key,
                        const float *from)
{
    for (uint32_t d = 0; d < dim; d++) {
        uint8_t *panel = panels + d / PACKED_LANES * panel_bytes;
        uint32_t lane = d % PACKED_LANES;

        if (bf16) { /* [key / 2][16 dimensions][2] */
            uint16_t half = half_of(from[d]);

            memcpy(panel + ((size_t)(key / 2) * PACKED_LANES + lane) * 4 + key % 2 * 2, &half,
                   sizeof(half));
        } else { /* [key][16 dimensions] */
            memcpy(panel + ((size_t)key * PACKED_LANES + lane) * 4, &from[d], sizeof(from[d]));
        }
    }
}

/* A row of one head as integers: groups of 32 of its dimensions. */
struct head_row {
    uint32_t n_groups;
    int8_t *codes; /* [n_groups][32] */
    float *scales;
};

static struct head_row quantise_head(const struct ops_device *device, uint32_t dim,
                                     const float *from, float *scratch)
{
    uint32_t bounds[2] = {0, dim};
    struct leaf_plan plan = {.n_leaves = 1, .bounds = bounds};
    uint32_t n = (uint32_t)div_up(dim, QUANT_GROUP);
    float *x = scratch; /* a copy that may be read beyond its end */
    struct quant quant = quant_attach(x + (n + 1) * QUANT_GROUP, 1, n, false);

    memcpy(x, from, dim * sizeof(float));
    memset(x + dim, 0, ((n + 1) * QUANT_GROUP - dim) * sizeof(float));
    device->kernels.quant_row(x, &plan, &quant);
    return (struct head_row){n, quant.codes, quant.scales};
}

/* Row `key` of the Q8_0 matrix K: four dimensions to a word, 16 keys to a panel. */
static void write_key_int8(const struct packed *keys, uint8_t *k, uint32_t key,
                           const struct head_row *row)
{
    uint8_t *codes = k + key / PACKED_LANES * keys->panel_code_bytes + key % PACKED_LANES * 4;
    uint8_t *scales = k + packed_scale_offset(keys) + key / PACKED_LANES * keys->panel_scale_bytes +
                      key % PACKED_LANES * 2;

    for (uint32_t g = 0; g < row->n_groups; g++) {
        uint16_t scale = f16_from_f32(row->scales[g]);

        for (uint32_t j = 0; j < QUANT_GROUP / 4; j++) {
            uint32_t word;

            memcpy(&word, row->codes + g * QUANT_GROUP + j * 4, sizeof(word));
            word ^= 0x80808080; /* a code + 128 */
            memcpy(codes + (size_t)(g * (QUANT_GROUP / 4) + j) * PACKED_LANES * 4, &word,
                   sizeof(word));
        }
        memcpy(scales + (size_t)g * PACKED_LANES * 2, &scale, sizeof(scale));
    }
}

static void write_value_int8(uint32_t dim, uint8_t *v, uint32_t key, const struct head_row *row)
{
    float *scales = (float *)(void *)(v + cpu_v8_scale_offset(dim));

    for (uint32_t g = 0; g < row->n_groups; g++) {
        memcpy(v + ((size_t)g * KV_PAGE_KEYS + key) * QUANT_GROUP, row->codes + g * QUANT_GROUP,
               QUANT_GROUP);
        scales[g * KV_PAGE_KEYS + key] = row->scales[g];
    }
}

struct write_job {
    struct ops_device *device;
    struct ops_kv_write args;
    struct kv_layout layout;
};

static void write_head(const struct write_job *job, uint8_t *page_head, uint32_t key,
                       const float *k, const float *v, float *scratch)
{
    const struct ops_kv *kv = job->args.kv;
    const struct packed *keys = &job->layout.keys;
    uint8_t *values = page_head + job->layout.v_offset;

    if (kv->type == KV_INT8) {
        struct head_row row = quantise_head(job->device, kv->head_dim, k, scratch);

        write_key_int8(keys, page_head, key, &row);
        row = quantise_head(job->device, kv->head_dim, v, scratch);
        write_value_int8(kv->head_dim, values, key, &row);
    } else {
        bool bf16 = kv->type == KV_BF16;

        if (bf16) {
            job->device->kernels.round_bf16(scratch, k, kv->head_dim);
            scratch[kv->head_dim] = 0; /* the other half of an odd number's last pair */
            job->device->kernels.round_bf16(scratch + kv->head_dim + 1, v, kv->head_dim);
            k = scratch;
            v = scratch + kv->head_dim + 1;
        }
        write_key(bf16, kv->head_dim, page_head + key / PACKED_LANES * keys->panel_code_bytes,
                  key % PACKED_LANES, k);
        write_value(bf16, kv->head_dim, values, job->layout.values.panel_code_bytes, key, v);
    }
}

/* Row i of a segment, one head. */
static void write_row(const struct write_job *job, const struct ops_segment *segment, uint32_t i,
                      uint32_t head, float *scratch)
{
    const struct ops_kv_write *args = &job->args;
    uint32_t pos = segment->pos + i;
    size_t at = (size_t)(segment->row + i) * args->stride + (size_t)head * args->kv->head_dim;

    device_fetch(args->v + at + CPU_FETCH_ROWS * args->stride, args->kv->head_dim);
    write_head(
        job,
        kv_page_head(args->kv, &job->layout, segment->pages[pos / KV_PAGE_KEYS], args->layer, head),
        pos % KV_PAGE_KEYS, args->k + at, args->v + at, scratch);
}

/* Some rows of all segments, head by head, as a head's rows lie together in a page. */
static void write_rows(const void *arg, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct write_job *job = arg;
    const struct ops_kv_write *args = &job->args;

    for (uint32_t s = 0; s < args->n_segments; s++) {
        const struct ops_segment *segment = &args->segments[s];
        uint32_t from = MAX(begin, segment->row);
        uint32_t to = MIN(end, segment->row + segment->n);

        for (uint32_t head = 0; head < args->kv->n_kv_heads; head++) {
            for (uint32_t row = from; row < to; row++) {
                write_row(job, segment, row - segment->row, head, job->device->scratch[thread]);
            }
        }
    }
}

void cpu_op_kv_write(struct ops_device *device, const struct ops_kv_write *args)
{
    const struct write_job job = {
        .device = device, .args = *args, .layout = kv_layout_of(args->kv)};
    uint32_t n = 0;

    /* twice a row of f32 and its codes: far below what a thread has for any head */
    ENSURE_OP((size_t)args->kv->head_dim * 16 + 4096, <=, CPU_SCRATCH_BYTES);
    for (uint32_t s = 0; s < args->n_segments; s++) {
        n = MAX(n, args->segments[s].row + args->segments[s].n);
    }
    row_do(device,
           &(struct row_work){.fn = write_rows,
                              .args = &job,
                              .args_bytes = sizeof(job),
                              .n = n,
                              .n_elements = (size_t)n * args->kv->n_kv_heads * args->kv->head_dim});
}
