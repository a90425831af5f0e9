/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of comm.h one by one, for `lockstep bench comm --op`: each at every size, ours,
 * another implementation's and, of two ranks, the floors under both (cmd/comm_floor.h) in turn, so
 * that a noisy moment hits all. Before a sample the ranks
 * meet; each then times its own call, and the sample is the slowest rank's: when the operation is
 * complete everywhere. The vectors are of f32, summed where the operation sums. send and recv are
 * one operation, from rank 0 to rank 1.
 */
#pragma once

#include "cmd/comm_floor.h"
#include "cmd/comm_loop.h"
#include "comm/shm.h"

enum { COMM_OPS_SIZES = 8 };

/* Bytes of each rank's vector, ascending; the block of each pair, of each rank's part. */
extern const size_t comm_ops_sizes[COMM_OPS_SIZES];

enum comm_ops_side {
    COMM_OPS_OURS,
    COMM_OPS_OTHER,
    COMM_OPS_FLOOR,
    COMM_OPS_COPIED,
    COMM_OPS_SIDES
};

/* Fewer for a size that takes long; 0 if all blocks of so many ranks are too large. */
uint32_t comm_ops_rounds(uint32_t n_ranks, uint32_t rounds, uint32_t size);

/* How many samples there are in all. */
size_t comm_ops_samples(uint32_t n_ranks, uint32_t rounds);

/* The samples of one rank, microseconds: [comm_ops_rounds]. */
double *comm_ops_samples_of(const struct comm_loop *loop, enum comm_operation operation,
                            uint32_t size, enum comm_ops_side side, uint32_t rank);

/* Bytes of what the ranks share for the floor; 0 where there is none. */
size_t comm_ops_floor_bytes(uint32_t n_ranks);

/* One rank, to its end. other may be NULL; floor: zeroed, NULL where there is none. */
NODISCARD enum status comm_ops_run(const struct comm_loop *loop,
                                   const struct comm_shm_member *member,
                                   const struct comm_loop_other *other, struct comm_floor *floor,
                                   struct err *err);
