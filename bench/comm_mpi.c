/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank of `lockstep bench comm` that mpirun has started: measures MPI_Allreduce beside ours, in
 * the same loop. The command runs it; its results lie in the memory file.
 *
 *   bench_comm_mpi FILE
 */
#include <mpi.h>

#include "base/base.h"
#include "cmd/comm_loop.h"

static void all_reduce(float *x, size_t n)
{
    MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

int main(int argc, char **argv)
{
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
        status = comm_loop_run(&loop, (uint32_t)rank, all_reduce, &err);
    }
    comm_loop_release(&loop);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_comm_mpi: %s\n", err.text);
        MPI_Abort(MPI_COMM_WORLD, 1); /* the others may wait for this rank inside MPI */
    }
    MPI_Finalize();
    return 0;
}
