/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who watches a device or a world: a list that its owner guards with the lock under which it tells
 * changes, so that a watch sees them all, once and in order.
 */
#pragma once

#include <lockstep/watch.h>

#include "base/base.h"

struct watch_list {
    struct lockstep_watch *first;
};

/* Tells every watch of the list. The list's lock is held. */
void watch_tell(const struct watch_list *list, const struct lockstep_event *event);
