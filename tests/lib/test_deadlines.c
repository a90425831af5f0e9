/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever waits gets an end: operations that queue for a context that is not up, up to the queue's
 * limit and their deadlines; a function of the program that does not return; groups of which a part
 * fails. */
#include "scene.h"

#include <semaphore.h>
#include <stdatomic.h>

enum { SHORT_MS = 50, LONG_MS = SCENE_WAIT_MS, N_RANKS = 3 };

static sem_t let_go;            /* of functions that run "held" */
static _Atomic uint32_t n_runs; /* of "count" */

static enum lockstep_status held(struct lockstep_call *call)
{
    (void)call;
    while (sem_wait(&let_go) != 0) {
    }
    return LOCKSTEP_OK;
}

static enum lockstep_status count(struct lockstep_call *call)
{
    (void)call;
    atomic_fetch_add(&n_runs, 1);
    return LOCKSTEP_OK;
}

static const struct lockstep_function functions[] = {{"held", held}, {"count", count}};

static const struct lockstep_device_config model = {
    .backend = LOCKSTEP_SIM,
    .queue_limit = 3,
    .functions = functions,
    .n_functions = sizeof(functions) / sizeof(functions[0]),
};

static struct lockstep_op *call(struct scene *scene, uint32_t rank, const char *function,
                                uint32_t timeout_ms)
{
    const struct lockstep_options options = {.bytes = sizeof(options), .timeout_ms = timeout_ms};
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;

    EXPECT(LOCKSTEP_OK, lockstep_call(scene->devices[rank], function, NULL, &options, &op, &error),
           &error);
    return op;
}

static void ends(struct lockstep_op *op, enum lockstep_status status, const char *text)
{
    struct lockstep_error error = {0};

    EXPECT(status, lockstep_op_wait(op, LONG_MS, &error), &error);
    EXPECT_TEXT(text, &error);
    EXPECT(status, lockstep_op_poll(op, NULL), &error); /* and stays so */
    lockstep_op_release(&op);
}

/* A device whose context is down and does not come up until it is let. */
static void bring_down(struct scene *scene)
{
    struct lockstep_error error = {0};

    scene_devices(scene, 1, &model);
    EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene->devices[0], 1, LONG_MS, &error), &error);
    scene_fault(scene, 0, LOCKSTEP_SIM_SLOW_START, 0, LONG_MS);
    lockstep_device_reset(scene->devices[0], "to be down");
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_device_wait(scene->devices[0], 2, 20, &error), &error);
    EXPECT_TEXT("device dev0 was not up in generation 2 within 20 ms: to be down", &error);
}

static void bring_up(struct scene *scene)
{
    scene_fault(scene, 0, LOCKSTEP_SIM_SLOW_START, 0, 0);
}

static void test_the_queue_has_a_limit(void **state)
{
    struct lockstep_error error = {0};
    struct lockstep_op *refused = NULL;
    struct lockstep_op *ops[3];
    struct lockstep_device_info info;
    struct scene scene = {0};

    (void)state;
    atomic_store(&n_runs, 0);
    bring_down(&scene);
    for (int i = 0; i < 3; i++) {
        ops[i] = call(&scene, 0, "count", LONG_MS);
    }
    lockstep_device_info(scene.devices[0], &info);
    assert_int_equal(info.n_queued, 3);
    EXPECT(LOCKSTEP_LIMIT, lockstep_call(scene.devices[0], "count", NULL, NULL, &refused, &error),
           &error);
    EXPECT_TEXT("device dev0: 3 operations wait already", &error);
    assert_null(refused);
    bring_up(&scene);
    for (int i = 0; i < 3; i++) {
        ends(ops[i], LOCKSTEP_OK, "");
    }
    assert_int_equal(atomic_load(&n_runs), 3);
    ends(call(&scene, 0, "count", LONG_MS), LOCKSTEP_OK, ""); /* there is room again */
    scene_release(&scene);
}

static void on_done(void *arg, struct lockstep_op *op, enum lockstep_status status)
{
    (void)op;
    assert_int_equal(status, LOCKSTEP_TIMEOUT);
    sem_post(arg);
}

/* Each has its own deadline, also where nobody waits. */
static void test_deadlines_in_the_queue(void **state)
{
    struct lockstep_error error = {0};
    struct lockstep_options options = {
        .bytes = sizeof(options), .timeout_ms = SHORT_MS, .done = on_done};
    struct lockstep_tensor *tensor = NULL;
    struct lockstep_op *slow;
    struct scene scene = {0};
    sem_t told;

    (void)state;
    atomic_store(&n_runs, 0);
    sem_init(&told, 0, 0);
    options.arg = &told;
    bring_down(&scene);
    slow = call(&scene, 0, "count", LONG_MS);
    EXPECT(LOCKSTEP_OK, lockstep_call(scene.devices[0], "count", NULL, &options, NULL, &error),
           &error);
    ends(call(&scene, 0, "count", SHORT_MS), LOCKSTEP_TIMEOUT, "before");
    while (sem_wait(&told) != 0) {
    }
    EXPECT(LOCKSTEP_TIMEOUT,
           lockstep_tensor_create(scene.devices[0], LOCKSTEP_F32, 1, SHORT_MS, &tensor, &error),
           &error);
    EXPECT_TEXT("device dev0 was not up", &error);
    assert_int_equal(lockstep_op_poll(slow, NULL), LOCKSTEP_PENDING);
    bring_up(&scene);
    ends(slow, LOCKSTEP_OK, "");
    assert_int_equal(atomic_load(&n_runs), 1); /* what had ended has not run */
    sem_destroy(&told);
    scene_release(&scene);
}

/* What waits when the device is failed, or destroyed, ends too. */
static void test_the_queue_of_a_device_that_ends(void **state)
{
    struct scene scene = {0};
    struct lockstep_op *op;

    (void)state;
    bring_down(&scene);
    op = call(&scene, 0, "count", LONG_MS);
    scene_fault(&scene, 0, LOCKSTEP_SIM_FAIL_START, 3, 0);
    bring_up(&scene);
    ends(op, LOCKSTEP_DEVICE, "did not start");
    scene_release(&scene);
    bring_down(&scene);
    op = call(&scene, 0, "count", LONG_MS);
    lockstep_device_destroy(&scene.devices[0]);
    ends(op, LOCKSTEP_CANCELLED, "destroyed");
}

/* A thread in a function of the program cannot be ended, but no waiter depends on it. */
static void test_a_function_that_does_not_return(void **state)
{
    const struct lockstep_options options = {.bytes = sizeof(options), .timeout_ms = SHORT_MS};
    struct lockstep_tensor *t[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *stuck;
    struct lockstep_op *behind;
    struct lockstep_op *op = NULL;
    struct scene scene = {0};
    float value;

    (void)state;
    scene_devices(&scene, N_RANKS, &model);
    scene_world(&scene, &(struct lockstep_world_config){0});
    scene_ready(&scene, 1);
    scene_ones(&scene, 8, t);
    stuck = call(&scene, 1, "held", SHORT_MS);
    scene_await_queued(&scene, 1, 0);
    behind = call(&scene, 1, "count", SHORT_MS);
    ends(stuck, LOCKSTEP_TIMEOUT, "function 'held' still runs on device dev1");
    ends(behind, LOCKSTEP_TIMEOUT, "behind function 'held', which device dev1 still runs");
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_tensor_read(t[1], 0, 1, &value, SHORT_MS, &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_all_reduce(scene.world, t, t, LOCKSTEP_SUM, &options, &op, &error),
           &error);
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_op_wait(op, LONG_MS, &error), &error);
    EXPECT_TEXT("rank 1: all_reduce was withdrawn before it began, behind function 'held'", &error);
    lockstep_op_release(&op);
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_world_wait(scene.world, 2, SHORT_MS, &error), &error);
    sem_post(&let_go);
    scene_ready(&scene, 2);
    scene_drop(&scene, t);
    scene_works(&scene);
    scene_release(&scene);
}

/* The whole group fails with the first that does; each of its operations says so, and one after it
 * too. */
static void test_two_that_fail_in_a_group(void **state)
{
    struct lockstep_options options = {.bytes = sizeof(options)};
    struct lockstep_tensor *t[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *ops[4] = {NULL};
    struct scene scene = {0};

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_SIM);
    scene_ones(&scene, 8, t);
    EXPECT(LOCKSTEP_OK, lockstep_group_begin(scene.world, &options.group, &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_send(scene.world, 0, 1, t[0], &options, &ops[0], &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_recv(scene.world, 1, 0, t[1], &options, &ops[1], &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_send(scene.world, 2, 0, t[2], &options, &ops[2], &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_recv(scene.world, 0, 2, t[0], &options, &ops[3], &error), &error);
    scene_fault(&scene, 0, LOCKSTEP_SIM_ERROR, 1, 0);
    scene_fault(&scene, 1, LOCKSTEP_SIM_ERROR, 1, 0);
    EXPECT(LOCKSTEP_OK, lockstep_group_end(&options.group, &error), &error);
    for (int i = 0; i < 4; i++) {
        enum lockstep_status status = lockstep_op_wait(ops[i], LONG_MS, &error);

        assert_int_not_equal(status, LOCKSTEP_PENDING);
        if (i != 2 || status != LOCKSTEP_OK) { /* rank 2 may have sent its own before */
            assert_int_not_equal(status, LOCKSTEP_OK);
            EXPECT_TEXT("; rank ", &error);
        }
        lockstep_op_release(&ops[i]);
    }
    scene_ready(&scene, 2);
    scene_drop(&scene, t);
    scene_works(&scene);
    scene_release(&scene);
}

/* One that is refused is not part of the group; the others are sent. */
static void test_one_that_is_refused_in_a_group(void **state)
{
    struct lockstep_options options = {.bytes = sizeof(options)};
    struct lockstep_tensor *t[LOCKSTEP_RANKS_MAX];
    struct lockstep_tensor *longer;
    struct lockstep_tensor *odd[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *ops[3] = {NULL};
    struct scene scene = {0};

    (void)state;
    scene_make(&scene, N_RANKS, LOCKSTEP_CPU);
    scene_ones(&scene, 8, t);
    longer = scene_tensor(&scene, 1, LOCKSTEP_F32, 9);
    memcpy(odd, t, sizeof(odd));
    odd[1] = longer;
    EXPECT(LOCKSTEP_OK, lockstep_group_begin(scene.world, &options.group, &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_send(scene.world, 0, 1, t[0], &options, &ops[0], &error), &error);
    EXPECT(LOCKSTEP_INVALID,
           lockstep_all_reduce(scene.world, odd, odd, LOCKSTEP_SUM, &options, &ops[1], &error),
           &error);
    EXPECT_TEXT("rank 1: in has 9 elements", &error);
    EXPECT(LOCKSTEP_INVALID,
           lockstep_recv(scene.world, 1, N_RANKS, t[1], &options, &ops[1], &error), &error);
    assert_null(ops[1]);
    EXPECT(LOCKSTEP_OK, lockstep_recv(scene.world, 1, 0, t[1], &options, &ops[2], &error), &error);
    EXPECT(LOCKSTEP_OK, lockstep_group_end(&options.group, &error), &error);
    ends(ops[0], LOCKSTEP_OK, "");
    ends(ops[2], LOCKSTEP_OK, "");
    assert_int_equal((int)((float *)lockstep_tensor_data(t[1], &error))[7], 1);
    lockstep_tensor_destroy(&longer);
    scene_drop(&scene, t);
    assert_int_equal(scene_info(&scene).epoch, 1);
    scene_release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_queue_has_a_limit),
        cmocka_unit_test(test_deadlines_in_the_queue),
        cmocka_unit_test(test_the_queue_of_a_device_that_ends),
        cmocka_unit_test(test_a_function_that_does_not_return),
        cmocka_unit_test(test_two_that_fail_in_a_group),
        cmocka_unit_test(test_one_that_is_refused_in_a_group),
    };

    sem_init(&let_go, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
