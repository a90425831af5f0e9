/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of liblockstep have in common: a world over devices, a handle a rank. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <lockstep.h>

#include "base/clock.h"

enum { SCENE_WAIT_MS = 60000 };

struct scene {
    struct lockstep_device *devices[LOCKSTEP_RANKS_MAX];
    struct lockstep_world *world;
    uint32_t n;
};

/* Fails the test, with the text, unless status is what was expected. */
#define EXPECT(expected, call, error)                                                     \
    do {                                                                                  \
        enum lockstep_status found_ = (call);                                             \
        if (found_ != (expected)) {                                                       \
            print_error("%s: %s, expected %s: %s\n", #call, lockstep_status_text(found_), \
                        lockstep_status_text(expected), (error)->text);                   \
            fail();                                                                       \
        }                                                                                 \
    } while (0)

#define EXPECT_TEXT(text_, error)                                       \
    do {                                                                \
        if (strstr((error)->text, text_) == NULL) {                     \
            print_error("'%s' is not in '%s'\n", text_, (error)->text); \
            fail();                                                     \
        }                                                               \
    } while (0)

static inline void scene_devices(struct scene *scene, uint32_t n,
                                 const struct lockstep_device_config *model)
{
    struct lockstep_error error = {0};

    scene->n = n;
    for (uint32_t r = 0; r < n; r++) {
        struct lockstep_device_config config = *model;
        char name[16];

        config.bytes = sizeof(config);
        snprintf(name, sizeof(name), "dev%u", (unsigned)r);
        config.name = name;
        EXPECT(LOCKSTEP_OK, lockstep_device_create(&config, &scene->devices[r], &error), &error);
    }
}

static inline void scene_world(struct scene *scene, const struct lockstep_world_config *model)
{
    struct lockstep_world_config config = *model;
    struct lockstep_error error = {0};

    config.bytes = sizeof(config);
    EXPECT(LOCKSTEP_OK,
           lockstep_world_create(scene->devices, scene->n, &config, &scene->world, &error), &error);
}

static inline void scene_ready(struct scene *scene, uint64_t epoch)
{
    struct lockstep_error error = {0};

    EXPECT(LOCKSTEP_OK, lockstep_world_wait(scene->world, epoch, SCENE_WAIT_MS, &error), &error);
}

/* n devices of a back end and a ready world. */
static inline void scene_make(struct scene *scene, uint32_t n, enum lockstep_backend backend)
{
    scene_devices(scene, n, &(struct lockstep_device_config){.backend = backend});
    scene_world(scene, &(struct lockstep_world_config){0});
    scene_ready(scene, 1);
}

static inline void scene_release(struct scene *scene)
{
    lockstep_world_destroy(&scene->world);
    for (uint32_t r = 0; r < scene->n; r++) {
        lockstep_device_destroy(&scene->devices[r]);
    }
}

static inline struct lockstep_tensor *scene_tensor(struct scene *scene, uint32_t rank,
                                                   enum lockstep_type type, size_t count)
{
    struct lockstep_tensor *tensor = NULL;
    struct lockstep_error error = {0};

    EXPECT(
        LOCKSTEP_OK,
        lockstep_tensor_create(scene->devices[rank], type, count, SCENE_WAIT_MS, &tensor, &error),
        &error);
    return tensor;
}

/* A handle of count f32 on every rank, each element the rank's number plus 1. */
static inline void scene_ones(struct scene *scene, size_t count, struct lockstep_tensor **ret)
{
    struct lockstep_error error = {0};

    for (uint32_t r = 0; r < scene->n; r++) {
        float *data;

        ret[r] = scene_tensor(scene, r, LOCKSTEP_F32, count);
        data = lockstep_tensor_data(ret[r], &error);
        assert_non_null(data);
        for (size_t i = 0; i < count; i++) {
            data[i] = (float)(r + 1);
        }
    }
}

static inline void scene_drop(struct scene *scene, struct lockstep_tensor **tensors)
{
    for (uint32_t r = 0; r < scene->n; r++) {
        lockstep_tensor_destroy(&tensors[r]);
    }
}

/* An all_reduce of handles made now gives the sum on every rank. */
static inline void scene_works(struct scene *scene)
{
    struct lockstep_tensor *tensors[LOCKSTEP_RANKS_MAX];
    struct lockstep_error error = {0};
    struct lockstep_op *op;

    scene_ones(scene, 64, tensors);
    EXPECT(LOCKSTEP_OK,
           lockstep_all_reduce(scene->world, tensors, tensors, LOCKSTEP_SUM, NULL, &op, &error),
           &error);
    EXPECT(LOCKSTEP_OK, lockstep_op_wait(op, SCENE_WAIT_MS, &error), &error);
    for (uint32_t r = 0; r < scene->n; r++) {
        const float *data = lockstep_tensor_data(tensors[r], &error);

        assert_non_null(data);
        assert_int_equal((int)data[63], (int)(scene->n * (scene->n + 1) / 2));
    }
    lockstep_op_release(&op);
    scene_drop(scene, tensors);
}

static inline void scene_fault(struct scene *scene, uint32_t rank, enum lockstep_sim_kind kind,
                               uint32_t n, uint32_t ms)
{
    struct lockstep_sim_fault fault = {.bytes = sizeof(fault), .kind = kind, .n = n, .ms = ms};
    struct lockstep_error error = {0};

    EXPECT(LOCKSTEP_OK, lockstep_sim_fault(scene->devices[rank], &fault, &error), &error);
}

static inline struct lockstep_world_info scene_info(struct scene *scene)
{
    struct lockstep_world_info info;

    lockstep_world_info(scene->world, &info);
    return info;
}

/* Waits until the world has been in that state since that epoch. */
static inline void scene_await(struct scene *scene, enum lockstep_world_state state, uint64_t epoch)
{
    uint64_t until = clock_ns() + (uint64_t)SCENE_WAIT_MS * 1000000;
    struct lockstep_world_info info = scene_info(scene);

    while ((info.state != state || info.epoch < epoch) && clock_ns() < until) {
        usleep(200);
        info = scene_info(scene);
    }
    assert_int_equal(info.state, state);
}

/* Waits until the device has taken all but that many of what was queued. */
static inline void scene_await_queued(struct scene *scene, uint32_t rank, uint32_t n)
{
    uint64_t until = clock_ns() + (uint64_t)SCENE_WAIT_MS * 1000000;
    struct lockstep_device_info info;

    do {
        usleep(200);
        lockstep_device_info(scene->devices[rank], &info);
    } while (info.n_queued > n && clock_ns() < until);
    assert_int_equal(info.n_queued, n);
}
