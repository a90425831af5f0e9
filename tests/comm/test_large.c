/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation once with 64 Mi floats (all_gather: 8 Mi from each rank) and two ranks, which is
 * past every piece, share, chunk and 32-bit number of bytes; under sanitizers a sixteenth of that.
 * Elements are small whole numbers, so that every sum is exact.
 */
#include "world.h"

#include "base/mem.h"

enum { MI = 1 << 20, LARGE = SANITIZED ? 4 * MI : 64 * MI, GATHERED = LARGE / 8 };

/* What rank puts at element i. */
static float element(uint32_t rank, size_t i)
{
    return (float)((i * 13 + i / 4099 + rank * 5) & 1023);
}

static void fill(float *in, uint32_t rank)
{
    for (size_t i = 0; i < LARGE; i++) {
        in[i] = element(rank, i);
    }
}

/* Element found is both ranks' sum (sums) or rank's own at offset + i. */
static bool check(const char *what, const float *found, size_t n, bool sums, uint32_t rank,
                  size_t offset)
{
    size_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        float expected =
            sums ? element(0, offset + i) + element(1, offset + i) : element(rank, offset + i);

        bad += found[i] != expected;
    }
    if (bad > 0) {
        print_error("%s: %zu of %zu elements are wrong\n", what, bad, n);
    }
    return bad == 0;
}

static bool went_well(const char *what, enum status status, const struct err *err)
{
    if (status != STATUS_OK) {
        print_error("%s: %s\n", what, err->text);
    }
    return status == STATUS_OK;
}

static bool run_sums(struct comm *comm, float *in, float *out)
{
    struct comm_data data = {in, out, LARGE, COMM_F32, NULL};
    struct err err = {0};

    if (!went_well("reduce", comm_reduce(comm, &data, COMM_SUM, 1, &err), &err) ||
        (comm->rank == 1 && !check("reduce", out, LARGE, true, 0, 0))) {
        return false;
    }
    data.count = LARGE / 2;
    if (!went_well("reduce_scatter", comm_reduce_scatter(comm, &data, COMM_SUM, &err), &err) ||
        !check("reduce_scatter", out, LARGE / 2, true, 0, comm->rank * (LARGE / 2))) {
        return false;
    }
    data = (struct comm_data){in, in, LARGE, COMM_F32, NULL};
    return went_well("all_reduce", comm_all_reduce(comm, &data, COMM_SUM, &err), &err) &&
           check("all_reduce", in, LARGE, true, 0, 0);
}

static bool run_exchange(struct comm *comm, float *in, float *out)
{
    const size_t half[2] = {LARGE / 2, LARGE / 2};
    const size_t offsets[2] = {0, LARGE / 2};
    struct comm_data data = {in, out, LARGE / 2, COMM_F32, NULL};
    struct comm_vectors vectors = {in, out, half, offsets, half, offsets, COMM_F32};
    struct err err = {0};
    bool good = true;

    for (unsigned i = 0; i < 2 && good; i++) {
        memset(out, 0, LARGE * sizeof(*out));
        good = went_well("all_to_all",
                         i == 0 ? comm_all_to_all(comm, &data, &err)
                                : comm_all_to_allv(comm, &vectors, &err),
                         &err);
        for (uint32_t r = 0; r < 2 && good; r++) {
            good = check("all_to_all", out + offsets[r], LARGE / 2, false, r, offsets[comm->rank]);
        }
    }
    return good;
}

static bool run_copies(struct comm *comm, float *in, float *out)
{
    struct comm_data data = {in, out, LARGE, COMM_F32, NULL};
    uint32_t peer = 1 - comm->rank;
    struct err err = {0};
    bool good = went_well("broadcast", comm_broadcast(comm, &data, 1, &err), &err) &&
                check("broadcast", out, LARGE, false, 1, 0);

    data.count = GATHERED;
    good = good && went_well("all_gather", comm_all_gather(comm, &data, &err), &err) &&
           check("all_gather", out, GATHERED, false, 0, 0) &&
           check("all_gather", out + GATHERED, GATHERED, false, 1, 0);
    for (unsigned i = 0; i < 2 && good; i++) { /* the second message can be read where it lies */
        memset(out, 0, LARGE * sizeof(*out));
        comm_group_begin(comm);
        good = went_well("send", comm_send(comm, in, LARGE, COMM_F32, peer, &err), &err) &&
               went_well("recv", comm_recv(comm, out, LARGE, COMM_F32, peer, &err), &err);
        good = went_well("group", comm_group_end(comm, &err), &err) && good &&
               check("recv", out, LARGE, false, peer, 0);
    }
    return good;
}

static bool run_rank(struct comm *comm, void *arg)
{
    float *in = mem_map(LARGE * sizeof(float));
    float *out = mem_map(LARGE * sizeof(float));
    bool good = in != NULL && out != NULL;

    (void)arg;
    if (good) {
        fill(in, comm->rank);
        good = run_copies(comm, in, out) && run_exchange(comm, in, out) && run_sums(comm, in, out);
    }
    mem_unmap(in, LARGE * sizeof(float));
    mem_unmap(out, LARGE * sizeof(float));
    return good;
}

static void test_large(void **state)
{
    struct world world;

    (void)state;
    world_init(&world, 2, 120 * 1000);
    assert_int_equal(world_run(&world, WORLD_PROCESSES, run_rank, NULL), 0);
    world_release(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_large)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
