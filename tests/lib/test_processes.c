/* SPDX-License-Identifier: Apache-2.0 */
/* Worlds over processes that are killed or stopped in the middle of something: whoever waits gets
 * an error that names the rank, and the world works again. */
#include "scene.h"

#include <signal.h>

enum { N_RANKS = 3, COUNT = 1 << 16 };

/* Runs until its process is killed. */
static enum lockstep_status busy(struct lockstep_call *call)
{
    (void)call;
    for (;;) {
        usleep(10000);
    }
    return LOCKSTEP_OK;
}

static const struct lockstep_function functions[] = {{"busy", busy}};

static void make(struct scene *scene, uint32_t n, uint32_t stopped_ms)
{
    scene_devices(scene, n,
                  &(struct lockstep_device_config){
                      .own_process = true,
                      .stopped_ms = stopped_ms,
                      .memory_bytes = 64 << 20,
                      .functions = functions,
                      .n_functions = 1,
                  });
    scene_world(scene, &(struct lockstep_world_config){.restart_budget = 20});
    scene_ready(scene, 1);
}

static struct lockstep_device_info info_of(struct scene *scene, uint32_t rank)
{
    struct lockstep_device_info info;

    lockstep_device_info(scene->devices[rank], &info);
    return info;
}

static void send_signal(struct scene *scene, uint32_t rank, int number)
{
    int process = info_of(scene, rank).process;

    assert_true(process > 0);
    assert_int_equal(kill(process, number), 0);
}

/* An all_reduce that every device's process has been given, and that none can end before rank
 * stopped goes on. */
static struct lockstep_op *start_held(struct scene *scene, uint32_t stopped, uint32_t timeout_ms)
{
    const struct lockstep_options options = {.bytes = sizeof(options), .timeout_ms = timeout_ms};
    struct lockstep_tensor *t[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;

    scene_ones(scene, COUNT, t);
    send_signal(scene, stopped, SIGSTOP);
    EXPECT(LOCKSTEP_OK,
           lockstep_all_reduce(scene->world, t, t, LOCKSTEP_SUM, &options, &op, &error), &error);
    for (uint32_t r = 0; r < scene->n; r++) {
        scene_await_queued(scene, r, 0);
    }
    scene_drop(scene, t);
    return op;
}

static void test_killed_in_a_collective(void **state)
{
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op;

    (void)state;
    make(&scene, N_RANKS, UINT32_MAX);
    op = start_held(&scene, 2, SCENE_WAIT_MS);
    assert_int_equal(lockstep_op_poll(op, NULL), LOCKSTEP_PENDING);
    send_signal(&scene, 1, SIGKILL);
    send_signal(&scene, 2, SIGCONT);
    EXPECT(LOCKSTEP_REBUILT, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    EXPECT_TEXT("rank 1 lost its context (device dev1, generation 1)", &error);
    EXPECT_TEXT("died of signal 9", &error);
    assert_int_equal(lockstep_op_rank(op, 1, NULL), LOCKSTEP_DEVICE);
    lockstep_op_release(&op);
    scene_ready(&scene, 2);
    assert_int_equal(info_of(&scene, 1).generation, 2);
    assert_int_equal(info_of(&scene, 0).generation, 1); /* its process lives */
    scene_works(&scene);
    scene_release(&scene);
}

/* Noticed long before the deadline, and whose fault it is. */
static void test_stopped_in_a_collective(void **state)
{
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op;

    (void)state;
    make(&scene, N_RANKS, 300);
    op = start_held(&scene, 1, UINT32_MAX);
    EXPECT(LOCKSTEP_REBUILT, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    EXPECT_TEXT("rank 1 lost its context", &error);
    EXPECT_TEXT("was stopped (by a signal) for 300 ms", &error);
    lockstep_op_release(&op);
    scene_ready(&scene, 2);
    assert_int_equal(info_of(&scene, 1).generation, 2);
    assert_int_equal(info_of(&scene, 2).generation, 1);
    scene_works(&scene);
    scene_release(&scene);
}

/* Where stopping is allowed the deadline ends the operation, and the rank that did not is named. */
static void test_stopped_until_the_deadline(void **state)
{
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op;

    (void)state;
    make(&scene, N_RANKS, UINT32_MAX);
    op = start_held(&scene, 1, 100);
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    EXPECT_TEXT("rank 1: its process", &error);
    EXPECT_TEXT("was stopped (by a signal) 1000 ms after the deadline", &error);
    assert_int_equal(lockstep_op_rank(op, 1, NULL), LOCKSTEP_DEVICE);
    lockstep_op_release(&op);
    scene_ready(&scene, 2);
    scene_works(&scene);
    scene_release(&scene);
}

/* One that goes on in time has cost nothing. */
static void test_stopped_for_a_moment(void **state)
{
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op;

    (void)state;
    make(&scene, N_RANKS, UINT32_MAX);
    op = start_held(&scene, 1, SCENE_WAIT_MS);
    EXPECT(LOCKSTEP_PENDING, lockstep_op_wait(op, 150, &error), &error);
    send_signal(&scene, 1, SIGCONT);
    EXPECT(LOCKSTEP_OK, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    lockstep_op_release(&op);
    assert_int_equal(scene_info(&scene).epoch, 1);
    scene_works(&scene);
    scene_release(&scene);
}

/* Stopped while the world is built anew: found there too. */
static void test_stopped_in_a_rebuild(void **state)
{
    struct scene scene = {0};

    (void)state;
    make(&scene, 2, 300);
    send_signal(&scene, 0, SIGSTOP);
    send_signal(&scene, 1, SIGKILL);
    scene_ready(&scene, 3); /* 2 cannot be built */
    assert_int_equal(info_of(&scene, 0).generation, 2);
    scene_works(&scene);
    scene_release(&scene);
}

static void test_all_killed_again_and_again(void **state)
{
    struct lockstep_error error = {0};
    struct scene scene = {0};

    (void)state;
    make(&scene, N_RANKS, 0);
    for (int i = 0; i < 3; i++) {
        uint64_t generations[N_RANKS];

        for (uint32_t r = 0; r < N_RANKS; r++) {
            generations[r] = info_of(&scene, r).generation;
            send_signal(&scene, r, SIGKILL);
        }
        for (uint32_t r = 0; r < N_RANKS; r++) { /* and the next round strikes into the rebuild */
            EXPECT(
                LOCKSTEP_OK,
                lockstep_device_wait(scene.devices[r], generations[r] + 1, SCENE_WAIT_MS, &error),
                &error);
        }
    }
    scene_ready(&scene, 2);
    scene_works(&scene);
    scene_release(&scene);
}

/* A function that does not return: its waiter has the deadline, the device a new process. */
static void test_function_that_does_not_return(void **state)
{
    const struct lockstep_options options = {.bytes = sizeof(options), .timeout_ms = 50};
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op = NULL;

    (void)state;
    make(&scene, 2, 0);
    EXPECT(LOCKSTEP_OK, lockstep_call(scene.devices[1], "busy", NULL, &options, &op, &error),
           &error);
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    EXPECT_TEXT("function 'busy' still runs on device dev1", &error);
    assert_null(lockstep_op_result(op, NULL));
    EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene.devices[1], 2, SCENE_WAIT_MS, &error), &error);
    assert_non_null(strstr(scene_info(&scene).reason, "was still busy 1000 ms after the deadline"));
    lockstep_op_release(&op);
    scene_ready(&scene, 2);
    scene_works(&scene);
    scene_release(&scene);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_in_a_collective),
        cmocka_unit_test(test_stopped_in_a_collective),
        cmocka_unit_test(test_stopped_until_the_deadline),
        cmocka_unit_test(test_stopped_for_a_moment),
        cmocka_unit_test(test_stopped_in_a_rebuild),
        cmocka_unit_test(test_all_killed_again_and_again),
        cmocka_unit_test(test_function_that_does_not_return),
    };

    lockstep_device_main(argc, argv, functions, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
