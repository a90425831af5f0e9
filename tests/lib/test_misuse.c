/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused before anything is sent, by name; waiting where one must not; an abort and a
 * watch from other threads. After each refusal the world still works. */
#include "scene.h"

#include <poll.h>
#include <pthread.h>

enum { N_RANKS = 3, COUNT = 6, LONG_MS = SCENE_WAIT_MS };

/* Fails the test unless the call was refused with that text and nothing of it is in flight. */
static void check_refused(struct scene *scene, const char *text, enum lockstep_status status,
                          struct lockstep_op *const *op, const struct lockstep_error *error)
{
    EXPECT(LOCKSTEP_INVALID, status, error);
    EXPECT_TEXT(text, error);
    assert_null(*op);
    assert_int_equal(scene_info(scene).n_in_flight, 0);
}

static void test_arguments(void **state)
{
    const struct lockstep_options no_size = {0};
    struct lockstep_tensor *t[N_RANKS];
    struct lockstep_tensor *odd[N_RANKS];
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    struct scene scene = {0};

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_CPU);
    scene_ones(&scene, COUNT, t);
    memcpy(odd, t, sizeof(odd));
    check_refused(&scene, "the world is NULL", lockstep_barrier(NULL, NULL, &op, &error), &op,
                  &error);
    check_refused(&scene, "lockstep_options.bytes is 0",
                  lockstep_barrier(scene.world, &no_size, &op, &error), &op, &error);
    check_refused(&scene, "rank 0: in is NULL",
                  lockstep_all_reduce(scene.world, NULL, t, LOCKSTEP_SUM, NULL, &op, &error), &op,
                  &error);
    check_refused(
        &scene, "99 is no reduction",
        lockstep_all_reduce(scene.world, t, t, (enum lockstep_reduction)99, NULL, &op, &error), &op,
        &error);
    check_refused(&scene, "-1 is no reduction",
                  lockstep_all_reduce(scene.world, t, t, (enum lockstep_reduction)UINT32_MAX, NULL,
                                      &op, &error),
                  &op, &error);
    check_refused(&scene, "premul_sum without factors",
                  lockstep_all_reduce(scene.world, t, t, LOCKSTEP_PREMUL_SUM, NULL, &op, &error),
                  &op, &error);
    check_refused(&scene, "root 3, but the world has ranks 0 to 2",
                  lockstep_broadcast(scene.world, t, t, 3, NULL, &op, &error), &op, &error);
    check_refused(&scene, "root 4294967295, but",
                  lockstep_broadcast(scene.world, t, t, UINT32_MAX, NULL, &op, &error), &op,
                  &error);
    check_refused(&scene, "root 4294967295, but",
                  lockstep_reduce(scene.world, t, t, LOCKSTEP_SUM, UINT32_MAX, NULL, &op, &error),
                  &op, &error);
    check_refused(&scene, "peer 3, but", lockstep_send(scene.world, 0, 3, t[0], NULL, &op, &error),
                  &op, &error);
    check_refused(&scene, "rank 1 with itself",
                  lockstep_send(scene.world, 1, 1, t[1], NULL, &op, &error), &op, &error);
    odd[1] = NULL;
    check_refused(&scene, "rank 1: in is NULL",
                  lockstep_all_reduce(scene.world, odd, t, LOCKSTEP_SUM, NULL, &op, &error), &op,
                  &error);
    odd[1] = t[2];
    check_refused(&scene, "rank 1: in is on device dev2, not on dev1",
                  lockstep_all_reduce(scene.world, odd, t, LOCKSTEP_SUM, NULL, &op, &error), &op,
                  &error);
    scene_works(&scene);
    scene_drop(&scene, t);
    scene_release(&scene);
}

/* One rank's handle differs from the others'. */
static void test_handles(void **state)
{
    struct lockstep_tensor *t[N_RANKS];
    struct lockstep_tensor *odd[N_RANKS];
    struct lockstep_tensor *slice = NULL;
    struct lockstep_op *op = NULL;
    struct lockstep_error error = {0};
    struct scene scene = {0};

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_SIM);
    scene_ones(&scene, COUNT, t);
    memcpy(odd, t, sizeof(odd));
    odd[2] = scene_tensor(&scene, 2, LOCKSTEP_I32, COUNT);
    check_refused(&scene, "rank 2: in is i32, but rank 0 has f32",
                  lockstep_all_reduce(scene.world, odd, t, LOCKSTEP_SUM, NULL, &op, &error), &op,
                  &error);
    lockstep_tensor_destroy(&odd[2]);
    odd[2] = scene_tensor(&scene, 2, LOCKSTEP_F32, COUNT + 1);
    check_refused(&scene, "rank 2: in has 7 elements, but 6 are needed",
                  lockstep_all_reduce(scene.world, odd, t, LOCKSTEP_SUM, NULL, &op, &error), &op,
                  &error);
    check_refused(&scene, "no multiple of the 3 ranks",
                  lockstep_all_to_all(scene.world, odd, t, NULL, &op, &error), &op, &error);
    lockstep_tensor_destroy(&odd[2]);
    odd[2] = scene_tensor(&scene, 2, LOCKSTEP_F32, 2 * COUNT);
    EXPECT(LOCKSTEP_INVALID, lockstep_tensor_slice(odd[2], COUNT, COUNT + 1, &slice, &error),
           &error);
    assert_null(slice);
    lockstep_tensor_destroy(&odd[2]);
    lockstep_device_reset(scene.devices[2], "to make a handle stale");
    scene_ready(&scene, 2);
    error = (struct lockstep_error){0};
    EXPECT(LOCKSTEP_STALE, lockstep_all_reduce(scene.world, t, t, LOCKSTEP_SUM, NULL, NULL, &error),
           &error);
    EXPECT_TEXT("rank 2: in", &error);
    assert_null(lockstep_tensor_data(t[2], &error));
    assert_non_null(lockstep_tensor_data(t[0], &error));
    scene_works(&scene);
    scene_drop(&scene, t);
    scene_release(&scene);
}

struct called {
    struct lockstep_world *world;
    struct lockstep_op *next;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    enum lockstep_status status;
    enum lockstep_status waited;
};

static void on_done(void *arg, struct lockstep_op *op, enum lockstep_status status)
{
    struct called *called = arg;
    enum lockstep_status waited = lockstep_barrier(called->world, NULL, &called->next, NULL);

    (void)op;
    if (waited == LOCKSTEP_OK) {
        waited = lockstep_op_wait(called->next, LONG_MS, NULL);
    }
    pthread_mutex_lock(&called->lock);
    called->status = status;
    called->waited = waited;
    called->is_done = true;
    pthread_cond_signal(&called->done);
    pthread_mutex_unlock(&called->lock);
}

/* The result by callback, which may start another operation; to wait there is refused. */
static void test_callback(void **state)
{
    struct called called = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    const struct lockstep_options options = {
        .bytes = sizeof(options), .done = on_done, .arg = &called};
    struct lockstep_error error = {0};
    struct scene scene = {0};

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_SIM);
    scene_fault(&scene, 2, LOCKSTEP_SIM_SLOW, 0, 50); /* so that there is something to wait for */
    called.world = scene.world;
    EXPECT(LOCKSTEP_OK, lockstep_barrier(scene.world, &options, NULL, &error), &error);
    pthread_mutex_lock(&called.lock);
    while (!called.is_done) {
        pthread_cond_wait(&called.done, &called.lock);
    }
    pthread_mutex_unlock(&called.lock);
    assert_int_equal(called.status, LOCKSTEP_OK);
    assert_int_equal(called.waited, LOCKSTEP_INVALID);
    EXPECT(LOCKSTEP_OK, lockstep_op_wait(called.next, LONG_MS, &error), &error);
    lockstep_op_release(&called.next);
    scene_release(&scene);
}

static void *abort_world(void *arg)
{
    lockstep_world_abort(arg);
    return NULL;
}

/* An operation that would not end is ended by another thread, and the world is built anew. */
static void test_abort(void **state)
{
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    struct scene scene = {0};
    pthread_t thread;

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_SIM);
    scene_fault(&scene, 1, LOCKSTEP_SIM_STALL, 1, LONG_MS);
    EXPECT(LOCKSTEP_OK, lockstep_barrier(scene.world, NULL, &op, &error), &error);
    EXPECT(LOCKSTEP_PENDING, lockstep_op_wait(op, 20, &error), &error);
    assert_int_equal(pthread_create(&thread, NULL, abort_world, scene.world), 0);
    EXPECT(LOCKSTEP_CANCELLED, lockstep_op_wait(op, LONG_MS, &error), &error);
    assert_int_equal(pthread_join(thread, NULL), 0);
    lockstep_op_release(&op);
    scene_ready(&scene, 2);
    scene_works(&scene);
    scene_release(&scene);
}

/* A descriptor that becomes readable, and what can be taken then: the generation has risen. */
static void test_watch(void **state)
{
    struct lockstep_watch *watch = NULL;
    struct lockstep_error error = {0};
    struct lockstep_event event = {0};
    struct scene scene = {0};
    struct pollfd fd = {.events = POLLIN};

    (void)state;
    scene_make(&scene, 2, LOCKSTEP_CPU);
    EXPECT(LOCKSTEP_OK, lockstep_watch_create(scene.devices[1], NULL, NULL, NULL, &watch, &error),
           &error);
    assert_true(lockstep_watch_next(watch, &event));
    assert_int_equal(event.generation, 1);
    assert_false(lockstep_watch_next(watch, &event));
    fd.fd = lockstep_watch_fd(watch);
    assert_int_equal(poll(&fd, 1, 0), 0);
    lockstep_device_reset(scene.devices[1], "to be seen");
    while (event.generation < 2) {
        assert_int_equal(poll(&fd, 1, LONG_MS), 1);
        assert_true(lockstep_watch_next(watch, &event));
    }
    assert_int_equal(event.device_state, LOCKSTEP_DEVICE_UP);
    lockstep_watch_destroy(&watch);
    scene_release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_handles),
        cmocka_unit_test(test_callback),  cmocka_unit_test(test_abort),
        cmocka_unit_test(test_watch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
