/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments that are wrong in themselves, calls that differ between ranks, messages that nobody
 * meets, and ends from outside: an error that says what and who, and no hang. */
#include "world.h"

#include "base/clock.h"
#include "base/mem.h"

static uint32_t words[64];

static struct comm_data data_of(void *in, void *out, size_t count, enum comm_type type)
{
    return (struct comm_data){in, out, count, type, NULL};
}

/* What is refused before anything is sent. */
static void check_refused(struct comm *comm)
{
    const enum comm_type no_type = (enum comm_type)COMM_TYPE_COUNT;
    const enum comm_reduction no_reduction = (enum comm_reduction)COMM_REDUCTION_COUNT;
    struct comm_data good = data_of(words, words, 2, COMM_U32);
    struct comm_data bad = good;
    struct err err = {0};

    bad.type = no_type;
    assert_int_equal(comm_all_reduce(comm, &bad, COMM_SUM, &err), STATUS_INVALID);
    assert_string_equal(err.text, "all_reduce on rank 0: there is no such type");
    assert_int_equal(comm_all_reduce(comm, &good, no_reduction, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "no such reduction"));
    assert_int_equal(comm_all_reduce(comm, &good, COMM_PREMUL_SUM, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "premul_sum without a scale"));
    assert_int_equal(comm_broadcast(comm, &good, comm->n_ranks, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "there is no rank"));
    assert_int_equal(comm_reduce(comm, &good, COMM_SUM, 99, &err), STATUS_INVALID);
    assert_int_equal(comm_send(comm, words, 1, COMM_U32, 99, &err), STATUS_INVALID);
    assert_int_equal(comm_recv(comm, words, 1, COMM_U32, 0, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "only in a group"));
    bad = data_of(NULL, words, 1, COMM_U32);
    assert_int_equal(comm_all_gather(comm, &bad, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "in is NULL"));
    bad = data_of(words, NULL, 1, COMM_U32);
    assert_int_equal(comm_reduce_scatter(comm, &bad, COMM_SUM, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "out is NULL"));
    bad = data_of(words, words + 1, 2, COMM_U32);
    assert_int_equal(comm_all_reduce(comm, &bad, COMM_SUM, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "in and out overlap"));
    bad = data_of(words, words + 1, SIZE_MAX / 4, COMM_U32);
    assert_int_equal(comm_all_to_all(comm, &bad, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "larger than any memory"));
    assert_int_equal(comm_group_end(comm, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "without group_begin"));
}

static void check_refused_vectors(struct comm *comm)
{
    size_t counts[COMM_SHM_RANKS_MAX] = {2, 2};
    size_t offsets[COMM_SHM_RANKS_MAX] = {0, 1};
    size_t far[COMM_SHM_RANKS_MAX] = {SIZE_MAX, 0};
    struct comm_vectors vectors = {words, words + 32, counts, offsets, counts, offsets, COMM_U32};
    struct err err = {0};

    if (comm->n_ranks > 1) {
        assert_int_equal(comm_all_to_allv(comm, &vectors, &err), STATUS_INVALID);
        assert_non_null(strstr(err.text, "blocks of out overlap"));
    }
    vectors.recv_offsets = far;
    assert_int_equal(comm_all_to_allv(comm, &vectors, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "larger than any memory"));
    vectors.recv_offsets = NULL;
    assert_int_equal(comm_all_to_allv(comm, &vectors, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "counts or offsets are NULL"));
    vectors = (struct comm_vectors){words, NULL, counts, offsets, counts, offsets, COMM_U32};
    assert_int_equal(comm_all_to_allv(comm, &vectors, &err), STATUS_INVALID);
    vectors.out = words + 1;
    assert_int_equal(comm_all_to_allv(comm, &vectors, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "overlap"));
}

/* In a group a bad call is refused where it is made, and the others stand. */
static void check_group(struct comm *comm)
{
    struct comm_tree tree = {.n_leaves = 1};
    uint32_t got = 0;
    uint32_t sent = 7;
    struct err err = {0};

    comm_group_begin(comm);
    assert_int_equal(comm_sum_tree(comm, &tree, &err), STATUS_INVALID);
    assert_int_equal(comm_recv(comm, &got, 1, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(comm_send(comm, &sent, 1, COMM_U32, 77, &err), STATUS_INVALID);
    assert_int_equal(comm_send(comm, &sent, 1, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(got, 0);
    assert_int_equal(comm_group_end(comm, &err), STATUS_OK);
    assert_int_equal(got, 7);
    comm_group_begin(comm);
    assert_int_equal(comm_group_end(comm, &err), STATUS_OK); /* of nothing */
}

static void test_refused(void **state)
{
    struct comm *self = comm_self_create();
    struct world world;
    struct comm *comm;
    struct comm *peer;

    (void)state;
    check_refused(self);
    check_refused_vectors(self);
    check_group(self);
    comm_destroy(&self);
    world_init(&world, 2, 1000);
    comm = world_join(&world, 0);
    peer = world_join(&world, 1);
    check_refused(comm);
    check_refused_vectors(comm);
    check_group(comm); /* it still works */
    comm_group_begin(comm);
    comm_destroy(&comm); /* in a group */
    comm_destroy(&peer);
    world_release(&world);
}

static void test_self_messages(void **state)
{
    struct comm *self = comm_self_create();
    struct err err = {0};

    (void)state;
    comm_group_begin(self);
    assert_int_equal(comm_send(self, words, 2, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(comm_group_end(self, &err), STATUS_TIMEOUT);
    comm_group_begin(self);
    assert_int_equal(comm_recv(self, words, 2, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(comm_group_end(self, &err), STATUS_TIMEOUT);
    comm_group_begin(self);
    assert_int_equal(comm_recv(self, words, 2, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(comm_send(self, words + 8, 2, COMM_F32, 0, &err), STATUS_OK);
    assert_int_equal(comm_group_end(self, &err), STATUS_INVALID);
    assert_string_equal(err.text, "rank 0 sends 2 f32 to itself, but receives 2 u32");
    comm_abort(self);
    assert_int_equal(comm_poll_error(self, &err), STATUS_CANCELLED);
    assert_int_equal(comm_barrier(self, &err), STATUS_CANCELLED);
    comm_destroy(&self);
}

/* Calls that the odd rank makes differently. */
enum difference {
    REDUCE_ROOT,
    REDUCE_REDUCTION,
    SCATTER_COUNT,
    ALL_TO_ALL_TYPE,
    ALL_TO_ALLV_TYPE,
    ALL_TO_ALLV_COUNT,
    OPERATION,
    IN_GROUP,
    DIFFERENCES
};

enum { N_RANKS = 3, ODD = 1 };

static enum status exchange(struct comm *comm, enum comm_type type, size_t to_two, struct err *err)
{
    size_t counts[N_RANKS] = {1, 1, to_two};
    size_t ones[N_RANKS] = {1, 1, 1};
    size_t offsets[N_RANKS] = {0, 2, 4};
    uint32_t out[16];
    struct comm_vectors vectors = {words, out, counts, offsets, ones, offsets, type};

    return comm_all_to_allv(comm, &vectors, err);
}

static enum status call_differently(struct comm *comm, enum difference difference, struct err *err)
{
    bool odd = comm->rank == ODD;
    uint32_t out[16];
    struct comm_data data = data_of(words, out, odd ? 3 : 2, COMM_U32);

    switch (difference) {
    case REDUCE_ROOT:
        data.count = 2;
        return comm_reduce(comm, &data, COMM_SUM, odd ? 2 : 0, err);
    case REDUCE_REDUCTION:
        data.count = 2;
        return comm_reduce(comm, &data, odd ? COMM_AVG : COMM_SUM, 0, err);
    case SCATTER_COUNT:
        return comm_reduce_scatter(comm, &data, COMM_MAX, err);
    case ALL_TO_ALL_TYPE:
        data.count = 2;
        data.type = odd ? COMM_BF16 : COMM_F16;
        return comm_all_to_all(comm, &data, err);
    case ALL_TO_ALLV_TYPE:
        return exchange(comm, odd ? COMM_I8 : COMM_U8, 1, err);
    case ALL_TO_ALLV_COUNT:
        return exchange(comm, COMM_I32, odd ? 2 : 1, err);
    case OPERATION:
        return odd ? comm_all_to_all(comm, &data, err) : exchange(comm, COMM_U32, 1, err);
    default:
        comm_group_begin(comm);
        if (comm_all_gather(comm, &data, err) != STATUS_OK) {
            return STATUS_BUG;
        }
        return comm_group_end(comm, err);
    }
}

static bool run_different(struct comm *comm, void *arg)
{
    static const char *const texts[] = {
        [REDUCE_ROOT] = "rank 1 called reduce (sum) of 2 u32 to rank 2",
        [REDUCE_REDUCTION] = "rank 1 called reduce (avg) of 2 u32 to rank 0",
        [SCATTER_COUNT] = "rank 1 called reduce_scatter (max) of 3 u32",
        [ALL_TO_ALL_TYPE] = "rank 1 called all_to_all of 2 bf16",
        [ALL_TO_ALLV_TYPE] = "rank 1 called all_to_allv of i8",
        [ALL_TO_ALLV_COUNT] = "rank 1 sends 2 i32 to rank 2, which receives 1",
        [OPERATION] = "rank 1 called all_to_all of 3 u32",
        [IN_GROUP] = "rank 1 called all_gather of 3 u32",
    };
    enum difference difference = *(enum difference *)arg;
    bool sees_others = comm->rank == ODD && difference != ALL_TO_ALLV_COUNT;
    struct err err = {0};
    struct err again = {0};
    enum status status = call_differently(comm, difference, &err);

    return world_expects(comm, status, STATUS_INVALID, &err,
                         sees_others ? "but rank 0 called" : texts[difference]) &&
           world_expects(comm, comm_poll_error(comm, &again), STATUS_INVALID, &again, err.text) &&
           world_expects(comm, comm_send(comm, words, 1, COMM_U32, (comm->rank + 1) % 3, &again),
                         STATUS_INVALID, &again, err.text);
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

/* Rank 0 sends more than a channel holds, so that it is there when rank 1 refuses it. */
static bool run_other_message(struct comm *comm, void *arg)
{
    static const char text[] = "rank 0 sends 1048576 u8 to rank 1, which receives 1048576 i8";
    enum { COUNT = 1 << 20 };
    char *memory = arg;
    struct err err = {0};
    enum status status = comm->rank == 0 ? comm_send(comm, memory, COUNT, COMM_U8, 1, &err)
                                         : comm_recv(comm, memory + COUNT, COUNT, COMM_I8, 0, &err);

    return world_expects(comm, status, STATUS_INVALID, &err, text);
}

static void test_other_message(void **state)
{
    char *memory = mem_alloc(2, 1 << 20);
    struct world world;

    (void)state;
    assert_non_null(memory);
    world_init(&world, 2, 20 * 1000);
    assert_int_equal(world_run(&world, WORLD_THREADS, run_other_message, memory), 0);
    world_release(&world);
    free(memory);
}

/* Nobody meets the message: it is late, or its peer leaves, fails or is aborted. */
static void test_alone(void **state)
{
    struct world world;
    struct comm *comm;
    struct comm *peer;
    struct err err = {0};
    uint32_t word = 5;
    uint64_t began = clock_ns();

    (void)state;
    world_init(&world, 2, 50);
    comm = world_join(&world, 0);
    assert_int_equal(comm_recv(comm, words, 1, COMM_U32, 1, &err), STATUS_TIMEOUT);
    assert_non_null(strstr(err.text, "recv 1 on rank 0: rank 1 did not send within 50 ms; it has"));
    assert_true(clock_ns() - began >= 49 * 1000000);
    comm_destroy(&comm);
    world_release(&world);

    world_init(&world, 2, 20 * 1000);
    comm = world_join(&world, 0);
    peer = world_join(&world, 1);
    assert_int_equal(comm_send(peer, &word, 1, COMM_U32, 0, &err), STATUS_OK);
    assert_int_equal(comm_poll_error(comm, &err), STATUS_OK);
    comm_destroy(&peer);
    assert_int_equal(comm_recv(comm, words, 1, COMM_U32, 1, &err), STATUS_OK); /* what it sent */
    assert_int_equal(words[0], 5);
    assert_int_equal(comm_poll_error(comm, &err), STATUS_LINK);
    assert_string_equal(err.text, "rank 1 has left");
    assert_int_equal(comm_recv(comm, words, 1, COMM_U32, 1, &err), STATUS_LINK);
    assert_non_null(strstr(err.text, "recv 2 on rank 0: rank 1 has left"));
    comm_destroy(&comm);
    world_release(&world);
}

static void *receive(void *arg)
{
    static struct err err;

    return comm_recv(arg, words + 9, 1, COMM_U32, 0, &err) == STATUS_CANCELLED ? arg : NULL;
}

/* An abort wakes who waits for a message: of one rank, of the world. */
static void test_abort(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct world world;
        struct comm *comm;
        struct comm *peer;
        struct comm_shm_progress progress;
        struct err err = {0};
        pthread_t thread;
        void *result;

        world_init(&world, 2, 60 * 1000);
        comm = world_join(&world, 0);
        peer = world_join(&world, 1);
        pthread_create(&thread, NULL, receive, peer);
        do {
            comm_shm_progress_read(world.region, 1, &progress);
        } while (!progress.inside);
        assert_string_equal(progress.name, "recv");
        usleep(3000); /* asleep, most likely */
        if (i == 0) {
            comm_abort(peer);
        } else {
            comm_shm_abort(world.region);
        }
        pthread_join(thread, &result);
        assert_ptr_equal(result, peer);
        assert_int_equal(comm_poll_error(comm, &err), i == 0 ? STATUS_LINK : STATUS_CANCELLED);
        assert_int_equal(comm_poll_error(peer, &err), STATUS_CANCELLED);
        comm_destroy(&peer);
        comm_destroy(&comm);
        world_release(&world);
    }
}

/* Rank 0 sends first and then sums; rank 1 does the same in a group, the other way round. */
static bool run_crossed(struct comm *comm, void *arg)
{
    enum { COUNT = 1 << 20 };
    char *memory = arg;
    uint32_t word = 1;
    struct comm_data sum = data_of(&word, &word, 1, COMM_U32);
    struct err err = {0};
    enum status status;

    if (comm->rank == 0) {
        memset(memory, 0x33, COUNT);
        status = comm_send(comm, memory, COUNT, COMM_U8, 1, &err);
        status = status == STATUS_OK ? comm_all_reduce(comm, &sum, COMM_SUM, &err) : status;
    } else {
        comm_group_begin(comm);
        status = comm_all_reduce(comm, &sum, COMM_SUM, &err);
        if (status == STATUS_OK) {
            status = comm_recv(comm, memory + COUNT, COUNT, COMM_U8, 0, &err);
        }
        status = status == STATUS_OK ? comm_group_end(comm, &err) : status;
    }
    return world_expects(comm, status, STATUS_OK, &err, NULL) && word == 2 &&
           (comm->rank == 0 || memory[2 * COUNT - 1] == 0x33);
}

static void test_crossed(void **state)
{
    char *memory = mem_alloc(2, 1 << 20);
    struct world world;

    (void)state;
    assert_non_null(memory);
    world_init(&world, 2, 20 * 1000);
    assert_int_equal(world_run(&world, WORLD_THREADS, run_crossed, memory), 0);
    world_release(&world);
    free(memory);
}

static void test_capabilities(void **state)
{
    struct comm_capabilities can;
    struct comm *self = comm_self_create();
    struct world world;
    struct comm *comm;
    struct comm *peer;

    (void)state;
    comm_capabilities(self, &can);
    assert_string_equal(can.backend, "self");
    assert_int_equal(can.peers, 1);
    comm_destroy(&self);
    world_init(&world, 3, 1000);
    comm = world_join(&world, 0);
    peer = world_join(&world, 2);
    comm_capabilities(comm, &can);
    assert_string_equal(can.backend, "shm");
    assert_int_equal(can.n_ranks, 3);
    assert_int_equal(can.peers, 5);
    assert_int_equal(can.types, (1 << COMM_TYPE_COUNT) - 1);
    assert_int_equal(can.reductions, (1 << COMM_REDUCTION_COUNT) - 1);
    for (unsigned i = 1; i < COMM_OPERATION_COUNT; i++) {
        assert_true(can.operations >> i & 1);
        assert_non_null(comm_operation_name((enum comm_operation)i));
    }
    comm_destroy(&peer);
    comm_capabilities(comm, &can);
    assert_int_equal(can.peers, 1);
    comm_destroy(&comm);
    world_release(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_self_messages),
        cmocka_unit_test(test_different), cmocka_unit_test(test_other_message),
        cmocka_unit_test(test_alone),     cmocka_unit_test(test_abort),
        cmocka_unit_test(test_crossed),   cmocka_unit_test(test_capabilities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
