/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with weights. Of few rows of x the threads share the output panels of all matrices of
 * the call, by what they cost. Of many they share the rows, as all operators on rows do, so that
 * what a thread computes stays in its caches and each packs x for itself alone; more threads than
 * there are worthwhile shares of the rows share the panels of theirs. Every output element is
 * computed whole by one thread, so that the cut changes nothing.
 */
#include "cpu/device.h"

/* PANEL_UNIT: panels that a product kernel likes to read side by side. ROWS_EACH: where threads
 * share rows of x, each reads all weights, for so many at least. */
enum { PANEL_UNIT = 8, ROWS_EACH = 128 };

/* Multiply-adds between two signs of life: up to a second of the reference, 24 ms of AVX2 (the
 * shortest --hang-ms is 50). Each call packs x anew where it is more than one block, so that they
 * should be few: 8-bit prefill of 512 tokens in turn, 2^29 474, 2^30 478, 2^31 484 tokens/s. */
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

/* Whether each thread multiplies the rows that it would make ready: then nobody waits in between.
 */
static bool alone(const struct linear_job *job)
{
    return job->n_teams == job->device->n_threads;
}

/* Makes of x what the matrices take, or leaves that to product_share. */
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
    if ((!job->rounds && !job->takes[false] && !job->takes[true]) || alone(job)) {
        return;
    }
    if (args->n * job->cols < CPU_INLINE_ELEMENTS) {
        prepare_share(job, 0, 1);
    } else {
        pool_run(device->pool, prepare_share, job);
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
static void product_panels(struct linear_job *job, const struct ops_linear_out *out,
                           struct share *share)
{
    const struct ops_linear *args = job->args;
    uint32_t m = share->row_end - share->row;
    uint64_t panel = (uint64_t)m * job->cols * PACKED_LANES;
    uint64_t most = job->device->level == CPU_LEVEL_REF ? TICK_PRODUCTS_REF : TICK_PRODUCTS;
    uint32_t step = (uint32_t)MAX(most / panel / PANEL_UNIT * PANEL_UNIT, PANEL_UNIT);
    const struct cpu_kernels *kernels = &job->device->kernels;
    enum act act = act_for(args, out->w);
    bool rounded = act == ACT_BF16;
    const float *x = rounded ? job->device->rounded : args->x;
    size_t x_stride = rounded ? job->rounded_stride : args->x_stride;
    struct quant q = {0};

    if (act == ACT_INT8) {
        q = quant_from(job->quant[out->wide], share->row);
    }
    for (uint32_t at = share->from; at < share->to; at += step) {
        const struct cpu_matmul product = {
            .w = out->w,
            .x = x + share->row * x_stride,
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
    return unit_cost(job->args, out) * div_up(out->w->n_panels, job->unit);
}

/* The panels of one matrix that lie in [begin, end) of the cost of all; its own begins at first. */
static void share_panels(const struct linear_job *job, const struct ops_linear_out *out,
                         uint64_t first, uint64_t begin, uint64_t end, struct share *share)
{
    uint64_t each = unit_cost(job->args, out);
    uint64_t from = begin > first ? div_up(begin - first, each) : 0;
    uint64_t to = end > first ? div_up(end - first, each) : 0;

    share->from = (uint32_t)MIN(from * job->unit, out->w->n_panels);
    share->to = (uint32_t)MIN(to * job->unit, out->w->n_panels);
}

static void product_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct linear_job *job = arg;
    const struct ops_linear *args = job->args;
    uint32_t few = job->device->tune.few_threads;
    struct share share = {.thread = thread};
    uint64_t first = 0; /* the cost of all matrices before */
    uint32_t team;      /* threads in one */
    uint64_t begin;
    uint64_t end;

    n_threads = args->n <= OPS_FEW_ROWS_MAX && few > 0 ? MIN(few, n_threads) : n_threads;
    if (thread >= n_threads) {
        return;
    }
    if (alone(job)) {
        prepare_share(job, thread, n_threads);
    }
    team = n_threads / job->n_teams;
    pool_share(args->n, 1, thread / team, job->n_teams, &share.row, &share.row_end);
    begin = job->cost * (thread % team) / team;
    end = job->cost * (thread % team + 1) / team;
    for (uint32_t i = 0; i < args->n_out; i++) {
        const struct ops_linear_out *out = &args->out[i];

        share_panels(job, out, first, begin, end, &share);
        if (share.from < share.to) {
            product_panels(job, out, &share);
            if (out->bias != NULL) {
                add_bias(out, &share);
            }
        }
        first += matrix_cost(job, out);
    }
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
    job.n_teams = teams(args->n, device->n_threads);
    prepare(&job);
    job.unit = total >= 2 * PANEL_UNIT * device->n_threads ? PANEL_UNIT : 1;
    for (uint32_t i = 0; i < args->n_out; i++) {
        job.cost += matrix_cost(&job, &args->out[i]);
    }
    pool_run(device->pool, product_share, &job);
}
