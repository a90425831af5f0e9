/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/row_queue.h"

#include "cpu/device.h"

/* Rows that go through operators on single rows one after the other: 256 KB where they have 4,096
 * columns. */
enum { BLOCK_ROWS = 16 };

bool row_waits(const struct ops_device *device, uint32_t n)
{
    return n / ROWS_EACH >= device->n_threads;
}

/* Jobs from this one on that are done together, some rows at a time. */
static uint32_t run_of(const struct row_queue *queue, uint32_t first)
{
    uint32_t n = 1;

    while (!queue->jobs[first].whole && first + n < queue->n_jobs &&
           !queue->jobs[first + n].whole) {
        n++;
    }
    return n;
}

static void queue_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct row_queue *queue = arg;
    uint32_t begin;
    uint32_t end;
    uint32_t n;

    pool_share(queue->n_rows, 1, thread, n_threads, &begin, &end);
    for (uint32_t first = 0; first < queue->n_jobs; first += n) {
        const struct row_job *jobs = &queue->jobs[first];
        uint32_t step = jobs->whole ? end - begin : (uint32_t)BLOCK_ROWS;

        n = run_of(queue, first);
        for (uint32_t row = begin; row < end; row += step) {
            for (uint32_t i = 0; i < n; i++) {
                jobs[i].fn(jobs[i].args, thread, row, MIN(row + step, end));
            }
        }
    }
}

static void work_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct row_work *work = arg;
    uint32_t begin;
    uint32_t end;

    pool_share(work->n, 1, thread, n_threads, &begin, &end);
    if (begin < end) {
        work->fn(work->args, thread, begin, end);
    }
}

void row_sync(struct ops_device *device)
{
    if (device->queue.n_jobs > 0) {
        pool_run(device->pool, queue_share, &device->queue);
        device->queue.n_jobs = 0;
    }
}

static void append(struct row_queue *queue, const struct row_work *work)
{
    struct row_job *job = &queue->jobs[queue->n_jobs++];

    ENSURE_OP(work->args_bytes, <=, sizeof(job->args));
    job->fn = work->fn;
    job->whole = work->whole;
    memcpy(job->args, work->args, work->args_bytes);
    queue->n_rows = work->n;
}

void row_do(struct ops_device *device, const struct row_work *work)
{
    const struct row_queue *queue = &device->queue;

    if (queue->n_jobs == ROW_JOBS || queue->n_rows != work->n) { /* so many rows wait, or do not */
        row_sync(device);
    }
    if (row_waits(device, work->n)) {
        append(&device->queue, work);
    } else {
        device_run(device, work_share, (void *)work, work->n_elements);
    }
}
