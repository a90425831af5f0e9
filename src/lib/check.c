/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/check.h"

#include "lib/fail.h"

enum lockstep_status check_tensor(struct lockstep_world *world, const char *name, uint32_t rank,
                                  const char *which, const struct lockstep_tensor *tensor,
                                  struct lockstep_error *error)
{
    const struct world_rank *self = &world->ranks[rank];
    char who[64];

    if (tensor == NULL) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: rank %u: %s is NULL", name, (unsigned)rank,
                        which);
    }
    if (tensor->device != self->device) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: rank %u: %s is on device %s, not on %s", name,
                        (unsigned)rank, which, tensor->device->name, self->device->name);
    }
    lib_text(who, sizeof(who), "%s: rank %u: %s: ", name, (unsigned)rank, which);
    return tensor_check_fresh(tensor, who, error);
}

enum lockstep_status check_reduction(const char *name, enum lockstep_reduction reduction,
                                     const struct lockstep_options *options,
                                     struct lockstep_error *error)
{
    if ((unsigned)reduction > LOCKSTEP_PREMUL_SUM) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: %d is no reduction", name, (int)reduction);
    }
    if (reduction == LOCKSTEP_PREMUL_SUM && (options == NULL || options->factors == NULL)) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: premul_sum without factors in the options",
                        name);
    }
    return LOCKSTEP_OK;
}

enum lockstep_status check_rank(const struct lockstep_world *world, const char *name,
                                const char *what, uint32_t rank, struct lockstep_error *error)
{
    if (rank >= world->n_ranks) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: %s %u, but the world has ranks 0 to %u", name,
                        what, (unsigned)rank, (unsigned)(world->n_ranks - 1));
    }
    return LOCKSTEP_OK;
}

void check_fill_part(struct op_part *part, struct lockstep_tensor *in, struct lockstep_tensor *out)
{
    struct work *work = &part->work;

    if (in != NULL) {
        part->in = tensor_ref(in);
        work->in = in->span;
        work->in_bytes = tensor_bytes(in);
    }
    if (out != NULL) {
        part->out = tensor_ref(out);
        work->out = out->span;
        work->out_bytes = tensor_bytes(out);
    }
}

/* The first handle that counts decides what all must be. */
struct expected {
    bool is_set;
    uint32_t rank;
    enum lockstep_type type;
    size_t share;
};

static enum lockstep_status check_count(struct lockstep_world *world,
                                        const struct check_shape *shape, uint32_t rank,
                                        const char *which, const struct lockstep_tensor *tensor,
                                        bool all, struct expected *expected,
                                        struct lockstep_error *error)
{
    uint32_t n = all ? world->n_ranks : 1;
    enum lockstep_status status = check_tensor(world, shape->name, rank, which, tensor, error);

    if (status != LOCKSTEP_OK) {
        return status;
    }
    if (tensor->count % n != 0) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "%s: rank %u: %s has %zu elements, no multiple of the %u ranks",
                        shape->name, (unsigned)rank, which, tensor->count, (unsigned)n);
    }
    if (!expected->is_set) {
        *expected = (struct expected){
            .is_set = true, .rank = rank, .type = tensor->type, .share = tensor->count / n};
    }
    if (tensor->type != expected->type) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: rank %u: %s is %s, but rank %u has %s",
                        shape->name, (unsigned)rank, which, lockstep_type_text(tensor->type),
                        (unsigned)expected->rank, lockstep_type_text(expected->type));
    }
    if (tensor->count / n != expected->share) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "%s: rank %u: %s has %zu elements, but %zu are needed beside rank %u's",
                        shape->name, (unsigned)rank, which, tensor->count, expected->share * n,
                        (unsigned)expected->rank);
    }
    return LOCKSTEP_OK;
}

/* The part of one rank. */
static enum lockstep_status check_part(struct lockstep_world *world,
                                       const struct check_shape *shape, uint32_t rank,
                                       struct lockstep_tensor *in, struct lockstep_tensor *out,
                                       struct expected *expected, struct lockstep_error *error)
{
    bool has_in = shape->only_in == UINT32_MAX || shape->only_in == rank;
    bool has_out = shape->only_out == UINT32_MAX || shape->only_out == rank;
    enum lockstep_status status = LOCKSTEP_OK;

    if (has_in && !(in == NULL && out != NULL && shape->in_place_share && shape->out_all)) {
        status = check_count(world, shape, rank, "in", in, shape->in_all, expected, error);
    }
    if (status == LOCKSTEP_OK && has_out &&
        !(out == NULL && in != NULL && shape->in_place_share && shape->in_all)) {
        status = check_count(world, shape, rank, "out", out, shape->out_all, expected, error);
    }
    if (status == LOCKSTEP_OK && has_in && has_out && in != NULL && out != NULL &&
        tensor_overlaps(in, out)) {
        return lib_fail(error, LOCKSTEP_INVALID, "%s: rank %u: in and out overlap", shape->name,
                        (unsigned)rank);
    }
    return status;
}

/* A share in the other's memory stands where NULL was given. */
static void fill_in_place(struct op_part *part, uint32_t rank, const struct expected *expected,
                          struct lockstep_tensor *in, struct lockstep_tensor *out)
{
    size_t share = expected->share * lockstep_type_bytes(expected->type);
    const struct work_span *all = in == NULL ? &part->work.out : &part->work.in;
    struct work_span own = {
        .data = all->data == NULL ? NULL : (char *)all->data + rank * share,
        .at = all->at + rank * share,
    };

    if (in == NULL && out != NULL) {
        part->work.in = own;
        part->work.in_bytes = share;
    } else if (out == NULL && in != NULL) {
        part->work.out = own;
        part->work.out_bytes = share;
    }
}

enum lockstep_status check_fill(struct lockstep_world *world, struct lockstep_op *op,
                                const struct check_shape *shape, struct lockstep_tensor *const *in,
                                struct lockstep_tensor *const *out, struct lockstep_error *error)
{
    struct expected expected = {0};

    for (uint32_t r = 0; r < world->n_ranks; r++) {
        enum lockstep_status status = check_part(world, shape, r, in != NULL ? in[r] : NULL,
                                                 out != NULL ? out[r] : NULL, &expected, error);

        if (status != LOCKSTEP_OK) {
            return status;
        }
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        struct op_part *part = &op->parts[r];
        bool has_in = in != NULL && (shape->only_in == UINT32_MAX || shape->only_in == r);
        bool has_out = out != NULL && (shape->only_out == UINT32_MAX || shape->only_out == r);
        struct lockstep_tensor *part_in = has_in ? in[r] : NULL;
        struct lockstep_tensor *part_out = has_out ? out[r] : NULL;

        check_fill_part(part, part_in, part_out);
        part->work.type = (uint32_t)expected.type;
        part->work.count = expected.share;
        if (shape->in_place_share) {
            fill_in_place(part, r, &expected, part_in, part_out);
        }
    }
    return LOCKSTEP_OK;
}
