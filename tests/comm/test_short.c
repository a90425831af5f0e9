/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short calls of two ranks take ways of their own: data in the call's own lines, counts with the
 * call, messages sent and received at once. Here every operation at the lengths where the ways
 * part, against what was to arrive, and the errors against those of the long ways: of three ranks,
 * or of a group.
 */
#include "comm/shm_priv.h"
#include "world.h"

enum { MOST = 66 << 10, FILL = 0x5a };

static const size_t lengths[] = {0,
                                 1,
                                 SHM_TINY_HEAD - 1,
                                 SHM_TINY_HEAD,
                                 SHM_TINY_HEAD + 1,
                                 64,
                                 SHM_TINY_BYTES - 1,
                                 SHM_TINY_BYTES,
                                 SHM_TINY_BYTES + 1,
                                 1000,
                                 (16 << 10) - 33,
                                 (16 << 10) - 32,
                                 (16 << 10) - 31,
                                 32 << 10,
                                 (32 << 10) + 1,
                                 SHM_DIRECT_BYTES - 1,
                                 SHM_DIRECT_BYTES};

/* One rank's memory. */
struct side {
    struct comm *comm;
    struct err err;
    unsigned char *in; /* [2 * MOST] */
    unsigned char *out;
};

/* Element i of what a rank has. */
static unsigned char element(uint32_t rank, size_t i)
{
    return (unsigned char)(i * 7 + (i >> 8) + rank * 101 + 3);
}

/* n bytes of out from at on are rank's from from on; added: plus the other rank's. */
static bool has(const struct side *s, size_t at, uint32_t rank, size_t from, size_t n, bool added)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char expected = element(rank, from + i);

        if (added) {
            expected = (unsigned char)(expected + element(1 - rank, from + i));
        }
        if (s->out[at + i] != expected) {
            print_error("rank %u: byte %zu of %zu is wrong\n", s->comm->rank, i, n);
            return false;
        }
    }
    return true;
}

/* Nothing was written from there on. */
static bool ends_at(const struct side *s, size_t at)
{
    if (s->out[at] != FILL) {
        print_error("rank %u: wrote beyond %zu bytes\n", s->comm->rank, at);
    }
    return s->out[at] == FILL;
}

static bool is_ok(const struct side *s, enum status status)
{
    return world_expects(s->comm, status, STATUS_OK, &s->err, NULL);
}

static bool reductions(struct side *s, size_t n)
{
    const struct comm_data data = {s->in, s->out, n, COMM_U8, NULL};
    uint32_t rank = s->comm->rank;
    size_t at_root = rank == 1 ? n : 0;
    bool good;

    memset(s->out, FILL, 2 * MOST);
    good = is_ok(s, comm_all_reduce(s->comm, &data, COMM_SUM, &s->err)) &&
           has(s, 0, 0, 0, n, true) && ends_at(s, n);
    memset(s->out, FILL, 2 * MOST);
    good = good && is_ok(s, comm_reduce(s->comm, &data, COMM_SUM, 1, &s->err)) &&
           has(s, 0, 0, 0, at_root, true) && ends_at(s, at_root);
    memset(s->out, FILL, 2 * MOST);
    return good && is_ok(s, comm_reduce_scatter(s->comm, &data, COMM_SUM, &s->err)) &&
           has(s, 0, 0, rank * n, n, true) && ends_at(s, n);
}

static bool moves(struct side *s, size_t n)
{
    const struct comm_data data = {s->in, s->out, n, COMM_U8, NULL};
    uint32_t rank = s->comm->rank;
    bool good;

    memset(s->out, FILL, 2 * MOST);
    good = is_ok(s, comm_all_gather(s->comm, &data, &s->err)) && has(s, 0, 0, 0, n, false) &&
           has(s, n, 1, 0, n, false) && ends_at(s, 2 * n);
    memset(s->out, FILL, 2 * MOST);
    good = good && is_ok(s, comm_broadcast(s->comm, &data, 1, &s->err)) &&
           has(s, 0, 1, 0, n, false) && ends_at(s, n);
    memset(s->out, FILL, 2 * MOST);
    return good && is_ok(s, comm_all_to_all(s->comm, &data, &s->err)) &&
           has(s, 0, 0, rank * n, n, false) && has(s, n, 1, rank * n, n, false) &&
           ends_at(s, 2 * n);
}

/* Rank 0 sends n and receives m, and both keep 5. */
static bool vectors(struct side *s, size_t n, size_t m)
{
    uint32_t rank = s->comm->rank;
    uint32_t peer = 1 - rank;
    size_t send[2];
    size_t recv[2];
    const size_t offsets[2] = {1, MOST};
    const struct comm_vectors v = {s->in, s->out, send, offsets, recv, offsets, COMM_U8};

    send[rank] = 5;
    recv[rank] = 5;
    send[peer] = rank == 0 ? n : m;
    recv[peer] = rank == 0 ? m : n;
    memset(s->out, FILL, 2 * MOST);
    return is_ok(s, comm_all_to_allv(s->comm, &v, &s->err)) &&
           has(s, offsets[peer], peer, offsets[rank], recv[peer], false) &&
           has(s, offsets[rank], rank, offsets[rank], 5, false) && ends_at(s, 0) &&
           ends_at(s, 1 + recv[0]) && ends_at(s, MOST + recv[1]);
}

/* n one way and m the other, alone or each in a group. */
static bool messages(struct side *s, size_t n, size_t m, bool grouped)
{
    uint32_t rank = s->comm->rank;
    size_t bytes[2] = {n, m};
    enum status status = STATUS_OK;

    memset(s->out, FILL, 2 * MOST);
    for (uint32_t from = 0; from < 2 && status == STATUS_OK; from++) {
        if (grouped) {
            comm_group_begin(s->comm);
        }
        status = rank == from ? comm_send(s->comm, s->in, bytes[from], COMM_U8, 1 - rank, &s->err)
                              : comm_recv(s->comm, s->out, bytes[from], COMM_U8, from, &s->err);
        if (grouped && status == STATUS_OK) {
            status = comm_group_end(s->comm, &s->err);
        }
    }
    return is_ok(s, status) && has(s, 0, 1 - rank, 0, bytes[1 - rank], false) &&
           ends_at(s, bytes[1 - rank]);
}

static bool run_lengths(struct comm *comm, void *arg)
{
    struct side s = {.comm = comm, .in = malloc(2 * MOST + 1), .out = malloc(2 * MOST + 1)};
    bool good = true;

    (void)arg;
    for (size_t i = 0; i < 2 * MOST; i++) {
        s.in[i] = element(comm->rank, i);
    }
    for (size_t i = 0; i < ARRAY_LEN(lengths) && good; i++) {
        size_t n = lengths[i];
        size_t m = lengths[(i * 5 + 3) % ARRAY_LEN(lengths)];

        for (unsigned turn = 0; turn < 3 && good; turn++) { /* both slots, and again */
            good = reductions(&s, n) && moves(&s, n) && vectors(&s, n, m) &&
                   messages(&s, n, m, false) && messages(&s, n, m, true);
        }
        if (!good) {
            print_error("of lengths %zu and %zu\n", n, m);
        }
    }
    free(s.in);
    free(s.out);
    return good;
}

static void test_lengths(void **state)
{
    (void)state;
    for (unsigned kind = WORLD_THREADS; kind <= WORLD_PROCESSES; kind++) {
        struct world world;

        world_init(&world, 2, 20000);
        assert_int_equal(world_run(&world, (enum world_kind)kind, run_lengths, NULL), 0);
        world_release(&world);
    }
}

/* What two ranks of a world do that do not agree; any third one moves nothing. */
struct quarrel {
    size_t counts[2][4]; /* of each: what it sends to 0, to 1, receives from 0, from 1 */
    const char *text;
};

static const struct quarrel quarrels[] = {
    {{{0, 5, 0, 7}, {8, 0, 5, 0}}, "rank 1 sends 8 u8 to rank 0, which receives 7"},
    {{{0, 5, 0, 7}, {7, 0, 6, 0}}, "rank 0 sends 5 u8 to rank 1, which receives 6"},
    {{{0, 5, 0, 7}, {7, 2, 5, 3}}, "rank 1 sends 2 u8 to rank 1, which receives 3"},
    {{{4, 5, 1, 7}, {7, 2, 5, 2}}, "rank 0 sends 4 u8 to rank 0, which receives 1"},
    {{{0, 33000, 0, 7}, {7, 0, 5, 0}}, "rank 0 sends 33000 u8 to rank 1, which receives 5"},
    {{{0, 5, 0, 66000}, {7, 0, 5, 0}}, "rank 1 sends 7 u8 to rank 0, which receives 66000"},
};

static bool quarrel(struct comm *comm, void *arg)
{
    const struct quarrel *q = arg;
    const size_t *mine = q->counts[comm->rank % 2];
    bool third = comm->rank > 1;
    const size_t offsets[3] = {0, MOST, 0};
    const size_t send[3] = {third ? 0 : mine[0], third ? 0 : mine[1], 0};
    const size_t recv[3] = {third ? 0 : mine[2], third ? 0 : mine[3], 0};
    char *in = calloc(2, MOST);
    char *out = calloc(2, MOST);
    const struct comm_vectors v = {in, out, send, offsets, recv, offsets, COMM_U8};
    struct err err = {0};
    enum status status = comm_all_to_allv(comm, &v, &err);
    char text[256];

    free(in);
    free(out);
    snprintf(text, sizeof(text), "all_to_allv 1 on rank %u: %s", comm->rank, q->text);
    return world_expects(comm, status, STATUS_INVALID, &err, text);
}

static void test_quarrels(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(quarrels); i++) {
        for (uint32_t n_ranks = 2; n_ranks <= 3; n_ranks++) {
            struct quarrel q = quarrels[i];
            struct world world;

            world_init(&world, n_ranks, 20000);
            assert_int_equal(world_run(&world, WORLD_THREADS, quarrel, &q), 0);
            world_release(&world);
        }
    }
}

/* Rank 0 sends 5 floats, rank 1 expects 4, or as many of another type: whoever finds out says so,
 * and the sender at its next message. */
static bool mismatch(struct comm *comm, void *arg)
{
    unsigned variant = *(unsigned *)arg;
    bool grouped = (variant & 1) != 0;
    enum comm_type type = (variant & 2) != 0 ? COMM_I32 : COMM_F32;
    size_t count = (variant & 2) != 0 ? 5 : 4;
    float data[5] = {0};
    struct err err = {0};
    enum status status = STATUS_OK;
    char text[256];

    for (unsigned i = 0; i < 100 && status == STATUS_OK; i++) {
        if (grouped) {
            comm_group_begin(comm);
        }
        status = comm->rank == 0 ? comm_send(comm, data, 5, COMM_F32, 1, &err)
                                 : comm_recv(comm, data, count, type, 0, &err);
        if (grouped && status == STATUS_OK) {
            status = comm_group_end(comm, &err);
        }
    }
    snprintf(text, sizeof(text), "rank 0 sends 5 f32 to rank 1, which receives %zu %s", count,
             comm_type_name(type));
    return world_expects(comm, status, STATUS_INVALID, &err, text);
}

static void test_mismatches(void **state)
{
    (void)state;
    for (unsigned variant = 0; variant < 4; variant++) {
        struct world world;

        world_init(&world, 2, 20000);
        assert_int_equal(world_run(&world, WORLD_THREADS, mismatch, &variant), 0);
        world_release(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_quarrels),
        cmocka_unit_test(test_mismatches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
