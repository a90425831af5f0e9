/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reductions of what each rank has. A small vector is written into the own slot and combined by
 * every rank that wants it from all slots; a larger one between two ranks, too, in chunks. Else a
 * large one goes in pieces, each cut into a share for every rank: a rank writes the others' shares
 * of its input, combines its own share from all slots and leaves the result in its slot, and in the
 * next step, together with the next piece, the results of the others are collected. That is a
 * reduce-scatter and an all-gather, one step a piece.
 */
#include "base/float_env.h"
#include "base/mem.h"
#include "comm/shm_priv.h"

enum {
    SMALL_BYTES = 16 << 10, /* up to here every rank combines for itself */
    CHUNK_BYTES = 16 << 10,
    SLOT_CHUNKS = SHM_ROOTS_MAX * SHM_PIECE_BYTES / CHUNK_BYTES, /* that lie in a slot at once */
    SHARED_BYTES = 64 << 10, /* of a piece that is cut into shares */
    SCATTER_BYTES = 32 << 10,
    REDUCE_DIRECT_BYTES = 2 * SHM_DIRECT_BYTES, /* what is read is copied, then combined */
};

/* One reduction under way. */
struct reduction {
    struct shm *shm;
    const struct combine_math *math;
    const char *in;
    char *out;              /* NULL: this rank does not want it */
    const uint64_t *scales; /* [n_ranks], or NULL: what the ranks have published last */
};

static const struct combine_math *find_math(struct shm *shm, enum comm_type type,
                                            enum comm_reduction what)
{
    uint64_t of = 1 + type * (uint64_t)COMM_REDUCTION_COUNT + what;

    if (shm->math_of != of) {
        shm->math = combine_math_find(type, what);
        shm->math_of = of;
    }
    return &shm->math;
}

/* Combines n elements of all ranks, in the canonical float environment. */
static void combine_inputs(const struct reduction *reduction, const void *const *inputs, size_t n,
                           char *out)
{
    const struct shm *shm = reduction->shm;
    const void *scales[COMM_SHM_RANKS_MAX];

    for (uint32_t r = 0; r < shm->comm.n_ranks && reduction->math->scale != NULL; r++) {
        scales[r] = reduction->scales != NULL ? &reduction->scales[r] : &shm_call_of(shm, r)->scale;
    }
    combine_program_run(&shm->ranks_program, &(struct combine_run){
                                                 .math = reduction->math,
                                                 .inputs = inputs,
                                                 .scales = scales,
                                                 .count = n,
                                                 .out = out,
                                             });
}

/* Combines n elements: this rank's from own, and rank r's at_bytes into its slot. */
static void combine(const struct reduction *reduction, const char *own, size_t at_bytes, size_t n,
                    char *out)
{
    const struct shm *shm = reduction->shm;
    const void *inputs[COMM_SHM_RANKS_MAX];
    struct float_env env;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        inputs[r] = r == shm->comm.rank ? own : shm_slot(shm, r) + at_bytes;
    }
    float_env_enter(&env);
    if (n > 0) {
        combine_inputs(reduction, inputs, n, out);
    }
    float_env_leave(&env);
}

/* What combines two inputs if nothing else is to be done with them, without a program; or NULL. */
static combine_fn *find_pair(const struct reduction *reduction)
{
    const struct combine_math *math = reduction->math;
    bool is_plain = math->widen == NULL && math->scale == NULL && math->divide == NULL;

    return is_plain && reduction->shm->comm.n_ranks == 2 ? math->combine : NULL;
}

/* Publishes what was written into the own slot, waits for all, and combines n elements into out,
 * which may be NULL: this rank's from own, the others' from what they have for it (is_scattered) or
 * for all. What needs no other rank is done between publishing and waiting, and sleepers are woken
 * last: a call takes little more than the exchange. */
static enum status exchange(struct reduction *reduction, const char *own, bool is_scattered,
                            size_t n, char *out, struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = n * reduction->math->type_bytes;
    const void *inputs[COMM_SHM_RANKS_MAX];
    combine_fn *pair;
    struct float_env env;
    enum status status;

    shm_step_begin(shm);
    pair = find_pair(reduction);
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        inputs[r] = r == shm->comm.rank ? own
                    : is_scattered      ? shm_block(shm, r, bytes)
                                        : shm_vector(shm, r, bytes);
    }
    float_env_enter(&env);
    status = shm_step_await(shm, err);
    if (status == STATUS_OK && out != NULL && n > 0) {
        if (pair != NULL) {
            pair(out, inputs[0], inputs[1], n);
        } else {
            combine_inputs(reduction, inputs, n, out);
        }
    }
    float_env_leave(&env);
    shm_wake_sleepers(shm);
    shm->turn++;
    return status;
}

/* The whole vector at once, at most SHM_PIECE_BYTES. */
static enum status reduce_small(struct reduction *reduction, size_t count, struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = count * reduction->math->type_bytes;

    if (shm->comm.n_ranks > 1) {
        shm_put_vector(shm, bytes, reduction->in, bytes);
    }
    return exchange(reduction, reduction->in, false, count, reduction->out, err);
}

/* Writes what the other of two ranks combines of chunk k, if it wants any. */
static void put_chunk(const struct reduction *reduction, bool other_wants, size_t k, size_t bytes)
{
    const struct shm *shm = reduction->shm;
    size_t at = k * CHUNK_BYTES;

    if (other_wants && at < bytes) {
        memcpy(shm_slot(shm, shm->comm.rank) + k % SLOT_CHUNKS * CHUNK_BYTES, reduction->in + at,
               MIN(CHUNK_BYTES, bytes - at));
    }
}

/* Between two ranks, a step a chunk; reduce at any length: of 256 KiB, 1 and 8 MiB it takes 0.64,
 * 0.77 and 0.59 of Open MPI's time, and took 0.92, 1.04 and 0.78 when each rank read half of the
 * other's input where it lies. A chunk is written before the one before it is waited for, and
 * published before that is combined, so that neither rank waits for what the other does last. */
static enum status reduce_chunks(const struct reduction *reduction, bool other_wants, size_t count,
                                 struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = count * reduction->math->type_bytes;
    size_t n_chunks = div_up(bytes, CHUNK_BYTES);
    uint64_t scales[2] = {0};
    struct reduction chunk = *reduction;
    enum status status = STATUS_OK;

    chunk.scales = scales; /* a rank may publish the next step before this one's is combined */
    put_chunk(reduction, other_wants, 0, bytes);
    shm_step_begin(shm);
    for (size_t k = 0; k < n_chunks && status == STATUS_OK; k++) {
        size_t at = k * CHUNK_BYTES;

        put_chunk(reduction, other_wants, k + 1, bytes);
        status = shm_step_end(shm, err);
        for (uint32_t r = 0; r < 2; r++) {
            scales[r] = shm_call_of(shm, r)->scale;
        }
        if (status == STATUS_OK && k + 1 < n_chunks) {
            shm_step_begin(shm);
        }
        if (status == STATUS_OK && reduction->out != NULL) {
            combine(&chunk, reduction->in + at, k % SLOT_CHUNKS * CHUNK_BYTES,
                    MIN(CHUNK_BYTES, bytes - at) / reduction->math->type_bytes,
                    reduction->out + at);
        }
    }
    shm->turn++;
    return status;
}

/* Where rank's share of a piece of n elements begins: a whole number of lines into it. */
static size_t share_begin(const struct reduction *reduction, size_t n, uint32_t rank)
{
    size_t unit = SHM_LINE / reduction->math->type_bytes;

    return MIN(n, round_up(n * rank / reduction->shm->comm.n_ranks, unit));
}

/* Writes what others combine of a piece of n elements. */
static void put_shares(const struct reduction *reduction, const char *in, size_t n)
{
    const struct shm *shm = reduction->shm;
    size_t bytes = reduction->math->type_bytes;
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
    size_t bytes = reduction->math->type_bytes;
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
    size_t bytes = reduction->math->type_bytes;

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
    size_t piece = SHARED_BYTES / reduction->math->type_bytes;
    size_t n_pieces = div_up(count, piece);
    enum status status = STATUS_OK;

    for (size_t k = 0; k <= n_pieces && status == STATUS_OK; k++) {
        size_t at = k * piece;

        if (k < n_pieces) {
            put_shares(reduction, reduction->in + at * reduction->math->type_bytes,
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

/* Combines n elements that lie at_bytes into every rank's input, read there a piece at a time. */
static enum status combine_directly(const struct reduction *reduction, size_t at_bytes, size_t n,
                                    char *out, struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = reduction->math->type_bytes;
    size_t piece = (64 << 10) / bytes;
    enum status status = STATUS_OK;
    struct float_env env;

    if (shm->scratch == NULL) { /* aligned: the kernel copies much faster to where it is */
        shm->scratch = mem_map(shm->comm.n_ranks * (size_t)SHM_SCRATCH_BYTES);
    }
    if (shm->scratch == NULL) {
        return shm_fail(shm, err, STATUS_NO_MEMORY, "no memory to read vectors into");
    }
    for (size_t at = 0; at < n && status == STATUS_OK; at += piece) {
        const void *inputs[COMM_SHM_RANKS_MAX];
        size_t count = MIN(piece, n - at);

        for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
            uint64_t from = shm_place_of(shm, r).in + at_bytes + at * bytes;

            if (shm->reach[r] == SHM_SAME_PROCESS) {
                inputs[r] = (const void *)(uintptr_t)from;
            } else {
                inputs[r] = shm->scratch + (size_t)r * SHM_SCRATCH_BYTES;
                status = shm_read(shm, r, shm->scratch + (size_t)r * SHM_SCRATCH_BYTES, from,
                                  count * bytes, err);
            }
        }
        if (status == STATUS_OK) {
            float_env_enter(&env);
            combine_inputs(reduction, inputs, count, out + at * bytes);
            float_env_leave(&env);
        }
    }
    return status;
}

/* Every rank combines its share where it is to lie, and reads the others' from their outputs. In
 * place, too: while shares are combined a rank writes only its own, which no other reads. */
static enum status all_reduce_directly(const struct reduction *reduction, size_t count,
                                       struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = reduction->math->type_bytes;
    uint32_t n_ranks = shm->comm.n_ranks;
    uint32_t rank = shm->comm.rank;
    size_t mine = share_begin(reduction, count, rank);
    enum status status;

    shm_place_put(shm, reduction->in, reduction->out);
    status = shm_step(shm, err);
    if (status == STATUS_OK) {
        status = combine_directly(reduction, mine * bytes,
                                  share_begin(reduction, count, rank + 1) - mine,
                                  reduction->out + mine * bytes, err);
    }
    status = status == STATUS_OK ? shm_step(shm, err) : status;
    for (uint32_t i = 1; i < n_ranks && status == STATUS_OK; i++) {
        uint32_t r = (rank + i) % n_ranks;
        size_t from = share_begin(reduction, count, r) * bytes;
        size_t end = share_begin(reduction, count, r + 1) * bytes;

        status = shm_read(shm, r, reduction->out + from, shm_place_of(shm, r).out + from,
                          end - from, err);
    }
    shm->turn++;
    return status == STATUS_OK ? shm_step(shm, err) : status;
}

/* Every rank combines its own block, which is all that it wants. */
static enum status combine_block(const struct reduction *reduction, size_t at_bytes, size_t count,
                                 struct err *err)
{
    struct shm *shm = reduction->shm;
    enum status status;

    shm_place_put(shm, reduction->in, reduction->out);
    status = shm_step(shm, err);
    if (status == STATUS_OK) {
        status = combine_directly(reduction, at_bytes, count, reduction->out, err);
    }
    shm->turn++;
    return status == STATUS_OK ? shm_step(shm, err) : status;
}

/* What is published of a reduction. */
static struct shm_call describe(enum comm_operation operation, const struct comm_data *data,
                                enum comm_reduction reduction, uint32_t root)
{
    struct shm_call call = {.count = data->count,
                            .what = shm_what(operation, data->type, reduction, root, 0)};

    if (reduction == COMM_PREMUL_SUM) {
        memcpy(&call.scale, data->scale, combine_computing_bytes(data->type));
    }
    return call;
}

/* *ret_direct: whether a vector of so many bytes is read where it lies. */
static enum status begin(const struct reduction *reduction, const struct shm_call *call,
                         bool *ret_direct, struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = call->count * reduction->math->type_bytes;
    enum status status = shm_enter(shm, call, err);

    *ret_direct = false;
    if (status != STATUS_OK || bytes < REDUCE_DIRECT_BYTES || shm->comm.n_ranks == 1) {
        return status;
    }
    return shm_all_reach(shm, ret_direct, err);
}

/* all_reduce and reduce. */
static enum status reduce(struct reduction *reduction, const struct shm_call *call, struct err *err)
{
    struct shm *shm = reduction->shm;
    bool direct;
    enum status status = begin(reduction, call, &direct, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (call->count * reduction->math->type_bytes <= SMALL_BYTES) {
        return shm_finish(shm, reduce_small(reduction, call->count, err));
    }
    if (direct && shm_operation_of(call) == COMM_ALL_REDUCE) {
        status = all_reduce_directly(reduction, call->count, err);
    } else if (shm->comm.n_ranks == 2) {
        bool other_wants = shm_operation_of(call) == COMM_ALL_REDUCE || reduction->out == NULL;

        status = reduce_chunks(reduction, other_wants, call->count, err);
    } else {
        status = reduce_shared(reduction, call->count, err);
    }
    return shm_finish(shm, status);
}

enum status shm_all_reduce(struct comm *comm, const struct comm_data *data,
                           enum comm_reduction what, struct err *err)
{
    const struct shm_call call = describe(COMM_ALL_REDUCE, data, what, 0);
    struct reduction reduction = {
        .shm = (struct shm *)comm,
        .math = find_math((struct shm *)comm, data->type, what),
        .in = data->in,
        .out = data->out,
    };

    return reduce(&reduction, &call, err);
}

enum status shm_reduce(struct shm *shm, const struct comm_call *args, struct err *err)
{
    const struct comm_data *data = &args->data;
    const struct shm_call call = describe(COMM_REDUCE, data, args->reduction, args->root);
    struct reduction reduction = {
        .shm = shm,
        .math = find_math(shm, data->type, args->reduction),
        .in = data->in,
        .out = shm->comm.rank == args->root ? data->out : NULL,
    };

    return reduce(&reduction, &call, err);
}

/* One piece of everybody's block through the slots. */
static enum status scatter_piece(struct reduction *reduction, size_t count, size_t at, size_t n,
                                 struct err *err)
{
    struct shm *shm = reduction->shm;
    size_t bytes = reduction->math->type_bytes;
    uint32_t rank = shm->comm.rank;

    for (uint32_t r = 0; r < shm->comm.n_ranks && n > 0; r++) {
        if (r != rank) {
            shm_put_block(shm, r, reduction->in + (r * count + at) * bytes, n * bytes);
        }
    }
    return exchange(reduction, reduction->in + (rank * count + at) * bytes, true, n,
                    reduction->out + at * bytes, err);
}

enum status shm_reduce_scatter(struct shm *shm, const struct comm_call *args, struct err *err)
{
    const struct comm_data *data = &args->data;
    const struct shm_call call = describe(COMM_REDUCE_SCATTER, data, args->reduction, 0);
    struct reduction reduction = {
        .shm = shm,
        .math = find_math(shm, data->type, args->reduction),
        .in = data->in,
        .out = data->out,
    };
    size_t bytes = reduction.math->type_bytes;
    size_t piece = SCATTER_BYTES / bytes;
    bool direct;
    enum status status = begin(&reduction, &call, &direct, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (direct) {
        status = combine_block(&reduction, shm->comm.rank * data->count * bytes, data->count, err);
        return shm_finish(shm, status);
    }
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < data->count); at += piece) {
        status = scatter_piece(&reduction, data->count, at, MIN(piece, data->count - at), err);
    }
    return shm_finish(shm, status);
}
