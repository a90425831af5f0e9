/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank of `lockstep bench comm` that mpirun has started: measures Open MPI beside ours, in the
 * same loop. The command runs it; its results lie in the memory file.
 *
 *   bench_comm_mpi FILE
 */
#include <mpi.h>

#include "base/base.h"
#include "cmd/comm_loop.h"

enum { RANKS_MAX = 16 };

static void all_reduce(float *x, size_t n)
{
    MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* Counts and offsets as MPI has them. */
static void all_to_allv(const struct comm_vectors *v)
{
    int counts[RANKS_MAX];
    int offsets[RANKS_MAX];
    int n_ranks;

    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    for (int r = 0; r < n_ranks && r < RANKS_MAX; r++) {
        counts[r] = (int)v->send_counts[r];
        offsets[r] = (int)v->send_offsets[r];
    }
    MPI_Alltoallv(v->in, counts, offsets, MPI_FLOAT, v->out, counts, offsets, MPI_FLOAT,
                  MPI_COMM_WORLD);
}

/* An operation of cmd/comm_ops.h. */
static void run(const struct comm_call *call)
{
    const struct comm_data *data = &call->data;
    int count = (int)data->count;
    int root = (int)call->root;

    switch (call->operation) {
    case COMM_ALL_REDUCE:
        MPI_Allreduce(data->in, data->out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        break;
    case COMM_ALL_GATHER:
        MPI_Allgather(data->in, count, MPI_FLOAT, data->out, count, MPI_FLOAT, MPI_COMM_WORLD);
        break;
    case COMM_BROADCAST:
        MPI_Bcast(data->out, count, MPI_FLOAT, root, MPI_COMM_WORLD);
        break;
    case COMM_BARRIER:
        MPI_Barrier(MPI_COMM_WORLD);
        break;
    case COMM_REDUCE_SCATTER:
        MPI_Reduce_scatter_block(data->in, data->out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        break;
    case COMM_REDUCE:
        MPI_Reduce(data->in, data->out, count, MPI_FLOAT, MPI_SUM, root, MPI_COMM_WORLD);
        break;
    case COMM_ALL_TO_ALL:
        MPI_Alltoall(data->in, count, MPI_FLOAT, data->out, count, MPI_FLOAT, MPI_COMM_WORLD);
        break;
    case COMM_ALL_TO_ALLV:
        all_to_allv(&call->vectors);
        break;
    case COMM_SEND:
        MPI_Send(data->in, count, MPI_FLOAT, root, 0, MPI_COMM_WORLD);
        break;
    case COMM_RECV:
        MPI_Recv(data->out, count, MPI_FLOAT, root, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        break;
    default:
        break; /* neither sender nor receiver */
    }
}

int main(int argc, char **argv)
{
    static const struct comm_loop_other other = {.all_reduce = all_reduce, .run = run};
    struct comm_loop loop = {.fd = -1};
    struct err err = {0};
    enum status status;
    int rank;
    int n_ranks;

    if (argc != 2) {
        fprintf(stderr, "usage: bench_comm_mpi FILE (lockstep bench comm runs it)\n");
        return 2;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    status = comm_loop_open(argv[1], &loop, &err);
    if (status == STATUS_OK && comm_loop_ranks(&loop) != (uint32_t)n_ranks) {
        status = err_set(&err, STATUS_INVALID, "%d ranks, but %s is for %u", n_ranks, argv[1],
                         comm_loop_ranks(&loop));
    }
    if (status == STATUS_OK) {
        status = comm_loop_run(&loop, (uint32_t)rank, &other, &err);
    }
    comm_loop_release(&loop);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_comm_mpi: %s\n", err.text);
        MPI_Abort(MPI_COMM_WORLD, 1); /* the others may wait for this rank inside MPI */
    }
    MPI_Finalize();
    return 0;
}
