/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/comm_ops.h"

#include "base/clock.h"
#include "base/mem.h"

enum { WARM_UP = 5, TIMEOUT_MS = 10 * 1000, MEMORY_BYTES = 32 << 20 };

const size_t comm_ops_sizes[COMM_OPS_SIZES] = {8,        64,        1 << 10, 8 << 10,
                                               64 << 10, 256 << 10, 1 << 20, 8 << 20};

/* One rank's loop. */
struct looper {
    const struct comm_loop *loop;
    const struct comm_loop_other *other;
    struct comm_floor *floor;
    struct comm_floor_memory *copied; /* where the floor with copies is measured */
    struct comm *comm;
    char *in; /* [MEMORY_BYTES], as is */
    char *out;
    size_t *counts; /* [n_ranks] of all_to_allv, as is */
    size_t *offsets;
    struct err *err;
};

uint32_t comm_ops_rounds(uint32_t n_ranks, uint32_t rounds, uint32_t size)
{
    size_t bytes = comm_ops_sizes[size];

    if (size > 0 && bytes * n_ranks > MEMORY_BYTES) {
        return 0;
    }
    return MAX(5, bytes <= 64 << 10 ? rounds : (uint32_t)(rounds * ((size_t)64 << 10) / bytes));
}

size_t comm_ops_floor_bytes(uint32_t n_ranks)
{
    return n_ranks == COMM_FLOOR_RANKS ? comm_floor_bytes(comm_ops_sizes[COMM_OPS_SIZES - 1]) : 0;
}

size_t comm_ops_samples(uint32_t n_ranks, uint32_t rounds)
{
    return (size_t)COMM_OPERATION_COUNT * COMM_OPS_SIZES * COMM_OPS_SIDES * n_ranks * rounds;
}

double *comm_ops_samples_of(const struct comm_loop *loop, enum comm_operation operation,
                            uint32_t size, enum comm_ops_side side, uint32_t rank)
{
    size_t n = ((size_t)operation * COMM_OPS_SIZES + size) * COMM_OPS_SIDES + side;

    return comm_loop_all_samples(loop) +
           (n * comm_loop_ranks(loop) + rank) * comm_loop_rounds(loop);
}

/* The call of this rank. */
static struct comm_call call_of(const struct looper *l, enum comm_operation operation, size_t bytes)
{
    size_t count = bytes / sizeof(float);
    struct comm_call call = {
        .operation = operation,
        .reduction = COMM_SUM,
        .data = {l->in, l->out, count, COMM_F32, NULL},
        .vectors = {l->in, l->out, l->counts, l->offsets, l->counts, l->offsets, COMM_F32},
    };

    if (operation == COMM_BROADCAST) {
        call.data.in = call.data.out; /* MPI has no other */
    }
    if (operation == COMM_SEND) {
        call.operation = l->comm->rank == 0   ? COMM_SEND
                         : l->comm->rank == 1 ? COMM_RECV
                                              : COMM_NONE;
        call.root = 1 - l->comm->rank % 2;
    }
    for (uint32_t r = 0; r < l->comm->n_ranks; r++) {
        l->counts[r] = count;
        l->offsets[r] = r * count;
    }
    return call;
}

static enum status run_ours(const struct looper *l, const struct comm_call *call)
{
    switch (call->operation) {
    case COMM_ALL_REDUCE:
        return comm_all_reduce(l->comm, &call->data, call->reduction, l->err);
    case COMM_ALL_GATHER:
        return comm_all_gather(l->comm, &call->data, l->err);
    case COMM_BROADCAST:
        return comm_broadcast(l->comm, &call->data, call->root, l->err);
    case COMM_BARRIER:
        return comm_barrier(l->comm, l->err);
    case COMM_REDUCE_SCATTER:
        return comm_reduce_scatter(l->comm, &call->data, call->reduction, l->err);
    case COMM_REDUCE:
        return comm_reduce(l->comm, &call->data, call->reduction, call->root, l->err);
    case COMM_ALL_TO_ALL:
        return comm_all_to_all(l->comm, &call->data, l->err);
    case COMM_ALL_TO_ALLV:
        return comm_all_to_allv(l->comm, &call->vectors, l->err);
    case COMM_SEND:
        return comm_send(l->comm, call->data.in, call->data.count, call->data.type, call->root,
                         l->err);
    case COMM_RECV:
        return comm_recv(l->comm, call->data.out, call->data.count, call->data.type, call->root,
                         l->err);
    default:
        return STATUS_OK; /* neither sender nor receiver */
    }
}

static enum status run_side(const struct looper *l, const struct comm_call *call,
                            enum comm_operation operation, enum comm_ops_side side)
{
    switch (side) {
    case COMM_OPS_OTHER:
        l->other->run(call);
        return STATUS_OK;
    case COMM_OPS_FLOOR:
        return comm_floor_run(l->floor, operation, l->comm->rank, call->data.count * sizeof(float),
                              TIMEOUT_MS, l->err);
    case COMM_OPS_COPIED:
        return comm_floor_copy(l->floor, operation, l->comm->rank, l->copied, TIMEOUT_MS, l->err);
    default:
        return run_ours(l, call);
    }
}

static enum status measure(const struct looper *l, enum comm_operation operation, size_t bytes,
                           enum comm_ops_side side, double *ret_us)
{
    const struct comm_call call = call_of(l, operation, bytes);
    enum status status;
    uint64_t began;

    if (side == COMM_OPS_FLOOR) {
        comm_floor_write(l->floor, l->comm->rank, bytes);
    }
    l->copied->bytes = bytes;
    status = comm_barrier(l->comm, l->err);
    if (status != STATUS_OK) {
        return status;
    }
    began = clock_ns();
    status = run_side(l, &call, operation, side);
    *ret_us = (double)(clock_ns() - began) / 1000;
    return status;
}

_Static_assert(COMM_OPS_SIDES == 4, "i % 4 permutes them");

/* Whether a side is measured at all. */
static bool has_side(const struct looper *l, enum comm_ops_side side)
{
    return side == COMM_OPS_OURS    ? true
           : side == COMM_OPS_OTHER ? l->other != NULL
                                    : l->floor != NULL;
}

static enum status run_size(const struct looper *l, enum comm_operation operation, uint32_t size)
{
    size_t bytes = operation == COMM_BARRIER ? 0 : comm_ops_sizes[size];
    uint32_t rounds = comm_ops_rounds(l->comm->n_ranks, comm_loop_rounds(l->loop), size);
    enum status status = STATUS_OK;
    double us = 0;

    for (uint32_t i = 0; i < WARM_UP + rounds && status == STATUS_OK && rounds > 0; i++) {
        for (unsigned s = 0; s < COMM_OPS_SIDES && status == STATUS_OK; s++) {
            /* in changing order: a side finds in the caches what the one before it has left */
            enum comm_ops_side side = (enum comm_ops_side)(s ^ (i % COMM_OPS_SIDES));

            if (!has_side(l, side)) {
                continue;
            }
            status = measure(l, operation, bytes, side, &us);
            if (i >= WARM_UP) {
                comm_ops_samples_of(l->loop, operation, size, side, l->comm->rank)[i - WARM_UP] =
                    us;
            }
        }
    }
    return status;
}

static enum status run_all(const struct looper *l)
{
    enum status status = STATUS_OK;

    for (unsigned i = 0; i < COMM_OPERATION_COUNT; i++) {
        bool chosen = (comm_loop_operations(l->loop) >> i & 1) != 0;
        uint32_t n_sizes = i == COMM_BARRIER ? 1 : COMM_OPS_SIZES;

        for (uint32_t size = 0; size < n_sizes && chosen && status == STATUS_OK; size++) {
            status = run_size(l, (enum comm_operation)i, size);
        }
    }
    return status;
}

enum status comm_ops_run(const struct comm_loop *loop, const struct comm_shm_member *member,
                         const struct comm_loop_other *other, struct comm_floor *floor,
                         struct err *err)
{
    struct comm_floor_memory copied = {0};
    struct looper l = {
        .loop = loop,
        .other = other,
        .floor = floor,
        .copied = &copied,
        .in = mem_map(MEMORY_BYTES),
        .out = mem_map(MEMORY_BYTES),
        .counts = xcalloc(member->n_ranks, sizeof(size_t)),
        .offsets = xcalloc(member->n_ranks, sizeof(size_t)),
        .err = err,
    };
    enum status status = STATUS_OK;

    if (l.in == NULL || l.out == NULL) {
        status = err_set(err, STATUS_NO_MEMORY, "no memory for vectors");
    }
    if (status == STATUS_OK) {
        memset(l.in, 0, MEMORY_BYTES); /* pages of its own; of zeros every sum stays zero */
        memset(l.out, 0, MEMORY_BYTES);
        copied.in = l.in;
        copied.out = l.out;
        status = comm_shm_join(member, &l.comm, err);
    }
    if (status == STATUS_OK) {
        l.comm->timeout_ns = (uint64_t)TIMEOUT_MS * 1000000;
        status = run_all(&l);
    }
    comm_destroy(&l.comm);
    mem_unmap(l.in, MEMORY_BYTES);
    mem_unmap(l.out, MEMORY_BYTES);
    free(l.counts);
    free(l.offsets);
    return status;
}
