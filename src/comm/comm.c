/* SPDX-License-Identifier: Apache-2.0 */
/* What all back ends share: the checks of arguments, groups, and the way to the table. */
#include "comm/comm.h"

#include <sys/random.h>

#include "base/mem.h"
#include "comm/backend.h"

struct comm_group {
    uint32_t depth;
    size_t n_calls;
    size_t n_room;
    struct comm_call *calls;
};

static const struct {
    const char *name;
    size_t bytes;
} types[COMM_TYPE_COUNT] = {
    [COMM_F32] = {"f32", 4},   [COMM_F64] = {"f64", 8}, [COMM_F16] = {"f16", 2},
    [COMM_BF16] = {"bf16", 2}, [COMM_I8] = {"i8", 1},   [COMM_U8] = {"u8", 1},
    [COMM_I32] = {"i32", 4},   [COMM_U32] = {"u32", 4}, [COMM_I64] = {"i64", 8},
    [COMM_U64] = {"u64", 8},
};

size_t comm_type_bytes(enum comm_type type)
{
    return types[type].bytes;
}

const char *comm_type_name(enum comm_type type)
{
    return types[type].name;
}

const char *comm_reduction_name(enum comm_reduction reduction)
{
    static const char *const names[COMM_REDUCTION_COUNT] = {
        [COMM_SUM] = "sum", [COMM_PROD] = "prod", [COMM_MIN] = "min",
        [COMM_MAX] = "max", [COMM_AVG] = "avg",   [COMM_PREMUL_SUM] = "premul_sum",
    };

    return names[reduction];
}

const char *comm_operation_name(enum comm_operation operation)
{
    static const char *const names[COMM_OPERATION_COUNT] = {
        [COMM_NONE] = "nothing",
        [COMM_SUM_TREE] = "sum_tree",
        [COMM_ALL_REDUCE] = "all_reduce",
        [COMM_ALL_GATHER] = "all_gather",
        [COMM_BROADCAST] = "broadcast",
        [COMM_BARRIER] = "barrier",
        [COMM_REDUCE_SCATTER] = "reduce_scatter",
        [COMM_REDUCE] = "reduce",
        [COMM_ALL_TO_ALL] = "all_to_all",
        [COMM_ALL_TO_ALLV] = "all_to_allv",
        [COMM_SEND] = "send",
        [COMM_RECV] = "recv",
    };

    return names[operation];
}

/* How many blocks of count elements an operation reads and writes on this rank, and where the one
 * may lie in the other: in at block in_at of out or out at block out_at of in. */
struct shape {
    size_t n_in;
    size_t n_out;
    size_t in_at;
    size_t out_at;
};

static struct shape shape_of(const struct comm *comm, const struct comm_call *call)
{
    size_t n = comm->n_ranks;
    size_t is_root = comm->rank == call->root;

    switch (call->operation) {
    case COMM_ALL_GATHER:
        return (struct shape){.n_in = 1, .n_out = n, .in_at = comm->rank};
    case COMM_REDUCE_SCATTER:
        return (struct shape){.n_in = n, .n_out = 1, .out_at = comm->rank};
    case COMM_ALL_TO_ALL:
        return (struct shape){.n_in = n, .n_out = n};
    case COMM_BROADCAST:
        return (struct shape){.n_in = is_root, .n_out = 1};
    case COMM_REDUCE:
        return (struct shape){.n_in = 1, .n_out = is_root};
    case COMM_SEND:
        return (struct shape){.n_in = 1};
    case COMM_RECV:
        return (struct shape){.n_out = 1};
    case COMM_BARRIER:
        return (struct shape){0};
    default:
        return (struct shape){.n_in = 1, .n_out = 1};
    }
}

static enum status refuse(const struct comm *comm, const struct comm_call *call, const char *what,
                          struct err *err)
{
    return err_set(err, STATUS_INVALID, "%s on rank %u: %s", comm_operation_name(call->operation),
                   comm->rank, what);
}

static bool overlap(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && (uintptr_t)a < (uintptr_t)b + b_bytes &&
           (uintptr_t)b < (uintptr_t)a + a_bytes;
}

static enum status check_memory(const struct comm *comm, const struct comm_call *call,
                                struct err *err)
{
    const struct comm_data *data = &call->data;
    struct shape shape = shape_of(comm, call);
    const char *in = data->in;
    const char *out = data->out;
    size_t block;
    size_t most;

    if (data->count == 0) {
        return STATUS_OK;
    }
    if (!size_mul(data->count, comm_type_bytes(data->type), &block) ||
        !size_mul(block, comm->n_ranks, &most) || most > PTRDIFF_MAX) {
        return refuse(comm, call, "the count is larger than any memory", err);
    }
    if ((shape.n_in > 0 && in == NULL) || (shape.n_out > 0 && out == NULL)) {
        return refuse(comm, call, in == NULL && shape.n_in > 0 ? "in is NULL" : "out is NULL", err);
    }
    if (overlap(in, shape.n_in * block, out, shape.n_out * block) &&
        in + shape.out_at * block != out + shape.in_at * block) {
        return refuse(comm, call, "in and out overlap, and not as in place", err);
    }
    return STATUS_OK;
}

/* The farthest element of the blocks, checked for overflow. */
static enum status check_blocks(const struct comm *comm, const struct comm_call *call,
                                const void *memory, const size_t *counts, const size_t *offsets,
                                struct err *err)
{
    size_t bytes = comm_type_bytes(call->vectors.type);

    if (counts == NULL || offsets == NULL) {
        return refuse(comm, call, "counts or offsets are NULL", err);
    }
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        size_t end;

        if (counts[r] > 0 && memory == NULL) {
            return refuse(comm, call, "in or out is NULL", err);
        }
        if (!size_add(counts[r], offsets[r], &end) || !size_mul(end, bytes, &end) ||
            end > PTRDIFF_MAX) {
            return refuse(comm, call, "a count or offset is larger than any memory", err);
        }
    }
    return STATUS_OK;
}

static enum status check_vectors(const struct comm *comm, const struct comm_call *call,
                                 struct err *err)
{
    const struct comm_vectors *v = &call->vectors;
    size_t bytes = comm_type_bytes(v->type);
    enum status status = check_blocks(comm, call, v->in, v->send_counts, v->send_offsets, err);

    if (status == STATUS_OK) {
        status = check_blocks(comm, call, v->out, v->recv_counts, v->recv_offsets, err);
    }
    for (uint32_t a = 0; a < comm->n_ranks && status == STATUS_OK; a++) {
        const char *out = (const char *)v->out + v->recv_offsets[a] * bytes;

        for (uint32_t b = 0; b < comm->n_ranks; b++) {
            const char *in = (const char *)v->in + v->send_offsets[b] * bytes;
            const char *other = (const char *)v->out + v->recv_offsets[b] * bytes;

            if (overlap(out, v->recv_counts[a] * bytes, in, v->send_counts[b] * bytes) &&
                !(a == b && in == out && v->recv_counts[a] == v->send_counts[a])) {
                return refuse(comm, call, "in and out overlap, and not as in place", err);
            }
            if (b < a &&
                overlap(out, v->recv_counts[a] * bytes, other, v->recv_counts[b] * bytes)) {
                return refuse(comm, call, "blocks of out overlap", err);
            }
        }
    }
    return status;
}

static bool reduces(enum comm_operation operation)
{
    return operation == COMM_ALL_REDUCE || operation == COMM_REDUCE ||
           operation == COMM_REDUCE_SCATTER;
}

static enum status check(const struct comm *comm, const struct comm_call *call, struct err *err)
{
    bool is_vectors = call->operation == COMM_ALL_TO_ALLV;
    unsigned type = is_vectors ? call->vectors.type : call->data.type;
    bool is_message = call->operation == COMM_SEND || call->operation == COMM_RECV;

    if (type >= COMM_TYPE_COUNT) {
        return refuse(comm, call, "there is no such type", err);
    }
    if (call->root >= comm->n_ranks) {
        return err_set(err, STATUS_INVALID, "%s on rank %u: there is no rank %u among %u",
                       comm_operation_name(call->operation), comm->rank, call->root, comm->n_ranks);
    }
    if (is_message && call->root == comm->rank && comm->group == NULL) {
        return refuse(comm, call, "to and from itself only in a group", err);
    }
    if (reduces(call->operation)) {
        if ((unsigned)call->reduction >= COMM_REDUCTION_COUNT) {
            return refuse(comm, call, "there is no such reduction", err);
        }
        if (call->reduction == COMM_PREMUL_SUM && call->data.scale == NULL) {
            return refuse(comm, call, "premul_sum without a scale", err);
        }
    }
    return is_vectors ? check_vectors(comm, call, err) : check_memory(comm, call, err);
}

static enum status run(struct comm *comm, const struct comm_call *calls, size_t n, struct err *err)
{
    if (comm->backend->run == NULL) {
        return err_set(err, STATUS_UNSUPPORTED, "rank %u: the back end %s does not have %s",
                       comm->rank, comm->backend->name, comm_operation_name(calls->operation));
    }
    return comm->backend->run(comm, calls, n, err);
}

static enum status note(struct comm *comm, const struct comm_call *call, struct err *err)
{
    struct comm_group *group = comm->group;

    if (group->n_calls == COMM_GROUP_MAX) {
        return err_set(err, STATUS_LIMIT, "%s on rank %u: a group has at most %d calls",
                       comm_operation_name(call->operation), comm->rank, COMM_GROUP_MAX);
    }
    if (group->n_calls == group->n_room) {
        group->n_room = MAX(16, 2 * group->n_room);
        group->calls = xrealloc(group->calls, group->n_room, sizeof(*group->calls));
    }
    group->calls[group->n_calls++] = *call;
    return STATUS_OK;
}

/* Checks a call; then notes it in the group, or runs it: with the caller's own data if the table
 * has an entry for it. */
static enum status issue(struct comm *comm, const struct comm_call *call,
                         const struct comm_data *data, struct err *err)
{
    enum status status = check(comm, call, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (comm->group != NULL) {
        return note(comm, call, err);
    }
    switch (call->operation) {
    case COMM_ALL_REDUCE:
        return comm->backend->all_reduce(comm, data, call->reduction, err);
    case COMM_ALL_GATHER:
        return comm->backend->all_gather(comm, data, err);
    case COMM_BROADCAST:
        return comm->backend->broadcast(comm, data, call->root, err);
    case COMM_BARRIER:
        return comm->backend->barrier(comm, err);
    default:
        return run(comm, call, 1, err);
    }
}

void comm_id_make(struct comm_id *ret_id)
{
    ENSURE_OP(getrandom(ret_id->bytes, sizeof(ret_id->bytes), 0), ==, sizeof(ret_id->bytes));
}

static void group_destroy(struct comm *comm)
{
    if (comm->group != NULL) {
        free(comm->group->calls);
        free(comm->group);
        comm->group = NULL;
    }
}

void comm_destroy(struct comm **comm)
{
    if (*comm != NULL) {
        group_destroy(*comm);
        (*comm)->backend->destroy(comm);
    }
}

void comm_abort(struct comm *comm)
{
    atomic_store(&comm->aborted, 1);
    comm->backend->abort(comm);
}

enum status comm_poll_error(struct comm *comm, struct err *err)
{
    if (comm->backend->poll_error == NULL) {
        return atomic_load(&comm->aborted) == 0
                   ? STATUS_OK
                   : err_set(err, STATUS_CANCELLED, "the communicator was aborted");
    }
    return comm->backend->poll_error(comm, err);
}

void comm_capabilities(struct comm *comm, struct comm_capabilities *ret_capabilities)
{
    const struct comm_backend *backend = comm->backend;
    uint32_t always = 1u << COMM_SUM_TREE | 1u << COMM_ALL_REDUCE | 1u << COMM_ALL_GATHER |
                      1u << COMM_BROADCAST | 1u << COMM_BARRIER;
    uint32_t all = (1u << COMM_OPERATION_COUNT) - 1 - (1u << COMM_NONE);

    *ret_capabilities = (struct comm_capabilities)
    {
        .backend = backend->name,
#if defined(__x86_64__)
        .arithmetic = "canonical-x86-64",
#else
        .arithmetic = "canonical-arm64",
#endif
        .types = (1u << COMM_TYPE_COUNT) - 1, .reductions = (1u << COMM_REDUCTION_COUNT) - 1,
        .operations = backend->run == NULL ? always : all, .n_ranks = comm->n_ranks,
        .peers = backend->peers == NULL ? (uint64_t)1 << comm->rank : backend->peers(comm),
    };
}

enum status comm_sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    if (comm->group != NULL) {
        return err_set(err, STATUS_INVALID, "sum_tree on rank %u: not in a group", comm->rank);
    }
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
    return issue(
        comm,
        &(struct comm_call){.operation = COMM_ALL_REDUCE, .data = *data, .reduction = reduction},
        data, err);
}

enum status comm_reduce(struct comm *comm, const struct comm_data *data,
                        enum comm_reduction reduction, uint32_t root, struct err *err)
{
    return issue(comm,
                 &(struct comm_call){
                     .operation = COMM_REDUCE, .data = *data, .reduction = reduction, .root = root},
                 data, err);
}

enum status comm_reduce_scatter(struct comm *comm, const struct comm_data *data,
                                enum comm_reduction reduction, struct err *err)
{
    return issue(comm,
                 &(struct comm_call){
                     .operation = COMM_REDUCE_SCATTER, .data = *data, .reduction = reduction},
                 data, err);
}

enum status comm_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    return issue(comm, &(struct comm_call){.operation = COMM_ALL_GATHER, .data = *data}, data, err);
}

enum status comm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                           struct err *err)
{
    return issue(comm,
                 &(struct comm_call){.operation = COMM_BROADCAST, .data = *data, .root = root},
                 data, err);
}

enum status comm_all_to_all(struct comm *comm, const struct comm_data *data, struct err *err)
{
    return issue(comm, &(struct comm_call){.operation = COMM_ALL_TO_ALL, .data = *data}, data, err);
}

enum status comm_all_to_allv(struct comm *comm, const struct comm_vectors *vectors, struct err *err)
{
    return issue(comm, &(struct comm_call){.operation = COMM_ALL_TO_ALLV, .vectors = *vectors},
                 NULL, err);
}

enum status comm_send(struct comm *comm, const void *in, size_t count, enum comm_type type,
                      uint32_t peer, struct err *err)
{
    return issue(comm,
                 &(struct comm_call){.operation = COMM_SEND,
                                     .data = {.in = in, .count = count, .type = type},
                                     .root = peer},
                 NULL, err);
}

enum status comm_recv(struct comm *comm, void *out, size_t count, enum comm_type type,
                      uint32_t peer, struct err *err)
{
    return issue(comm,
                 &(struct comm_call){.operation = COMM_RECV,
                                     .data = {.out = out, .count = count, .type = type},
                                     .root = peer},
                 NULL, err);
}

enum status comm_barrier(struct comm *comm, struct err *err)
{
    return issue(comm, &(struct comm_call){.operation = COMM_BARRIER}, NULL, err);
}

void comm_group_begin(struct comm *comm)
{
    if (comm->group == NULL) {
        comm->group = xalloc(sizeof(*comm->group));
    }
    comm->group->depth++;
}

enum status comm_group_end(struct comm *comm, struct err *err)
{
    struct comm_group *group = comm->group;
    enum status status = STATUS_OK;

    if (group == NULL) {
        return err_set(err, STATUS_INVALID, "rank %u: group_end without group_begin", comm->rank);
    }
    if (--group->depth > 0) {
        return STATUS_OK;
    }
    comm->group = NULL; /* also while it runs, and if it fails */
    if (group->n_calls > 0) {
        status = run(comm, group->calls, group->n_calls, err);
    }
    free(group->calls);
    free(group);
    return status;
}
