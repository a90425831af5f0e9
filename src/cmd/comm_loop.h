/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measuring loop of `lockstep bench comm`: what a decode step does around a collective, without
 * the arithmetic. Each sample writes a rank's partial sums, reads 512 KB of private memory (the
 * weights), meets the other ranks, so that their imbalance is not measured, and then times one
 * collective. Figures that are compared take turns, so that a noisy moment hits all of them; sizes
 * follow one another, so that a large one does not leave its caches to a small one.
 *
 * Everything the ranks share lies in one memory file, which whoever starts them creates: their
 * region of collectives, and rank 0's samples. The ranks are processes, forked or started by a
 * program of their own (bench/comm_mpi.c); each opens the loop and runs it, and pins itself to one
 * core. Nothing here prints.
 */
#pragma once

#include <stdatomic.h>

#include "base/err.h"
#include "comm/backend.h"

enum { COMM_LOOP_SIZES = 4, COMM_LOOP_WORK_BYTES = 512 << 10 };

extern const size_t comm_loop_sizes[COMM_LOOP_SIZES]; /* in floats, ascending */

enum comm_loop_figure {
    COMM_LOOP_BARRIER,  /* comm_barrier; has only the first size, as has the next */
    COMM_LOOP_SLEEPING, /* a barrier that never spins: what a wait costs when it sleeps at once */
    COMM_LOOP_SUM_TREE, /* as in decoding: written in place, added to the residual stream */
    COMM_LOOP_ALL_REDUCE,
    COMM_LOOP_OTHER, /* x = sum over ranks of x by another implementation, if there is one */
    COMM_LOOP_FIGURES,
};

struct comm_loop_shared; /* the memory file */

struct comm_loop {
    struct comm_loop_shared *shared;
    size_t bytes;
    int fd;
};

/* Another implementation. x = sum over ranks of x; and an operation of cmd/comm_ops.h. */
struct comm_loop_other {
    void (*all_reduce)(float *x, size_t n);
    void (*run)(const struct comm_call *call);
};

/* Creates the memory file for 1 to 16 ranks that measure so many rounds: the figures, or if
 * operations (bit 1 << enum comm_operation) is not 0 these at the sizes of cmd/comm_ops.h. */
NODISCARD enum status comm_loop_create(uint32_t n_ranks, uint32_t rounds, uint32_t operations,
                                       struct comm_loop *ret_loop, struct err *err);

/* Opens one that a running process of the same build has created, by its path in /proc. */
NODISCARD enum status comm_loop_open(const char *path, struct comm_loop *ret_loop, struct err *err);

void comm_loop_release(struct comm_loop *loop);

uint32_t comm_loop_ranks(const struct comm_loop *loop);
uint32_t comm_loop_rounds(const struct comm_loop *loop);
uint32_t comm_loop_operations(const struct comm_loop *loop);

/* Every rank calls it, once. other may be NULL, on all ranks. */
NODISCARD enum status comm_loop_run(const struct comm_loop *loop, uint32_t rank,
                                    const struct comm_loop_other *other, struct err *err);

/* Rank 0's samples of a figure at a size, microseconds: [rounds], owned by the loop. Zeros where it
 * was not measured. */
double *comm_loop_samples(const struct comm_loop *loop, enum comm_loop_figure figure,
                          uint32_t size);

/* All samples, for cmd/comm_ops.h. */
double *comm_loop_all_samples(const struct comm_loop *loop);
