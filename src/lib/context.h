/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is restarted under a device: where its operations are carried out and its tensors lie. Two
 * kinds: this program's own thread (the device's), and a process. A context is used by its device's
 * thread alone.
 */
#pragma once

#include "lib/memory.h"
#include "lib/work.h"

struct context;

/* One thing to carry out; exactly one of call, join and works is set, or leave. */
struct context_order {
    const struct work *const *works; /* [n_works] */
    size_t n_works;
    struct work_call *call;
    const struct work_join *join;
    bool leave;
    uint64_t deadline_ns;
};

struct context_config {
    const char *name;      /* lent, as are the others, as long as the context */
    const char *cores;     /* NULL: all */
    uint64_t memory_bytes; /* of a process */
    uint32_t stopped_ms;   /* of a process; UINT32_MAX: no limit */
    const struct lockstep_function *functions;
    size_t n_functions;
    _Atomic uint32_t *alarm; /* changes (and is woken) when something happens to the context */
    /* changes when whoever owns the device wants what is carried out to end: a process is then
     * given up, which is LOCKSTEP_DEVICE */
    const _Atomic bool *give_up;
};

struct context_backend {
    /* Begins to start, or goes on with it: LOCKSTEP_PENDING until the alarm, LOCKSTEP_OK, or an
     * error with its text (stop it before the next try). */
    enum lockstep_status (*start)(struct context *context, uint64_t generation,
                                  struct work_result *result);
    void (*run)(struct context *context, const struct context_order *order,
                struct work_result *result);
    /* False, with the reason: it has ended by itself. */
    bool (*alive)(struct context *context, struct work_result *result);
    void (*stop)(struct context *context); /* returns when nothing is left of it */
    void (*destroy)(struct context **context);
};

struct context {
    const struct context_backend *backend;
    struct memory *memory; /* of the context that is up; NULL otherwise */
    int process;           /* 0: none */
};

struct context *context_thread_create(const struct context_config *config);

/* LOCKSTEP_IO. */
enum lockstep_status context_process_create(const struct context_config *config,
                                            struct context **ret_context,
                                            struct lockstep_error *error);

/* Whether lockstep_device_main was called, without which no process can be a device. */
bool context_process_possible(void);

/* Parses cores as "0-3,8" into a cpu_set_t. False: no such list. */
bool context_cores_parse(const char *cores, void *ret_set, size_t set_bytes);
