/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reductions of what each rank has. A small vector is written into the own slot and combined by
 * every rank that wants it from all slots. A large one goes in pieces, each cut into a share for
 * every rank: a rank writes the others' shares of its input, combines its own share from all slots
 * and leaves the result in its slot, and in the next step, together with the next piece, the
 * results of the others are collected. That is a reduce-scatter and an all-gather, one step a
 * piece.
 */
#include "base/float_env.h"
#include "comm/shm_priv.h"

enum {
    DIRECT_BYTES = 16 << 10, /* up to here every rank combines for itself */
    SHARED_BYTES = 64 << 10, /* of a piece that is cut into shares */
    SCATTER_BYTES = 32 << 10,
};

/* One reduction under way. */
struct reduction {
    struct shm *shm;
    struct combine_math math;
    const char *in;
    char *out; /* NULL: this rank does not want it */
};

/* Combines n elements: this rank's from own, and rank r's at_bytes into its slot. */
static void combine(const struct reduction *reduction, const char *own, size_t at_bytes, size_t n,
                    char *out)
{
    const struct shm *shm = reduction->shm;
    const void *inputs[COMM_SHM_RANKS_MAX];
    const void *scales[COMM_SHM_RANKS_MAX];
    struct float_env env;

    if (n == 0) {
        return;
    }
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        inputs[r] = r == shm->comm.rank ? own : shm_slot(shm, r) + at_bytes;
        scales[r] = &shm_call_of(shm, r)->scale;
    }
    float_env_enter(&env);
    combine_program_run(&shm->ranks_program, &(struct combine_run){
                                                 .math = &reduction->math,
                                                 .inputs = inputs,
                                                 .scales = scales,
                                                 .count = n,
                                                 .out = out,
                                             });
    float_env_leave(&env);
}

/* The whole vector at once, at most SHM_PIECE_BYTES. */
static enum status reduce_direct(const struct reduction *reduction, size_t count, struct err *err)
{
    struct shm *shm = reduction->shm;
    enum status status;

    if (count > 0 && shm->comm.n_ranks > 1) {
        memcpy(shm_slot(shm, shm->comm.rank), reduction->in, count * reduction->math.type_bytes);
    }
    status = shm_step(shm, err);
    if (status == STATUS_OK && reduction->out != NULL) {
        combine(reduction, reduction->in, 0, count, reduction->out);
    }
    shm->turn++;
    return status;
}

/* Where rank's share of a piece of n elements begins: a whole number of lines into it. */
static size_t share_begin(const struct reduction *reduction, size_t n, uint32_t rank)
{
    size_t unit = SHM_LINE / reduction->math.type_bytes;

    return MIN(n, round_up(n * rank / reduction->shm->comm.n_ranks, unit));
}

/* Writes what others combine of a piece of n elements. */
static void put_shares(const struct reduction *reduction, const char *in, size_t n)
{
    const struct shm *shm = reduction->shm;
    size_t bytes = reduction->math.type_bytes;
    size_t mine = share_begin(reduction, n, shm->comm.rank) * bytes;
    size_t after = share_begin(reduction, n, shm->comm.rank + 1) * bytes;
    char *slot = shm_slot(shm, shm->comm.rank);

    memcpy(slot, in, mine);
    memcpy(slot + after, in + after, n * bytes - after);
}

/* Combines this rank's share, for itself and the others. */
static void combine_share(const struct reduction *reduction, size_t at, size_t n)
{
    const struct shm *shm = reduction->shm;
    size_t bytes = reduction->math.type_bytes;
    size_t mine = share_begin(reduction, n, shm->comm.rank);
    size_t count = share_begin(reduction, n, shm->comm.rank + 1) - mine;
    char *result = shm_slot(shm, shm->comm.rank) + SHM_RESULT_AT;
    const char *own = reduction->in + (at + mine) * bytes;

    combine(reduction, own, mine * bytes, count, result);
    if (reduction->out != NULL && count > 0) {
        memcpy(reduction->out + (at + mine) * bytes, result, count * bytes);
    }
}

/* Collects the others' shares of the piece before this one. */
static void collect_shares(const struct reduction *reduction, size_t at, size_t n)
{
    struct shm *shm = reduction->shm;
    size_t bytes = reduction->math.type_bytes;

    shm->turn--; /* where their results are */
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        size_t from = share_begin(reduction, n, r);
        size_t count = share_begin(reduction, n, r + 1) - from;

        if (r != shm->comm.rank && count > 0) {
            memcpy(reduction->out + (at + from) * bytes, shm_slot(shm, r) + SHM_RESULT_AT,
                   count * bytes);
        }
    }
    shm->turn++;
}

/* In pieces and shares. Results of piece k lie in the slot of step k, are published by step k + 1,
 * read after it and overwritten after step k + 2. */
static enum status reduce_shared(const struct reduction *reduction, size_t count, struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t piece = SHARED_BYTES / reduction->math.type_bytes;
    size_t n_pieces = div_up(count, piece);
    enum status status = STATUS_OK;

    for (size_t k = 0; k <= n_pieces && status == STATUS_OK; k++) {
        size_t at = k * piece;

        if (k < n_pieces) {
            put_shares(reduction, reduction->in + at * reduction->math.type_bytes,
                       MIN(piece, count - at));
        }
        status = shm_step(shm, err);
        if (status == STATUS_OK && k < n_pieces) {
            combine_share(reduction, at, MIN(piece, count - at));
        }
        if (status == STATUS_OK && k > 0 && reduction->out != NULL) {
            collect_shares(reduction, at - piece, MIN(piece, count - (at - piece)));
        }
        shm->turn++;
    }
    return status;
}

/* What is published of a reduction. */
static struct shm_call describe(enum comm_operation operation, const struct comm_data *data,
                                enum comm_reduction reduction, uint32_t root)
{
    struct shm_call call = {.operation = operation,
                            .count = data->count,
                            .type = data->type,
                            .reduction = reduction,
                            .root = root};

    if (reduction == COMM_PREMUL_SUM) {
        memcpy(&call.scale, data->scale, combine_computing_bytes(data->type));
    }
    return call;
}

static enum status reduce(const struct reduction *reduction, const struct shm_call *call,
                          struct err *err)
{
    struct shm *shm = reduction->shm;
    enum status status = shm_enter(shm, call, err);

    if (status == STATUS_OK) {
        status = call->count * reduction->math.type_bytes <= DIRECT_BYTES
                     ? reduce_direct(reduction, call->count, err)
                     : reduce_shared(reduction, call->count, err);
    }
    return shm_finish(shm, status);
}

enum status shm_all_reduce(struct comm *comm, const struct comm_data *data,
                           enum comm_reduction what, struct err *err)
{
    const struct shm_call call = describe(COMM_ALL_REDUCE, data, what, 0);
    const struct reduction reduction = {
        .shm = (struct shm *)comm,
        .math = combine_math_find(data->type, what),
        .in = data->in,
        .out = data->out,
    };

    return reduce(&reduction, &call, err);
}

enum status shm_reduce(struct shm *shm, const struct comm_call *args, struct err *err)
{
    const struct comm_data *data = &args->data;
    const struct shm_call call = describe(COMM_REDUCE, data, args->reduction, args->root);
    const struct reduction reduction = {
        .shm = shm,
        .math = combine_math_find(data->type, args->reduction),
        .in = data->in,
        .out = shm->comm.rank == args->root ? data->out : NULL,
    };

    return reduce(&reduction, &call, err);
}

enum status shm_reduce_scatter(struct shm *shm, const struct comm_call *args, struct err *err)
{
    const struct comm_data *data = &args->data;
    const struct shm_call call = describe(COMM_REDUCE_SCATTER, data, args->reduction, 0);
    const struct reduction reduction = {
        .shm = shm,
        .math = combine_math_find(data->type, args->reduction),
    };
    enum status status = shm_enter(shm, &call, err);
    size_t bytes = reduction.math.type_bytes;
    size_t piece = SCATTER_BYTES / bytes;
    uint32_t rank = shm->comm.rank;
    const char *in = data->in;
    char *out = data->out;

    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < data->count); at += piece) {
        size_t n = MIN(piece, data->count - at);

        for (uint32_t r = 0; r < shm->comm.n_ranks && n > 0; r++) {
            if (r != rank) {
                memcpy(shm_slot(shm, rank) + (size_t)r * SHM_PIECE_BYTES,
                       in + (r * data->count + at) * bytes, n * bytes);
            }
        }
        status = shm_step(shm, err);
        if (status == STATUS_OK) {
            combine(&reduction, in + (rank * data->count + at) * bytes,
                    (size_t)rank * SHM_PIECE_BYTES, n, out + at * bytes);
        }
        shm->turn++;
    }
    return shm_finish(shm, status);
}
