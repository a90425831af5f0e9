/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations that move data: every one, type, number of ranks and count, in place and not,
 * against what was to arrive. Sends and receives alone and in groups, in an order that differs from
 * rank to rank, between collectives. What must not be written is looked at, too.
 */
#include "cells.h"

enum { GUARD = 64, FILL = 0x5a };

/* What one rank of a world works with. */
struct mover {
    struct comm *comm;
    const struct cells *cells;
    enum comm_type type;
    size_t bytes; /* of an element */
    size_t block; /* of count elements */
    char *out;    /* [2 * room * bytes + GUARD] */
    size_t out_bytes;
};

static const char *input(const struct mover *m, uint32_t rank, size_t block)
{
    return (const char *)m->cells->in[m->type][rank] + block * m->block;
}

static bool ends_well(const struct mover *m, enum comm_operation operation, enum status status,
                      const struct err *err)
{
    return cells_went_well(m->comm, m->cells, operation, m->type, status, err);
}

/* True if bytes are as expected (NULL: untouched). */
static bool check(const struct mover *m, enum comm_operation operation, size_t at,
                  const char *expected, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char byte = expected == NULL ? FILL : expected[i];

        if (m->out[at + i] != byte) {
            print_error("rank %u of %u, %s of %zu %s, seed %llu: byte %zu of the output is wrong\n",
                        m->comm->rank, m->comm->n_ranks, comm_operation_name(operation),
                        m->cells->count, comm_type_name(m->type),
                        (unsigned long long)m->cells->seed, at + i);
            return false;
        }
    }
    return true;
}

static void clear(const struct mover *m)
{
    memset(m->out, FILL, m->out_bytes);
}

static struct comm_data data_of(const struct mover *m, const void *in)
{
    return (struct comm_data){in, m->out, m->cells->count, m->type, NULL};
}

static bool run_gather(const struct mover *m, bool in_place)
{
    char *own = m->out + m->comm->rank * m->block;
    struct comm_data data = data_of(m, in_place ? own : input(m, m->comm->rank, 0));
    struct err err = {0};
    bool good;

    clear(m);
    if (in_place) {
        memcpy(own, input(m, m->comm->rank, 0), m->block);
    }
    good = ends_well(m, COMM_ALL_GATHER, comm_all_gather(m->comm, &data, &err), &err);
    for (uint32_t r = 0; r < m->comm->n_ranks && good; r++) {
        good = check(m, COMM_ALL_GATHER, r * m->block, input(m, r, 0), m->block);
    }
    return good && check(m, COMM_ALL_GATHER, m->comm->n_ranks * m->block, NULL, GUARD);
}

static bool run_broadcast(const struct mover *m, bool in_place)
{
    uint32_t root = (uint32_t)(m->cells->count + m->type) % m->comm->n_ranks;
    bool is_root = m->comm->rank == root;
    struct comm_data data = data_of(m, is_root ? input(m, root, 0) : NULL);
    struct err err = {0};
    enum status status;

    clear(m);
    if (in_place) {
        data.in = m->out;
        if (is_root) {
            memcpy(m->out, input(m, root, 0), m->block);
        }
    }
    status = comm_broadcast(m->comm, &data, root, &err);
    return ends_well(m, COMM_BROADCAST, status, &err) &&
           check(m, COMM_BROADCAST, 0, input(m, root, 0), m->block) &&
           check(m, COMM_BROADCAST, m->block, NULL, GUARD);
}

static bool run_all_to_all(const struct mover *m, bool in_place)
{
    struct comm_data data = data_of(m, in_place ? m->out : input(m, m->comm->rank, 0));
    struct err err = {0};
    bool good;

    clear(m);
    if (in_place) {
        memcpy(m->out, input(m, m->comm->rank, 0), m->comm->n_ranks * m->block);
    }
    good = ends_well(m, COMM_ALL_TO_ALL, comm_all_to_all(m->comm, &data, &err), &err);
    for (uint32_t r = 0; r < m->comm->n_ranks && good; r++) {
        good = check(m, COMM_ALL_TO_ALL, r * m->block, input(m, r, m->comm->rank), m->block);
    }
    return good && check(m, COMM_ALL_TO_ALL, m->comm->n_ranks * m->block, NULL, GUARD);
}

/* How much rank a sends to rank b of an all_to_allv: any part of count, in place the same both
 * ways.
 */
static size_t part(const struct mover *m, uint32_t a, uint32_t b, bool in_place)
{
    size_t sevenths = in_place ? (a + b) % 8 : (3 * a + 5 * b) % 8;

    return m->cells->count * sevenths / 7;
}

/* Blocks come in descending order, with gaps of an element. */
static bool run_all_to_allv(const struct mover *m, bool in_place)
{
    uint32_t n = m->comm->n_ranks;
    uint32_t rank = m->comm->rank;
    size_t send_counts[COMM_SHM_RANKS_MAX];
    size_t send_offsets[COMM_SHM_RANKS_MAX];
    size_t recv_counts[COMM_SHM_RANKS_MAX];
    size_t recv_offsets[COMM_SHM_RANKS_MAX];
    struct comm_vectors vectors = {m->cells->in[m->type][rank],
                                   m->out,
                                   send_counts,
                                   send_offsets,
                                   recv_counts,
                                   recv_offsets,
                                   m->type};
    struct err err = {0};
    size_t at = 0;
    bool good;

    clear(m);
    for (uint32_t r = n; r-- > 0;) {
        send_counts[r] = part(m, rank, r, in_place);
        recv_counts[r] = part(m, r, rank, in_place);
        send_offsets[r] = r * m->cells->count;
        recv_offsets[r] = at;
        at += recv_counts[r] + 1;
        if (in_place) {
            send_offsets[r] = recv_offsets[r];
            memcpy(m->out + recv_offsets[r] * m->bytes, input(m, rank, r),
                   send_counts[r] * m->bytes);
        }
    }
    vectors.in = in_place ? m->out : vectors.in;
    good = ends_well(m, COMM_ALL_TO_ALLV, comm_all_to_allv(m->comm, &vectors, &err), &err);
    for (uint32_t r = 0; r < n && good; r++) {
        size_t end = (recv_offsets[r] + recv_counts[r]) * m->bytes;

        good = check(m, COMM_ALL_TO_ALLV, recv_offsets[r] * m->bytes, input(m, r, rank),
                     recv_counts[r] * m->bytes) &&
               check(m, COMM_ALL_TO_ALLV, end, NULL, m->bytes);
    }
    return good;
}

/* Around the ring, without a group: who is even sends first. The last of an odd number of ranks
 * only receives after it has sent, too, so that nobody waits in a circle. */
static bool run_ring(const struct mover *m)
{
    uint32_t n = m->comm->n_ranks;
    uint32_t next = (m->comm->rank + 1) % n;
    uint32_t before = (m->comm->rank + n - 1) % n;
    struct err err = {0};

    clear(m);
    for (unsigned turn = 0; turn < 2 && n > 1; turn++) {
        enum comm_operation operation = turn == m->comm->rank % 2 ? COMM_SEND : COMM_RECV;
        enum status status =
            operation == COMM_SEND
                ? comm_send(m->comm, input(m, m->comm->rank, 0), m->cells->count, m->type, next,
                            &err)
                : comm_recv(m->comm, m->out, m->cells->count, m->type, before, &err);

        if (!ends_well(m, operation, status, &err)) {
            return false;
        }
    }
    return n == 1 || check(m, COMM_RECV, 0, input(m, before, 0), m->block);
}

/* One of the calls of run_group: send or receive with one peer, in one of two rounds. */
static enum status exchange(const struct mover *m, uint32_t number, struct err *err)
{
    uint32_t n = m->comm->n_ranks;
    uint32_t round = number / (2 * n);
    uint32_t peer = number / 2 % n;
    size_t count = round == 0 ? m->cells->count : MIN(m->cells->count, 5);

    if (number % 2 == 0) {
        return comm_send(m->comm, input(m, m->comm->rank, peer), count, m->type, peer, err);
    }
    return comm_recv(m->comm, m->out + (round * n + peer) * m->block, count, m->type, peer, err);
}

/* Everybody sends to everybody, itself too, twice; the peers and the order of sending and receiving
 * differ from rank to rank; two collectives are between them, and a group in the group. */
static bool run_group(const struct mover *m)
{
    uint32_t n = m->comm->n_ranks;
    uint32_t rank = m->comm->rank;
    uint32_t word = 1 + rank;
    struct comm_data sum = {&word, &word, 1, COMM_U32, NULL};
    struct err err = {0};
    enum status status = STATUS_OK;
    bool good;

    clear(m);
    comm_group_begin(m->comm);
    for (uint32_t i = 0; i < 4 * n && status == STATUS_OK; i++) {
        uint32_t round = i / (2 * n);
        uint32_t in_round = (i + 3 * rank) % (2 * n) ^ (rank & 1);

        if (i == rank % (4 * n)) {
            comm_group_begin(m->comm);
            status = comm_all_reduce(m->comm, &sum, COMM_SUM, &err);
            good = comm_group_end(m->comm, &err) == STATUS_OK;
            status = good ? status : STATUS_BUG;
        }
        if (status == STATUS_OK) {
            status = exchange(m, round * 2 * n + in_round, &err);
        }
    }
    if (status == STATUS_OK) {
        status = comm_barrier(m->comm, &err);
    }
    if (status == STATUS_OK) {
        status = comm_group_end(m->comm, &err);
    }
    good = ends_well(m, COMM_SEND, status, &err);
    for (uint32_t r = 0; r < n && good; r++) {
        good =
            check(m, COMM_RECV, r * m->block, input(m, r, rank), m->block) &&
            check(m, COMM_RECV, (n + r) * m->block, input(m, r, rank), MIN(m->block, 5 * m->bytes));
    }
    if (good && word != n * (n + 1) / 2) {
        print_error("rank %u: the sum in the group is %u\n", rank, word);
        return false;
    }
    return good;
}

static bool run_rank(struct comm *comm, void *arg)
{
    const struct cells *cells = arg;
    bool good = true;

    for (unsigned type = 0; type < COMM_TYPE_COUNT && good; type++) {
        size_t bytes = comm_type_bytes((enum comm_type)type);
        size_t out_bytes = 2 * (cells->room + COMM_SHM_RANKS_MAX) * bytes + GUARD;
        struct mover m = {
            .comm = comm,
            .cells = cells,
            .type = (enum comm_type)type,
            .bytes = bytes,
            .block = cells->count * bytes,
            .out = cells_alloc(COMM_U8, out_bytes),
            .out_bytes = out_bytes,
        };

        for (unsigned in_place = 0; in_place < 2 && good; in_place++) {
            good = run_gather(&m, in_place) && run_broadcast(&m, in_place) &&
                   run_all_to_all(&m, in_place) && run_all_to_allv(&m, in_place);
        }
        good = good && run_ring(&m) && run_group(&m);
        free(m.out);
    }
    return good;
}

static void run_moves_with(enum world_kind kind, uint32_t n_ranks, size_t count, world_fn *run)
{
    struct cells cells;
    struct world world;

    world_init(&world, n_ranks, 60 * 1000);
    cells_init(&cells, n_ranks, count);
    assert_int_equal(world_run(&world, kind, run, &cells), 0);
    cells_release(&cells);
    world_release(&world);
}

static void run_moves(enum world_kind kind, uint32_t n_ranks, size_t count)
{
    run_moves_with(kind, n_ranks, count, run_rank);
}

static void test_threads(void **state)
{
    (void)state;
    cells_each(run_moves);
}

static void test_processes(void **state)
{
    (void)state;
    run_moves(WORLD_PROCESSES, 3, 4097);
}

/* A rank whose memory the others cannot find. */
static bool run_hidden(struct comm *comm, void *arg)
{
    cells_hide(comm);
    return run_rank(comm, arg);
}

/* More than all chunks of a channel and several pieces; read where it lies, or not. */
static void test_pieces(void **state)
{
    (void)state;
    run_moves(WORLD_THREADS, 2, 50001);
    run_moves(WORLD_PROCESSES, 3, 20001);
    run_moves_with(WORLD_THREADS, 2, 50001, run_hidden);
}

enum { REUSED = 50000 };

/* One call of many that reads in and is to give got (NULL: nothing on this rank). */
static enum status reuse(struct comm *comm, uint32_t number, uint32_t *in, uint32_t *out,
                         const uint32_t **ret_got, struct err *err)
{
    struct comm_data data = {in, out, REUSED, COMM_U32, NULL};

    *ret_got = out;
    switch (number % 4) {
    case 0:
        *ret_got = comm->rank == 0 ? NULL : out;
        return comm->rank == 0 ? comm_send(comm, in, REUSED, COMM_U32, 1, err)
                               : comm_recv(comm, out, REUSED, COMM_U32, 0, err);
    case 1:
        return comm_broadcast(comm, &data, 0, err);
    case 2:
        return comm_all_gather(comm, &data, err);
    default:
        return comm_all_reduce(comm, &data, COMM_MAX, err);
    }
}

/* What a rank gave is its own again when its call returns, however slow the others are. */
static bool run_reuse(struct comm *comm, void *arg)
{
    uint32_t *in = xcalloc(REUSED, sizeof(*in));
    uint32_t *out = xcalloc(2 * REUSED, sizeof(*out));
    bool good = true;

    (void)arg;
    for (uint32_t number = 0; number < 24 && good; number++) {
        const uint32_t *got;
        struct err err = {0};
        enum status status;

        for (uint32_t i = 0; i < REUSED; i++) {
            in[i] = number * 1000 + i;
        }
        if (number / 4 % 2 == comm->rank) {
            usleep(500);
        }
        status = reuse(comm, number, in, out, &got, &err);
        memset(in, 0xee, REUSED * sizeof(*in));
        for (uint32_t i = 0; i < REUSED && status == STATUS_OK && got != NULL; i++) {
            good = good && got[i] == number * 1000 + i;
        }
        if (status != STATUS_OK || !good) {
            print_error("rank %u, call %u: %s\n", comm->rank, number, err.text);
            good = false;
        }
    }
    free(in);
    free(out);
    return good;
}

static void test_reuse(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct world world;

        world_init(&world, 2, 60 * 1000);
        assert_int_equal(world_run(&world, (enum world_kind)kind, run_reuse, NULL), 0);
        world_release(&world);
    }
}

static void test_self(void **state)
{
    (void)state;
    for (size_t j = 0; j < ARRAY_LEN(cells_counts); j++) {
        struct comm *self = comm_self_create();
        struct cells cells;

        cells_init(&cells, 1, cells_counts[j]);
        assert_true(run_rank(self, &cells));
        cells_release(&cells);
        comm_destroy(&self);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_processes), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_reuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
