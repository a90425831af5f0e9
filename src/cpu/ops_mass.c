/* SPDX-License-Identifier: Apache-2.0 */
/* Masses over the vocabulary. The threads share the blocks of a sum; the maxima are read by the
 * calling thread in about the time that waking the others can take. */
#include "cpu/device.h"

struct sum_job {
    const struct cpu_kernels *kernels;
    const struct mass_rows *rows;
};

static void sum_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct sum_job *job = arg;
    const struct mass_rows *rows = job->rows;
    uint32_t begin;
    uint32_t end;

    pool_share(rows->n, MASS_BLOCK_ROWS, thread, n_threads, &begin, &end);
    for (uint32_t row = begin; row < end; row += MASS_BLOCK_ROWS) {
        struct mass_block *block = &rows->blocks[row / MASS_BLOCK_ROWS];

        block->sum = job->kernels->mass_sum(rows->logits + row, MIN(MASS_BLOCK_ROWS, end - row),
                                            block->max, rows->inv_temperature,
                                            rows->masses == NULL ? NULL : rows->masses + row);
    }
}

static void sum_of(void *arg, const struct mass_rows *rows)
{
    struct ops_device *device = arg;
    struct sum_job job = {&device->kernels, rows};

    device_run(device, sum_share, &job, rows->n);
}

static void max_of(void *arg, const struct mass_rows *rows)
{
    const struct ops_device *device = arg;

    for (uint32_t b = 0; b * MASS_BLOCK_ROWS < rows->n; b++) {
        rows->blocks[b].max =
            device->kernels.mass_max(rows->logits + b * MASS_BLOCK_ROWS, mass_block_rows(rows, b));
    }
}

struct mass_table cpu_op_masses(struct ops_device *device)
{
    return (struct mass_table){.arg = device, .max = max_of, .sum = sum_of};
}
