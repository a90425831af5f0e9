/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a world: built, broken by a device, rebuilt; stale handles; deadlines; aborts; the
 * restart budget; watches. */
#include "scene.h"

#include <poll.h>
#include <pthread.h>

static void test_builds_and_works(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 16};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct scene scene = {0};

        scene_make(&scene, sizes[i], LOCKSTEP_CPU);
        scene_works(&scene);
        assert_int_equal(scene_info(&scene).epoch, 1);
        scene_release(&scene);
    }
}

static void test_lost_device_bumps_generation_and_heals(void **state)
{
    struct scene scene = {0};
    struct lockstep_tensor *tensors[LOCKSTEP_RANKS_MAX];
    struct lockstep_device_info info;
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;

    (void)state;
    scene_make(&scene, 3, LOCKSTEP_SIM);
    scene_ones(&scene, 8, tensors);
    scene_works(&scene);
    scene_fault(&scene, 1, LOCKSTEP_SIM_POISON, 0, 0);
    scene_ready(&scene, 2);
    lockstep_device_info(scene.devices[1], &info);
    assert_int_equal(info.generation, 2);
    lockstep_device_info(scene.devices[0], &info);
    assert_int_equal(info.generation, 1); /* its context lives */

    EXPECT(LOCKSTEP_STALE,
           lockstep_all_reduce(scene.world, tensors, tensors, LOCKSTEP_SUM, NULL, &op, &error),
           &error);
    EXPECT_TEXT("rank 1", &error);
    EXPECT_TEXT("generation 1", &error);
    assert_null(op);
    assert_null(lockstep_tensor_data(tensors[1], &error));
    assert_non_null(lockstep_tensor_data(tensors[0], &error));
    scene_works(&scene);
    scene_drop(&scene, tensors);
    scene_release(&scene);
}

static void test_in_flight_ends_with_rebuilt(void **state)
{
    struct scene scene = {0};
    struct lockstep_tensor *tensors[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *first = NULL;
    struct lockstep_op *second = NULL;

    (void)state;
    scene_make(&scene, 3, LOCKSTEP_SIM);
    scene_ones(&scene, 8, tensors);
    scene_fault(&scene, 2, LOCKSTEP_SIM_STALL, 1, SCENE_WAIT_MS);
    EXPECT(LOCKSTEP_OK,
           lockstep_all_reduce(scene.world, tensors, tensors, LOCKSTEP_SUM, NULL, &first, &error),
           &error);
    EXPECT(LOCKSTEP_OK, lockstep_barrier(scene.world, NULL, &second, &error), &error);
    scene_await_queued(&scene, 2, 1);
    assert_int_equal(lockstep_op_poll(first, NULL), LOCKSTEP_PENDING);
    lockstep_device_reset(scene.devices[2], "on purpose");
    EXPECT(LOCKSTEP_REBUILT, lockstep_op_wait(first, SCENE_WAIT_MS, &error), &error);
    EXPECT_TEXT("rank 2 lost its context", &error);
    EXPECT_TEXT("on purpose", &error);
    EXPECT(LOCKSTEP_REBUILT, lockstep_op_wait(second, SCENE_WAIT_MS, &error), &error);
    assert_int_equal(lockstep_op_rank(first, 0, NULL), LOCKSTEP_CANCELLED);
    assert_int_equal(lockstep_op_rank(first, 3, NULL), LOCKSTEP_INVALID);
    scene_ready(&scene, 2);
    lockstep_op_release(&first);
    lockstep_op_release(&second);
    scene_drop(&scene, tensors);
    scene_works(&scene);
    scene_release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builds_and_works),
        cmocka_unit_test(test_lost_device_bumps_generation_and_heals),
        cmocka_unit_test(test_in_flight_ends_with_rebuilt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
