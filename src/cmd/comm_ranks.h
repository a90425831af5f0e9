/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks of `lockstep bench comm`: started by mpirun through the program bench_comm_mpi where
 * both are there, so that Open MPI can be measured in the same loop, or else forked. The caller
 * only waits, and no rank outlives it. One thread.
 */
#pragma once

#include <limits.h>

#include "cmd/comm_loop.h"

struct comm_ranks {
    char program[PATH_MAX]; /* bench_comm_mpi */
    uint32_t limit_s;       /* an mpirun that takes longer is ended */
    struct err no_mpi;      /* why Open MPI is not measured, if it is not */
};

/* Looks for bench_comm_mpi beside this program. measure_s: how long the ranks may measure. */
void comm_ranks_init(struct comm_ranks *ranks, uint32_t measure_s);

/* Runs the loop on all its ranks. with_mpi: by mpirun. */
NODISCARD enum status comm_ranks_run(const struct comm_ranks *ranks, const struct comm_loop *loop,
                                     bool with_mpi, struct err *err);
