/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared memory of one epoch's communicator: made by the world, mapped here once, and by each
 * process of a device. Counted, because a context holds it until it joins the next. Any thread.
 */
#pragma once

#include "comm/shm.h"

struct region;

/* One reference. STATUS_IO, STATUS_NO_MEMORY. */
NODISCARD enum status region_create(uint32_t n_ranks, const struct comm_id *id,
                                    struct region **ret_region, struct err *err);
struct region *region_ref(struct region *region);
void region_unref(struct region **region);

void *region_memory(const struct region *region);
size_t region_bytes(const struct region *region);
int region_fd(const struct region *region);
