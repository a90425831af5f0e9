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
    return (struct shm_call){.count = data->count,
                             .what = shm_what(operation, data->type, 0, root, 0)};
}

/* Whether what each rank gives is large enough to be read where it lies, and all can do that. */
static enum status find_direct(struct shm *shm, enum status status, size_t bytes, bool *ret_direct,
                               struct err *err)
{
    *ret_direct = false;
    if (status != STATUS_OK || bytes < SHM_DIRECT_BYTES || shm->comm.n_ranks == 1) {
        return status;
    }
    return shm_all_reach(shm, ret_direct, err);
}

/* All have read: the memory is the caller's again. */
static enum status end_direct(struct shm *shm, enum status status, size_t bytes, struct err *err)
{
    shm->turn++;
    if (status == STATUS_OK) {
        shm_be_patient(shm, bytes);
        status = shm_step(shm, err);
        shm_be_patient(shm, 0);
    }
    return status;
}

static enum status gather_directly(struct shm *shm, const char *in, char *out, size_t bytes,
                                   struct err *err)
{
    uint32_t n_ranks = shm->comm.n_ranks;
    enum status status;

    shm_place_put(shm, in, out);
    shm_step_begin(shm);
    copy(out + shm->comm.rank * bytes, in, bytes);
    status = shm_step_end(shm, err);
    for (uint32_t i = 1; i < n_ranks && status == STATUS_OK; i++) {
        uint32_t r = (shm->comm.rank + i) % n_ranks;

        status = shm_read(shm, r, out + r * bytes, shm_place_of(shm, r).in, bytes, err);
    }
    return end_direct(shm, status, bytes, err);
}

static enum status broadcast_directly(struct shm *shm, const char *in, char *out, size_t bytes,
                                      uint32_t root, struct err *err)
{
    enum status status;

    shm_place_put(shm, in, out);
    status = shm_step(shm, err);
    if (shm->comm.rank == root) {
        copy(out, in, bytes);
    } else if (status == STATUS_OK) {
        status = shm_read(shm, root, out, shm_place_of(shm, root).in, bytes, err);
    }
    return end_direct(shm, status, bytes, err);
}

/* *ret_done is false if one of the ranks works in place: then what others are still to read would
 * be overwritten. */
static enum status exchange_directly(struct shm *shm, const char *in, char *out, size_t bytes,
                                     bool *ret_done, struct err *err)
{
    uint32_t n_ranks = shm->comm.n_ranks;
    uint32_t rank = shm->comm.rank;
    enum status status;

    shm_place_put(shm, in, out);
    status = shm_step(shm, err);
    *ret_done = true;
    for (uint32_t r = 0; r < n_ranks && status == STATUS_OK; r++) {
        *ret_done = *ret_done && shm_place_of(shm, r).is_in_place == 0;
    }
    if (status == STATUS_OK && *ret_done) {
        copy(out + rank * bytes, in + rank * bytes, bytes);
        for (uint32_t i = 1; i < n_ranks && status == STATUS_OK; i++) {
            uint32_t r = (rank + i) % n_ranks;
            uint64_t from = shm_place_of(shm, r).in + rank * bytes;

            status = shm_read(shm, r, out + r * bytes, from, bytes, err);
        }
    }
    return end_direct(shm, status, bytes, err);
}

enum status shm_all_gather(struct comm *comm, const struct comm_data *data, struct err *err)
{
    struct shm *shm = (struct shm *)comm;
    const struct shm_call call = describe(COMM_ALL_GATHER, data, 0);
    size_t bytes = data->count * comm_type_bytes(data->type);
    enum status status = shm_enter(shm, &call, err);
    const char *in = data->in;
    char *out = data->out;
    bool direct;

    status = find_direct(shm, status, bytes, &direct, err);
    if (direct && status == STATUS_OK) {
        return shm_finish(shm, gather_directly(shm, in, out, bytes, err));
    }
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        shm_put_vector(shm, bytes, in + at, n);
        shm_step_begin(shm);
        copy(out + comm->rank * bytes + at, in + at, n);
        status = shm_step_await(shm, err);
        for (uint32_t r = 0; r < comm->n_ranks && status == STATUS_OK; r++) {
            if (r != comm->rank) {
                copy(out + r * bytes + at, shm_vector(shm, r, bytes), n);
            }
        }
        shm_wake_sleepers(shm);
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
    bool direct;

    status = find_direct(shm, status, bytes, &direct, err);
    if (direct && status == STATUS_OK) {
        return shm_finish(shm, broadcast_directly(shm, in, out, bytes, root, err));
    }
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        if (comm->rank == root) {
            shm_put_vector(shm, bytes, in + at, n);
        }
        shm_step_begin(shm);
        if (comm->rank == root) {
            copy(out + at, in + at, n);
        }
        status = shm_step_await(shm, err);
        if (comm->rank != root && status == STATUS_OK) {
            copy(out + at, shm_vector(shm, root, bytes), n);
        }
        shm_wake_sleepers(shm);
        shm->turn++;
    }
    return shm_finish(shm, status);
}

enum status shm_all_to_all(struct shm *shm, const struct comm_data *data, struct err *err)
{
    const struct shm_call call = describe(COMM_ALL_TO_ALL, data, 0);
    size_t bytes = data->count * comm_type_bytes(data->type);
    enum status status = shm_enter(shm, &call, err);
    uint32_t rank = shm->comm.rank;
    const char *in = data->in;
    char *out = data->out;
    bool done;

    status = find_direct(shm, status, bytes, &done, err);
    if (done && status == STATUS_OK) {
        status = exchange_directly(shm, in, out, bytes, &done, err);
    }
    if (done) {
        return shm_finish(shm, status);
    }
    for (size_t at = 0; status == STATUS_OK && (at == 0 || at < bytes); at += MOVE_BYTES) {
        size_t n = MIN(MOVE_BYTES, bytes - at);

        for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
            if (r != rank) {
                shm_put_block(shm, r, in + r * bytes + at, n);
            }
        }
        shm_step_begin(shm);
        copy(out + rank * bytes + at, in + rank * bytes + at, n);
        status = shm_step_await(shm, err);
        for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
            if (r != rank) {
                copy(out + r * bytes + at, shm_block(shm, r, n), n);
            }
        }
        shm_wake_sleepers(shm);
        shm->turn++;
    }
    return shm_finish(shm, status);
}

/* What a rank says of an all_to_allv, in its slot with the first piece: of two ranks one line. */
struct counts {
    uint64_t is_in_place;
    struct {
        uint64_t send;
        uint64_t recv;
        uint64_t lies_at; /* what it sends */
    } with[COMM_SHM_RANKS_MAX];
};

_Static_assert(sizeof(struct counts) <= 5 * SHM_LINE, "the end of a slot");

static struct counts *counts_of(const struct shm *shm, uint32_t rank)
{
    return (struct counts *)(void *)(shm_slot(shm, rank) + SHM_COUNTS_AT);
}

static void put_counts(const struct shm *shm, const struct comm_vectors *v)
{
    struct counts *mine = counts_of(shm, shm->comm.rank);
    size_t bytes = comm_type_bytes(v->type);

    mine->is_in_place = 0;
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        const char *out = (const char *)v->out + v->recv_offsets[r] * bytes;

        mine->with[r].send = v->send_counts[r];
        mine->with[r].recv = v->recv_counts[r];
        mine->with[r].lies_at = (uintptr_t)v->in + v->send_offsets[r] * bytes;
        mine->is_in_place |=
            r != shm->comm.rank && mine->with[r].lies_at == (uintptr_t)out && v->recv_counts[r] > 0;
    }
}

/* All pairs agree; *ret_most is the largest count. */
static enum status check_counts(struct shm *shm, uint64_t *ret_most, struct err *err)
{
    uint64_t most = 0;

    for (uint32_t a = 0; a < shm->comm.n_ranks; a++) {
        for (uint32_t b = 0; b < shm->comm.n_ranks; b++) {
            uint64_t sent = counts_of(shm, a)->with[b].send;
            uint64_t expected = counts_of(shm, b)->with[a].recv;

            if (sent != expected) {
                return shm_fail(shm, err, STATUS_INVALID,
                                "rank %u sends %llu %s to rank %u, which receives %llu", a,
                                (unsigned long long)sent, shm_type_name(shm_type_of(&shm->call)), b,
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

/* The place in rank's slot for what goes to peer. */
static char *slot_to(const struct shm *shm, uint32_t rank, uint32_t peer)
{
    return shm_slot(shm, rank) + (size_t)peer * SHM_PIECE_BYTES;
}

/* A piece of each block to others into the slot, but nothing of those of at least so many bytes. */
static void put_pieces(const struct shm *shm, const struct comm_vectors *v, size_t at, size_t piece,
                       size_t limit)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t rank = shm->comm.rank;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        if (r != rank && v->send_counts[r] * bytes < limit) {
            copy(slot_to(shm, rank, r), (const char *)v->in + (v->send_offsets[r] + at) * bytes,
                 part(v->send_counts[r], at, piece) * bytes);
        }
    }
}

/* The others' pieces. */
static void take_pieces(const struct shm *shm, const struct comm_vectors *v, size_t at,
                        size_t piece)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t rank = shm->comm.rank;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        if (r != rank) {
            copy((char *)v->out + (v->recv_offsets[r] + at) * bytes, slot_to(shm, r, rank),
                 part(v->recv_counts[r], at, piece) * bytes);
        }
    }
}

/* What the rank keeps, whole; nothing if its own two counts differ, which fails later. */
static void keep_own(const struct shm *shm, const struct comm_vectors *v)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t rank = shm->comm.rank;

    if (v->send_counts[rank] == v->recv_counts[rank]) {
        copy((char *)v->out + v->recv_offsets[rank] * bytes,
             (const char *)v->in + v->send_offsets[rank] * bytes, v->recv_counts[rank] * bytes);
    }
}

/* Whether all blocks may be read where they lie: nobody works in place. */
static bool are_apart(const struct shm *shm)
{
    bool apart = true;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        apart = apart && counts_of(shm, r)->is_in_place == 0;
    }
    return apart;
}

/* The others' blocks where they lie, after a step with the counts. */
static enum status read_blocks(struct shm *shm, const struct comm_vectors *v, struct err *err)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t rank = shm->comm.rank;
    size_t longest = 0;
    enum status status = STATUS_OK;

    for (uint32_t i = 1; i < shm->comm.n_ranks && status == STATUS_OK; i++) {
        uint32_t r = (rank + i) % shm->comm.n_ranks;
        size_t n = v->recv_counts[r] * bytes;

        longest = MAX(longest, n);
        if (n > 0) {
            status = shm_read(shm, r, (char *)v->out + v->recv_offsets[r] * bytes,
                              counts_of(shm, r)->with[rank].lies_at, n, err);
        }
    }
    return end_direct(shm, status, longest, err);
}

/* After the step with the counts, of which one is long: reads all blocks. *ret_done is false, and
 * nothing has been taken, if somebody cannot read the others' or works in place. */
static enum status exchange_long(struct shm *shm, const struct comm_vectors *v, bool *ret_done,
                                 struct err *err)
{
    enum status status = STATUS_OK;
    bool all = shm->all_reach;

    if (!shm->knows_all) { /* the slots serve for finding out */
        shm->turn++;
        status = shm_all_reach(shm, &all, err);
        if (status == STATUS_OK) {
            put_counts(shm, v);
            status = shm_step(shm, err);
        }
    }
    *ret_done = status == STATUS_OK && all && are_apart(shm);
    if (*ret_done) {
        return read_blocks(shm, v, err);
    }
    shm->turn++;
    return status;
}

/* Between two ranks whose blocks for each other fit into one piece the two counts go with the call.
 * Whoever's own two counts differ does not say so, and all counts are compared. */
static void tell_short(const struct shm *shm, const struct comm_vectors *v, struct shm_call *call)
{
    uint32_t rank = shm->comm.rank;
    size_t piece = MOVE_BYTES / comm_type_bytes(v->type);

    call->first = UINT32_MAX;
    call->n_owned = UINT32_MAX;
    if (shm->comm.n_ranks == 2 && v->send_counts[rank] == v->recv_counts[rank] &&
        MAX(v->send_counts[1 - rank], v->recv_counts[1 - rank]) <= piece) {
        call->first = (uint32_t)v->send_counts[1 - rank];
        call->n_owned = (uint32_t)v->recv_counts[1 - rank];
    }
}

/* After the step: both ranks have told so, and agree. If one is right in this, so is the other. */
static bool is_short(const struct shm *shm)
{
    const struct shm_call *theirs = shm_call_of(shm, 1 - shm->comm.rank);

    return theirs->first == shm->call.n_owned && theirs->n_owned == shm->call.first;
}

/* Whether the other of two ranks has. */
static bool has_told(const struct shm *shm)
{
    return shm->comm.n_ranks == 2 && shm_call_of(shm, 1 - shm->comm.rank)->first != UINT32_MAX;
}

static void put_short(struct shm *shm, const struct comm_vectors *v)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t peer = 1 - shm->comm.rank;
    size_t n = v->send_counts[peer] * bytes;

    shm_put_block(shm, peer, (const char *)v->in + v->send_offsets[peer] * bytes, n);
}

static void take_short(const struct shm *shm, const struct comm_vectors *v)
{
    size_t bytes = comm_type_bytes(v->type);
    uint32_t peer = 1 - shm->comm.rank;
    size_t n = v->recv_counts[peer] * bytes;

    copy((char *)v->out + v->recv_offsets[peer] * bytes, shm_block(shm, peer, n), n);
}

/* The first step, with the counts and what there is room for. *ret_done: that was all. */
static enum status exchange_first(struct shm *shm, const struct comm_vectors *v, bool *ret_done,
                                  struct err *err)
{
    bool told = shm->call.first != UINT32_MAX;
    enum status status;

    if (told) {
        put_short(shm, v);
    } else {
        put_counts(shm, v);
        put_pieces(shm, v, 0, MOVE_BYTES / comm_type_bytes(v->type), SHM_DIRECT_BYTES);
    }
    shm_step_begin(shm);
    keep_own(shm, v);
    status = shm_step_await(shm, err);
    *ret_done = status == STATUS_OK && told && is_short(shm);
    if (*ret_done) {
        take_short(shm, v);
        shm->turn++;
    }
    shm_wake_sleepers(shm);
    if (status == STATUS_OK && !*ret_done && (told || has_told(shm))) {
        put_counts(shm, v); /* one of the two ranks, or both, have not yet */
        status = shm_step(shm, err);
    }
    return status;
}

/* The counts go with the first piece of each block, except of long ones: these are read where they
 * lie, if they can be. */
enum status shm_all_to_allv(struct shm *shm, const struct comm_vectors *vectors, struct err *err)
{
    struct shm_call call = {.what = shm_what(COMM_ALL_TO_ALLV, vectors->type, 0, 0, 0)};
    size_t bytes = comm_type_bytes(vectors->type);
    size_t piece = MOVE_BYTES / bytes;
    enum status status;
    uint64_t most = 0;
    size_t at = 0;
    bool done = false;

    tell_short(shm, vectors, &call);
    status = shm_enter(shm, &call, err);
    if (status == STATUS_OK) {
        status = exchange_first(shm, vectors, &done, err);
    }
    if (done) {
        return shm_finish(shm, status);
    }
    if (status == STATUS_OK) {
        status = check_counts(shm, &most, err);
    }
    if (status == STATUS_OK && most * bytes >= SHM_DIRECT_BYTES) {
        status = exchange_long(shm, vectors, &done, err);
    } else if (status == STATUS_OK) {
        take_pieces(shm, vectors, 0, piece);
        shm->turn++;
        at = piece;
    }
    for (; status == STATUS_OK && at < most && !done; at += piece) {
        put_pieces(shm, vectors, at, piece, SIZE_MAX);
        status = shm_step(shm, err);
        if (status == STATUS_OK) {
            take_pieces(shm, vectors, at, piece);
        }
        shm->turn++;
    }
    return shm_finish(shm, status);
}
