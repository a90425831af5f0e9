/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with weights. The threads share the output panels of all matrices of the call by what
 * they cost; every output element is computed whole by one thread, so that the cut changes nothing.
 */
#include "cpu/device.h"

enum { PANEL_UNIT = 8 }; /* panels a product kernel likes to read side by side */

/* Multiply-adds between two signs of life: up to a second of the reference, 24 ms of AVX2 (the
 * shortest --hang-ms is 50). Each call packs x anew, so that they should be few: 8-bit prefill of
 * 512 tokens in turn, 2^29 474, 2^30 478, 2^31 484 tokens/s. */
static const uint64_t TICK_PRODUCTS_REF = (uint64_t)1 << 29;
static const uint64_t TICK_PRODUCTS = (uint64_t)1 << 30;

struct linear_job {
    struct ops_device *device;
    const struct ops_linear *args;
    const struct leaf_plan *leaves; /* of the matrices that take integers */
    bool rounds;                    /* some matrix takes x rounded */
    size_t rounded_stride;
    bool takes[2];         /* whether some matrix takes integers, [1] of 16 bits */
    struct quant quant[2]; /* x as such, all rows */
    uint32_t cols;
    uint32_t unit; /* panels that stay together */
    uint64_t cost; /* of all matrices */
};

/* What x becomes before it is multiplied by this matrix. */
static enum act act_for(const struct ops_linear *args, const struct packed *w)
{
    if (args->act != ACT_INT8 || dtype_is_quantised(w->dtype)) {
        return args->act;
    }
    return w->dtype == DTYPE_BF16 || w->dtype == DTYPE_BF16_12 ? ACT_BF16 : ACT_F32;
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
        for (int wide = 0; wide < 2; wide++) {
            if (job->takes[wide]) {
                struct quant row = quant_from(job->quant[wide], i);

                kernels->quant_row(args->x + i * args->x_stride, job->leaves, &row);
            }
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
    for (int wide = 0; wide < 2; wide++) {
        if (job->takes[wide]) {
            uint32_t n_groups = quant_n_groups(job->leaves);

            ENSURE(quant_bytes(args->n, n_groups, wide != 0, &bytes) &&
                   bytes <= device->quantised_bytes[wide]);
            job->quant[wide] = quant_attach(device->quantised[wide], args->n, n_groups, wide != 0);
        }
    }
    if (!job->rounds && !job->takes[false] && !job->takes[true]) {
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
    uint64_t most = job->device->level == CPU_LEVEL_REF ? TICK_PRODUCTS_REF : TICK_PRODUCTS;
    uint32_t step = (uint32_t)MAX(most / panel / PANEL_UNIT * PANEL_UNIT, PANEL_UNIT);
    const struct cpu_kernels *kernels = &job->device->kernels;
    enum act act = act_for(args, out->w);
    bool rounded = act == ACT_BF16;

    for (uint32_t at = from; at < to; at += step) {
        const struct cpu_matmul product = {
            .w = out->w,
            .x = rounded ? job->device->rounded : args->x,
            .x_stride = rounded ? job->rounded_stride : args->x_stride,
            .x_bf16 = rounded,
            .q = job->quant[out->wide],
            .y = out->y,
            .y_stride = out->y_stride,
            .root_stride = out->root_stride,
            .m = args->n,
            .few = job->device->tune.few_rows[product_of(act, out->w)],
            .panel_begin = at,
            .panel_end = MIN(at + step, to),
            .scratch = job->device->scratch[thread],
        };

        (act == ACT_INT8 ? kernels->matmul_int8 : kernels->matmul)[out->w->dtype](&product);
        device_tick(job->device, thread);
    }
}

/* What `unit` panels of the matrix cost, in any measure: bytes where memory is the bound; else
 * products, of which those of bytes take half as long as all others. */
static uint64_t unit_cost(const struct ops_linear *args, const struct ops_linear_out *out)
{
    if (args->n <= OPS_FEW_ROWS_MAX) {
        return MAX(out->w->panel_code_bytes + out->w->panel_scale_bytes, 1);
    }
    return act_for(args, out->w) == ACT_INT8 && !out->wide ? 1 : 2;
}

static uint64_t matrix_cost(const struct linear_job *job, const struct ops_linear_out *out)
{
    return unit_cost(job->args, out) * div_up(out->w->n_panels, job->unit);
}

/* The panels of one matrix that lie between two shares of the cost of all; it begins at `first`. */
static void panels_between(const struct linear_job *job, const struct ops_linear_out *out,
                           uint64_t first, uint64_t begin, uint64_t end, uint32_t *ret_from,
                           uint32_t *ret_to)
{
    uint64_t each = unit_cost(job->args, out);
    uint64_t from = begin > first ? div_up(begin - first, each) : 0;
    uint64_t to = end > first ? div_up(end - first, each) : 0;

    *ret_from = (uint32_t)MIN(from * job->unit, out->w->n_panels);
    *ret_to = (uint32_t)MIN(to * job->unit, out->w->n_panels);
}

static void product_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct linear_job *job = arg;
    const struct ops_linear *args = job->args;
    uint32_t few = job->device->tune.few_threads;
    uint64_t first = 0; /* the cost of all matrices before */
    uint64_t begin;
    uint64_t end;

    n_threads = args->n <= OPS_FEW_ROWS_MAX && few > 0 ? MIN(few, n_threads) : n_threads;
    if (thread >= n_threads) {
        return;
    }
    begin = job->cost * thread / n_threads;
    end = job->cost * (thread + 1) / n_threads;
    for (uint32_t i = 0; i < args->n_out; i++) {
        const struct ops_linear_out *out = &args->out[i];
        uint32_t from;
        uint32_t to;

        panels_between(job, out, first, begin, end, &from, &to);
        if (from < to) {
            product_panels(job, out, from, to, thread);
            if (out->bias != NULL) {
                add_bias(args, out, from * PACKED_LANES, MIN(to * PACKED_LANES, out->w->rows));
            }
        }
        first += matrix_cost(job, out);
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
        job->takes[out->wide] = true;
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
        job.cost += matrix_cost(&job, &args->out[i]);
    }
    pool_run(device->pool, product_share, &job);
}
