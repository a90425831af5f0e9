/* SPDX-License-Identifier: Apache-2.0 */
/* What a communicator does when ranks differ, are absent, leave, are aborted or killed: an error
 * that names the rank, in bounded time, on every rank, and again on every later call. */
#include "world.h"

#include <signal.h>

#include "base/clock.h"
#include "comm/shm_priv.h"

static void sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

/* Says what was expected of a call and did not happen. */
static enum status reduce(struct comm *comm, size_t count, enum comm_type type,
                          enum comm_reduction what, struct err *err)
{
    static const uint32_t zeros[128];
    uint32_t out[128];

    return comm_all_reduce(comm, &(struct comm_data){zeros, out, count, type}, what, err);
}

static enum status sum_leaves(struct comm *comm, uint32_t n_leaves, uint32_t first,
                              uint32_t n_owned, struct err *err)
{
    static const float zeros[4 * 64];
    float out[4];
    const struct comm_tree tree = {
        .n_leaves = n_leaves,
        .first = first,
        .n_owned = n_owned,
        .n_roots = shard_n_roots(n_leaves, (struct shard_range){first, first + n_owned}),
        .partial = zeros,
        .root_stride = 4,
        .count = 4,
        .sum = out,
    };

    return comm_sum_tree(comm, &tree, err);
}

enum { N_RANKS = 3, ODD = 1 };

/* What the odd rank does differently after one good call. */
enum difference {
    OTHER_COUNT,
    OTHER_TYPE,
    OTHER_REDUCTION,
    OTHER_OPERATION,
    OTHER_ROOT,
    OTHER_TREE,
    DIFFERENCES
};

static enum status call_differently(struct comm *comm, enum difference difference, struct err *err)
{
    bool odd = comm->rank == ODD;
    uint32_t word = 0;

    switch (difference) {
    case OTHER_COUNT:
        return reduce(comm, odd ? 65 : 64, COMM_F32, COMM_SUM, err);
    case OTHER_TYPE:
        return reduce(comm, 64, odd ? COMM_U32 : COMM_F32, COMM_SUM, err);
    case OTHER_REDUCTION:
        return reduce(comm, 64, COMM_F32, odd ? COMM_MAX : COMM_SUM, err);
    case OTHER_OPERATION:
        return odd ? comm_barrier(comm, err) : reduce(comm, 64, COMM_F32, COMM_SUM, err);
    case OTHER_ROOT:
        return comm_broadcast(comm, &(struct comm_data){&word, &word, 1, COMM_U32}, odd ? 2 : 0,
                              err);
    default:
        return sum_leaves(comm, odd ? 6 : 3, comm->rank, odd ? 4 : 1, err);
    }
}

static bool run_different(struct comm *comm, void *arg)
{
    static const char *const seen_by_odd[] = {
        [OTHER_COUNT] = "called all_reduce (sum) of 65 f32, but rank 0 called all_reduce (sum)",
        [OTHER_TYPE] = "rank 0 called all_reduce (sum) of 64 f32",
        [OTHER_REDUCTION] = "called all_reduce (max)",
        [OTHER_OPERATION] = "called barrier, but rank 0",
        [OTHER_ROOT] = "from rank 2, but rank 0",
        [OTHER_TREE] = "over 6 leaves, but rank 0",
    };
    static const char *const seen_by_others[] = {
        [OTHER_COUNT] = "but rank 1 called all_reduce (sum) of 65 f32",
        [OTHER_TYPE] = "but rank 1 called all_reduce (sum) of 64 u32",
        [OTHER_REDUCTION] = "but rank 1 called all_reduce (max)",
        [OTHER_OPERATION] = "but rank 1 called barrier",
        [OTHER_ROOT] = "but rank 1 called broadcast of 1 u32 from rank 2",
        [OTHER_TREE] = "but rank 1 called sum_tree of 4 over 6 leaves",
    };
    enum difference difference = *(enum difference *)arg;
    const char *text = comm->rank == ODD ? seen_by_odd[difference] : seen_by_others[difference];
    struct err err = {0};
    struct err again = {0};
    enum status status = reduce(comm, 7, COMM_U32, COMM_SUM, &err);

    if (!world_expects(comm, status, STATUS_OK, &err, NULL)) {
        return false;
    }
    status = call_differently(comm, difference, &err);
    return world_expects(comm, status, STATUS_INVALID, &err, text) &&
           world_expects(comm, comm_barrier(comm, &again), STATUS_INVALID, &again, err.text);
}

static void test_different(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DIFFERENCES; i++) {
        enum difference difference = (enum difference)i;
        struct world world;

        world_init(&world, N_RANKS, 20 * 1000);
        assert_int_equal(world_run(&world, WORLD_THREADS, run_different, &difference), 0);
        world_release(&world);
    }
}

/* Leaf ranges of three ranks and what is wrong with them. */
struct ranges {
    uint32_t n_leaves;
    uint32_t first[N_RANKS];
    uint32_t n_owned[N_RANKS];
    enum status status;
    const char *text;
};

static bool run_ranges(struct comm *comm, void *arg)
{
    const struct ranges *ranges = arg;
    struct err err = {0};
    enum status status = sum_leaves(comm, ranges->n_leaves, ranges->first[comm->rank],
                                    ranges->n_owned[comm->rank], &err);

    return world_expects(comm, status, ranges->status, &err, ranges->text);
}

static void test_ranges(void **state)
{
    static const struct ranges cases[] = {
        {9, {0, 5, 5}, {5, 0, 4}, STATUS_OK, NULL},
        {9, {0, 0, 7}, {3, 0, 2}, STATUS_INVALID, "rank 2 owns 2 leaves from 7, but leaf 3 of 9"},
        {9, {0, 2, 6}, {3, 3, 3}, STATUS_INVALID, "rank 1 owns 3 leaves from 2, but leaf 3 of 9"},
        {9, {0, 3, 6}, {3, 3, 2}, STATUS_INVALID, "no rank owns leaf 8 of 9"},
        {1024, {0, 1, 1023}, {1, 1022, 1}, STATUS_LIMIT, "rank 1 owns 18 subtrees, at most 16"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ranges ranges = cases[i];
        struct world world;

        world_init(&world, N_RANKS, 20 * 1000);
        assert_int_equal(world_run(&world, WORLD_THREADS, run_ranges, &ranges), 0);
        world_release(&world);
    }
}

/* More divisions in turn than are kept. */
static bool run_many_trees(struct comm *comm, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < 100; i++) {
        const struct shard_world world = {.n_ranks = comm->n_ranks};
        uint32_t n = 1 + i * 7 % 20;
        float partial[4 * 32] = {0};
        float sum[4];
        struct shard_cut cut;
        struct comm_tree tree = {
            .n_leaves = n, .partial = partial, .root_stride = 4, .count = 4, .sum = sum};
        struct err err = {0};

        if (shard_leaves(&world, n, NULL, &cut, &err) != STATUS_OK) {
            return false;
        }
        tree.first = cut.bounds[comm->rank];
        tree.n_owned = cut.bounds[comm->rank + 1] - tree.first;
        tree.n_roots =
            shard_n_roots(n, (struct shard_range){tree.first, tree.first + tree.n_owned});
        for (uint32_t r = 0; r < tree.n_roots; r++) {
            partial[4 * r] = 1.0f + (float)comm->rank; /* small integers: any order is exact */
        }
        if (!world_expects(comm, comm_sum_tree(comm, &tree, &err), STATUS_OK, &err, NULL)) {
            return false;
        }
        for (uint32_t r = 0; r < comm->n_ranks; r++) {
            uint32_t roots =
                shard_n_roots(n, (struct shard_range){cut.bounds[r], cut.bounds[r + 1]});

            sum[0] -= (float)(roots * (1 + r));
        }
        if (sum[0] != 0.0f) {
            print_error("rank %u: wrong sum over %u leaves\n", comm->rank, n);
            return false;
        }
    }
    return true;
}

static void test_many_trees(void **state)
{
    struct world world;

    (void)state;
    world_init(&world, N_RANKS, 20 * 1000);
    assert_int_equal(world_run(&world, WORLD_THREADS, run_many_trees, NULL), 0);
    world_release(&world);
}

/* Ranks of unequal speed: slots are not written before all have read them, sleepers wake. */
static bool run_uneven(struct comm *comm, void *arg)
{
    (void)arg;
    for (uint32_t i = 1; i <= 300; i++) {
        uint32_t value = i * (comm->rank + 1);
        struct err err = {0};

        if (i % 50 == comm->rank) {
            sleep_ms(3);
        }
        if (!world_expects(comm,
                           comm_all_reduce(comm, &(struct comm_data){&value, &value, 1, COMM_U32},
                                           COMM_SUM, &err),
                           STATUS_OK, &err, NULL)) {
            return false;
        }
        if (value != i * (comm->n_ranks * (comm->n_ranks + 1) / 2)) {
            print_error("rank %u: %u in round %u\n", comm->rank, value, i);
            return false;
        }
    }
    return true;
}

static void test_uneven(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 2; n_ranks <= 9; n_ranks += 7) {
        struct world world;

        world_init(&world, n_ranks, 20 * 1000);
        assert_int_equal(world_run(&world, WORLD_THREADS, run_uneven, NULL), 0);
        world_release(&world);
    }
}

/* Rank 1 does not come; the others say so when their time is over. */
static bool run_absent(struct comm *comm, void *arg)
{
    struct err err = {0};
    uint64_t began;
    uint64_t waited_ms;

    (void)arg;
    if (!world_expects(comm, comm_barrier(comm, &err), STATUS_OK, &err, NULL)) {
        return false;
    }
    if (comm->rank == ODD) {
        sleep_ms(400);
        return true;
    }
    began = clock_ns();
    if (!world_expects(comm, comm_barrier(comm, &err), STATUS_TIMEOUT, &err,
                       "rank 1 did not arrive within 150 ms")) {
        return false;
    }
    waited_ms = (clock_ns() - began) / 1000000;
    return waited_ms >= 149 &&
           world_expects(comm, comm_barrier(comm, &err), STATUS_TIMEOUT, &err, "rank 1");
}

static void test_absent(void **state)
{
    struct world world;
    struct comm *comm;
    struct err err = {0};

    (void)state;
    world_init(&world, N_RANKS, 150);
    assert_int_equal(world_run(&world, WORLD_THREADS, run_absent, NULL), 0);
    world_release(&world);

    world_init(&world, N_RANKS, 50);
    comm = world_join(&world, 0);
    assert_int_equal(comm_barrier(comm, &err), STATUS_TIMEOUT);
    assert_non_null(strstr(err.text, "ranks 1, 2 did not arrive within 50 ms"));
    assert_non_null(strstr(err.text, "rank 1 has never joined; rank 2 has never joined"));
    comm_destroy(&comm);
    world_release(&world);
}

/* Who comes late finds a peer that has given up: in the call after the one it still took part in.
 */
static void test_late(void **state)
{
    struct world world;
    struct comm *comm;
    struct comm *late;
    struct err err = {0};

    (void)state;
    world_init(&world, 2, 30);
    comm = world_join(&world, 0);
    late = world_join(&world, 1);
    assert_int_equal(comm_barrier(comm, &err), STATUS_TIMEOUT);
    assert_int_equal(comm_barrier(late, &err), STATUS_OK);
    late->timeout_ns = (uint64_t)20 * 1000000000;
    assert_int_equal(comm_barrier(late, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "barrier 2 on rank 1: rank 0 has failed"));
    comm_destroy(&late);
    comm_destroy(&comm);
    world_release(&world);
}

static bool run_leaver(struct comm *comm, void *arg)
{
    struct err err = {0};

    (void)arg;
    return comm->rank == ODD ||
           world_expects(comm, comm_barrier(comm, &err), STATUS_LINK, &err, "rank 1 has left");
}

static void test_left(void **state)
{
    struct world world;

    (void)state;
    world_init(&world, N_RANKS, 20 * 1000);
    assert_int_equal(world_run(&world, WORLD_THREADS, run_leaver, NULL), 0);
    world_release(&world);
}

static void *abort_later(void *arg)
{
    sleep_ms(30);
    comm_abort(arg);
    return NULL;
}

static bool run_cancelled(struct comm *comm, void *arg)
{
    struct err err = {0};

    (void)arg;
    return comm->rank == ODD || world_expects(comm, comm_barrier(comm, &err), STATUS_CANCELLED,
                                              &err, "the world was aborted");
}

static void test_abort(void **state)
{
    struct world_member members[2] = {{0}};
    pthread_t threads[2];
    struct world world;
    struct comm *self = comm_self_create();
    struct err err = {0};

    (void)state;
    comm_abort(self);
    assert_int_equal(comm_barrier(self, &err), STATUS_CANCELLED);
    comm_destroy(&self);

    world_init(&world, N_RANKS, 20 * 1000);
    for (uint32_t i = 0; i < 2; i++) { /* ranks 0 and 2; rank 1 never comes */
        members[i] = (struct world_member){.world = &world, .rank = 2 * i, .fn = run_cancelled};
        pthread_create(&threads[i], NULL, world_member_main, &members[i]);
    }
    sleep_ms(30);
    comm_shm_abort(world.region);
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(members[i].good);
    }
    world_release(&world);
}

/* The aborted rank did arrive in the first barrier; its peer misses it in the second. */
static void test_abort_one(void **state)
{
    struct world world;
    struct comm *comm;
    struct comm *peer;
    struct err err = {0};
    pthread_t thread;

    (void)state;
    world_init(&world, 2, 20 * 1000);
    comm = world_join(&world, 0);
    peer = world_join(&world, 1);
    assert_int_equal(pthread_create(&thread, NULL, abort_later, comm), 0);
    assert_int_equal(comm_barrier(comm, &err), STATUS_CANCELLED);
    assert_non_null(strstr(err.text, "barrier 1 on rank 0: the communicator was aborted"));
    pthread_join(thread, NULL);
    assert_int_equal(comm_barrier(comm, &err), STATUS_CANCELLED);
    assert_int_equal(comm_barrier(peer, &err), STATUS_OK);
    assert_int_equal(comm_barrier(peer, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "barrier 2 on rank 1: rank 0 was aborted"));
    comm_destroy(&peer);
    comm_destroy(&comm);
    world_release(&world);
}

/* Until one is killed. */
struct work {
    uint32_t count; /* elements: through the slots, or read where they lie */
    uint32_t data[40000];
};

/* Works until rank 1 is killed; whatever was returned as good until then is right. The end is the
 * deadline, or that the kernel does not find the process any more. */
static bool run_until_killed(struct comm *comm, void *arg)
{
    struct work *work = arg; /* this process's own copy */
    struct err err = {0};
    enum status status = STATUS_OK;

    for (uint32_t round = 1; status == STATUS_OK; round++) {
        for (uint32_t i = 0; i < work->count; i++) {
            work->data[i] = round + i + comm->rank;
        }
        status = comm_all_reduce(comm,
                                 &(struct comm_data){work->data, work->data, work->count, COMM_U32},
                                 COMM_SUM, &err);
        for (uint32_t i = 0; i < work->count && status == STATUS_OK; i++) {
            if (work->data[i] != 3 * (round + i) + 3) {
                print_error("rank %u: wrong element %u in round %u\n", comm->rank, i, round);
                return false;
            }
        }
    }
    if (status == STATUS_LINK && work->count == ARRAY_LEN(work->data)) {
        return world_expects(comm, status, STATUS_LINK, &err,
                             strstr(err.text, "has failed") == NULL
                                 ? "memory of rank 1 cannot be read"
                                 : "has failed");
    }
    return world_expects(comm, status, STATUS_TIMEOUT, &err, "rank 1 did not arrive within");
}

static void test_killed(void **state)
{
    static struct work work;
    enum { ROUNDS = SANITIZED ? 8 : 16 };

    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct comm_shm_progress progress;
        struct world world;
        pid_t pids[N_RANKS];

        work.count = round % 2 == 0 ? 12000 : ARRAY_LEN(work.data);
        world_init(&world, N_RANKS, 250);
        for (uint32_t r = 0; r < N_RANKS; r++) {
            pids[r] = world_fork(&world, r, run_until_killed, &work);
        }
        do { /* until all are at work */
            sleep_ms(1);
            comm_shm_progress_read(world.region, ODD, &progress);
        } while (progress.number < 3);
        usleep(round * 97);
        kill(pids[ODD], SIGKILL);
        for (uint32_t r = 0; r < N_RANKS; r++) {
            int status = 1;

            assert_int_equal(waitpid(pids[r], &status, 0), pids[r]);
            if (r != ODD) {
                assert_int_equal(status, 0);
            }
        }
        world_release(&world);
    }
}

static enum status join(const struct world *world, uint32_t rank, uint32_t n_ranks, size_t bytes,
                        const struct comm_id *id, struct err *err)
{
    struct comm *comm = NULL;
    enum status status = comm_shm_join(
        &(struct comm_shm_member){world->region, bytes, id, rank, n_ranks}, &comm, err);

    comm_destroy(&comm);
    return status;
}

static void test_join(void **state)
{
    struct comm_id other;
    struct world world;
    struct err err = {0};
    size_t bytes;

    (void)state;
    world_init(&world, 2, 100);
    bytes = world.region_bytes;
    comm_id_make(&other);
    assert_int_equal(join(&world, 0, 2, bytes, &other, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "another world or epoch"));
    assert_int_equal(join(&world, 0, 1, bytes, &world.id, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "for 2 ranks, not 1"));
    assert_int_equal(join(&world, 2, 2, bytes, &world.id, &err), STATUS_INVALID);
    assert_int_equal(join(&world, 0, 0, bytes, &world.id, &err), STATUS_INVALID);
    assert_int_equal(join(&world, 0, 17, bytes, &world.id, &err), STATUS_INVALID);
    assert_int_equal(join(&world, 0, 2, bytes - 4096, &world.id, &err), STATUS_INVALID);
    assert_int_equal(join(&world, 0, 2, bytes, &world.id, &err), STATUS_OK);
    assert_int_equal(join(&world, 0, 2, bytes, &world.id, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "rank 0 has joined this region before"));
    memset(world.region, 0, 4096);
    assert_int_equal(join(&world, 1, 2, bytes, &world.id, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "not initialised"));
    world_release(&world);
    assert_int_equal(comm_shm_region_bytes(0), 0);
    assert_int_equal(comm_shm_region_bytes(17), 0);
}

static void *wait_in_reduce(void *arg)
{
    struct err err = {0};

    (void)reduce(arg, 5, COMM_U32, COMM_SUM, &err);
    return NULL;
}

static void test_progress(void **state)
{
    struct comm_shm_progress progress;
    struct world world;
    struct comm *comm;
    struct comm *peer;
    struct err err = {0};
    pthread_t thread;

    (void)state;
    world_init(&world, 2, 20 * 1000);
    comm = world_join(&world, 0);
    comm_shm_progress_read(world.region, 1, &progress);
    assert_false(progress.joined);
    peer = world_join(&world, 1);
    comm_shm_progress_read(world.region, 1, &progress);
    assert_true(progress.joined && !progress.inside && progress.number == 0);
    pthread_create(&thread, NULL, wait_in_reduce, peer);
    assert_int_equal(reduce(comm, 5, COMM_U32, COMM_SUM, &err), STATUS_OK);
    pthread_join(thread, NULL);
    comm_shm_progress_read(world.region, 0, &progress);
    assert_true(!progress.inside && progress.number == 1);
    pthread_create(&thread, NULL, wait_in_reduce, peer);
    do {
        comm_shm_progress_read(world.region, 1, &progress);
    } while (!progress.inside);
    assert_int_equal(progress.number, 2);
    assert_string_equal(progress.name, "all_reduce");
    comm_shm_abort(world.region);
    pthread_join(thread, NULL);
    comm_destroy(&peer);
    comm_destroy(&comm);
    world_release(&world);
}

/* Rank 1 is a process that went mad and wrote over its lines. */
static void test_rubbish(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct shm_call call = {.count = 4, .what = shm_what(COMM_SUM_TREE, 0, 0, 0, 8)};
        struct shm_region *region;
        struct world world;
        struct comm *comm;
        struct err err = {0};

        world_init(&world, 2, 50);
        region = world.region;
        comm = world_join(&world, 0);
        if (i == 0) {
            memset(&call, 0xff, sizeof(call));
        } else {
            call.first = 4;
            call.n_owned = UINT32_MAX;
        }
        region->ranks[1].arrivals[1].call = call;
        atomic_store(&region->ranks[1].state, 77);
        atomic_store(&region->ranks[1].asleep, UINT32_MAX);
        atomic_store(&region->ranks[1].arrivals[1].step, 1);
        assert_int_equal(sum_leaves(comm, 8, 0, 4, &err), STATUS_INVALID);
        assert_non_null(strstr(err.text, i == 0 ? "rank 1 called rubbish" : "rank 1 owns"));
        comm_destroy(&comm);
        world_release(&world);

        world_init(&world, 2, 50);
        region = world.region;
        comm = world_join(&world, 0);
        atomic_store(&region->ranks[1].arrivals[1].step, 12345);
        assert_int_equal(comm_barrier(comm, &err), STATUS_TIMEOUT);
        comm_destroy(&comm);
        world_release(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_different),  cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_many_trees), cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_absent),     cmocka_unit_test(test_late),
        cmocka_unit_test(test_left),       cmocka_unit_test(test_abort),
        cmocka_unit_test(test_abort_one),  cmocka_unit_test(test_killed),
        cmocka_unit_test(test_join),       cmocka_unit_test(test_progress),
        cmocka_unit_test(test_rubbish),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
