/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on demand: what a simulated device does before it carries something out, and before it
 * starts. Armed by any thread, used by the device's.
 */
#pragma once

#include "lib/device.h"

struct device_sim *device_sim_create(void);
void device_sim_destroy(struct device_sim **sim);

/* Before a task: may take time, until interrupts (device.h) is another. False, with the result, if
 * it is to fail; DEVICE: the context is lost. */
NODISCARD bool device_sim_before(struct lockstep_device *device, uint32_t interrupts,
                                 struct work_result *result);

/* Before a start that began then: LOCKSTEP_OK, LOCKSTEP_PENDING until *ret_until_ns, or DEVICE. */
enum lockstep_status device_sim_start(struct lockstep_device *device, uint64_t began_ns,
                                      uint64_t *ret_until_ns, struct work_result *result);
