/* SPDX-License-Identifier: Apache-2.0 */
/* A context that is the device's thread: operations are carried out where they are asked for. */
#include <stdlib.h>

#include "base/mem.h"
#include "lib/context.h"
#include "lib/fail.h"
#include "lib/region.h"

struct context_thread {
    struct context base;
    struct context_config config;
    uint64_t generation;
    struct comm *comm;     /* NULL: not in a world */
    struct region *region; /* comm's */
};

static enum lockstep_status start(struct context *context, uint64_t generation,
                                  struct work_result *result)
{
    struct context_thread *self = (struct context_thread *)context;

    (void)result;
    self->generation = generation;
    context->memory = memory_heap_create();
    return LOCKSTEP_OK;
}

static void leave(struct context_thread *self)
{
    if (self->comm != NULL) {
        comm_destroy(&self->comm);
        region_unref(&self->region);
    }
}

static void join(struct context_thread *self, const struct work_join *join,
                 struct work_result *result)
{
    struct err err = {0};
    enum status status;

    leave(self);
    status = comm_shm_join(
        &(struct comm_shm_member){
            .region = region_memory(join->region),
            .region_bytes = region_bytes(join->region),
            .id = &join->id,
            .rank = join->rank,
            .n_ranks = join->n_ranks,
        },
        &self->comm, &err);
    if (status != STATUS_OK) {
        work_fail(result, lib_status(status), "%s", err.text);
        return;
    }
    self->region = region_ref(join->region);
    result->status = LOCKSTEP_OK;
}

static void run(struct context *context, const struct context_order *order,
                struct work_result *result)
{
    struct context_thread *self = (struct context_thread *)context;
    const struct work_place here = {0};

    if (order->join != NULL) {
        join(self, order->join, result);
    } else if (order->leave) {
        leave(self);
        result->status = LOCKSTEP_OK;
    } else if (order->call != NULL) {
        work_run_call(&here, order->call, self->config.functions, self->config.n_functions,
                      self->config.name, self->generation, result);
    } else if (self->comm == NULL) {
        work_fail(result, LOCKSTEP_LINK, "device %s is in no world", self->config.name);
    } else {
        work_run(self->comm, &here, order->works, order->n_works, order->deadline_ns, result);
    }
}

static bool alive(struct context *context, struct work_result *result)
{
    (void)context;
    (void)result;
    return true;
}

static void stop(struct context *context)
{
    leave((struct context_thread *)context);
    memory_unref(&context->memory);
}

static void destroy(struct context **context)
{
    stop(*context);
    free(*context);
    *context = NULL;
}

static const struct context_backend backend = {
    .start = start,
    .run = run,
    .alive = alive,
    .stop = stop,
    .destroy = destroy,
};

struct context *context_thread_create(const struct context_config *config)
{
    struct context_thread *self = xalloc(sizeof(*self));

    self->base.backend = &backend;
    self->config = *config;
    return &self->base;
}
