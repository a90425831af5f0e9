/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/comm_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"
#include "cmd/comm_ops.h"
#include "comm/shm.h"

enum { MAX_COUNT = 64 << 10, WARM_UP = 20, TIMEOUT_MS = 10 * 1000, PAGE = 4096, APART = 128 };

const size_t comm_loop_sizes[COMM_LOOP_SIZES] = {1024, 2048, 5120, MAX_COUNT};

struct comm_loop_shared {
    char build[64];
    struct comm_id id;
    uint32_t n_ranks;
    uint32_t rounds;
    uint32_t operations;                        /* 0: the figures */
    _Alignas(APART) _Atomic uint32_t n_arrived; /* of the sleeping barrier */
    _Atomic uint32_t n_met;                     /* how often all have arrived */
    _Alignas(PAGE) double samples[];            /* [COMM_LOOP_FIGURES][COMM_LOOP_SIZES][rounds], or
                                                  as cmd/comm_ops.h has them */
};

/* One rank's loop. */
struct looper {
    const struct comm_loop *loop;
    struct comm *comm;
    const struct comm_loop_other *other;
    const char *work;
    float *partial; /* [MAX_COUNT] */
    float *x;       /* [MAX_COUNT] */
    struct err *err;
};

static size_t region_offset(uint32_t n_ranks, uint32_t rounds, uint32_t operations)
{
    size_t n = operations == 0 ? (size_t)COMM_LOOP_FIGURES * COMM_LOOP_SIZES * rounds
                               : comm_ops_samples(n_ranks, rounds);

    return sizeof(struct comm_loop_shared) + round_up(n * sizeof(double), PAGE);
}

static void *region_of(const struct comm_loop *loop)
{
    const struct comm_loop_shared *shared = loop->shared;

    return (char *)loop->shared +
           region_offset(shared->n_ranks, shared->rounds, shared->operations);
}

/* Behind the region, with --op. */
static size_t floor_bytes(uint32_t n_ranks, uint32_t operations)
{
    return operations == 0 ? 0 : comm_ops_floor_bytes(n_ranks);
}

/* NULL where there is none. */
static struct comm_floor *floor_of(const struct comm_loop *loop)
{
    uint32_t n_ranks = loop->shared->n_ranks;
    size_t bytes = floor_bytes(n_ranks, loop->shared->operations);

    return bytes == 0
               ? NULL
               : (void *)((char *)region_of(loop) + round_up(comm_shm_region_bytes(n_ranks), PAGE));
}

static size_t file_bytes(uint32_t n_ranks, uint32_t rounds, uint32_t operations)
{
    return region_offset(n_ranks, rounds, operations) +
           round_up(comm_shm_region_bytes(n_ranks), PAGE) + floor_bytes(n_ranks, operations);
}

static enum status map(struct comm_loop *loop, struct err *err)
{
    void *memory = mmap(NULL, loop->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, loop->fd, 0);

    if (memory == MAP_FAILED) {
        return err_set(err, STATUS_NO_MEMORY, "cannot map %zu bytes of shared memory", loop->bytes);
    }
    loop->shared = memory;
    return STATUS_OK;
}

enum status comm_loop_create(uint32_t n_ranks, uint32_t rounds, uint32_t operations,
                             struct comm_loop *ret_loop, struct err *err)
{
    struct comm_loop loop = {
        .bytes = file_bytes(n_ranks, rounds, operations),
        .fd = memfd_create("lockstep-bench-comm", MFD_CLOEXEC),
    };
    enum status status = STATUS_OK;

    ENSURE(comm_shm_region_bytes(n_ranks) > 0);
    if (loop.fd < 0 || ftruncate(loop.fd, (off_t)loop.bytes) != 0) {
        status = err_set(err, STATUS_IO, "shared memory: %s", strerror(errno));
    }
    if (status == STATUS_OK) {
        status = map(&loop, err);
    }
    if (status != STATUS_OK) {
        comm_loop_release(&loop);
        return status;
    }
    snprintf(loop.shared->build, sizeof(loop.shared->build), "%s", LOCKSTEP_VERSION);
    loop.shared->n_ranks = n_ranks;
    loop.shared->rounds = rounds;
    loop.shared->operations = operations;
    comm_id_make(&loop.shared->id);
    comm_shm_region_init(region_of(&loop), n_ranks, &loop.shared->id);
    *ret_loop = loop;
    return STATUS_OK;
}

/* The file is of this build and as long as it says. */
static bool is_whole(const struct comm_loop *loop)
{
    const struct comm_loop_shared *shared = loop->shared;

    return memcmp(shared->build, LOCKSTEP_VERSION, sizeof(LOCKSTEP_VERSION)) == 0 &&
           comm_shm_region_bytes(shared->n_ranks) > 0 &&
           loop->bytes == file_bytes(shared->n_ranks, shared->rounds, shared->operations);
}

enum status comm_loop_open(const char *path, struct comm_loop *ret_loop, struct err *err)
{
    struct comm_loop loop = {.fd = open(path, O_RDWR | O_CLOEXEC)};
    enum status status = STATUS_OK;
    struct stat file;

    if (loop.fd < 0 || fstat(loop.fd, &file) != 0) {
        status = err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
    } else if ((size_t)file.st_size < sizeof(struct comm_loop_shared)) {
        status = err_set(err, STATUS_CORRUPT, "%s: too short", path);
    } else {
        loop.bytes = (size_t)file.st_size;
        status = map(&loop, err);
    }
    if (status == STATUS_OK && !is_whole(&loop)) {
        status = err_set(err, STATUS_CORRUPT, "%s: made by another build", path);
    }
    if (status != STATUS_OK) {
        comm_loop_release(&loop);
        return status;
    }
    *ret_loop = loop;
    return STATUS_OK;
}

void comm_loop_release(struct comm_loop *loop)
{
    if (loop->shared != NULL) {
        munmap(loop->shared, loop->bytes);
    }
    if (loop->fd >= 0) {
        close(loop->fd);
    }
    *loop = (struct comm_loop){.fd = -1};
}

uint32_t comm_loop_ranks(const struct comm_loop *loop)
{
    return loop->shared->n_ranks;
}

uint32_t comm_loop_rounds(const struct comm_loop *loop)
{
    return loop->shared->rounds;
}

uint32_t comm_loop_operations(const struct comm_loop *loop)
{
    return loop->shared->operations;
}

double *comm_loop_all_samples(const struct comm_loop *loop)
{
    return loop->shared->samples;
}

double *comm_loop_samples(const struct comm_loop *loop, enum comm_loop_figure figure, uint32_t size)
{
    struct comm_loop_shared *shared = loop->shared;

    return shared->samples + ((size_t)figure * COMM_LOOP_SIZES + size) * shared->rounds;
}

/* The classic barrier, with a futex alone. */
static enum status sleeping_barrier(struct looper *l)
{
    struct comm_loop_shared *shared = l->loop->shared;
    uint64_t deadline = clock_ns() + (uint64_t)TIMEOUT_MS * 1000000;
    uint32_t n_met = atomic_load(&shared->n_met);

    if (atomic_fetch_add(&shared->n_arrived, 1) + 1 == shared->n_ranks) {
        atomic_store(&shared->n_arrived, 0);
        atomic_store(&shared->n_met, n_met + 1);
        futex_wake_all_shared(&shared->n_met);
        return STATUS_OK;
    }
    while (atomic_load(&shared->n_met) == n_met) {
        uint64_t now = clock_ns();

        if (now >= deadline) {
            return err_set(l->err, STATUS_TIMEOUT,
                           "sleeping barrier: not all ranks arrived within %d ms", TIMEOUT_MS);
        }
        futex_wait_shared(&shared->n_met, n_met, deadline - now);
    }
    return STATUS_OK;
}

/* The partial sums, as a producer would write them. */
static void produce(float *out, size_t count, uint32_t rank)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)(rank + i % 7);
    }
}

static void read_work(const struct looper *l)
{
    for (size_t i = 0; i < COMM_LOOP_WORK_BYTES; i += CACHE_LINE) {
        (void)*(const volatile char *)(l->work + i);
    }
}

static enum status run_figure(struct looper *l, enum comm_loop_figure figure,
                              const struct comm_tree *tree)
{
    const struct comm_data data = {l->partial, l->partial, tree->count, COMM_F32};

    switch (figure) {
    case COMM_LOOP_SLEEPING:
        return sleeping_barrier(l);
    case COMM_LOOP_SUM_TREE:
        return comm_sum_tree(l->comm, tree, l->err);
    case COMM_LOOP_ALL_REDUCE:
        return comm_all_reduce(l->comm, &data, COMM_SUM, l->err);
    case COMM_LOOP_OTHER:
        l->other->all_reduce(l->partial, tree->count);
        return STATUS_OK;
    default:
        return comm_barrier(l->comm, l->err);
    }
}

/* One sample: microseconds of one collective. */
static enum status measure(struct looper *l, enum comm_loop_figure figure, size_t count,
                           double *ret_us)
{
    struct comm_tree tree = {
        .n_leaves = l->comm->n_ranks,
        .first = l->comm->rank,
        .n_owned = 1,
        .n_roots = 1,
        .root_stride = count,
        .count = count,
        .add_to = l->x,
    };
    enum status status = comm_barrier(l->comm, l->err); /* nobody reads partial any more */
    float *partial = l->partial;
    uint64_t began;

    if (status != STATUS_OK) {
        return status;
    }
    if (figure == COMM_LOOP_SUM_TREE) {
        float *buffer = comm_partial_buffer(l->comm, count, 1, &tree.root_stride);

        partial = buffer == NULL ? partial : buffer;
    }
    produce(partial, count, l->comm->rank);
    tree.partial = partial;
    read_work(l);
    status = comm_barrier(l->comm, l->err);
    if (status != STATUS_OK) {
        return status;
    }
    began = clock_ns();
    status = run_figure(l, figure, &tree);
    *ret_us = (double)(clock_ns() - began) / 1000;
    return status;
}

/* All rounds at a size, of figures that take turns. */
static enum status run_turns(struct looper *l, enum comm_loop_figure first,
                             enum comm_loop_figure last, uint32_t size)
{
    enum status status = STATUS_OK;
    double us;

    for (uint32_t i = 0; i < WARM_UP + l->loop->shared->rounds && status == STATUS_OK; i++) {
        for (unsigned f = first; f <= last && status == STATUS_OK; f++) {
            enum comm_loop_figure figure = (enum comm_loop_figure)f;

            status = measure(l, figure, comm_loop_sizes[size], &us);
            if (status == STATUS_OK && i >= WARM_UP && l->comm->rank == 0) {
                comm_loop_samples(l->loop, figure, size)[i - WARM_UP] = us;
            }
        }
    }
    return status;
}

static enum status run_all(struct looper *l)
{
    enum comm_loop_figure last = l->other == NULL ? COMM_LOOP_ALL_REDUCE : COMM_LOOP_OTHER;
    enum status status = run_turns(l, COMM_LOOP_BARRIER, COMM_LOOP_SLEEPING, 0);

    for (uint32_t size = 0; size < COMM_LOOP_SIZES && status == STATUS_OK; size++) {
        status = run_turns(l, COMM_LOOP_SUM_TREE, last, size);
    }
    return status;
}

/* To one of the process's cores, in turn. Where that fails it runs wherever it does. */
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

enum status comm_loop_run(const struct comm_loop *loop, uint32_t rank,
                          const struct comm_loop_other *other, struct err *err)
{
    uint32_t n_ranks = loop->shared->n_ranks;
    const struct comm_shm_member member = {
        .region = region_of(loop),
        .region_bytes = comm_shm_region_bytes(n_ranks),
        .id = &loop->shared->id,
        .rank = rank,
        .n_ranks = n_ranks,
    };
    struct looper looper = {.loop = loop, .other = other, .err = err};
    char *work;
    enum status status;

    pin(rank);
    if (loop->shared->operations != 0) {
        return comm_ops_run(loop, &member, other, floor_of(loop), err);
    }
    work = mem_map(COMM_LOOP_WORK_BYTES);
    if (work == NULL) {
        return err_set(err, STATUS_NO_MEMORY, "no memory to read from");
    }
    memset(work, 1, COMM_LOOP_WORK_BYTES); /* pages of its own, not the zero page */
    looper.work = work;
    looper.partial = xcalloc(MAX_COUNT, sizeof(float));
    looper.x = xcalloc(MAX_COUNT, sizeof(float));
    status = comm_shm_join(&member, &looper.comm, err);
    if (status == STATUS_OK) {
        looper.comm->timeout_ns = (uint64_t)TIMEOUT_MS * 1000000;
        status = run_all(&looper);
    }
    comm_destroy(&looper.comm);
    free(looper.partial);
    free(looper.x);
    mem_unmap(work, COMM_LOOP_WORK_BYTES);
    return status;
}
