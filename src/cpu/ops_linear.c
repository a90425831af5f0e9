/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with weights. Of few rows of x the threads share the output panels of all matrices of
 * the call, by what they cost. Of many they share the rows, as all operators on rows do
 * (cpu/row_queue.h), so that what a thread computes stays in its caches and each packs x for itself
 * alone; more threads than there are worthwhile shares of the rows share the panels of theirs.
 * Every output element is computed whole by one thread, so that the cut changes nothing.
 */
#include "cpu/device.h"

enum { PANEL_UNIT = 8 }; /* panels that a product kernel likes to read side by side */

/* Multiply-adds between two signs of life: up to a second of the reference, 24 ms of AVX2 (the
 * shortest --hang-ms is 50). Each call packs x anew where it is more than one block, so that they
 * should be few: 8-bit prefill of 512 tokens in turn, 2^29 474, 2^30 478, 2^31 484 tokens/s. */
static const uint64_t TICK_PRODUCTS_REF = (uint64_t)1 << 29;
static const uint64_t TICK_PRODUCTS = (uint64_t)1 << 30;

struct linear_job {
    struct ops_device *device;
    struct ops_linear args;
    struct ops_linear_out out[OPS_LINEAR_MAX]; /* those of args */
    const struct leaf_plan *leaves;            /* of the matrices that take integers */
    bool rounds;                               /* some matrix takes x rounded */
    bool takes[2]; /* whether some matrix takes integers, [1] of 16 bits */
    uint32_t cols;
    uint32_t n_teams; /* of threads; each has a share of the rows */
    uint32_t unit;    /* panels that stay together */
    uint64_t cost;    /* of all matrices */
};

/* What x becomes before it is multiplied by this matrix. */
static enum act act_for(const struct ops_linear *args, const struct packed *w)
{
    if (args->act != ACT_INT8 || dtype_is_quantised(w->dtype)) {
        return args->act;
    }
    return w->dtype == DTYPE_BF16 || w->dtype == DTYPE_BF16_12 ? ACT_BF16 : ACT_F32;
}

/* What becomes of x, where a thread makes and reads it. */
struct ready {
    uint32_t first; /* the rows from this one on */
    float *rounded;
    size_t rounded_stride;
    struct quant quant[2]; /* [1] of 16 bits */
};

/* Of all rows, for all threads; or, where products wait, of each thread's in a part of the memory
 * that is its own: one may be some products ahead, of rows of other lengths. */
static struct ready ready_of(const struct linear_job *job, uint32_t thread)
{
    const struct ops_device *device = job->device;
    bool waits = row_waits(device, job->args.n);
    uint32_t n_parts = waits ? device->n_threads : 1;
    uint32_t part = waits ? thread : 0;
    struct ready ready = {.rounded_stride = OPS_STRIDE(job->cols)};
    uint32_t end;
    size_t bytes;

    pool_share(job->args.n, 1, part, n_parts, &ready.first, &end);
    if (job->rounds) {
        size_t size = device->rounded_bytes / n_parts;

        ENSURE_OP((end - ready.first) * ready.rounded_stride * sizeof(float), <=, size);
        ready.rounded = device->rounded + part * (size / sizeof(float));
    }
    for (int wide = 0; wide < 2; wide++) {
        if (job->takes[wide]) {
            size_t size = device->quantised_bytes[wide] / n_parts;
            uint32_t n_groups = quant_n_groups(job->leaves);

            ENSURE(quant_bytes(end - ready.first, n_groups, wide != 0, &bytes) && bytes <= size);
            ready.quant[wide] = quant_attach((uint8_t *)device->quantised[wide] + part * size,
                                             end - ready.first, n_groups, wide != 0);
        }
    }
    return ready;
}

/* Makes of x what the matrices take. */
static void prepare_rows(const void *arg, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct linear_job *job = arg;
    const struct cpu_kernels *kernels = &job->device->kernels;
    const struct ready ready = ready_of(job, thread);

    for (uint32_t i = begin; i < end; i++) {
        const float *x = job->args.x + i * job->args.x_stride;
        uint32_t at = i - ready.first;

        if (job->rounds) {
            kernels->round_bf16(ready.rounded + at * ready.rounded_stride, x, job->cols);
        }
        for (int wide = 0; wide < 2; wide++) {
            if (job->takes[wide]) {
                struct quant row = quant_from(ready.quant[wide], at);

                kernels->quant_row(x, job->leaves, &row);
            }
        }
    }
}

/* What one thread computes: rows [row, row_end), and of a matrix panels [from, to). */
struct share {
    uint32_t thread;
    uint32_t row;
    uint32_t row_end;
    uint32_t from;
    uint32_t to;
    const struct ops_linear_out *last; /* NULL, or the matrix that was multiplied before this */
};

/* Whether kernels make the same of x for both. */
static bool takes_same_x(const struct ops_linear_out *a, const struct ops_linear_out *b)
{
    const struct leaf_plan *p = &a->w->leaves;
    const struct leaf_plan *q = &b->w->leaves;

    return a->w->dtype == b->w->dtype && a->wide == b->wide && p->n_leaves == q->n_leaves &&
           memcmp(p->bounds, q->bounds, (p->n_leaves + 1) * sizeof(*p->bounds)) == 0;
}

static void add_bias(const struct ops_linear_out *out, const struct share *share)
{
    const uint32_t end = MIN(share->to * PACKED_LANES, out->w->rows);

    for (uint32_t i = share->row; i < share->row_end; i++) {
        float *y = out->y + i * out->y_stride;

        for (uint32_t j = share->from * PACKED_LANES; j < end; j++) {
            y[j] += out->bias[j];
        }
    }
}

static enum ops_product product_of(enum act act, const struct packed *w)
{
    return act == ACT_INT8 ? OPS_INTEGERS : w->dtype == DTYPE_BF16_12 ? OPS_BF16_12 : OPS_PLAIN;
}

/* A share of one matrix, with a sign of life now and then. */
static void product_panels(const struct linear_job *job, const struct ops_linear_out *out,
                           struct share *share)
{
    const struct ops_linear *args = &job->args;
    const struct ready ready = ready_of(job, share->thread);
    uint32_t m = share->row_end - share->row;
    uint64_t panel = (uint64_t)m * job->cols * PACKED_LANES;
    uint64_t most = job->device->level == CPU_LEVEL_REF ? TICK_PRODUCTS_REF : TICK_PRODUCTS;
    uint32_t step = (uint32_t)MAX(most / panel / PANEL_UNIT * PANEL_UNIT, PANEL_UNIT);
    const struct cpu_kernels *kernels = &job->device->kernels;
    enum act act = act_for(args, out->w);
    bool rounded = act == ACT_BF16;
    size_t x_stride = rounded ? ready.rounded_stride : args->x_stride;
    const float *x = rounded ? ready.rounded + (share->row - ready.first) * x_stride
                             : args->x + share->row * x_stride;
    struct quant q = {0};

    if (act == ACT_INT8) {
        q = quant_from(ready.quant[out->wide], share->row - ready.first);
    }
    for (uint32_t at = share->from; at < share->to; at += step) {
        const struct cpu_matmul product = {
            .w = out->w,
            .x = x,
            .x_stride = x_stride,
            .x_bf16 = rounded,
            .q = q,
            .y = out->y + share->row * out->y_stride,
            .y_stride = out->y_stride,
            .root_stride = out->root_stride,
            .m = m,
            .few = job->device->tune.few_rows[product_of(act, out->w)],
            .panel_begin = at,
            .panel_end = MIN(at + step, share->to),
            .scratch = job->device->scratch[share->thread],
            .same_x = share->last != NULL && takes_same_x(share->last, out),
        };

        (act == ACT_INT8 ? kernels->matmul_int8 : kernels->matmul)[out->w->dtype](&product);
        device_tick(job->device, share->thread);
        share->last = out;
    }
}

/* What `unit` panels of the matrix cost, in any measure: bytes where memory is the bound; else
 * products, of which those of bytes take about half as long as all others. */
static uint64_t unit_cost(const struct ops_linear *args, const struct ops_linear_out *out)
{
    if (args->n <= OPS_FEW_ROWS_MAX) {
        return MAX(out->w->panel_code_bytes + out->w->panel_scale_bytes, 1);
    }
    return act_for(args, out->w) == ACT_INT8 && !out->wide ? 4 : 7;
}

static uint64_t matrix_cost(const struct linear_job *job, const struct ops_linear_out *out)
{
    return unit_cost(&job->args, out) * div_up(out->w->n_panels, job->unit);
}

/* The panels of one matrix that lie in [begin, end) of the cost of all; its own begins at first. */
static void share_panels(const struct linear_job *job, const struct ops_linear_out *out,
                         uint64_t first, uint64_t begin, uint64_t end, struct share *share)
{
    uint64_t each = unit_cost(&job->args, out);
    uint64_t from = begin > first ? div_up(begin - first, each) : 0;
    uint64_t to = end > first ? div_up(end - first, each) : 0;

    share->from = (uint32_t)MIN(from * job->unit, out->w->n_panels);
    share->to = (uint32_t)MIN(to * job->unit, out->w->n_panels);
}

/* What costs [begin, end) of all matrices, of the share's rows. */
static void product_part(const struct linear_job *job, uint64_t begin, uint64_t end,
                         struct share *share)
{
    uint64_t first = 0; /* the cost of all matrices before */

    for (uint32_t i = 0; i < job->args.n_out; i++) {
        const struct ops_linear_out *out = &job->out[i];

        share_panels(job, out, first, begin, end, share);
        if (share->from < share->to) {
            product_panels(job, out, share);
            if (out->bias != NULL) {
                add_bias(out, share);
            }
        }
        first += matrix_cost(job, out);
    }
}

/* All of a thread's rows. */
static void product_rows(const void *arg, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct linear_job *job = arg;

    product_part(job, 0, job->cost,
                 &(struct share){.thread = thread, .row = begin, .row_end = end});
}

/* Some panels of all rows, or of a team's. */
static void product_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct linear_job *job = arg;
    const struct ops_linear *args = &job->args;
    uint32_t few = job->device->tune.few_threads;
    struct share share = {.thread = thread};
    uint32_t team; /* threads in one */

    n_threads = args->n <= OPS_FEW_ROWS_MAX && few > 0 ? MIN(few, n_threads) : n_threads;
    if (thread >= n_threads) {
        return;
    }
    team = n_threads / job->n_teams;
    pool_share(args->n, 1, thread / team, job->n_teams, &share.row, &share.row_end);
    product_part(job, job->cost * (thread % team) / team, job->cost * (thread % team + 1) / team,
                 &share);
}

/* The greatest number of equal teams of which each has rows enough. */
static uint32_t teams(uint32_t n_rows, uint32_t n_threads)
{
    uint32_t n = MAX(MIN(n_rows / ROWS_EACH, n_threads), 1);

    while (n_threads % n != 0) {
        n--;
    }
    return n;
}

/* Notes what a matrix takes. Those that take integers have the same leaves: x is cut into groups
 * along them. */
static void add_need(struct linear_job *job, const struct ops_linear_out *out)
{
    const struct packed *w = out->w;
    enum act act = act_for(&job->args, w);

    job->rounds = job->rounds || act == ACT_BF16;
    if (act == ACT_INT8) {
        ENSURE(job->leaves == NULL || job->leaves->n_leaves == w->leaves.n_leaves);
        job->leaves = &w->leaves;
        job->takes[out->wide] = true;
    }
}

/* x as the matrices take it, and then the products: at once, or when somebody needs them. */
static void do_job(struct linear_job *job)
{
    struct row_work work = {.fn = prepare_rows,
                            .args = job,
                            .args_bytes = sizeof(*job),
                            .n = job->args.n,
                            .n_elements = (size_t)job->args.n * job->cols};

    if (job->rounds || job->takes[false] || job->takes[true]) {
        row_do(job->device, &work);
    }
    if (row_waits(job->device, work.n)) {
        work.fn = product_rows;
        work.whole = true;
        row_do(job->device, &work);
    } else {
        row_sync(job->device);
        pool_run(job->device->pool, product_share, job);
    }
}

void cpu_op_linear(struct ops_device *device, const struct ops_linear *args)
{
    struct linear_job job = {.device = device, .args = *args};
    uint32_t total = 0;

    ENSURE_OP(args->n_out, <=, OPS_LINEAR_MAX);
    memcpy(job.out, args->out, args->n_out * sizeof(*args->out));
    for (uint32_t i = 0; i < args->n_out; i++) {
        const struct packed *w = args->out[i].w;

        if (w->rows > 0) { /* one without rows is another rank's */
            ENSURE(job.cols == 0 || job.cols == w->cols);
            job.cols = w->cols;
            total += w->n_panels;
            add_need(&job, &args->out[i]);
        }
    }
    if (args->n == 0 || total == 0) {
        return;
    }
    job.n_teams = teams(args->n, device->n_threads);
    job.unit = total >= 2 * PANEL_UNIT * device->n_threads ? PANEL_UNIT : 1;
    for (uint32_t i = 0; i < args->n_out; i++) {
        job.cost += matrix_cost(&job, &args->out[i]);
    }
    job.args.out = NULL; /* the caller's, gone when it is done */
    do_job(&job);
}
