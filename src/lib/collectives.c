/* SPDX-License-Identifier: Apache-2.0 */
/* The operations: each checks its arguments, describes its parts and sends them. */
#include <lockstep/collectives.h>

#include <string.h>

#include "lib/check.h"
#include "lib/fail.h"
#include "lib/group.h"

/* One call of the program, as far as all operations have it in common. */
struct request {
    struct lockstep_world *world;
    const struct lockstep_options *options;
    struct lockstep_op **ret_op;
    struct lockstep_error *error;
    struct lockstep_op *op;
};

/* Checks what all have in common and takes the world's lock; without OK it is not taken. */
static enum lockstep_status begin(struct request *request, const char *name)
{
    struct lockstep_world *world = request->world;
    enum lockstep_status status = op_check_options(request->options, name, request->error);

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (world == NULL) {
        return lib_fail(request->error, LOCKSTEP_INVALID, "%s: the world is NULL", name);
    }
    pthread_mutex_lock(&world->lock);
    status = lib_world_check_ready(world, name, request->error);
    if (status == LOCKSTEP_OK && world->n_in_flight >= world->in_flight_limit) {
        status = lib_fail(request->error, LOCKSTEP_LIMIT, "%s: %u operations are in flight already",
                          name, (unsigned)world->n_in_flight);
    }
    if (status != LOCKSTEP_OK) {
        pthread_mutex_unlock(&world->lock);
        return status;
    }
    request->op = op_create(name, world->n_ranks, request->options, request->ret_op != NULL);
    request->op->world = world;
    request->op->epoch = world->epoch;
    return LOCKSTEP_OK;
}

static void part_done(struct task *task, const struct work_result *result)
{
    lib_world_op_part_done(task->arg, result);
}

/* The parts of these ranks are the operation's. */
static void take_parts(struct request *request, uint32_t kind, uint32_t ranks)
{
    struct lockstep_world *world = request->world;

    for (uint32_t r = 0; r < world->n_ranks; r++) {
        struct op_part *part = &request->op->parts[r];

        if ((ranks & 1u << r) == 0) {
            continue;
        }
        part->taken = true;
        part->work.kind = kind;
        part->task.owner = world;
        part->task.generation = world->ranks[r].generation;
        part->task.done = part_done;
        part->task.order.works = part->works;
        part->task.order.n_works = 1;
        request->op->n_left++;
    }
}

/* lock is held. Returns the ranks whose devices refused, one bit each. */
static uint32_t post(struct lockstep_world *world, struct lockstep_op *op,
                     struct work_result *results)
{
    uint32_t taken = 0;
    uint32_t refused = 0;

    world->n_in_flight++;
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        if (op->parts[r].taken) {
            taken |= 1u << r;
            world->ranks[r].n_out++;
            world->n_out++;
        }
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) { /* op may end with the last one */
        struct lockstep_error error;

        if ((taken & 1u << r) != 0 &&
            device_post(world->ranks[r].device, &op->parts[r].task, &error) != LOCKSTEP_OK) {
            refused |= 1u << r;
            work_fail(&results[r], error.status, "%s", error.text);
        }
    }
    return refused;
}

/* Sends the operation, or discards it if status says so. Gives the lock back. */
static enum lockstep_status finish(struct request *request, enum lockstep_status status)
{
    struct lockstep_world *world = request->world;
    struct lockstep_op *op = request->op;
    struct work_result results[LOCKSTEP_RANKS_MAX];
    uint32_t refused = 0;

    if (status == LOCKSTEP_OK && op->group != NULL) {
        status = group_add(op->group, world, op, request->error);
    }
    if (status != LOCKSTEP_OK) {
        pthread_mutex_unlock(&world->lock);
        op_discard(&op);
        return status;
    }
    if (request->ret_op != NULL) {
        *request->ret_op = op; /* before it can end */
    }
    if (op->group == NULL) {
        refused = post(world, op, results);
    }
    pthread_mutex_unlock(&world->lock);
    for (uint32_t r = 0; refused != 0; r++, refused >>= 1) {
        if ((refused & 1) != 0) { /* its part has not ended, so op is there */
            lib_world_op_part_done(&op->parts[r], &results[r]);
        }
    }
    return LOCKSTEP_OK;
}

static uint32_t all_ranks(const struct lockstep_world *world)
{
    return (1u << world->n_ranks) - 1;
}

/* What a reduction is given beside its data. */
static void set_reduction(struct request *request, enum lockstep_reduction reduction)
{
    struct lockstep_op *op = request->op;

    for (uint32_t r = 0; r < op->n_parts; r++) {
        struct work *work = &op->parts[r].work;
        enum lockstep_type type = (enum lockstep_type)work->type;
        bool is_half = type == LOCKSTEP_F16 || type == LOCKSTEP_BF16;
        size_t bytes = is_half ? sizeof(float) : lockstep_type_bytes(type);

        work->reduction = (uint32_t)reduction;
        if (reduction == LOCKSTEP_PREMUL_SUM) {
            memcpy(work->factor, (const char *)request->options->factors + r * bytes, bytes);
        }
    }
}

static void set_peer(struct request *request, uint32_t peer)
{
    for (uint32_t r = 0; r < request->op->n_parts; r++) {
        request->op->parts[r].work.peer = peer;
    }
}

/* A collective of one handle a rank and direction. */
struct collective {
    uint32_t kind;
    struct check_shape shape;
    bool reduces;
    bool has_root;
    enum lockstep_reduction reduction;
    uint32_t root;
};

static enum lockstep_status start(struct request *request, const struct collective *what,
                                  struct lockstep_tensor *const *in,
                                  struct lockstep_tensor *const *out)
{
    struct lockstep_world *world = request->world;
    enum lockstep_status status = begin(request, what->shape.name);

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (what->has_root) {
        status = check_rank(world, what->shape.name, "root", what->root, request->error);
    }
    if (status == LOCKSTEP_OK && what->reduces) {
        status =
            check_reduction(what->shape.name, what->reduction, request->options, request->error);
    }
    if (status == LOCKSTEP_OK) {
        status = check_fill(world, request->op, &what->shape, in, out, request->error);
    }
    if (status == LOCKSTEP_OK) {
        if (what->reduces) {
            set_reduction(request, what->reduction);
        }
        if (what->has_root) {
            set_peer(request, what->root);
        }
        take_parts(request, what->kind, all_ranks(world));
    }
    return finish(request, status);
}

enum lockstep_status lockstep_all_reduce(struct lockstep_world *world,
                                         struct lockstep_tensor *const *in,
                                         struct lockstep_tensor *const *out,
                                         enum lockstep_reduction reduction,
                                         const struct lockstep_options *options,
                                         struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_ALL_REDUCE,
        .shape = {.name = "all_reduce", .only_in = UINT32_MAX, .only_out = UINT32_MAX},
        .reduces = true,
        .reduction = reduction,
    };

    return start(&request, &what, in, out);
}

enum lockstep_status lockstep_all_gather(struct lockstep_world *world,
                                         struct lockstep_tensor *const *in,
                                         struct lockstep_tensor *const *out,
                                         const struct lockstep_options *options,
                                         struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_ALL_GATHER,
        .shape = {.name = "all_gather",
                  .out_all = true,
                  .in_place_share = true,
                  .only_in = UINT32_MAX,
                  .only_out = UINT32_MAX},
    };

    return start(&request, &what, in, out);
}

enum lockstep_status
lockstep_reduce_scatter(struct lockstep_world *world, struct lockstep_tensor *const *in,
                        struct lockstep_tensor *const *out, enum lockstep_reduction reduction,
                        const struct lockstep_options *options, struct lockstep_op **ret_op,
                        struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_REDUCE_SCATTER,
        .shape = {.name = "reduce_scatter",
                  .in_all = true,
                  .in_place_share = true,
                  .only_in = UINT32_MAX,
                  .only_out = UINT32_MAX},
        .reduces = true,
        .reduction = reduction,
    };

    return start(&request, &what, in, out);
}

enum lockstep_status lockstep_broadcast(struct lockstep_world *world,
                                        struct lockstep_tensor *const *in,
                                        struct lockstep_tensor *const *out, uint32_t root,
                                        const struct lockstep_options *options,
                                        struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_BROADCAST,
        .shape = {.name = "broadcast", .only_in = root, .only_out = UINT32_MAX},
        .has_root = true,
        .root = root,
    };

    return start(&request, &what, in, out);
}

enum lockstep_status lockstep_reduce(struct lockstep_world *world,
                                     struct lockstep_tensor *const *in,
                                     struct lockstep_tensor *const *out,
                                     enum lockstep_reduction reduction, uint32_t root,
                                     const struct lockstep_options *options,
                                     struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_REDUCE,
        .shape = {.name = "reduce", .only_in = UINT32_MAX, .only_out = root},
        .reduces = true,
        .reduction = reduction,
        .has_root = true,
        .root = root,
    };

    return start(&request, &what, in, out);
}

enum lockstep_status lockstep_all_to_all(struct lockstep_world *world,
                                         struct lockstep_tensor *const *in,
                                         struct lockstep_tensor *const *out,
                                         const struct lockstep_options *options,
                                         struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    const struct collective what = {
        .kind = LOCKSTEP_ALL_TO_ALL,
        .shape = {.name = "all_to_all",
                  .in_all = true,
                  .out_all = true,
                  .only_in = UINT32_MAX,
                  .only_out = UINT32_MAX},
    };

    return start(&request, &what, in, out);
}

/* One rank's part of an operation between two. */
static enum lockstep_status send_or_recv(struct request *request, uint32_t kind, uint32_t rank,
                                         uint32_t peer, struct lockstep_tensor *tensor)
{
    struct lockstep_world *world = request->world;
    bool is_send = kind == LOCKSTEP_SEND;
    const char *name = is_send ? "send" : "recv";
    struct lockstep_error *error = request->error;
    enum lockstep_status status = begin(request, name);
    struct op_part *part;

    if (status != LOCKSTEP_OK) {
        return status;
    }
    status = check_rank(world, name, "rank", rank, error);
    if (status == LOCKSTEP_OK) {
        status = check_rank(world, name, "peer", peer, error);
    }
    if (status == LOCKSTEP_OK && rank == peer && request->op->group == NULL) {
        status =
            lib_fail(error, LOCKSTEP_INVALID,
                     "%s: rank %u with itself, which it can in a group only", name, (unsigned)rank);
    }
    if (status == LOCKSTEP_OK) {
        status = check_tensor(world, name, rank, is_send ? "in" : "out", tensor, error);
    }
    if (status == LOCKSTEP_OK) {
        part = &request->op->parts[rank];
        check_fill_part(part, is_send ? tensor : NULL, is_send ? NULL : tensor);
        part->work.type = (uint32_t)tensor->type;
        part->work.count = tensor->count;
        part->work.peer = peer;
        take_parts(request, kind, 1u << rank);
    }
    return finish(request, status);
}

enum lockstep_status lockstep_send(struct lockstep_world *world, uint32_t rank, uint32_t peer,
                                   struct lockstep_tensor *in,
                                   const struct lockstep_options *options,
                                   struct lockstep_op **ret_op, struct lockstep_error *error)
{
    return send_or_recv(
        &(struct request){.world = world, .options = options, .ret_op = ret_op, .error = error},
        LOCKSTEP_SEND, rank, peer, in);
}

enum lockstep_status lockstep_recv(struct lockstep_world *world, uint32_t rank, uint32_t peer,
                                   struct lockstep_tensor *out,
                                   const struct lockstep_options *options,
                                   struct lockstep_op **ret_op, struct lockstep_error *error)
{
    return send_or_recv(
        &(struct request){.world = world, .options = options, .ret_op = ret_op, .error = error},
        LOCKSTEP_RECV, rank, peer, out);
}

enum lockstep_status lockstep_barrier(struct lockstep_world *world,
                                      const struct lockstep_options *options,
                                      struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    enum lockstep_status status = begin(&request, "barrier");

    if (status != LOCKSTEP_OK) {
        return status;
    }
    take_parts(&request, LOCKSTEP_BARRIER, all_ranks(world));
    return finish(&request, LOCKSTEP_OK);
}

/* --- all_to_allv --- */

/* Whether the pieces that shares gives rank r lie inside its tensor, and not over each other where
 * they are written. Fills the part's numbers. */
static enum lockstep_status fill_shares(struct request *request, uint32_t rank, bool is_out,
                                        const struct lockstep_shares *shares,
                                        const struct lockstep_tensor *tensor)
{
    uint32_t n = request->world->n_ranks;
    struct work_shares *to = &request->op->parts[rank].work.shares;
    uint64_t *counts = is_out ? to->receive_count : to->send_count;
    uint64_t *at = is_out ? to->receive_at : to->send_at;
    const size_t *given = is_out ? shares->out_at : shares->in_at;
    size_t next = 0;

    for (uint32_t peer = 0; peer < n; peer++) {
        size_t entry = is_out ? (size_t)peer * n + rank : (size_t)rank * n + peer;
        size_t end;

        counts[peer] = shares->count[entry];
        at[peer] = given != NULL ? given[entry] : next;
        if (!size_add(at[peer], counts[peer], &end) || end > tensor->count) {
            return lib_fail(request->error, LOCKSTEP_INVALID,
                            "all_to_allv: rank %u: the piece %s rank %u does not fit into %s (%zu "
                            "elements)",
                            (unsigned)rank, is_out ? "from" : "for", (unsigned)peer,
                            is_out ? "out" : "in", tensor->count);
        }
        next = end;
        for (uint32_t other = 0; is_out && other < peer; other++) {
            if (at[other] < end && at[peer] < at[other] + counts[other]) {
                return lib_fail(request->error, LOCKSTEP_INVALID,
                                "all_to_allv: rank %u: the pieces from ranks %u and %u overlap",
                                (unsigned)rank, (unsigned)other, (unsigned)peer);
            }
        }
    }
    return LOCKSTEP_OK;
}

static enum lockstep_status fill_vectors(struct request *request, struct lockstep_tensor *const *in,
                                         struct lockstep_tensor *const *out,
                                         const struct lockstep_shares *shares)
{
    struct lockstep_world *world = request->world;
    enum lockstep_status status = LOCKSTEP_OK;

    if (shares == NULL || shares->bytes != sizeof(*shares) || shares->count == NULL || in == NULL ||
        out == NULL) {
        return lib_fail(request->error, LOCKSTEP_INVALID,
                        "all_to_allv: an argument is NULL, or lockstep_shares.bytes is not its "
                        "size");
    }
    for (uint32_t r = 0; r < world->n_ranks && status == LOCKSTEP_OK; r++) {
        struct op_part *part = &request->op->parts[r];

        status = check_tensor(world, "all_to_allv", r, "in", in[r], request->error);
        if (status == LOCKSTEP_OK) {
            status = check_tensor(world, "all_to_allv", r, "out", out[r], request->error);
        }
        if (status == LOCKSTEP_OK && (in[r]->type != in[0]->type || out[r]->type != in[0]->type)) {
            return lib_fail(request->error, LOCKSTEP_INVALID,
                            "all_to_allv: rank %u: in is %s and out is %s, but rank 0 has %s",
                            (unsigned)r, lockstep_type_text(in[r]->type),
                            lockstep_type_text(out[r]->type), lockstep_type_text(in[0]->type));
        }
        if (status == LOCKSTEP_OK &&
            (tensor_overlaps(in[r], out[r]) ||
             (in[r]->span.data == out[r]->span.data && in[r]->count > 0))) {
            return lib_fail(request->error, LOCKSTEP_INVALID,
                            "all_to_allv: rank %u: in and out overlap", (unsigned)r);
        }
        if (status == LOCKSTEP_OK) {
            check_fill_part(part, in[r], out[r]);
            part->work.type = (uint32_t)in[r]->type;
            status = fill_shares(request, r, false, shares, in[r]);
        }
        if (status == LOCKSTEP_OK) {
            status = fill_shares(request, r, true, shares, out[r]);
        }
    }
    return status;
}

enum lockstep_status lockstep_all_to_allv(struct lockstep_world *world,
                                          struct lockstep_tensor *const *in,
                                          struct lockstep_tensor *const *out,
                                          const struct lockstep_shares *shares,
                                          const struct lockstep_options *options,
                                          struct lockstep_op **ret_op, struct lockstep_error *error)
{
    struct request request = {.world = world, .options = options, .ret_op = ret_op, .error = error};
    enum lockstep_status status = begin(&request, "all_to_allv");

    if (status != LOCKSTEP_OK) {
        return status;
    }
    status = fill_vectors(&request, in, out, shares);
    if (status == LOCKSTEP_OK) {
        take_parts(&request, LOCKSTEP_ALL_TO_ALLV, all_ranks(world));
    }
    return finish(&request, status);
}
