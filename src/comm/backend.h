/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a back end implements. Arguments were checked (comm.c), and groups are over: a back end sees
 * one call, or all calls of a group at once.
 */
#pragma once

#include "comm/comm.h"

/* Any call but sum_tree. */
struct comm_call {
    enum comm_operation operation;
    enum comm_reduction reduction;
    struct comm_data data;       /* scale as there; send has no out, recv no in */
    uint32_t root;               /* of broadcast and reduce; the peer of send and recv */
    struct comm_vectors vectors; /* of all_to_allv, instead of data */
};

/* The five calls that a step of a model is made of have an entry of their own, and a back end (or a
 * wrapper such as the engine's) may have these alone, with NULL in place of the last three. */
struct comm_backend {
    const char *name;
    NODISCARD enum status (*sum_tree)(struct comm *comm, const struct comm_tree *args,
                                      struct err *err);
    NODISCARD enum status (*all_reduce)(struct comm *comm, const struct comm_data *data,
                                        enum comm_reduction reduction, struct err *err);
    NODISCARD enum status (*all_gather)(struct comm *comm, const struct comm_data *data,
                                        struct err *err);
    NODISCARD enum status (*broadcast)(struct comm *comm, const struct comm_data *data,
                                       uint32_t root, struct err *err);
    NODISCARD enum status (*barrier)(struct comm *comm, struct err *err);
    float *(*partial_buffer)(struct comm *comm, size_t count, uint32_t n_roots,
                             size_t *ret_root_stride);
    void (*abort)(struct comm *comm);
    void (*destroy)(struct comm **comm);

    /* n calls that complete together: a group, or a single call. */
    NODISCARD enum status (*run)(struct comm *comm, const struct comm_call *calls, size_t n,
                                 struct err *err);
    NODISCARD enum status (*poll_error)(struct comm *comm, struct err *err); /* any thread */
    uint64_t (*peers)(struct comm *comm); /* as comm_capabilities.peers */
};
