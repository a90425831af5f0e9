/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/group.h"

#include <stdlib.h>

#include "base/mem.h"
#include "lib/fail.h"

struct group_rank {
    struct task task;
    struct lockstep_group *group;
    const struct work *works[LOCKSTEP_GROUP_MAX];
    struct op_part *parts[LOCKSTEP_GROUP_MAX];
    size_t n;
};

struct lockstep_group {
    struct lockstep_world *world;
    struct lockstep_op *ops[LOCKSTEP_GROUP_MAX];
    size_t n_ops;
    _Atomic uint32_t n_left; /* tasks that have not ended, and one while it is being sent */
    struct group_rank ranks[LOCKSTEP_RANKS_MAX];
};

enum lockstep_status group_add(struct lockstep_group *group, struct lockstep_world *world,
                               struct lockstep_op *op, struct lockstep_error *error)
{
    if (group->world != world) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: the group is of another world", op->name);
    }
    if (group->n_ops == LOCKSTEP_GROUP_MAX) {
        return lib_fail(error, LOCKSTEP_LIMIT, "%s: a group has at most %d operations", op->name,
                        LOCKSTEP_GROUP_MAX);
    }
    if (group->n_ops > 0 && group->ops[0]->epoch != op->epoch) {
        return lib_fail(error, LOCKSTEP_REBUILT, "%s: the group is of an epoch that has ended",
                        op->name);
    }
    group->ops[group->n_ops++] = op;
    return LOCKSTEP_OK;
}

enum lockstep_status lockstep_group_begin(struct lockstep_world *world,
                                          struct lockstep_group **ret_group,
                                          struct lockstep_error *error)
{
    struct lockstep_group *group;

    if (world == NULL || ret_group == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_group_begin: an argument is NULL");
    }
    group = xalloc(sizeof(*group));
    group->world = world;
    *ret_group = group;
    return LOCKSTEP_OK;
}

static void unref(struct lockstep_group *group)
{
    if (atomic_fetch_sub(&group->n_left, 1) == 1) {
        free(group);
    }
}

/* A rank's task has ended, and so have all its parts. */
static void done(struct task *task, const struct work_result *result)
{
    struct group_rank *rank = task->arg;

    for (size_t i = 0; i < rank->n; i++) {
        lib_world_op_part_done(rank->parts[i], result);
    }
    unref(rank->group);
}

/* The operations end without having been sent. */
static void refuse(struct lockstep_group *group, enum lockstep_status status,
                   const struct lockstep_error *error)
{
    for (size_t i = 0; i < group->n_ops; i++) {
        struct lockstep_op *op = group->ops[i];

        for (uint32_t r = 0; r < op->n_parts; r++) {
            if (op->parts[r].taken) {
                work_fail(&op->parts[r].result, status, "it was not sent");
            }
        }
        op_end(op, status, error->text);
    }
}

/* Gathers the parts of each rank. */
static void gather(struct lockstep_group *group)
{
    for (size_t i = 0; i < group->n_ops; i++) {
        struct lockstep_op *op = group->ops[i];

        for (uint32_t r = 0; r < op->n_parts; r++) {
            struct group_rank *rank = &group->ranks[r];

            if (!op->parts[r].taken) {
                continue;
            }
            if (rank->n == 0) {
                rank->group = group;
                rank->task = op->parts[r].task;
                rank->task.name = "group";
                rank->task.done = done;
                rank->task.arg = rank;
                rank->task.order.works = rank->works;
            }
            rank->works[rank->n] = &op->parts[r].work;
            rank->parts[rank->n] = &op->parts[r];
            rank->n++;
            rank->task.order.n_works = rank->n;
            rank->task.order.deadline_ns =
                MIN(rank->task.order.deadline_ns, op->parts[r].task.order.deadline_ns);
        }
    }
}

/* lock is held. Returns the ranks whose devices refused, one bit each. */
static uint32_t post(struct lockstep_group *group, struct work_result *results)
{
    struct lockstep_world *world = group->world;
    uint32_t refused = 0;

    world->n_in_flight += (uint32_t)group->n_ops;
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        uint32_t n = (uint32_t)group->ranks[r].n;

        world->ranks[r].n_out += n;
        world->n_out += n;
        atomic_fetch_add(&group->n_left, n > 0 ? 1 : 0);
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        struct group_rank *rank = &group->ranks[r];
        struct lockstep_error error;

        if (rank->n > 0 &&
            device_post(world->ranks[r].device, &rank->task, &error) != LOCKSTEP_OK) {
            refused |= 1u << r;
            work_fail(&results[r], error.status, "%s", error.text);
        }
    }
    return refused;
}

enum lockstep_status lockstep_group_end(struct lockstep_group **group, struct lockstep_error *error)
{
    struct lockstep_group *g = group == NULL ? NULL : *group;
    struct work_result results[LOCKSTEP_RANKS_MAX] = {0};
    struct lockstep_error why = {0};
    enum lockstep_status status;
    uint32_t refused = 0;

    if (g == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_group_end: there is no group");
    }
    *group = NULL;
    atomic_store(&g->n_left, 1);
    pthread_mutex_lock(&g->world->lock);
    status = lib_world_check_ready(g->world, "group", &why);
    if (status == LOCKSTEP_OK && g->n_ops > 0 && g->ops[0]->epoch != g->world->epoch) {
        status = lib_fail(&why, LOCKSTEP_REBUILT, "the world was rebuilt since the group began: %s",
                          g->world->reason);
    }
    if (status == LOCKSTEP_OK && g->world->n_in_flight + g->n_ops > g->world->in_flight_limit) {
        status = lib_fail(&why, LOCKSTEP_LIMIT, "%u operations are in flight already",
                          (unsigned)g->world->n_in_flight);
    }
    if (status == LOCKSTEP_OK) {
        gather(g);
        refused = post(g, results);
    }
    pthread_mutex_unlock(&g->world->lock);
    if (status != LOCKSTEP_OK) {
        refuse(g, status, &why);
        if (error != NULL) {
            *error = why;
        }
    }
    for (uint32_t r = 0; r < LOCKSTEP_RANKS_MAX; r++) {
        if ((refused & 1u << r) != 0) {
            done(&g->ranks[r].task, &results[r]);
        }
    }
    unref(g);
    return status;
}
