/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A distributed dot product that survives a killed rank: two vectors are dealt out over the
 * processes of four devices, each computes its part, an all_reduce adds the parts up. Half way one
 * process is killed. The world is rebuilt, the vectors are dealt out again, and the result is the
 * one that would have come.
 *
 *     cc dot.c $(pkg-config --cflags --libs lockstep) && ./a.out
 */
#define _POSIX_C_SOURCE 200809L
#include <lockstep.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { RANKS = 4, SHARE = 1 << 16, WAIT_MS = 60000 };

/* Runs in a device's process: tensors are x, y and the sum. */
static enum lockstep_status dot(struct lockstep_call *call)
{
    const double *x = call->tensors[0].data;
    const double *y = call->tensors[1].data;
    double *sum = call->tensors[2].data;

    *sum = 0;
    for (size_t i = 0; i < call->tensors[0].count; i++) {
        *sum += x[i] * y[i];
    }
    return LOCKSTEP_OK;
}

static const struct lockstep_function functions[] = {{"dot", dot}};

static void die(const char *what, const struct lockstep_error *error)
{
    fprintf(stderr, "%s: %s\n", what, error->text);
    exit(1);
}

/* What one epoch of the world has: handles are of the contexts that they were made in. */
struct parts {
    struct lockstep_tensor *x[RANKS];
    struct lockstep_tensor *y[RANKS];
    struct lockstep_tensor *sum[RANKS];
};

static void drop(struct parts *parts)
{
    for (int r = 0; r < RANKS; r++) {
        lockstep_tensor_destroy(&parts->x[r]);
        lockstep_tensor_destroy(&parts->y[r]);
        lockstep_tensor_destroy(&parts->sum[r]);
    }
}

static enum lockstep_status deal_out(struct lockstep_device **devices, struct parts *parts,
                                     struct lockstep_error *error)
{
    enum lockstep_status status = LOCKSTEP_OK;

    for (int r = 0; r < RANKS && status == LOCKSTEP_OK; r++) {
        double *x;
        double *y;

        if ((status = lockstep_tensor_create(devices[r], LOCKSTEP_F64, SHARE, WAIT_MS, &parts->x[r],
                                             error)) != LOCKSTEP_OK ||
            (status = lockstep_tensor_create(devices[r], LOCKSTEP_F64, SHARE, WAIT_MS, &parts->y[r],
                                             error)) != LOCKSTEP_OK ||
            (status = lockstep_tensor_create(devices[r], LOCKSTEP_F64, 1, WAIT_MS, &parts->sum[r],
                                             error)) != LOCKSTEP_OK) {
            break;
        }
        x = lockstep_tensor_data(parts->x[r], error);
        y = lockstep_tensor_data(parts->y[r], error);
        if (x == NULL || y == NULL) {
            return LOCKSTEP_STALE;
        }
        for (int i = 0; i < SHARE; i++) {
            x[i] = 1 + (r * SHARE + i) % 7;
            y[i] = 1.0 / (1 + i % 3);
        }
    }
    return status;
}

/* One dot product: a call on each device, and the sum over all. */
static enum lockstep_status compute(struct lockstep_world *world, struct lockstep_device **devices,
                                    struct parts *parts, double *ret_dot,
                                    struct lockstep_error *error)
{
    struct lockstep_op *op = NULL;
    enum lockstep_status status = LOCKSTEP_OK;

    for (int r = 0; r < RANKS && status == LOCKSTEP_OK; r++) {
        struct lockstep_tensor *tensors[] = {parts->x[r], parts->y[r], parts->sum[r]};
        struct lockstep_call_args args = {
            .bytes = sizeof(args), .tensors = tensors, .n_tensors = 3};

        status = lockstep_call(devices[r], "dot", &args, NULL, NULL, error);
    }
    if (status == LOCKSTEP_OK) { /* it waits in each queue behind the call */
        status = lockstep_all_reduce(world, parts->sum, parts->sum, LOCKSTEP_SUM, NULL, &op, error);
    }
    if (status == LOCKSTEP_OK) {
        status = lockstep_op_wait(op, WAIT_MS, error);
    }
    if (status == LOCKSTEP_OK) {
        status = lockstep_tensor_read(parts->sum[0], 0, 1, ret_dot, WAIT_MS, error);
    }
    lockstep_op_release(&op);
    return status;
}

/* As compute, but waits for the world and tries again when it was rebuilt. */
static double compute_surely(struct lockstep_world *world, struct lockstep_device **devices,
                             struct parts *parts)
{
    struct lockstep_error error = {0};
    double result = 0;

    while (compute(world, devices, parts, &result, &error) != LOCKSTEP_OK) {
        printf("  %s\n", error.text);
        do {
            drop(parts);
            if (lockstep_world_wait(world, 0, WAIT_MS, &error) != LOCKSTEP_OK) {
                die("no world", &error);
            }
        } while (deal_out(devices, parts, &error) != LOCKSTEP_OK);
    }
    return result;
}

int main(int argc, char **argv)
{
    struct lockstep_device *devices[RANKS] = {NULL};
    struct lockstep_world *world = NULL;
    struct lockstep_device_info info;
    struct lockstep_error error = {0};
    struct parts parts = {0};
    double before;
    double after;

    lockstep_device_main(argc, argv, functions, 1); /* does not return in a device's process */
    for (int r = 0; r < RANKS; r++) {
        char name[16];
        struct lockstep_device_config config = {
            .bytes = sizeof(config), .name = name, .own_process = true};

        snprintf(name, sizeof(name), "part %d", r);
        if (lockstep_device_create(&config, &devices[r], &error) != LOCKSTEP_OK) {
            die("no device", &error);
        }
    }
    if (lockstep_world_create(devices, RANKS, NULL, &world, &error) != LOCKSTEP_OK ||
        lockstep_world_wait(world, 0, WAIT_MS, &error) != LOCKSTEP_OK ||
        deal_out(devices, &parts, &error) != LOCKSTEP_OK) {
        die("no world", &error);
    }
    before = compute_surely(world, devices, &parts);
    printf("dot product: %.17g\n", before);

    lockstep_device_info(devices[2], &info);
    printf("killing process %d of %s\n", info.process, info.name);
    kill(info.process, SIGKILL);
    after = compute_surely(world, devices, &parts);
    printf("dot product: %.17g\n", after);

    drop(&parts);
    lockstep_world_destroy(&world);
    for (int r = 0; r < RANKS; r++) {
        lockstep_device_destroy(&devices[r]);
    }
    return before == after ? 0 : 1;
}
