/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/device_sim.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/fail.h"

struct device_sim {
    pthread_mutex_t lock;
    struct lockstep_sim_fault armed[LOCKSTEP_SIM_SLOW_START + 1];
};

struct device_sim *device_sim_create(void)
{
    struct device_sim *sim = xalloc(sizeof(*sim));

    pthread_mutex_init(&sim->lock, NULL);
    return sim;
}

void device_sim_destroy(struct device_sim **sim)
{
    if (*sim != NULL) {
        pthread_mutex_destroy(&(*sim)->lock);
        free(*sim);
        *sim = NULL;
    }
}

/* Counts one down; true when its time has come. */
static bool fires(struct lockstep_sim_fault *fault)
{
    return fault->n > 0 && --fault->n == 0;
}

bool device_sim_before(struct lockstep_device *device, uint32_t interrupts,
                       struct work_result *result)
{
    struct device_sim *sim = device->sim;
    uint64_t wait_ms;
    bool poison;
    bool fail;

    if (sim == NULL) {
        return true;
    }
    pthread_mutex_lock(&sim->lock);
    poison = fires(&sim->armed[LOCKSTEP_SIM_POISON]);
    fail = fires(&sim->armed[LOCKSTEP_SIM_ERROR]);
    wait_ms = sim->armed[LOCKSTEP_SIM_SLOW].ms;
    if (fires(&sim->armed[LOCKSTEP_SIM_STALL])) {
        wait_ms += sim->armed[LOCKSTEP_SIM_STALL].ms;
    }
    pthread_mutex_unlock(&sim->lock);
    if (wait_ms > 0) {
        device_sleep(device, clock_ns() + wait_ms * 1000000, interrupts);
    }
    if (poison) {
        work_fail(result, LOCKSTEP_DEVICE, "the context was poisoned (simulated)");
        return false;
    }
    if (fail) {
        work_fail(result, LOCKSTEP_CALL_FAILED, "the operation failed (simulated)");
        return false;
    }
    return true;
}

enum lockstep_status device_sim_start(struct lockstep_device *device, uint64_t began_ns,
                                      uint64_t *ret_until_ns, struct work_result *result)
{
    struct device_sim *sim = device->sim;
    enum lockstep_status status = LOCKSTEP_OK;
    uint64_t until;

    if (sim == NULL) {
        return LOCKSTEP_OK;
    }
    pthread_mutex_lock(&sim->lock);
    until = began_ns + (uint64_t)sim->armed[LOCKSTEP_SIM_SLOW_START].ms * 1000000;
    if (clock_ns() < until) {
        *ret_until_ns = until;
        status = LOCKSTEP_PENDING;
    } else if (sim->armed[LOCKSTEP_SIM_FAIL_START].n > 0) {
        sim->armed[LOCKSTEP_SIM_FAIL_START].n--;
        status = work_fail(result, LOCKSTEP_DEVICE, "the context did not start (simulated)");
    }
    pthread_mutex_unlock(&sim->lock);
    return status;
}

enum lockstep_status lockstep_sim_fault(struct lockstep_device *device,
                                        const struct lockstep_sim_fault *fault,
                                        struct lockstep_error *error)
{
    if (device == NULL || fault == NULL || fault->bytes != sizeof(*fault) ||
        (unsigned)fault->kind > LOCKSTEP_SIM_SLOW_START) {
        return lib_fail(error, LOCKSTEP_INVALID, "lockstep_sim_fault: no such fault or device");
    }
    if (device->sim == NULL) {
        return lib_fail(error, LOCKSTEP_UNSUPPORTED,
                        "device %s is real: only LOCKSTEP_SIM fails on demand", device->name);
    }
    if (fault->kind == LOCKSTEP_SIM_POISON && fault->n == 0) {
        device_lose(device, 0, "the context was poisoned (simulated)");
        return LOCKSTEP_OK;
    }
    pthread_mutex_lock(&device->sim->lock);
    device->sim->armed[fault->kind] = *fault;
    pthread_mutex_unlock(&device->sim->lock);
    device_wake(device);
    return LOCKSTEP_OK;
}
