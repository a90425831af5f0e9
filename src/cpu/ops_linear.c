/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with weights. The threads share the output panels of all matrices of the call; every
 * output element is computed whole by one thread, so that the cut changes nothing.
 */
#include "cpu/device.h"

enum {
    PANEL_UNIT = 8,          /* panels a product kernel likes to read side by side */
    TICK_PRODUCTS = 1 << 29, /* multiply-adds between two signs of life: some milliseconds */
    FINE_TOGETHER = 2,       /* rows that are multiplied together with their fine groups */
};

struct linear_job {
    struct ops_device *device;
    const struct ops_linear *args;
    const struct leaf_plan *leaves; /* of the matrices that take integers, NULL if none does */
    bool rounds;                    /* some matrix takes x rounded */
    size_t rounded_stride;
    bool fine;          /* some matrix takes fine groups, too */
    struct quant quant; /* x as integers; with `fine` those of row i are in row n + i */
    uint32_t cols;
    uint32_t n_panels; /* of all matrices together, each rounded up to whole units */
    uint32_t unit;
};

/* What x becomes before it is multiplied by this matrix. */
static enum act act_for(const struct ops_linear *args, const struct packed *w)
{
    if (args->act != ACT_INT8 || dtype_is_quantised(w->dtype)) {
        return args->act;
    }
    return w->dtype == DTYPE_BF16 || w->dtype == DTYPE_BF16_12 ? ACT_BF16 : ACT_F32;
}

/* Whether the product is one with fine groups. */
static bool is_fine(const struct ops_linear *args, const struct ops_linear_out *out)
{
    return out->fine && act_for(args, out->w) == ACT_INT8;
}

/* Row i of x as integers. */
static void quantise(const struct linear_job *job, uint32_t i)
{
    const struct ops_linear *args = job->args;
    const struct cpu_kernels *kernels = &job->device->kernels;
    const float *x = args->x + i * args->x_stride;
    struct quant row = quant_from(job->quant, i);

    kernels->quant_row(x, job->leaves, row.codes, row.scales, row.sums);
    if (job->fine) {
        row = quant_from(job->quant, (size_t)args->n + i);
        kernels->quant_row_fine(x, job->leaves, row.codes, row.scales, row.sums);
    }
}

static void prepare_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct linear_job *job = arg;
    const struct ops_linear *args = job->args;
    const struct cpu_kernels *kernels = &job->device->kernels;
    uint32_t begin;
    uint32_t end;

    pool_share(args->n, 1, thread, n_threads, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        if (job->rounds) {
            kernels->round_bf16(job->device->rounded + i * job->rounded_stride,
                                args->x + i * args->x_stride, job->cols);
        }
        if (job->leaves != NULL) {
            quantise(job, i);
        }
    }
}

/* Makes of x what the matrices take. */
static void prepare(struct linear_job *job)
{
    const struct ops_linear *args = job->args;
    struct ops_device *device = job->device;
    size_t bytes;

    if (job->rounds) {
        job->rounded_stride = OPS_STRIDE(job->cols);
        ENSURE_OP(args->n * job->rounded_stride * sizeof(float), <=, device->rounded_bytes);
    }
    if (job->leaves != NULL) {
        uint32_t n_groups = quant_n_groups(job->leaves);
        uint32_t n = job->fine ? 2 * args->n : args->n;

        ENSURE(quant_bytes(n, n_groups, &bytes) && bytes <= device->quantised_bytes);
        job->quant = quant_attach(device->quantised, n, n_groups);
    }
    if (!job->rounds && job->leaves == NULL) {
        return;
    }
    if (args->n * job->cols < CPU_INLINE_ELEMENTS) {
        prepare_share(job, 0, 1);
    } else {
        pool_run(device->pool, prepare_share, job);
    }
}

static void add_bias(const struct ops_linear *args, const struct ops_linear_out *out,
                     uint32_t begin, uint32_t end)
{
    for (uint32_t i = 0; i < args->n; i++) {
        float *y = out->y + i * out->y_stride;

        for (uint32_t row = begin; row < end; row++) {
            y[row] += out->bias[row];
        }
    }
}

/* A matrix of these panels alone. Borrows. */
static struct packed some_panels(const struct packed *all, uint32_t begin, uint32_t end)
{
    struct packed w = *all;

    w.codes += begin * w.panel_code_bytes;
    w.scales += begin * w.panel_scale_bytes;
    w.n_panels = end - begin;
    w.rows = MIN(end * PACKED_LANES, all->rows) - begin * PACKED_LANES;
    return w;
}

/* The product, of few panels, with integers and fine groups. A row or two are multiplied together
 * with their fine groups, so that weights are taken apart once; of more rows the fine groups' are
 * added, some at a time. */
static void fine_product(const struct linear_job *job, const struct cpu_matmul *product,
                         float *sums)
{
    uint32_t n = product->m;
    struct packed w = some_panels(product->w, product->panel_begin, product->panel_end);
    bool together = n <= FINE_TOGETHER;
    struct cpu_matmul part = *product;

    part.w = &w;
    part.y = sums;
    part.y_stride = CPU_FINE_COLS;
    part.panel_begin = 0;
    part.panel_end = w.n_panels;
    if (!together) {
        job->device->kernels.matmul_int8[w.dtype](product);
    }
    for (uint32_t i = 0; i < n; i += CPU_FINE_ROWS) {
        uint32_t rows = MIN(n - i, CPU_FINE_ROWS);

        part.q = quant_from(product->q, together ? 0 : (size_t)n + i);
        part.m = together ? 2 * n : rows;
        job->device->kernels.matmul_int8[w.dtype](&part);
        for (uint32_t r = 0; r < rows; r++) {
            float *y = product->y + (i + r) * product->y_stride +
                       (size_t)product->panel_begin * PACKED_LANES;
            const float *coarse = together ? sums + (size_t)r * CPU_FINE_COLS : y;
            const float *fine = sums + (size_t)(together ? n + r : r) * CPU_FINE_COLS;

            for (uint32_t row = 0; row < w.rows; row++) {
                y[row] = coarse[row] + fine[row];
            }
        }
    }
}

static enum ops_product product_of(enum act act, const struct packed *w)
{
    return act == ACT_INT8 ? OPS_INTEGERS : w->dtype == DTYPE_BF16_12 ? OPS_BF16_12 : OPS_PLAIN;
}

/* Panels [from, to) of one matrix, with a sign of life now and then. */
static void product_panels(struct linear_job *job, const struct ops_linear_out *out, uint32_t from,
                           uint32_t to, uint32_t thread)
{
    const struct ops_linear *args = job->args;
    uint64_t panel = (uint64_t)args->n * job->cols * PACKED_LANES;
    uint32_t step = (uint32_t)MAX(TICK_PRODUCTS / panel / PANEL_UNIT * PANEL_UNIT, PANEL_UNIT);
    const struct cpu_kernels *kernels = &job->device->kernels;
    enum act act = act_for(args, out->w);
    bool rounded = act == ACT_BF16;
    bool fine = is_fine(args, out);

    step = fine ? MIN(step, CPU_FINE_PANELS) : step;
    for (uint32_t at = from; at < to; at += step) {
        const struct cpu_matmul product = {
            .w = out->w,
            .x = rounded ? job->device->rounded : args->x,
            .x_stride = rounded ? job->rounded_stride : args->x_stride,
            .x_bf16 = rounded,
            .q = job->quant,
            .y = out->y,
            .y_stride = out->y_stride,
            .root_stride = out->root_stride,
            .m = args->n,
            .few = job->device->tune.few_rows[product_of(act, out->w)],
            .panel_begin = at,
            .panel_end = MIN(at + step, to),
            .scratch = job->device->scratch[thread],
        };

        if (fine) {
            fine_product(job, &product, job->device->fine + (size_t)thread * CPU_FINE_FLOATS);
        } else {
            (act == ACT_INT8 ? kernels->matmul_int8 : kernels->matmul)[out->w->dtype](&product);
        }
        device_tick(job->device, thread);
    }
}

static void product_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct linear_job *job = arg;
    const struct ops_linear *args = job->args;
    uint32_t few = job->device->tune.few_threads;
    uint32_t first = 0; /* number of the matrix's first panel in the whole call */
    uint32_t begin;
    uint32_t end;

    n_threads = args->n <= OPS_FEW_ROWS_MAX && few > 0 ? MIN(few, n_threads) : n_threads;
    if (thread >= n_threads) {
        return;
    }
    pool_share(job->n_panels, job->unit, thread, n_threads, &begin, &end);
    for (uint32_t i = 0; i < args->n_out; i++) {
        const struct ops_linear_out *out = &args->out[i];
        uint32_t size = (uint32_t)round_up(out->w->n_panels, job->unit);
        uint32_t from = MIN(MAX(begin, first) - first, out->w->n_panels);
        uint32_t to = end > first ? MIN(end - first, out->w->n_panels) : 0;

        if (from < to) {
            product_panels(job, out, from, to, thread);
            if (out->bias != NULL) {
                add_bias(args, out, from * PACKED_LANES, MIN(to * PACKED_LANES, out->w->rows));
            }
        }
        first += size;
    }
}

/* Notes what a matrix takes. Those that take integers have the same leaves: x is cut into groups
 * along them. */
static void add_need(struct linear_job *job, const struct ops_linear_out *out)
{
    const struct packed *w = out->w;
    enum act act = act_for(job->args, w);

    job->rounds = job->rounds || act == ACT_BF16;
    if (act == ACT_INT8) {
        ENSURE(job->leaves == NULL || job->leaves->n_leaves == w->leaves.n_leaves);
        job->leaves = &w->leaves;
        ENSURE(!out->fine || w->leaves.n_roots == 1);
        job->fine = job->fine || out->fine;
    }
}

void cpu_op_linear(struct ops_device *device, const struct ops_linear *args)
{
    struct linear_job job = {.device = device, .args = args};
    uint32_t cols = 0;
    uint32_t total = 0;

    for (uint32_t i = 0; i < args->n_out; i++) {
        const struct packed *w = args->out[i].w;

        if (w->rows > 0) { /* one without rows is another rank's */
            ENSURE(cols == 0 || cols == w->cols);
            cols = w->cols;
            total += w->n_panels;
            add_need(&job, &args->out[i]);
        }
    }
    if (args->n == 0 || total == 0) {
        return;
    }
    job.cols = cols;
    prepare(&job);
    job.unit = total >= 2 * PANEL_UNIT * device->n_threads ? PANEL_UNIT : 1;
    for (uint32_t i = 0; i < args->n_out; i++) {
        job.n_panels += (uint32_t)round_up(args->out[i].w->n_panels, job.unit);
    }
    pool_run(device->pool, product_share, &job);
}
