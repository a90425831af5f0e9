/* SPDX-License-Identifier: Apache-2.0 */
/* How many ranks this machine suggests, and which cores each gets. */
#pragma once

#include "base/err.h"
#include "json/json.h"

struct cores_plan {
    uint32_t n_threads; /* of each rank */
    json_t *cores;      /* an array of core numbers for each rank; NULL: left to the kernel */
};

/* threads: of each rank, 0: an equal share of the usable cores. Ranks are bound to cores, in the
 * order in which the topology lists them (so that a rank stays within a NUMA node where that is
 * possible), if together they fill what this process may use; otherwise other programs, or other
 * worlds, may want the same ones. */
NODISCARD enum status cores_plan(uint32_t n_ranks, uint32_t threads, struct cores_plan *ret_plan,
                                 struct err *err);
void cores_plan_release(struct cores_plan *plan);

/* One rank for each NUMA node that has usable cores. */
NODISCARD enum status cores_default_ranks(uint32_t *ret_n_ranks, struct err *err);
