/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world: devices as ranks 0 to N-1 with one communicator in one epoch. When a device is lost the
 * epoch ends: what was in flight ends with REBUILT, and as soon as every device is up again the
 * world is built anew, with a sum of ones as a check. Its states are those of docs/world.md.
 *
 * A collective takes one handle a rank: in[r] and out[r] are rank r's. All are checked before
 * anything is sent. It is refused (NOT_READY, GIVEN_UP) unless the world is ready. Operations
 * of a world are carried out in the order in which they were started. ret_op may be NULL where
 * nobody waits. in and out may be the same handle; otherwise their memory must not overlap.
 */
#pragma once

#include <lockstep/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lockstep_world;

enum lockstep_world_state {
    LOCKSTEP_WORLD_DOWN,
    LOCKSTEP_WORLD_SPAWNING, /* some device is not up yet */
    LOCKSTEP_WORLD_HELLO,
    LOCKSTEP_WORLD_COMM_INIT,
    LOCKSTEP_WORLD_SANITY,
    LOCKSTEP_WORLD_LOADING,
    LOCKSTEP_WORLD_READY,
    LOCKSTEP_WORLD_REBUILDING,
    LOCKSTEP_WORLD_DRAINING,
    LOCKSTEP_WORLD_STOPPING,
    LOCKSTEP_WORLD_FAILED,
};

struct lockstep_world_config {
    size_t bytes;            /* sizeof(struct lockstep_world_config) */
    uint32_t restart_budget; /* rebuilds in a row without an operation that succeeds; default 3 */
    uint32_t probe_ms;       /* from failed to the next try; default 30,000; UINT32_MAX: never */
    uint32_t build_ms; /* limit of a step of the build; default: none, however long it takes */
    uint32_t leave_ms; /* a device that does not leave an old epoch is lost; default 2,000 */
    uint32_t in_flight_limit; /* operations under way; default 1024 */
};

struct lockstep_world_info {
    enum lockstep_world_state state;
    uint64_t epoch;
    uint32_t n_ranks;
    uint32_t n_in_flight;
    uint64_t n_rebuilds;
    char reason[512]; /* of the last rebuild, or why it failed */
};

/* Begins to build a world; a device belongs to one world at a time. */
LOCKSTEP_API enum lockstep_status lockstep_world_create(struct lockstep_device *const *devices,
                                                        uint32_t n_ranks,
                                                        const struct lockstep_world_config *config,
                                                        struct lockstep_world **ret_world,
                                                        struct lockstep_error *error);

/* Ends what is in flight (CANCELLED) and leaves the devices as they are. Not while another thread
 * uses the world, nor in a callback. NULL is fine. */
LOCKSTEP_API void lockstep_world_destroy(struct lockstep_world **world);

LOCKSTEP_API void lockstep_world_info(struct lockstep_world *world,
                                      struct lockstep_world_info *ret_info);

/* Waits until the world is ready in an epoch of at least that number (0: any). TIMEOUT,
 * GIVEN_UP with the reason. */
LOCKSTEP_API enum lockstep_status lockstep_world_wait(struct lockstep_world *world, uint64_t epoch,
                                                      uint32_t timeout_ms,
                                                      struct lockstep_error *error);

/* Ends everything in flight with CANCELLED; the world is built anew, outside its budget. */
LOCKSTEP_API void lockstep_world_abort(struct lockstep_world *world);

struct lockstep_capabilities {
    uint32_t types;         /* 1 << enum lockstep_type */
    uint32_t reductions;    /* 1 << enum lockstep_reduction */
    uint32_t operations;    /* 1 << enum lockstep_operation */
    uint32_t reachable;     /* ranks that the asked one reaches, one bit each */
    const char *class_name; /* of its arithmetic: equal names, equal bits */
};

enum lockstep_operation {
    LOCKSTEP_ALL_REDUCE,
    LOCKSTEP_ALL_GATHER,
    LOCKSTEP_REDUCE_SCATTER,
    LOCKSTEP_BROADCAST,
    LOCKSTEP_REDUCE,
    LOCKSTEP_ALL_TO_ALL,
    LOCKSTEP_ALL_TO_ALLV,
    LOCKSTEP_SEND,
    LOCKSTEP_RECV,
    LOCKSTEP_BARRIER,
    LOCKSTEP_CALL, /* no collective: lockstep_call */
};

LOCKSTEP_API enum lockstep_status
lockstep_world_capabilities(struct lockstep_world *world, uint32_t rank,
                            struct lockstep_capabilities *ret_capabilities,
                            struct lockstep_error *error);

#ifdef __cplusplus
}
#endif
