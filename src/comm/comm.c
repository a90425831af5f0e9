/* SPDX-License-Identifier: Apache-2.0 */
/* What all back ends share: arguments that only a bug gets wrong, and the way to the table. */
#include "comm/comm.h"

#include <sys/random.h>

static void check_data(const struct comm_data *data)
{
    ENSURE_OP(data->type, <, COMM_TYPE_COUNT);
    ENSURE(data->count == 0 || data->out != NULL);
}

void comm_id_make(struct comm_id *ret_id)
{
    ENSURE_OP(getrandom(ret_id->bytes, sizeof(ret_id->bytes), 0), ==, sizeof(ret_id->bytes));
}

void comm_destroy(struct comm **comm)
{
    if (*comm != NULL) {
        (*comm)->backend->destroy(comm);
    }
}

void comm_abort(struct comm *comm)
{
    atomic_store(&comm->aborted, 1);
    comm->backend->abort(comm);
}

enum status comm_sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    return comm->backend->sum_tree(comm, args, err);
}

float *comm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                           size_t *ret_root_stride)
{
    return comm->backend->partial_buffer(comm, count, n_roots, ret_root_stride);
}

enum status comm_all_reduce(struct comm *comm, const struct comm_data *data,
                            enum comm_reduction reduction, struct err *err)
{
    check_data(data);
    ENSURE_OP(reduction, <, COMM_REDUCTION_COUNT);
    return comm->backend->all_reduce(comm, data, reduction, err);
}

enum status comm_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    check_data(data);
    return comm->backend->all_gather(comm, data, err);
}

enum status comm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                           struct err *err)
{
    check_data(data);
    ENSURE_OP(root, <, comm->n_ranks);
    return comm->backend->broadcast(comm, data, root, err);
}

enum status comm_barrier(struct comm *comm, struct err *err)
{
    return comm->backend->barrier(comm, err);
}
