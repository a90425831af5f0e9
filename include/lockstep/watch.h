/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches: what happens to devices and worlds, told by a callback, by polling, or by a descriptor
 * that is readable while there is something to take.
 */
#pragma once

#include <lockstep/world.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lockstep_watch;

struct lockstep_event {
    struct lockstep_device *device; /* NULL: it is of the world */
    struct lockstep_world *world;   /* NULL: it is of the device */
    enum lockstep_device_state device_state;
    uint64_t generation;
    enum lockstep_world_state world_state;
    uint64_t epoch;
    uint32_t n_missed; /* events before this one that were dropped because nobody took them */
    char reason[256];
};

/* Called for each event in order, on a thread of the library: must not wait for an operation, nor
 * destroy what it watches. */
typedef void lockstep_event_fn(void *arg, const struct lockstep_event *event);

/* Watches a device or a world, one of which is NULL, from now on; the first event is its present
 * state. With a callback there is nothing to take. Destroy the watch before what it watches. */
LOCKSTEP_API enum lockstep_status lockstep_watch_create(struct lockstep_device *device,
                                                        struct lockstep_world *world,
                                                        lockstep_event_fn *event, void *arg,
                                                        struct lockstep_watch **ret_watch,
                                                        struct lockstep_error *error);

/* Readable while there are events; to be polled, not read. */
LOCKSTEP_API int lockstep_watch_fd(struct lockstep_watch *watch);

/* Takes the next event; false if there is none. The newest 64 are kept. */
LOCKSTEP_API bool lockstep_watch_next(struct lockstep_watch *watch,
                                      struct lockstep_event *ret_event);

/* Afterwards no callback runs. Not in a callback. NULL is fine. */
LOCKSTEP_API void lockstep_watch_destroy(struct lockstep_watch **watch);

#ifdef __cplusplus
}
#endif
