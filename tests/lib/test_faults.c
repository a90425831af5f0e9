/* SPDX-License-Identifier: Apache-2.0 */
/* Every fault of a simulated device in every state of a world in which something can happen, two at
 * once, and again while the world is rebuilt: it always works again, or fails with the reason when
 * the budget is used up, and nothing that was in flight stays. */
#include "scene.h"

enum { N_RANKS = 3, LONG_MS = SCENE_WAIT_MS };

/* Brings a world of three into a state that lasts until let go. Rank 0 is what holds it there. */
struct hold {
    const char *name;
    enum lockstep_world_state state;
    uint32_t stall_at; /* operation of rank 0 that does not end; 0: none */
    bool slow_start;
    uint32_t n_rebuilds; /* that came before */
};

static const struct hold holds[] = {
    {"spawning", LOCKSTEP_WORLD_SPAWNING, .slow_start = true},
    {"comm_init", LOCKSTEP_WORLD_COMM_INIT, .stall_at = 1},
    {"sanity", LOCKSTEP_WORLD_SANITY, .stall_at = 2},
    {"ready", LOCKSTEP_WORLD_READY},
    {"ready, in flight", LOCKSTEP_WORLD_READY, .stall_at = 3},
    {"rebuilding", LOCKSTEP_WORLD_REBUILDING, .n_rebuilds = 4}, /* it waits before the fourth */
};

struct fault {
    const char *name;
    enum lockstep_sim_kind kind;
    uint32_t n;
    uint32_t ms;
    bool reset; /* and the context is lost */
};

static const struct fault faults[] = {
    {"poison", LOCKSTEP_SIM_POISON, 0, 0, false},
    {"poison at the next", LOCKSTEP_SIM_POISON, 1, 0, false},
    {"error at the next", LOCKSTEP_SIM_ERROR, 1, 0, false},
    {"slow", LOCKSTEP_SIM_SLOW, 0, 1, false},
    {"lost, stall", LOCKSTEP_SIM_STALL, 1, 20, true},
    {"fail start, lost", LOCKSTEP_SIM_FAIL_START, 2, 0, true},
    {"slow start, lost", LOCKSTEP_SIM_SLOW_START, 0, 10, true},
};

static void bring(struct scene *scene, const struct hold *hold, struct lockstep_tensor **tensors,
                  struct lockstep_op **ret_op)
{
    struct lockstep_error error = {0};

    *ret_op = NULL;
    scene_devices(scene, N_RANKS, &(struct lockstep_device_config){.backend = LOCKSTEP_SIM});
    for (uint32_t r = 0; r < N_RANKS; r++) {
        EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene->devices[r], 1, LONG_MS, &error), &error);
    }
    if (hold->slow_start) {
        scene_fault(scene, 0, LOCKSTEP_SIM_SLOW_START, 0, LONG_MS);
        lockstep_device_reset(scene->devices[0], "to be slow");
    }
    if (hold->stall_at > 0) {
        scene_fault(scene, 0, LOCKSTEP_SIM_STALL, hold->stall_at, LONG_MS);
    }
    scene_world(scene, &(struct lockstep_world_config){.restart_budget = 20});
    for (uint32_t i = 0; i < hold->n_rebuilds; i++) {
        scene_ready(scene, i + 1);
        lockstep_device_reset(scene->devices[1], "before");
        if (i + 1 < hold->n_rebuilds) {
            scene_ready(scene, i + 2);
        }
    }
    scene_await(scene, hold->state, 1);
    if (hold->state == LOCKSTEP_WORLD_READY && hold->stall_at > 0) {
        scene_ones(scene, 8, tensors);
        EXPECT(
            LOCKSTEP_OK,
            lockstep_all_reduce(scene->world, tensors, tensors, LOCKSTEP_SUM, NULL, ret_op, &error),
            &error);
        scene_drop(scene, tensors);
        scene_await_queued(scene, 0, 0);
    }
}

static void let_go(struct scene *scene, const struct hold *hold)
{
    if (hold->slow_start) {
        scene_fault(scene, 0, LOCKSTEP_SIM_SLOW_START, 0, 0);
    }
    if (hold->stall_at > 0) { /* a stalled operation ends with the epoch, or with its context */
        scene_fault(scene, 0, LOCKSTEP_SIM_STALL, 0, 0);
        lockstep_device_reset(scene->devices[0], "let go");
    }
}

static void strike(struct scene *scene, uint32_t rank, const struct fault *fault)
{
    scene_fault(scene, rank, fault->kind, fault->n, fault->ms);
    if (fault->reset) {
        lockstep_device_reset(scene->devices[rank], fault->name);
    }
}

/* Whatever was armed has struck, or strikes now, and the world works. */
static void heals(struct scene *scene)
{
    struct lockstep_error error = {0};
    int n_good = 0;

    for (int tries = 0; tries < 20 && n_good < 2; tries++) {
        struct lockstep_op *op = NULL;
        enum lockstep_status status = lockstep_world_wait(scene->world, 0, SCENE_WAIT_MS, &error);

        if (status == LOCKSTEP_OK) {
            status = lockstep_barrier(scene->world, NULL, &op, &error);
        }
        if (status == LOCKSTEP_OK) {
            status = lockstep_op_wait(op, SCENE_WAIT_MS, &error);
        }
        lockstep_op_release(&op);
        n_good = status == LOCKSTEP_OK ? n_good + 1 : 0;
        assert_int_not_equal(status, LOCKSTEP_PENDING);
        assert_int_not_equal(status, LOCKSTEP_TIMEOUT);
    }
    assert_int_equal(n_good, 2);
    scene_works(scene);
}

static void one(const struct hold *hold, const struct fault *fault, uint32_t victims)
{
    struct lockstep_tensor *tensors[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct scene scene = {0};
    struct lockstep_op *op;

    bring(&scene, hold, tensors, &op);
    for (uint32_t r = 0; r < N_RANKS; r++) {
        if ((victims & 1u << r) != 0) {
            strike(&scene, r, fault);
        }
    }
    let_go(&scene, hold);
    if (op != NULL) {
        enum lockstep_status status = lockstep_op_wait(op, SCENE_WAIT_MS, &error);

        assert_int_not_equal(status, LOCKSTEP_PENDING);
        assert_int_not_equal(status, LOCKSTEP_OK);
        lockstep_op_release(&op);
    }
    heals(&scene);
    scene_release(&scene);
}

static void test_every_fault_in_every_state(void **state)
{
    (void)state;
    for (size_t h = 0; h < sizeof(holds) / sizeof(holds[0]); h++) {
        for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++) {
            print_message("%s: %s\n", holds[h].name, faults[f].name);
            one(&holds[h], &faults[f], 1u << 1);
        }
    }
}

/* The one that holds the state, another, and all. */
static void test_two_and_all_at_once(void **state)
{
    (void)state;
    for (size_t h = 0; h < sizeof(holds) / sizeof(holds[0]); h++) {
        if (holds[h].n_rebuilds == 0) {
            one(&holds[h], &faults[0], 1u << 0 | 1u << 2);
            one(&holds[h], &faults[0], 7);
        }
    }
}

/* Resets a device and waits until its context is down. */
static void take_down(struct scene *scene, uint32_t rank, const char *reason)
{
    const uint64_t until = clock_ns() + LONG_MS * UINT64_C(1000000);
    struct lockstep_device_info info;

    lockstep_device_reset(scene->devices[rank], reason);
    do {
        usleep(200);
        lockstep_device_info(scene->devices[rank], &info);
    } while (info.state == LOCKSTEP_DEVICE_UP && clock_ns() < until);
    assert_int_not_equal(info.state, LOCKSTEP_DEVICE_UP);
}

/* A device that is lost whenever a world of it is built. */
static void test_budget_ends_in_failed_and_a_probe_heals(void **state)
{
    struct scene scene = {0};
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;

    (void)state;
    scene_devices(&scene, 2,
                  &(struct lockstep_device_config){.backend = LOCKSTEP_SIM, .start_tries = 1});
    EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene.devices[1], 1, LONG_MS, &error), &error);
    scene_fault(&scene, 1, LOCKSTEP_SIM_FAIL_START, 4, 0);
    take_down(&scene, 1, "to fail");
    scene_world(&scene, &(struct lockstep_world_config){.restart_budget = 2, .probe_ms = 1000});
    EXPECT(LOCKSTEP_GIVEN_UP, lockstep_world_wait(scene.world, 0, LONG_MS, &error), &error);
    EXPECT_TEXT("rank 1 did not start (device dev1): the context did not start", &error);
    EXPECT(LOCKSTEP_GIVEN_UP, lockstep_barrier(scene.world, NULL, &op, &error), &error);
    scene_await(&scene, LOCKSTEP_WORLD_READY, 1); /* by the probe */
    scene_works(&scene);
    scene_release(&scene);
}

/* Success in between renews the budget; without it the world is given up. */
static void test_budget_counts_what_has_no_success_between(void **state)
{
    struct scene scene = {0};
    struct lockstep_error error = {0};

    (void)state;
    scene_devices(&scene, 2, &(struct lockstep_device_config){.backend = LOCKSTEP_SIM});
    scene_world(&scene,
                &(struct lockstep_world_config){.restart_budget = 2, .probe_ms = UINT32_MAX});
    for (uint64_t i = 1; i <= 5; i++) {
        scene_ready(&scene, i);
        scene_works(&scene);
        lockstep_device_reset(scene.devices[0], "again and again");
    }
    scene_ready(&scene, 6);
    lockstep_device_reset(scene.devices[0], "again and again");
    scene_ready(&scene, 7);
    lockstep_device_reset(scene.devices[0], "once too often");
    EXPECT(LOCKSTEP_GIVEN_UP, lockstep_world_wait(scene.world, 8, LONG_MS, &error), &error);
    EXPECT_TEXT("rank 0 lost its context", &error);
    EXPECT_TEXT("once too often", &error);
    scene_release(&scene);
}

/* The world is built when all devices are up, however long that takes: the others wait. */
static void test_a_slow_device_is_waited_for(void **state)
{
    struct scene scene = {0};
    struct lockstep_error error = {0};

    (void)state;
    scene_devices(&scene, 3, &(struct lockstep_device_config){.backend = LOCKSTEP_SIM});
    EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene.devices[2], 1, LONG_MS, &error), &error);
    scene_fault(&scene, 2, LOCKSTEP_SIM_SLOW_START, 0, 300);
    take_down(&scene, 2, "to be slow");
    scene_world(&scene, &(struct lockstep_world_config){0});
    EXPECT(LOCKSTEP_TIMEOUT, lockstep_world_wait(scene.world, 0, 20, &error), &error);
    EXPECT_TEXT("spawning", &error);
    scene_ready(&scene, 0);
    assert_int_equal(scene_info(&scene).epoch, 1);
    scene_works(&scene);
    scene_release(&scene);
}

/* With a limit, a device that is late counts as a fault. */
static void test_a_build_limit_is_kept(void **state)
{
    struct scene scene = {0};
    struct lockstep_error error = {0};

    (void)state;
    scene_devices(&scene, 2, &(struct lockstep_device_config){.backend = LOCKSTEP_SIM});
    EXPECT(LOCKSTEP_OK, lockstep_device_wait(scene.devices[1], 1, LONG_MS, &error), &error);
    scene_fault(&scene, 1, LOCKSTEP_SIM_SLOW_START, 0, LONG_MS);
    take_down(&scene, 1, "to be slow");
    scene_world(&scene, &(struct lockstep_world_config){
                            .restart_budget = 1, .probe_ms = UINT32_MAX, .build_ms = 20});
    EXPECT(LOCKSTEP_GIVEN_UP, lockstep_world_wait(scene.world, 0, LONG_MS, &error), &error);
    EXPECT_TEXT("rank 1", &error);
    scene_release(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fault_in_every_state),
        cmocka_unit_test(test_two_and_all_at_once),
        cmocka_unit_test(test_budget_ends_in_failed_and_a_probe_heals),
        cmocka_unit_test(test_budget_counts_what_has_no_success_between),
        cmocka_unit_test(test_a_slow_device_is_waited_for),
        cmocka_unit_test(test_a_build_limit_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
