/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations that only move data: a piece into the own slot, a step, pieces out of the others'
 * slots. What stays with its rank does not go through the slot. Pieces are small enough that the
 * processor of the reader finds them in a cache, and that writing one and reading the one before it
 * overlap.
 */
#include "comm/shm_priv.h"

enum { MOVE_BYTES = 32 << 10 }; /* of a piece */

static void copy(void *out, const void *in, size_t bytes)
{
    if (bytes > 0 && out != in) {
        memcpy(out, in, bytes);
    }
}

/* A call whose count is in elements, and the bytes of what each rank gives. */
static struct shm_call describe(enum comm_operation operation, const struct comm_data *data,
                                uint32_t root)
{
    return (struct shm_call){
        .operation = operation, .count = data->count, .type = data->type, .root = root};
}

enum status shm_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    struct shm *shm = (struct shm *)comm;
    const struct shm_call call = describe(COMM_ALL_GATHER, data, 0);
    size_t bytes = data->count * comm_type_bytes(data->type);
    enum status status = shm_enter(shm, &call, err);
    const char *in = data->in;
    char *out = data->out;

    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        copy(shm_slot(shm, comm->rank), in + at, n);
        shm_step_begin(shm);
        copy(out + comm->rank * bytes + at, in + at, n);
        status = shm_step_end(shm, err);
        for (uint32_t r = 0; r < comm->n_ranks && status == STATUS_OK; r++) {
            if (r != comm->rank) {
                copy(out + r * bytes + at, shm_slot(shm, r), n);
            }
        }
        shm->turn++;
    }
    return shm_finish(shm, status);
}

enum status shm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                          struct err *err)
{
    struct shm *shm = (struct shm *)comm;
    const struct shm_call call = describe(COMM_BROADCAST, data, root);
    size_t bytes = data->count * comm_type_bytes(data->type);
    enum status status = shm_enter(shm, &call, err);
    const char *in = data->in;
    char *out = data->out;

    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        if (comm->rank == root) {
            copy(shm_slot(shm, root), in + at, n);
        }
        shm_step_begin(shm);
        if (comm->rank == root) {
            copy(out + at, in + at, n);
        }
        status = shm_step_end(shm, err);
        if (comm->rank != root && status == STATUS_OK) {
            copy(out + at, shm_slot(shm, root), n);
        }
        shm->turn++;
    }
    return shm_finish(shm, status);
}

/* The place in rank's slot for what goes to peer. */
static char *slot_to(const struct shm *shm, uint32_t rank, uint32_t peer)
{
    return shm_slot(shm, rank) + (size_t)peer * SHM_PIECE_BYTES;
}

enum status shm_all_to_all(struct shm *shm, const struct comm_data *data, struct err *err)
{
    const struct shm_call call = describe(COMM_ALL_TO_ALL, data, 0);
    size_t bytes = data->count * comm_type_bytes(data->type);
    enum status status = shm_enter(shm, &call, err);
    uint32_t rank = shm->comm.rank;
    const char *in = data->in;
    char *out = data->out;

    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
            if (r != rank) {
                copy(slot_to(shm, rank, r), in + r * bytes + at, n);
            }
        }
        shm_step_begin(shm);
        copy(out + rank * bytes + at, in + rank * bytes + at, n);
        status = shm_step_end(shm, err);
        for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
            if (r != rank) {
                copy(out + r * bytes + at, slot_to(shm, r, rank), n);
            }
        }
        shm->turn++;
    }
    return shm_finish(shm, status);
}

/* What a rank says of an all_to_allv, in its slot with the first piece. */
struct counts {
    uint64_t send[COMM_SHM_RANKS_MAX];
    uint64_t recv[COMM_SHM_RANKS_MAX];
};

_Static_assert(sizeof(struct counts) <= 5 * SHM_LINE, "the end of a slot");

static struct counts *counts_of(const struct shm *shm, uint32_t rank)
{
    return (struct counts *)(void *)(shm_slot(shm, rank) + SHM_COUNTS_AT);
}

/* All pairs agree; *ret_most is the largest count. */
static enum status check_counts(struct shm *shm, uint64_t *ret_most, struct err *err)
{
    uint64_t most = 0;

    for (uint32_t a = 0; a < shm->comm.n_ranks; a++) {
        for (uint32_t b = 0; b < shm->comm.n_ranks; b++) {
            uint64_t sent = counts_of(shm, a)->send[b];
            uint64_t expected = counts_of(shm, b)->recv[a];

            if (sent != expected) {
                return shm_fail(shm, err, STATUS_INVALID,
                                "rank %u sends %llu %s to rank %u, which receives %llu", a,
                                (unsigned long long)sent, shm_type_name(shm->call.type), b,
                                (unsigned long long)expected);
            }
            most = MAX(most, sent);
        }
    }
    *ret_most = most;
    return STATUS_OK;
}

/* The part of a block from at on, at most a piece. */
static size_t part(size_t count, size_t at, size_t piece)
{
    return count > at ? MIN(piece, count - at) : 0;
}

/* One piece of each block. The counts go with the first. */
static enum status exchange(struct shm *shm, const struct comm_vectors *v, size_t at,
                            uint64_t *ret_most, struct err *err)
{
    size_t bytes = comm_type_bytes(v->type);
    size_t piece = MOVE_BYTES / bytes;
    uint32_t rank = shm->comm.rank;
    const char *in = v->in;
    char *out = v->out;
    enum status status;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        if (r != rank) {
            copy(slot_to(shm, rank, r), in + (v->send_offsets[r] + at) * bytes,
                 part(v->send_counts[r], at, piece) * bytes);
        }
    }
    status = shm_step(shm, err);
    if (status == STATUS_OK && at == 0) {
        status = check_counts(shm, ret_most, err);
    }
    for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
        const char *from =
            r == rank ? in + (v->send_offsets[r] + at) * bytes : slot_to(shm, r, rank);

        copy(out + (v->recv_offsets[r] + at) * bytes, from,
             part(v->recv_counts[r], at, piece) * bytes);
    }
    shm->turn++;
    return status;
}

enum status shm_all_to_allv(struct shm *shm, const struct comm_vectors *vectors, struct err *err)
{
    const struct shm_call call = {.operation = COMM_ALL_TO_ALLV, .type = vectors->type};
    size_t piece = MOVE_BYTES / comm_type_bytes(vectors->type);
    enum status status = shm_enter(shm, &call, err);
    struct counts *mine = counts_of(shm, shm->comm.rank);
    uint64_t most = 0;

    for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
        mine->send[r] = vectors->send_counts[r];
        mine->recv[r] = vectors->recv_counts[r];
    }
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < most); at += piece) {
        status = exchange(shm, vectors, at, &most, err);
    }
    return shm_finish(shm, status);
}
