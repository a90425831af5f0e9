/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that treat each row of activations by itself (cpu/row_queue.h). */
#include "cpu/device.h"

struct embed_job {
    const struct packed *w;
    const int32_t *tokens;
    float *out;
    size_t out_stride;
};

/* One row of w. It lies spread over its panel: a pair of BF16 in each line, for example. */
static void embed_row(const struct packed *w, uint32_t row, float *out)
{
    const uint8_t *pair =
        w->codes + row / PACKED_LANES * w->panel_code_bytes + row % PACKED_LANES * sizeof(uint32_t);

    if (w->dtype != DTYPE_BF16) {
        for (uint32_t k = 0; k < w->cols; k++) {
            out[k] = packed_value(w, row, k);
        }
        return;
    }
    for (uint32_t k = 0; k < w->cols; k++) {
        uint16_t half;

        memcpy(&half, pair + k % 2 * sizeof(half), sizeof(half));
        out[k] = f32_from_bf16(half);
        pair += k % 2 * PACKED_LANES * sizeof(uint32_t);
    }
}

static void embed_rows(const void *args, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct embed_job *job = args;

    (void)thread;
    for (uint32_t i = begin; i < end; i++) {
        ENSURE_OP((uint32_t)job->tokens[i], <, job->w->rows);
        embed_row(job->w, (uint32_t)job->tokens[i], job->out + i * job->out_stride);
    }
}

void cpu_op_embed(struct ops_device *device, const struct packed *w, const int32_t *tokens,
                  uint32_t n, float *out, size_t out_stride)
{
    const struct embed_job job = {w, tokens, out, out_stride};

    row_do(device, &(struct row_work){.fn = embed_rows,
                                      .args = &job,
                                      .args_bytes = sizeof(job),
                                      .n = n,
                                      .n_elements = (size_t)n * w->cols});
}

struct rmsnorm_job {
    const struct cpu_kernels *kernels;
    struct ops_rmsnorm args;
};

static void rmsnorm_rows(const void *arg, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct rmsnorm_job *job = arg;
    const struct ops_rmsnorm *args = &job->args;

    (void)thread;
    for (uint32_t i = begin; i < end; i++) {
        for (uint32_t group = 0; group < args->groups; group++) {
            size_t offset = (size_t)group * args->dim;

            job->kernels->rmsnorm(args->y + i * args->y_stride + offset,
                                  args->x + i * args->x_stride + offset, args->w, args->dim,
                                  args->eps);
        }
    }
}

void cpu_op_rmsnorm(struct ops_device *device, const struct ops_rmsnorm *args)
{
    const struct rmsnorm_job job = {&device->kernels, *args};

    row_do(device, &(struct row_work){.fn = rmsnorm_rows,
                                      .args = &job,
                                      .args_bytes = sizeof(job),
                                      .n = args->n,
                                      .n_elements = (size_t)args->n * args->groups * args->dim});
}

struct rope_job {
    const struct cpu_kernels *kernels;
    struct ops_rope args;
};

static void rope_rows(const void *arg, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct rope_job *job = arg;
    const struct ops_rope *args = &job->args;
    uint32_t half = args->rot / 2;

    (void)thread;
    for (uint32_t i = begin; i < end; i++) {
        for (uint32_t h = 0; h < args->n_heads; h++) {
            job->kernels->rope(args->x + i * args->x_stride + (size_t)h * args->head_dim,
                               args->cos + (size_t)i * half, args->sin + (size_t)i * half, half);
        }
    }
}

void cpu_op_rope(struct ops_device *device, const struct ops_rope *args)
{
    const struct rope_job job = {&device->kernels, *args};

    row_do(device,
           &(struct row_work){.fn = rope_rows,
                              .args = &job,
                              .args_bytes = sizeof(job),
                              .n = args->n,
                              .n_elements = (size_t)args->n * args->n_heads * args->head_dim});
}

struct pair_job {
    const struct cpu_kernels *kernels;
    const float *a;
    const float *b;
    size_t stride;
    float *y;
    size_t y_stride;
    uint32_t dim;
};

static void do_pairs(struct ops_device *device, row_fn *fn, const struct pair_job *job, uint32_t n)
{
    row_do(device, &(struct row_work){.fn = fn,
                                      .args = job,
                                      .args_bytes = sizeof(*job),
                                      .n = n,
                                      .n_elements = (size_t)n * job->dim});
}

static void silu_mul_rows(const void *args, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct pair_job *job = args;

    (void)thread;
    for (uint32_t i = begin; i < end; i++) {
        job->kernels->silu_mul(job->y + i * job->y_stride, job->a + i * job->stride,
                               job->b + i * job->stride, job->dim);
    }
}

void cpu_op_silu_mul(struct ops_device *device, const float *gate, const float *up, size_t stride,
                     float *y, size_t y_stride, uint32_t n, uint32_t dim)
{
    do_pairs(device, silu_mul_rows,
             &(struct pair_job){&device->kernels, gate, up, stride, y, y_stride, dim}, n);
}

static void add_rows(const void *args, uint32_t thread, uint32_t begin, uint32_t end)
{
    const struct pair_job *job = args;

    (void)thread;
    for (uint32_t i = begin; i < end; i++) {
        job->kernels->add(job->y + i * job->y_stride, job->a + i * job->stride, job->dim);
    }
}

void cpu_op_add(struct ops_device *device, float *x, size_t x_stride, const float *y,
                size_t y_stride, uint32_t n, uint32_t dim)
{
    do_pairs(device, add_rows,
             &(struct pair_job){&device->kernels, y, NULL, y_stride, x, x_stride, dim}, n);
}

struct nan_job {
    const float *x;
    size_t x_stride;
    uint32_t n;
    uint32_t dim;
    _Atomic bool found;
};

/* Some columns of all rows: there may be one row alone. */
static void nan_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct nan_job *job = arg;
    uint32_t begin;
    uint32_t end;

    pool_share(job->dim, 1, thread, n_threads, &begin, &end);
    for (uint32_t i = 0; i < job->n; i++) {
        const float *x = job->x + i * job->x_stride;
        bool found = false;

        for (uint32_t j = begin; j < end; j++) { /* no early exit: it becomes vectors */
            found |= x[j] != x[j];
        }
        if (found) {
            job->found = true;
            return;
        }
    }
}

bool cpu_op_has_nan(struct ops_device *device, const float *x, size_t x_stride, uint32_t n,
                    uint32_t dim)
{
    struct nan_job job = {.x = x, .x_stride = x_stride, .n = n, .dim = dim};

    row_sync(device);
    device_run(device, nan_share, &job, (size_t)n * dim);
    return job.found;
}
