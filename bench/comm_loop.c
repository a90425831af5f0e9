/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a decode step does around a collective, without the arithmetic: read 512 KB of private
 * memory (weights), then add up the ranks' partial sums. The ranks meet before the clock starts, so
 * that their imbalance is not measured, and the variants take turns, so that a noisy moment hits
 * all of them.
 */
#include "comm_loop.h"

#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { WORK_BYTES = 512 << 10, MAX_COUNT = 20480, N_COUNTS = 4 };

static const size_t counts[N_COUNTS] = {1024, 2048, 5120, 20480};

enum variant { BARRIER, DIRECT, COPY, REDUCE, OTHER, N_VARIANTS };

struct loop {
    struct comm *comm;
    const struct comm_loop_other *other;
    uint32_t rounds;
    const char *work;
    float *partial; /* [MAX_COUNT] */
    float *x;       /* [MAX_COUNT] */
    float *us;      /* [N_COUNTS][N_VARIANTS][rounds] */
    struct err err;
};

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;

    return (x > y) - (x < y);
}

/* The partial sums, as a producer would write them. */
static void produce(float *out, size_t count, uint32_t rank)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(rank + i % 7);
    }
}

static void read_work(const struct loop *loop)
{
    for (size_t i = 0; i < WORK_BYTES; i += CACHE_LINE) {
        (void)*(const volatile char *)(loop->work + i);
    }
}

static enum status run_variant(struct loop *loop, enum variant variant, size_t count,
                               struct comm_tree *tree)
{
    struct comm_data data = {loop->partial, loop->partial, count, COMM_F32};

    switch (variant) {
    case BARRIER:
        return comm_barrier(loop->comm, &loop->err);
    case REDUCE:
        return comm_all_reduce(loop->comm, &data, COMM_SUM, &loop->err);
    case OTHER:
        loop->other->all_reduce(loop->partial, count);
        return STATUS_OK;
    default:
        return comm_sum_tree(loop->comm, tree, &loop->err);
    }
}

/* One sample: microseconds of one collective. */
static enum status measure(struct loop *loop, enum variant variant, size_t count, float *ret_us)
{
    struct comm_tree tree = {
        .n_leaves = loop->comm->n_ranks,
        .first = loop->comm->rank,
        .n_owned = 1,
        .n_roots = 1,
        .root_stride = count,
        .count = count,
        .add_to = loop->x,
    };
    enum status status = comm_barrier(loop->comm, &loop->err);
    float *partial = loop->partial;
    uint64_t began;

    if (status != STATUS_OK) {
        return status;
    }
    if (variant == DIRECT) {
        float *buffer = comm_partial_buffer(loop->comm, count, 1, &tree.root_stride);

        partial = buffer == NULL ? partial : buffer;
    }
    produce(partial, count, loop->comm->rank);
    tree.partial = partial;
    read_work(loop);
    status = comm_barrier(loop->comm, &loop->err);
    if (status != STATUS_OK) {
        return status;
    }
    began = clock_ns();
    status = run_variant(loop, variant, count, &tree);
    *ret_us = (float)(clock_ns() - began) / 1000;
    return status;
}

static double mean(const float *values, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum / n;
}

static bool has_variant(const struct loop *loop, unsigned variant)
{
    return variant != OTHER || loop->other != NULL;
}

static float *samples(const struct loop *loop, unsigned count, unsigned variant)
{
    return loop->us + ((size_t)count * N_VARIANTS + variant) * loop->rounds;
}

static void print_table(const struct loop *loop)
{
    static const char *const names[] = {"barrier", "sum_tree, written in place", "sum_tree, copied",
                                        "all_reduce", NULL};

    printf("%u ranks, %ld cores, %u rounds, us:\n", loop->comm->n_ranks,
           sysconf(_SC_NPROCESSORS_ONLN), loop->rounds);
    for (unsigned c = 0; c < N_COUNTS; c++) {
        float other = 0;

        if (loop->other != NULL) {
            qsort(samples(loop, c, OTHER), loop->rounds, sizeof(float), compare);
            other = samples(loop, c, OTHER)[loop->rounds / 2];
        }
        for (unsigned v = 0; v < N_VARIANTS; v++) {
            float *us = samples(loop, c, v);

            if (!has_variant(loop, v)) {
                continue;
            }
            qsort(us, loop->rounds, sizeof(float), compare);
            printf("%6zu floats  %-26s p50 %8.2f  p99 %9.2f  mean %8.2f", counts[c],
                   v == OTHER ? loop->other->name : names[v], us[loop->rounds / 2],
                   us[(size_t)loop->rounds * 99 / 100], mean(us, loop->rounds));
            if (other > 0 && v != OTHER && v != BARRIER) {
                printf("  %5.2f x %s", us[loop->rounds / 2] / other, loop->other->name);
            }
            printf("\n");
        }
    }
    fflush(stdout);
}

static enum status run_rounds(struct loop *loop)
{
    enum status status = STATUS_OK;

    for (uint32_t round = 0; round < loop->rounds; round++) {
        for (unsigned c = 0; c < N_COUNTS; c++) {
            for (unsigned v = 0; v < N_VARIANTS && status == STATUS_OK; v++) {
                if (has_variant(loop, v)) {
                    status = measure(loop, (enum variant)v, counts[c], samples(loop, c, v) + round);
                }
            }
        }
    }
    return status;
}

static void pin(uint32_t rank)
{
    cpu_set_t allowed;
    cpu_set_t one;
    uint32_t skip;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
        return;
    }
    skip = rank % (uint32_t)CPU_COUNT(&allowed);
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &allowed) && skip-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(core, &one);
            sched_setaffinity(0, sizeof(one), &one);
            return;
        }
    }
}

bool comm_loop_run(struct comm *comm, uint32_t rounds, const struct comm_loop_other *other)
{
    struct loop loop = {.comm = comm, .other = other, .rounds = rounds};
    char *work = mem_map(WORK_BYTES);
    enum status status;

    pin(comm->rank);
    loop.partial = xcalloc(MAX_COUNT, sizeof(float));
    loop.x = xcalloc(MAX_COUNT, sizeof(float));
    loop.us = mem_alloc((size_t)N_COUNTS * N_VARIANTS * rounds, sizeof(float));
    ENSURE(work != NULL && loop.us != NULL);
    memset(work, 1, WORK_BYTES); /* memory of its own, not the zero page */
    loop.work = work;
    status = run_rounds(&loop);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_comm: %s\n", loop.err.text);
    } else if (comm->rank == 0) {
        print_table(&loop);
    }
    free(loop.partial);
    free(loop.x);
    free(loop.us);
    mem_unmap(work, WORK_BYTES);
    return status == STATUS_OK;
}
