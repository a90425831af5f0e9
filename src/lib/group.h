/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that are sent together: one task a rank with all of its parts. The group's memory
 * stays until the last of these tasks has ended. The world's lock guards it until it is sent.
 */
#pragma once

#include "lib/world.h"

/* Adds an operation, with the world's lock held. */
enum lockstep_status group_add(struct lockstep_group *group, struct lockstep_world *world,
                               struct lockstep_op *op, struct lockstep_error *error);
