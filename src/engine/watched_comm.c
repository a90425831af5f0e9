/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/watched_comm.h"

#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

enum { LONG_NS = 1000000 };

static struct watched_comm *watched_of(struct comm *comm)
{
    return (struct watched_comm *)comm; /* its first member */
}

static void publish(struct watched_comm *watched, bool waiting)
{
    watched->at.waiting = waiting;
    status_page_progress(watched->status, &watched->at);
}

/* The time of clock_ns at the last tick. */
static uint64_t tick_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Before a collective; returns its start. */
static uint64_t enter(struct watched_comm *watched)
{
    watched->at.collective++;
    publish(watched, false);
    faults_at_collective(watched->faults, watched->at.step, watched->at.layer);
    publish(watched, true);
    watched->inner->timeout_ns = watched->comm.timeout_ns;
    return clock_ns();
}

/* After it. */
static void leave(struct watched_comm *watched, uint64_t start)
{
    publish(watched, false);
    status_page_count(watched->status, STATUS_COUNTER_COLLECTIVES, 1);
    if (tick_ns() > start) { /* only then has it taken long, perhaps */
        uint64_t took = clock_ns() - start;

        if (took > LONG_NS) {
            status_page_event(watched->status, STATUS_EVENT_COLLECTIVE, watched->at.collective,
                              took);
        }
    }
}

static enum status sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_sum_tree(watched->inner, args, err);

    leave(watched, start);
    return status;
}

static enum status all_reduce(struct comm *comm, const struct comm_data *data,
                              enum comm_reduction reduction, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_all_reduce(watched->inner, data, reduction, err);

    leave(watched, start);
    return status;
}

static enum status all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_all_gather(watched->inner, data, err);

    leave(watched, start);
    return status;
}

static enum status broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                             struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_broadcast(watched->inner, data, root, err);

    leave(watched, start);
    return status;
}

static enum status barrier(struct comm *comm, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_barrier(watched->inner, err);

    leave(watched, start);
    return status;
}

static float *partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                             size_t *ret_root_stride)
{
    return comm_partial_buffer(watched_of(comm)->inner, count, n_roots, ret_root_stride);
}

static void abort_calls(struct comm *comm)
{
    comm_abort(watched_of(comm)->inner);
}

static void destroy(struct comm **comm)
{
    free(watched_of(*comm));
    *comm = NULL;
}

static const struct comm_backend backend = {
    .name = "watched",
    .sum_tree = sum_tree,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .barrier = barrier,
    .partial_buffer = partial_buffer,
    .abort = abort_calls,
    .destroy = destroy,
};

struct watched_comm *watched_comm_create(struct comm *inner, struct status_writer *status,
                                         struct faults *faults)
{
    struct watched_comm *watched = xalloc(sizeof(*watched));

    watched->comm.backend = &backend;
    watched->comm.rank = inner->rank;
    watched->comm.n_ranks = inner->n_ranks;
    watched->comm.timeout_ns = inner->timeout_ns;
    watched->inner = inner;
    watched->status = status;
    watched->faults = faults;
    return watched;
}

void watched_comm_destroy(struct watched_comm **watched)
{
    free(*watched);
    *watched = NULL;
}

void watched_comm_step(struct watched_comm *watched, uint64_t step)
{
    watched->at = (struct status_progress){.step = step};
    publish(watched, false);
}

void watched_comm_tick(struct watched_comm *watched)
{
    watched->at.block = (watched->at.block + 1) % 512; /* what the progress word has room for */
    publish(watched, false);
}

void watched_comm_layer(struct watched_comm *watched, uint32_t layer)
{
    watched->at.layer = layer;
    publish(watched, false);
    faults_at_layer(watched->faults, watched->at.step, layer);
}
