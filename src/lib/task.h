/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in a device's queue. The memory is the poster's and stays until done was called, which
 * happens exactly once, with no lock held, on the device's thread or on the one that withdraws it.
 */
#pragma once

#include "lib/context.h"

struct task;

typedef void task_done_fn(struct task *task, const struct work_result *result);

struct task {
    struct task *next; /* the device's, while it is queued */
    const char *name;  /* "all_reduce" */
    struct context_order order;
    const struct work *copy; /* of kind COPY: the device does it; order is empty then */
    uint64_t generation;     /* of the context that it is for; 0: any */
    const void *owner;       /* NULL, or the world that can withdraw it */
    bool is_build;           /* counts for no limit */
    task_done_fn *done;
    void *arg;
    uint32_t rank; /* for done */
};
