/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that an operation of two ranks takes on a machine, for `lockstep bench comm --op`: each
 * core writes a cache line of its own and sees the other's; then it reads, a word of each line,
 * what the other has just written and it must learn of. Nothing is copied, added, checked or
 * stored, so that whatever moves the same bytes between private memories takes longer. What fits
 * beside the flag in its line (56 bytes) costs nothing more.
 *
 * And the least that it takes between private memories: each byte is copied twice, into shared
 * memory and out of it, the second time added where the operation sums, in chunks with a bare flag
 * each. Again nothing is checked, and nothing is done for a rank that is late or gone.
 *
 * Both ranks map the same struct, zeroed, and make the same calls in the same order.
 */
#pragma once

#include "base/err.h"
#include "comm/comm.h"

enum { COMM_FLOOR_RANKS = 2 };

struct comm_floor;

/* Of the struct, for vectors of at most this; a multiple of a page. */
size_t comm_floor_bytes(size_t vector_bytes);

/* Writes what the other rank may read of this one; both do, so that neither is late. The ranks meet
 * before and after it. */
void comm_floor_write(struct comm_floor *floor, uint32_t rank, size_t bytes);

/* What is timed. The root of broadcast and reduce is rank 0, as is who sends; bytes as in
 * cmd/comm_ops.h. STATUS_TIMEOUT: the other does not come. */
NODISCARD enum status comm_floor_run(struct comm_floor *floor, enum comm_operation operation,
                                     uint32_t rank, size_t bytes, uint32_t timeout_ms,
                                     struct err *err);

/* One rank's private memory. */
struct comm_floor_memory {
    size_t bytes;                     /* as above */
    const char *in;                   /* [2 bytes] */
    char *out;                        /* likewise */
    uint64_t n_put[COMM_FLOOR_RANKS]; /* at first zero; how many chunks each has copied, kept by
                                         comm_floor_copy */
};

/* The same with copies: what is timed. The ranks meet before it. */
NODISCARD enum status comm_floor_copy(struct comm_floor *floor, enum comm_operation operation,
                                      uint32_t rank, struct comm_floor_memory *memory,
                                      uint32_t timeout_ms, struct err *err);
