/* SPDX-License-Identifier: Apache-2.0 */
/* One rank: it owns every leaf, so its one root is the sum, and whatever it gives it gets back. */
#include "base/float_env.h"
#include "base/mem.h"
#include "comm/combine.h"
#include "comm/comm.h"

static enum status check_aborted(struct comm *comm, struct err *err)
{
    if (atomic_load(&comm->aborted) != 0) {
        return err_set(err, STATUS_CANCELLED, "the communicator was aborted");
    }
    return STATUS_OK;
}

static enum status copy(struct comm *comm, const struct comm_data *data, struct err *err)
{
    enum status status = check_aborted(comm, err);

    if (status == STATUS_OK && data->count > 0 && data->out != data->in) {
        memmove(data->out, data->in, data->count * combine_type_bytes(data->type));
    }
    return status;
}

static enum status sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    struct float_env env;

    ENSURE_OP(args->n_owned, ==, args->n_leaves);
    ENSURE_OP(args->n_roots, ==, 1);
    ENSURE((args->sum == NULL) != (args->add_to == NULL));
    if (args->sum != NULL) {
        return copy(comm,
                    &(struct comm_data){
                        .in = args->partial,
                        .out = args->sum,
                        .count = args->count,
                        .type = COMM_F32,
                    },
                    err);
    }
    float_env_enter(&env);
    for (size_t i = 0; i < args->count; i++) {
        args->add_to[i] = args->add_to[i] + args->partial[i];
    }
    float_env_leave(&env);
    return check_aborted(comm, err);
}

static enum status all_reduce(struct comm *comm, const struct comm_data *data,
                              enum comm_reduction reduction, struct err *err)
{
    (void)reduction;
    return copy(comm, data, err);
}

static enum status broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                             struct err *err)
{
    (void)root;
    return copy(comm, data, err);
}

/* The producer's own memory is as good. */
static float *partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                             size_t *ret_root_stride)
{
    (void)comm;
    (void)count;
    (void)n_roots;
    (void)ret_root_stride;
    return NULL;
}

static void abort_calls(struct comm *comm)
{
    (void)comm; /* nothing here waits */
}

static void destroy(struct comm **comm)
{
    free(*comm);
    *comm = NULL;
}

static const struct comm_backend backend = {
    .name = "self",
    .sum_tree = sum_tree,
    .all_reduce = all_reduce,
    .all_gather = copy,
    .broadcast = broadcast,
    .barrier = check_aborted,
    .partial_buffer = partial_buffer,
    .abort = abort_calls,
    .destroy = destroy,
};

struct comm *comm_self_create(void)
{
    struct comm *comm = xalloc(sizeof(*comm));

    comm->backend = &backend;
    comm->n_ranks = 1;
    comm->timeout_ns = (uint64_t)COMM_TIMEOUT_MS * 1000000;
    return comm;
}
