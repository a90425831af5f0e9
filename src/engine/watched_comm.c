/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/watched_comm.h"

#include "base/clock.h"
#include "base/mem.h"
#include "comm/backend.h"

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

static void record(const struct watched_comm *watched, enum trace_kind kind, enum trace_what what,
                   uint32_t layer, uint64_t start, uint64_t end)
{
    trace_write(watched->trace, &(struct trace_record){
                                    .start_ns = start,
                                    .took_ns = end - start,
                                    .kind = kind,
                                    .what = what,
                                    .step = (uint32_t)watched->at.step,
                                    .layer = layer,
                                    .number = kind == TRACE_COLLECTIVE ? watched->at.collective : 0,
                                });
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
static void leave(struct watched_comm *watched, enum trace_what what, uint64_t start)
{
    uint64_t end = clock_ns();

    publish(watched, false);
    status_page_count(watched->status, STATUS_COUNTER_COLLECTIVES, 1);
    if (watched->in_step) {
        status_page_count(watched->status, STATUS_COUNTER_COLLECTIVE_NS, end - start);
    }
    if (end - start > LONG_NS) {
        status_page_event(watched->status, STATUS_EVENT_COLLECTIVE, watched->at.collective,
                          end - start);
    }
    if (watched->traced) {
        record(watched, TRACE_COLLECTIVE, what, watched->at.layer, start, end);
    }
}

static enum status sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_sum_tree(watched->inner, args, err);

    leave(watched, TRACE_SUM_TREE, start);
    return status;
}

static enum status all_reduce(struct comm *comm, const struct comm_data *data,
                              enum comm_reduction reduction, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_all_reduce(watched->inner, data, reduction, err);

    leave(watched, TRACE_ALL_REDUCE, start);
    return status;
}

static enum status all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_all_gather(watched->inner, data, err);

    leave(watched, TRACE_ALL_GATHER, start);
    return status;
}

static enum status broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                             struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_broadcast(watched->inner, data, root, err);

    leave(watched, TRACE_BROADCAST, start);
    return status;
}

static enum status barrier(struct comm *comm, struct err *err)
{
    struct watched_comm *watched = watched_of(comm);
    uint64_t start = enter(watched);
    enum status status = comm_barrier(watched->inner, err);

    leave(watched, TRACE_BARRIER, start);
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

void watched_comm_trace(struct watched_comm *watched, struct trace_writer *trace)
{
    watched->trace = trace;
}

void watched_comm_step(struct watched_comm *watched, uint64_t step)
{
    watched->at = (struct status_progress){.step = step};
    publish(watched, false);
    watched->in_step = true;
    watched->in_layer = false;
    watched->traced = watched->trace != NULL && trace_is_asked(watched->trace);
    watched->step_ns = clock_ns();
}

static void end_layer(struct watched_comm *watched, uint64_t now)
{
    if (watched->in_layer) {
        record(watched, TRACE_LAYER, TRACE_DECODE, watched->at.layer, watched->layer_ns, now);
    }
    watched->in_layer = false;
}

void watched_comm_step_end(struct watched_comm *watched, enum trace_what what, uint32_t n_rows)
{
    uint64_t now = clock_ns();

    status_page_count(watched->status, STATUS_COUNTER_STEP_NS, now - watched->step_ns);
    if (watched->traced) {
        end_layer(watched, now);
        record(watched, TRACE_STEP, what, n_rows, watched->step_ns, now);
    }
    watched->traced = false;
    watched->in_step = false;
}

void watched_comm_tick(struct watched_comm *watched)
{
    watched->at.block = (watched->at.block + 1) % 512; /* what the progress word has room for */
    publish(watched, false);
}

void watched_comm_layer(struct watched_comm *watched, uint32_t layer)
{
    if (watched->traced) {
        uint64_t now = clock_ns();

        end_layer(watched, now);
        watched->in_layer = true;
        watched->layer_ns = now;
    }
    watched->at.layer = layer;
    publish(watched, false);
    faults_at_layer(watched->faults, watched->at.step, layer);
}
