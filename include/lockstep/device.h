/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: a stable name over a context that is restarted, with a generation that rises each time.
 * The context is a thread of this program or a process of its own. Operations on a device whose
 * context is not up wait in a bounded queue, each with its deadline.
 */
#pragma once

#include <lockstep/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lockstep_device;

enum lockstep_backend {
    LOCKSTEP_CPU,
    LOCKSTEP_SIM, /* as CPU, and fails on demand: lockstep_sim_fault */
};

enum lockstep_device_state {
    LOCKSTEP_DEVICE_STARTING, /* the context is not up yet, or being restarted */
    LOCKSTEP_DEVICE_UP,
    LOCKSTEP_DEVICE_FAILED, /* it did not start so often in a row that nobody tries any more */
    LOCKSTEP_DEVICE_CLOSED,
};

/* What a function finds. It runs on the device's thread, or in the device's process. */
struct lockstep_view {
    void *data;
    size_t count;
    enum lockstep_type type;
};

struct lockstep_call {
    const char *device;
    uint64_t generation;
    struct lockstep_view tensors[LOCKSTEP_CALL_MAX];
    size_t n_tensors;
    const void *args;
    size_t args_bytes;
    void *result; /* LOCKSTEP_BYTES_MAX bytes to write to */
    size_t result_bytes;
    char text[256]; /* why it failed */
};

/* LOCKSTEP_OK; LOCKSTEP_DEVICE: the context is of no more use and to be restarted; anything else
 * fails this call only. */
struct lockstep_function {
    const char *name;
    enum lockstep_status (*run)(struct lockstep_call *call);
};

struct lockstep_device_config {
    size_t bytes;     /* sizeof(struct lockstep_device_config) */
    const char *name; /* in errors; default "device" and a number */
    enum lockstep_backend backend;
    bool own_process;      /* the context is a process of its own; see lockstep_device_main */
    const char *cores;     /* "0-3,8" to run on; default: all */
    uint32_t queue_limit;  /* operations that wait; default 1024 */
    uint32_t start_ms;     /* a start that takes longer failed; default: no limit */
    uint32_t start_tries;  /* failed starts in a row until the device is failed; default 3 */
    uint32_t stopped_ms;   /* own_process: one that is stopped (SIGSTOP) that long while it has
                              something to do is lost; default 1000; UINT32_MAX: never */
    uint64_t memory_bytes; /* own_process: its memory for tensors; default 4 GiB, used as needed */
    const struct lockstep_function *functions; /* borrowed */
    size_t n_functions;
};

struct lockstep_device_info {
    const char *name; /* as long as the device */
    enum lockstep_device_state state;
    uint64_t generation; /* of the context, from 1; rises with each that comes up; 0: none yet */
    int process;         /* of an own process; 0: none */
    uint32_t n_queued;
    char reason[256]; /* why the last context was lost, or did not start */
};

/* To be called first in main by a program that has devices with own_process: in a device's process
 * it serves the device and does not return; otherwise it returns at once. The functions are the
 * device's. */
LOCKSTEP_API void lockstep_device_main(int argc, char **argv,
                                       const struct lockstep_function *functions,
                                       size_t n_functions);

/* Starts a device; its context comes up by itself and is restarted when it is lost. */
LOCKSTEP_API enum lockstep_status
lockstep_device_create(const struct lockstep_device_config *config,
                       struct lockstep_device **ret_device, struct lockstep_error *error);

/* Ends what is queued (CANCELLED) and the context; its handles are stale afterwards, and a world
 * of it fails. NULL is fine. */
LOCKSTEP_API void lockstep_device_destroy(struct lockstep_device **device);

/* What the device is now. */
LOCKSTEP_API void lockstep_device_info(struct lockstep_device *device,
                                       struct lockstep_device_info *ret_info);

/* Waits until the context is up in a generation of at least that number. TIMEOUT, DEVICE (failed),
 * CANCELLED (closed). timeout_ms here and below: 0 only looks. */
LOCKSTEP_API enum lockstep_status lockstep_device_wait(struct lockstep_device *device,
                                                       uint64_t generation, uint32_t timeout_ms,
                                                       struct lockstep_error *error);

/* Declares the context lost: it is taken down and restarted, also if the device was failed. */
LOCKSTEP_API void lockstep_device_reset(struct lockstep_device *device, const char *reason);

/* ---- Simulated faults ---- */

enum lockstep_sim_kind {
    LOCKSTEP_SIM_POISON,     /* the context is lost */
    LOCKSTEP_SIM_ERROR,      /* the operation fails, the context lives */
    LOCKSTEP_SIM_SLOW,       /* operations take ms longer, until it is said again with ms = 0 */
    LOCKSTEP_SIM_STALL,      /* one operation takes ms longer, unless the world is rebuilt */
    LOCKSTEP_SIM_FAIL_START, /* the next n starts fail */
    LOCKSTEP_SIM_SLOW_START, /* starts take ms */
};

struct lockstep_sim_fault {
    size_t bytes; /* sizeof(struct lockstep_sim_fault) */
    enum lockstep_sim_kind kind;
    uint32_t n; /* POISON, ERROR, STALL: at the n-th operation from now; POISON with 0: at once */
    uint32_t ms;
};

/* Arms a fault of a LOCKSTEP_SIM device; one of each kind. A rank's part in building a world (to
 * join, to sum ones) is an operation too. */
LOCKSTEP_API enum lockstep_status lockstep_sim_fault(struct lockstep_device *device,
                                                     const struct lockstep_sim_fault *fault,
                                                     struct lockstep_error *error);

/* ---- Where devices are ---- */

/* The nearest that two devices share. */
enum lockstep_distance {
    LOCKSTEP_SAME_DEVICE,
    LOCKSTEP_SAME_NODE, /* a NUMA node */
    LOCKSTEP_SAME_HOST,
    LOCKSTEP_APART, /* nothing; they cannot be in one world */
};

struct lockstep_place {
    char host[64];
    int node; /* NUMA node of all of the device's cores; -1: several, or unknown */
    uint32_t n_cores;
};

LOCKSTEP_API void lockstep_device_place(struct lockstep_device *device,
                                        struct lockstep_place *ret_place);
LOCKSTEP_API enum lockstep_distance lockstep_device_distance(struct lockstep_device *a,
                                                             struct lockstep_device *b);

#ifdef __cplusplus
}
#endif
