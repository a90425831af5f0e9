/* SPDX-License-Identifier: Apache-2.0 */
/* The measuring loop of bench_comm, for ranks started in whatever way. */
#pragma once

#include "comm/comm.h"

/* Another implementation to be measured in the same loop: x = sum over ranks of x. */
struct comm_loop_other {
    const char *name;
    void (*all_reduce)(float *x, size_t n);
};

/* Every rank calls it; rank 0 prints. other may be NULL. False after an error, which is printed. */
bool comm_loop_run(struct comm *comm, uint32_t rounds, const struct comm_loop_other *other);
