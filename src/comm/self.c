/* SPDX-License-Identifier: Apache-2.0 */
/* One rank: it owns every leaf, so its one root is the sum, and whatever it gives it gets back. */
#include "base/float_env.h"
#include "base/mem.h"
#include "comm/backend.h"
#include "comm/combine.h"

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
        memmove(data->out, data->in, data->count * comm_type_bytes(data->type));
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

/* A copy, but that premul_sum scales and avg divides by 1, as any world does. */
static enum status all_reduce(struct comm *comm, const struct comm_data *data,
                              enum comm_reduction reduction, struct err *err)
{
    const struct combine_math math = combine_math_find(data->type, reduction);
    const struct combine_program program = {.n_inputs = 1, .cut = {.n_ranks = 1}};
    const void *in = data->in;
    const void *scale = data->scale;
    enum status status = check_aborted(comm, err);
    struct float_env env;

    if (status == STATUS_OK) {
        float_env_enter(&env);
        combine_program_run(&program, &(struct combine_run){.math = &math,
                                                            .inputs = &in,
                                                            .scales = &scale,
                                                            .count = data->count,
                                                            .out = data->out});
        float_env_leave(&env);
    }
    return status;
}

static enum status broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                             struct err *err)
{
    (void)root;
    return copy(comm, data, err);
}

static enum status all_to_allv(struct comm *comm, const struct comm_vectors *v, struct err *err)
{
    size_t bytes = comm_type_bytes(v->type);

    if (v->send_counts[0] != v->recv_counts[0]) {
        return err_set(err, STATUS_INVALID,
                       "all_to_allv: rank 0 sends %zu %s to itself, but receives %zu",
                       v->send_counts[0], comm_type_name(v->type), v->recv_counts[0]);
    }
    return copy(comm,
                &(struct comm_data){
                    .in = (const char *)v->in + v->send_offsets[0] * bytes,
                    .out = (char *)v->out + v->recv_offsets[0] * bytes,
                    .count = v->send_counts[0],
                    .type = v->type,
                },
                err);
}

/* The first receive from *at on, or n. */
static size_t find_receive(const struct comm_call *calls, size_t n, size_t at)
{
    while (at < n && calls[at].operation != COMM_RECV) {
        at++;
    }
    return at;
}

/* The k-th send meets the k-th receive; there are no other peers. */
static enum status run_messages(struct comm *comm, const struct comm_call *calls, size_t n,
                                struct err *err)
{
    size_t receive = find_receive(calls, n, 0);
    enum status status = STATUS_OK;

    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        struct comm_data data = calls[i].data;

        if (calls[i].operation != COMM_SEND) {
            continue;
        }
        if (receive == n) {
            return err_set(err, STATUS_TIMEOUT, "send: rank 0 has no receive for it in its group");
        }
        if (calls[receive].data.count != data.count || calls[receive].data.type != data.type) {
            return err_set(err, STATUS_INVALID,
                           "rank 0 sends %zu %s to itself, but receives %zu %s", data.count,
                           comm_type_name(data.type), calls[receive].data.count,
                           comm_type_name(calls[receive].data.type));
        }
        data.out = calls[receive].data.out;
        receive = find_receive(calls, n, receive + 1);
        status = copy(comm, &data, err);
    }
    if (status == STATUS_OK && receive < n) {
        return err_set(err, STATUS_TIMEOUT, "recv: rank 0 has no send for it in its group");
    }
    return status;
}

static enum status run_call(struct comm *comm, const struct comm_call *call, struct err *err)
{
    switch (call->operation) {
    case COMM_ALL_REDUCE:
    case COMM_REDUCE:
    case COMM_REDUCE_SCATTER:
        return all_reduce(comm, &call->data, call->reduction, err);
    case COMM_ALL_TO_ALLV:
        return all_to_allv(comm, &call->vectors, err);
    case COMM_BARRIER:
    case COMM_SEND: /* run_messages */
    case COMM_RECV:
        return check_aborted(comm, err);
    default:
        return copy(comm, &call->data, err);
    }
}

static enum status run(struct comm *comm, const struct comm_call *calls, size_t n, struct err *err)
{
    enum status status = check_aborted(comm, err);

    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = run_call(comm, &calls[i], err);
    }
    return status == STATUS_OK ? run_messages(comm, calls, n, err) : status;
}

static uint64_t peers(struct comm *comm)
{
    (void)comm;
    return 1;
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
    .run = run,
    .poll_error = check_aborted,
    .peers = peers,
};

struct comm *comm_self_create(void)
{
    struct comm *comm = xalloc(sizeof(*comm));

    comm->backend = &backend;
    comm->n_ranks = 1;
    comm->timeout_ns = (uint64_t)COMM_TIMEOUT_MS * 1000000;
    return comm;
}
