/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A communicator that tells where its rank is. It wraps another one and passes every call on;
 * around each collective it publishes step, layer, number and "waiting" in the status page, so that
 * the leader sees which rank stands still and where, and it carries out the faults that belong
 * there before the rank shows as waiting: a rank that was made to hang or to be slow is the
 * culprit.
 *
 * The flight recorder gets collectives of more than 1 ms only: a step has many. The time of all in
 * a step is counted, and while the leader asks for it (trace_ring.h) each step, layer and
 * collective is recorded; asked or not is looked at when a step begins.
 *
 * The inner communicator, status page and faults are borrowed and outlive it. Threads: as comm.h;
 * the status page is written by the thread that calls.
 */
#pragma once

#include "comm/comm.h"
#include "engine/fault.h"
#include "rpc/trace_ring.h"

struct watched_comm {
    struct comm comm; /* what the model is given */
    struct comm *inner;
    struct status_writer *status;
    struct faults *faults;
    struct status_progress at;
    struct trace_writer *trace; /* NULL: none */
    bool in_step;
    bool traced; /* this step is */
    bool in_layer;
    uint64_t step_ns;  /* when the step began, */
    uint64_t layer_ns; /* and the layer */
};

/* Never NULL. rank, n_ranks and timeout_ns begin as those of inner; a later change of timeout_ns is
 * handed on. */
struct watched_comm *watched_comm_create(struct comm *inner, struct status_writer *status,
                                         struct faults *faults);

/* Ends the wrapper, not inner, as comm_destroy on its comm does. */
void watched_comm_destroy(struct watched_comm **watched);

/* Where the leader may ask for records; borrowed. */
void watched_comm_trace(struct watched_comm *watched, struct trace_writer *trace);

/* A step begins, before its first layer and collective; and ends. what: TRACE_PREFILL or
 * TRACE_DECODE. */
void watched_comm_step(struct watched_comm *watched, uint64_t step);
void watched_comm_step_end(struct watched_comm *watched, enum trace_what what, uint32_t n_rows);

/* The rank computes: its progress word moves. */
void watched_comm_tick(struct watched_comm *watched);

/* A layer of the step begins (after the last one: the output head); carries out the faults that
 * wait for it. */
void watched_comm_layer(struct watched_comm *watched, uint32_t layer);
