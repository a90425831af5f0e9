/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recording of what the world did for a while, and its text in the JSON form that Chrome's
 * tracing and Perfetto open: a process for the leader with its steps from issued to committed, and
 * one for each rank with threads for steps, layers and collectives.
 *
 * supervisor_trace_begin makes one and the supervisor fills it; supervisor_trace_end gives it away.
 * One thread at a time, any thread: its text can be long and is better not made by the thread that
 * drives the world.
 */
#pragma once

#include "base/buf.h"
#include "rpc/trace_ring.h"

enum { TRACE_MAX_RECORDS = 1 << 20 }; /* of all ranks together; what comes after is left out */

struct trace;

struct trace_config {
    uint32_t n_ranks;
    uint32_t n_layers;
    uint64_t next_step; /* number of the step that is issued next */
    uint64_t begin_ns;  /* clock_ns; what began before is left out */
};

struct trace *trace_create(const struct trace_config *config); /* never NULL */
void trace_destroy(struct trace **trace);

/* Records that a rank has written, and how many of them were lost. */
void trace_add(struct trace *trace, uint32_t rank, const struct trace_record *records, uint32_t n,
               uint64_t n_lost);

/* A step of the leader's that ended: committed, or thrown away by a fault. */
struct trace_leader_step {
    uint64_t number;
    uint64_t issued_ns;
    uint64_t ended_ns;
    uint32_t n_rows;
    bool committed;
};
void trace_add_step(struct trace *trace, const struct trace_leader_step *step);

/* The world was rebuilt: from the moment the fault was noticed to the one it was ready again. */
void trace_add_rebuild(struct trace *trace, uint64_t fault_ns, uint64_t ready_ns, uint64_t epoch);

/* Records that were lost or left out. */
uint64_t trace_n_lost(const struct trace *trace);

/* Appends all as one JSON object. */
void trace_append_json(const struct trace *trace, const char *model, struct buf *out);
