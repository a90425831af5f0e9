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

/* What follows is copied into each call's own function, where the operation is known and little of
 * it is left: with a call of 64 bytes it is a tenth of the time. */
#define EVERYWHERE static inline __attribute__((always_inline))

/* How many blocks of count elements an operation reads and writes on this rank, and where the one
 * may lie in the other: in at block in_at of out or out at block out_at of in. */
struct shape {
    size_t n_in;
    size_t n_out;
    size_t in_at;
    size_t out_at;
};

EVERYWHERE struct shape shape_of(const struct comm *comm, enum comm_operation operation,
                                 uint32_t root)
{
    size_t n = comm->n_ranks;
    size_t is_root = comm->rank == root;

    switch (operation) {
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
    default:
        return (struct shape){.n_in = 1, .n_out = 1};
    }
}

static __attribute__((cold)) enum status
refuse(const struct comm *comm, enum comm_operation operation, const char *what, struct err *err)
{
    return err_set(err, STATUS_INVALID, "%s on rank %u: %s", comm_operation_name(operation),
                   comm->rank, what);
}

static __attribute__((cold)) enum status
refuse_root(const struct comm *comm, enum comm_operation operation, uint32_t root, struct err *err)
{
    return err_set(err, STATUS_INVALID, "%s on rank %u: there is no rank %u among %u",
                   comm_operation_name(operation), comm->rank, root, comm->n_ranks);
}

static bool overlap(uintptr_t a, size_t a_bytes, uintptr_t b, size_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

EVERYWHERE enum status check_memory(const struct comm *comm, enum comm_operation operation,
                                    const struct comm_data *data, uint32_t root, struct err *err)
{
    struct shape shape = shape_of(comm, operation, root);
    uintptr_t in = (uintptr_t)data->in;
    uintptr_t out = (uintptr_t)data->out;
    size_t block;
    size_t most;

    if (data->count == 0) {
        return STATUS_OK;
    }
    if (!size_mul(data->count, types[data->type].bytes, &block) ||
        !size_mul(block, comm->n_ranks, &most) || most > PTRDIFF_MAX) {
        return refuse(comm, operation, "the count is larger than any memory", err);
    }
    if (shape.n_in > 0 && data->in == NULL) {
        return refuse(comm, operation, "in is NULL", err);
    }
    if (shape.n_out > 0 && data->out == NULL) {
        return refuse(comm, operation, "out is NULL", err);
    }
    if (overlap(in, shape.n_in * block, out, shape.n_out * block) &&
        in + shape.out_at * block != out + shape.in_at * block) {
        return refuse(comm, operation, "in and out overlap, and not as in place", err);
    }
    return STATUS_OK;
}

/* Where blocks lie: bytes [begin, end) of memory, nothing if all are empty. */
struct extent {
    size_t begin;
    size_t end;
};

/* Checked for overflow. */
static enum status find_extent(const struct comm *comm, enum comm_type type, const void *memory,
                               const size_t *counts, const size_t *offsets,
                               struct extent *ret_extent, struct err *err)
{
    size_t bytes = types[type].bytes;
    struct extent extent = {.begin = SIZE_MAX};

    if (counts == NULL || offsets == NULL) {
        return refuse(comm, COMM_ALL_TO_ALLV, "counts or offsets are NULL", err);
    }
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        size_t end;

        if (counts[r] > 0 && memory == NULL) {
            return refuse(comm, COMM_ALL_TO_ALLV, "in or out is NULL", err);
        }
        if (!size_add(counts[r], offsets[r], &end) || !size_mul(end, bytes, &end) ||
            end > PTRDIFF_MAX) {
            return refuse(comm, COMM_ALL_TO_ALLV, "a count or offset is larger than any memory",
                          err);
        }
        if (counts[r] > 0) {
            extent.begin = MIN(extent.begin, offsets[r] * bytes);
            extent.end = MAX(extent.end, end);
        }
    }
    *ret_extent = extent.end > 0 ? extent : (struct extent){0};
    return STATUS_OK;
}

/* Whether a block to be received lies in one to be sent, and not as in place. */
static bool in_and_out_overlap(const struct comm *comm, const struct comm_vectors *v)
{
    size_t bytes = types[v->type].bytes;

    for (uint32_t a = 0; a < comm->n_ranks; a++) {
        uintptr_t out = (uintptr_t)v->out + v->recv_offsets[a] * bytes;

        for (uint32_t b = 0; b < comm->n_ranks; b++) {
            uintptr_t in = (uintptr_t)v->in + v->send_offsets[b] * bytes;

            if (overlap(out, v->recv_counts[a] * bytes, in, v->send_counts[b] * bytes) &&
                !(a == b && in == out && v->recv_counts[a] == v->send_counts[a])) {
                return true;
            }
        }
    }
    return false;
}

static bool outs_overlap(const struct comm *comm, const struct comm_vectors *v)
{
    size_t bytes = types[v->type].bytes;

    for (uint32_t a = 0; a < comm->n_ranks; a++) {
        uintptr_t out = (uintptr_t)v->out + v->recv_offsets[a] * bytes;

        for (uint32_t b = 0; b < a; b++) {
            uintptr_t other = (uintptr_t)v->out + v->recv_offsets[b] * bytes;

            if (overlap(out, v->recv_counts[a] * bytes, other, v->recv_counts[b] * bytes)) {
                return true;
            }
        }
    }
    return false;
}

static enum status check_vectors(const struct comm *comm, const struct comm_vectors *v,
                                 struct err *err)
{
    struct extent in = {0};
    struct extent out = {0};
    enum status status;

    if ((unsigned)v->type >= COMM_TYPE_COUNT) {
        return refuse(comm, COMM_ALL_TO_ALLV, "there is no such type", err);
    }
    status = find_extent(comm, v->type, v->in, v->send_counts, v->send_offsets, &in, err);
    if (status == STATUS_OK) {
        status = find_extent(comm, v->type, v->out, v->recv_counts, v->recv_offsets, &out, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (overlap((uintptr_t)v->in + in.begin, in.end - in.begin, (uintptr_t)v->out + out.begin,
                out.end - out.begin) &&
        in_and_out_overlap(comm, v)) {
        return refuse(comm, COMM_ALL_TO_ALLV, "in and out overlap, and not as in place", err);
    }
    if (outs_overlap(comm, v)) {
        return refuse(comm, COMM_ALL_TO_ALLV, "blocks of out overlap", err);
    }
    return STATUS_OK;
}

EVERYWHERE enum status check(const struct comm *comm, enum comm_operation operation,
                             const struct comm_data *data, enum comm_reduction reduction,
                             uint32_t root, struct err *err)
{
    if ((unsigned)data->type >= COMM_TYPE_COUNT) {
        return refuse(comm, operation, "there is no such type", err);
    }
    if (root >= comm->n_ranks) {
        return refuse_root(comm, operation, root, err);
    }
    if ((operation == COMM_SEND || operation == COMM_RECV) && root == comm->rank &&
        comm->group == NULL) {
        return refuse(comm, operation, "to and from itself only in a group", err);
    }
    if (operation == COMM_ALL_REDUCE || operation == COMM_REDUCE ||
        operation == COMM_REDUCE_SCATTER) {
        if ((unsigned)reduction >= COMM_REDUCTION_COUNT) {
            return refuse(comm, operation, "there is no such reduction", err);
        }
        if (reduction == COMM_PREMUL_SUM && data->scale == NULL) {
            return refuse(comm, operation, "premul_sum without a scale", err);
        }
    }
    return check_memory(comm, operation, data, root, err);
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

/* Checks a call, of which there is no struct yet; then notes it in the group, or runs it: through
 * its own entry in the table if that has one. */
EVERYWHERE enum status issue(struct comm *comm, enum comm_operation operation,
                             const struct comm_data *data, enum comm_reduction reduction,
                             uint32_t root, struct err *err)
{
    enum status status = check(comm, operation, data, reduction, root, err);
    struct comm_call call;

    if (status != STATUS_OK) {
        return status;
    }
    if (comm->group == NULL && operation == COMM_ALL_REDUCE) {
        return comm->backend->all_reduce(comm, data, reduction, err);
    }
    if (comm->group == NULL && operation == COMM_ALL_GATHER) {
        return comm->backend->all_gather(comm, data, err);
    }
    if (comm->group == NULL && operation == COMM_BROADCAST) {
        return comm->backend->broadcast(comm, data, root, err);
    }
    call = (struct comm_call){
        .operation = operation, .reduction = reduction, .root = root, .data = *data};
    return comm->group != NULL ? note(comm, &call, err) : run(comm, &call, 1, err);
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
    return issue(comm, COMM_ALL_REDUCE, data, reduction, 0, err);
}

enum status comm_reduce(struct comm *comm, const struct comm_data *data,
                        enum comm_reduction reduction, uint32_t root, struct err *err)
{
    return issue(comm, COMM_REDUCE, data, reduction, root, err);
}

enum status comm_reduce_scatter(struct comm *comm, const struct comm_data *data,
                                enum comm_reduction reduction, struct err *err)
{
    return issue(comm, COMM_REDUCE_SCATTER, data, reduction, 0, err);
}

enum status comm_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    return issue(comm, COMM_ALL_GATHER, data, COMM_SUM, 0, err);
}

enum status comm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                           struct err *err)
{
    return issue(comm, COMM_BROADCAST, data, COMM_SUM, root, err);
}

enum status comm_all_to_all(struct comm *comm, const struct comm_data *data, struct err *err)
{
    return issue(comm, COMM_ALL_TO_ALL, data, COMM_SUM, 0, err);
}

enum status comm_all_to_allv(struct comm *comm, const struct comm_vectors *vectors, struct err *err)
{
    enum status status = check_vectors(comm, vectors, err);
    struct comm_call call = {.operation = COMM_ALL_TO_ALLV};

    if (status != STATUS_OK) {
        return status;
    }
    call.vectors = *vectors;
    return comm->group != NULL ? note(comm, &call, err) : run(comm, &call, 1, err);
}

enum status comm_send(struct comm *comm, const void *in, size_t count, enum comm_type type,
                      uint32_t peer, struct err *err)
{
    const struct comm_data data = {.in = in, .count = count, .type = type};

    return issue(comm, COMM_SEND, &data, COMM_SUM, peer, err);
}

enum status comm_recv(struct comm *comm, void *out, size_t count, enum comm_type type,
                      uint32_t peer, struct err *err)
{
    const struct comm_data data = {.out = out, .count = count, .type = type};

    return issue(comm, COMM_RECV, &data, COMM_SUM, peer, err);
}

enum status comm_barrier(struct comm *comm, struct err *err)
{
    if (comm->group != NULL) {
        return note(comm, &(struct comm_call){.operation = COMM_BARRIER}, err);
    }
    return comm->backend->barrier(comm, err);
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
