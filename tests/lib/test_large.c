/* SPDX-License-Identifier: Apache-2.0 */
/* What is past 32-bit numbers of bytes on its way through the library: 64 Mi floats (under
 * sanitizers a sixteenth) between two processes, whose tensors lie past 4 GiB in what they share.
 * tests/comm/test_large.c has every operation at that size. */
#include "scene.h"
#include "sanitized.h"

enum { N_RANKS = 2, MI = 1 << 20, LARGE = SANITIZED ? 4 * MI : 64 * MI };

/* Small whole numbers, so that every sum is exact. */
static float element(uint32_t rank, size_t i)
{
    return (float)((i * 13 + i / 4099 + rank * 5) & 1023);
}

static enum lockstep_status fill(struct lockstep_call *call)
{
    float *data = call->tensors[0].data;
    uint32_t rank;

    memcpy(&rank, call->args, sizeof(rank));
    for (size_t i = 0; i < call->tensors[0].count; i++) {
        data[i] = element(rank, i);
    }
    return LOCKSTEP_OK;
}

static const struct lockstep_function functions[] = {{"fill", fill}};

/* Summed, or exchanged by halves. */
static float expected(bool sums, uint32_t rank, size_t i)
{
    const size_t half = LARGE / N_RANKS;

    return sums ? element(0, i) + element(1, i)
                : element((uint32_t)(i / half), rank * half + i % half);
}

static void check(struct lockstep_tensor *const *tensors, bool sums)
{
    struct lockstep_error error = {0};
    size_t n_bad = 0;

    for (uint32_t r = 0; r < N_RANKS; r++) {
        const float *found = lockstep_tensor_data(tensors[r], &error);

        assert_non_null(found);
        for (size_t i = 0; i < LARGE; i++) {
            n_bad += found[i] != expected(sums, r, i);
        }
    }
    assert_int_equal(n_bad, 0);
}

/* Each device fills its own. */
static void fill_all(struct scene *scene, struct lockstep_tensor *const *tensors,
                     const struct lockstep_options *options)
{
    struct lockstep_error error = {0};

    for (uint32_t r = 0; r < N_RANKS; r++) {
        struct lockstep_call_args args = {.bytes = sizeof(args),
                                          .tensors = &tensors[r],
                                          .n_tensors = 1,
                                          .args = &r,
                                          .args_bytes = sizeof(r)};

        EXPECT(LOCKSTEP_OK, lockstep_call(scene->devices[r], "fill", &args, options, NULL, &error),
               &error);
    }
}

static void finish(struct lockstep_op **op, enum lockstep_status status,
                   struct lockstep_error *error)
{
    EXPECT(LOCKSTEP_OK, status, error);
    EXPECT(LOCKSTEP_OK, lockstep_op_wait(*op, SCENE_WAIT_MS, error), error);
    lockstep_op_release(op);
}

static void test_large(void **state)
{
    const uint64_t skipped = (UINT64_C(4) << 30) + 4096; /* nothing of it is touched */
    const struct lockstep_options options = {.bytes = sizeof(options), .timeout_ms = SCENE_WAIT_MS};
    struct lockstep_tensor *before[N_RANKS];
    struct lockstep_tensor *t[N_RANKS];
    struct lockstep_error error = {0};
    struct lockstep_op *op = NULL;
    struct scene scene = {0};

    (void)state;
    scene_devices(&scene, N_RANKS,
                  &(struct lockstep_device_config){.own_process = true,
                                                   .memory_bytes = UINT64_C(6) << 30,
                                                   .functions = functions,
                                                   .n_functions = 1});
    scene_world(&scene, &(struct lockstep_world_config){0});
    scene_ready(&scene, 1);
    for (uint32_t r = 0; r < N_RANKS; r++) {
        before[r] = scene_tensor(&scene, r, LOCKSTEP_U8, skipped);
        t[r] = scene_tensor(&scene, r, LOCKSTEP_F32, LARGE);
    }
    fill_all(&scene, t, &options);
    finish(&op, lockstep_all_reduce(scene.world, t, t, LOCKSTEP_SUM, &options, &op, &error),
           &error);
    check(t, true);
    fill_all(&scene, t, &options);
    finish(&op, lockstep_all_to_all(scene.world, t, t, &options, &op, &error), &error);
    check(t, false);
    scene_drop(&scene, before);
    scene_drop(&scene, t);
    scene_release(&scene);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_large)};

    lockstep_device_main(argc, argv, functions, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
