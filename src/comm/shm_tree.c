/* SPDX-License-Identifier: Apache-2.0 */
/* sum_tree: what is written into the own slot before a step and what is read from all slots after
 * it. */
#include "base/float_env.h"
#include "comm/shm_priv.h"

enum {
    SHARED_RANKS_MIN = 5,        /* from this many ranks on */
    SHARED_BYTES_MIN = 16 << 10, /* pieces of this size or more are reduced in shares */
    PIECE = SHM_PIECE_BYTES / 4, /* elements */
    SHARE_UNIT = SHM_LINE / 4,
    FETCH_MOST = 5120, /* floats of a vector that are fetched ahead: there must be room for all */
};

/* A reduction of pieces that lie in slots. */
struct reduction {
    const struct combine_program *program;
    const struct combine_math *math;
    const float *own; /* of the piece, where this rank is the only one: it lies in no slot */
    char *out;        /* of the piece; or NULL and */
    float *add_to;    /* likewise */
};

/* Where every input of the program begins: root i of rank r in its slot. */
static void find_inputs(const struct shm *shm, const struct reduction *reduction,
                        const void **ret_inputs)
{
    const struct combine_program *program = reduction->program;

    if (reduction->own != NULL) {
        ret_inputs[0] = reduction->own;
        return;
    }
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        const char *slot = shm_slot(shm, r);

        for (uint32_t i = program->first_input[r]; i < program->first_input[r + 1]; i++) {
            ret_inputs[i] = slot;
            slot += SHM_PIECE_BYTES;
        }
    }
}

/* Where rank's share of n elements begins. */
static size_t share_begin(const struct shm *shm, size_t n, uint32_t rank)
{
    return MIN(n, round_up(n * rank / shm->comm.n_ranks, SHARE_UNIT));
}

/* Each rank reduces one share of the piece; a second step collects them. */
static enum status reduce_shared(struct shm *shm, const struct reduction *reduction,
                                 struct combine_run *run, size_t n, struct err *err)
{
    size_t begin = share_begin(shm, n, shm->comm.rank);
    enum status status;

    shm_wake_sleepers(shm);
    run->offset = begin;
    run->count = share_begin(shm, n, shm->comm.rank + 1) - begin;
    run->out = shm_slot(shm, shm->comm.rank) + SHM_RESULT_AT + begin * 4;
    run->add_to = NULL;
    combine_program_run(reduction->program, run);
    status = shm_step(shm, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        size_t from = share_begin(shm, n, r);
        size_t count = share_begin(shm, n, r + 1) - from;
        const char *result = shm_slot(shm, r) + SHM_RESULT_AT + from * 4;

        if (reduction->add_to != NULL) {
            combine_add(reduction->add_to + from, (const float *)result, count);
        } else if (count > 0) {
            memcpy(reduction->out + from * 4, result, count * 4);
        }
    }
    return STATUS_OK;
}

/* Combines n elements of all slots. */
static enum status reduce_piece(struct shm *shm, const struct reduction *reduction, size_t n,
                                struct err *err)
{
    const void *inputs[COMM_SHM_RANKS_MAX * SHM_ROOTS_MAX];
    enum status status = STATUS_OK;
    struct combine_run run = {
        .math = reduction->math,
        .inputs = inputs,
        .count = n,
        .out = reduction->out,
        .add_to = reduction->add_to,
    };
    struct float_env env;

    find_inputs(shm, reduction, inputs);
    float_env_enter(&env);
    if (shm->comm.n_ranks >= SHARED_RANKS_MIN && n * 4 >= SHARED_BYTES_MIN) {
        status = reduce_shared(shm, reduction, &run, n, err);
    } else if (n > 0) {
        combine_program_run(reduction->program, &run);
    }
    float_env_leave(&env);
    return status;
}

/* Who owns which leaves, as all ranks have published it. */
static enum status read_cut(struct shm *shm, struct shard_cut *ret_cut, struct err *err)
{
    uint32_t n_leaves = shm_n_leaves_of(&shm->call);
    struct shard_cut cut = {.n_ranks = shm->comm.n_ranks};

    for (uint32_t r = 0; r < cut.n_ranks; r++) {
        const struct shm_call *call = shm_call_of(shm, r);
        uint32_t n_owned = call->n_owned;
        uint32_t first = n_owned > 0 ? call->first : cut.bounds[r];

        if (first != cut.bounds[r] || n_owned > n_leaves - first) {
            return shm_fail(shm, err, STATUS_INVALID,
                            "rank %u owns %u leaves from %u, but leaf %u of %u is next", r, n_owned,
                            first, cut.bounds[r], n_leaves);
        }
        cut.bounds[r + 1] = first + n_owned;
    }
    if (cut.bounds[cut.n_ranks] != n_leaves) {
        return shm_fail(shm, err, STATUS_INVALID, "no rank owns leaf %u of %u",
                        cut.bounds[cut.n_ranks], n_leaves);
    }
    *ret_cut = cut;
    return STATUS_OK;
}

/* The program for the leaf ranges that all ranks have published: one of those kept, or a new one in
 * place of the oldest. */
static enum status find_program(struct shm *shm, const struct combine_program **ret_program,
                                struct err *err)
{
    struct combine_program *program = shm->programs;
    uint32_t n_leaves = shm_n_leaves_of(&shm->call);
    struct shard_cut cut;
    enum status status = read_cut(shm, &cut, err);

    if (status != STATUS_OK) {
        return status;
    }
    for (; program < shm->programs + SHM_PROGRAMS; program++) {
        if (program->n_leaves == n_leaves &&
            memcmp(program->cut.bounds, cut.bounds, (cut.n_ranks + 1) * sizeof(*cut.bounds)) == 0) {
            *ret_program = program;
            return STATUS_OK;
        }
    }
    for (uint32_t r = 0; r < cut.n_ranks; r++) {
        uint32_t n_roots =
            shard_n_roots(n_leaves, (struct shard_range){cut.bounds[r], cut.bounds[r + 1]});

        if (n_roots > SHM_ROOTS_MAX) {
            return shm_fail(shm, err, STATUS_LIMIT, "rank %u owns %u subtrees, at most %d fit", r,
                            n_roots, SHM_ROOTS_MAX);
        }
    }
    program = &shm->programs[shm->next_program++ % SHM_PROGRAMS];
    combine_program_release(program);
    combine_program_init(program, n_leaves, &cut);
    *ret_program = program;
    return STATUS_OK;
}

/* Puts elements [at, at + n) of every root into the slot, unless the producer wrote them there or
 * nobody else reads them. */
static void put_roots(const struct shm *shm, const struct comm_tree *args, size_t at, size_t n)
{
    char *slot = shm_slot(shm, shm->comm.rank);

    if ((const char *)args->partial == slot) {
        ENSURE(args->count <= PIECE && args->root_stride == PIECE);
        return;
    }
    if (shm->comm.n_ranks == 1) {
        return;
    }
    for (uint32_t i = 0; i < MIN(args->n_roots, SHM_ROOTS_MAX) && n > 0; i++) {
        memcpy(slot + (size_t)i * SHM_PIECE_BYTES, args->partial + i * args->root_stride + at,
               n * sizeof(float));
    }
}

/* n floats on their way into this core's cache. */
static void fetch(const float *from, size_t n)
{
    for (size_t i = 0; i < n; i += CACHE_LINE / sizeof(*from)) {
        __builtin_prefetch(from + i);
    }
}

/* Waits for all, fetching what will be added: what it is added to meanwhile, and what another core
 * has just written as soon as it may be read. At 2 ranks 1,024 floats take 0.55 us so, 0.64
 * without and with the sleepers woken first. */
static enum status await(struct shm *shm, const struct comm_tree *args, size_t at, size_t n,
                         struct err *err)
{
    bool small = n <= FETCH_MOST;
    enum status status;

    if (small && args->add_to != NULL) {
        fetch(args->add_to + at, n);
    }
    status = shm_step_await(shm, err);
    if (small && shm->comm.n_ranks == 2) {
        fetch((const float *)(const void *)shm_slot(shm, 1 - shm->comm.rank), n);
    }
    return status;
}

enum status shm_sum_tree(struct comm *comm, const struct comm_tree *args, struct err *err)
{
    struct shm *shm = (struct shm *)comm;
    struct combine_math math;
    struct reduction reduction = {.math = &math};
    const struct shm_call call = {
        .count = args->count,
        .what = shm_what(COMM_SUM_TREE, 0, 0, 0, args->n_leaves),
        .first = args->first,
        .n_owned = args->n_owned,
    };
    enum status status = shm_enter(shm, &call, err);

    ENSURE(args->n_leaves > 0 && (args->sum == NULL) != (args->add_to == NULL));
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < args->count); at += PIECE) {
        size_t n = MIN(PIECE, args->count - at);

        put_roots(shm, args, at, n);
        shm_step_begin(shm);
        math = combine_math_find(COMM_F32, COMM_SUM); /* while the others arrive */
        status = await(shm, args, at, n, err);
        if (status == STATUS_OK && at == 0) {
            status = find_program(shm, &reduction.program, err);
        }
        if (status == STATUS_OK) {
            reduction.own = shm->comm.n_ranks == 1 ? args->partial + at : NULL;
            reduction.out = args->sum == NULL ? NULL : (char *)(args->sum + at);
            reduction.add_to = args->add_to == NULL ? NULL : args->add_to + at;
            status = reduce_piece(shm, &reduction, n, err);
            shm_wake_sleepers(shm);
            shm->turn++;
        }
    }
    if (status == STATUS_OK) {
        ENSURE_OP(args->n_roots, ==,
                  reduction.program->first_input[comm->rank + 1] -
                      reduction.program->first_input[comm->rank]);
    }
    return shm_finish(shm, status);
}

float *shm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                          size_t *ret_root_stride)
{
    if (count > PIECE || n_roots > SHM_ROOTS_MAX) {
        return NULL;
    }
    *ret_root_stride = PIECE;
    return (float *)shm_slot((struct shm *)comm, comm->rank);
}
