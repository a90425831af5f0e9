/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the shared memory of one epoch is laid out, for both of its sides. There is one region that
 * the leader writes and one for each rank, written by that rank alone:
 *
 *   leader's region   step ring (plans) | the leader's line of each rank's result ring | trace
 * switch rank's region     status page | the rank's line of the step ring | trace ring | result
 * ring
 *
 * A rank has its region from its start, so that its status page tells of its whole life; the
 * leader's comes with comm_init. Mappings are private to one thread on each side; the descriptors
 * are borrowed.
 */
#pragma once

#include "json/json.h"
#include "rpc/ring.h"
#include "rpc/status_page.h"
#include "rpc/trace_ring.h"

struct wiring_shape {
    uint64_t epoch;
    uint32_t n_ranks;
    uint32_t n_slots; /* of each ring */
    uint32_t plan_bytes;
    uint32_t result_bytes;
};

/* 0 if the shape is out of range. */
size_t wiring_leader_bytes(const struct wiring_shape *shape);
size_t wiring_rank_bytes(const struct wiring_shape *shape);

/* What comm_init carries as "rings", a new reference, and the way back. STATUS_CORRUPT, naming the
 * field. */
json_t *wiring_to_json(const struct wiring_shape *shape);
NODISCARD enum status wiring_from_json(const json_t *json, uint64_t epoch, uint32_t n_ranks,
                                       struct wiring_shape *ret_shape, struct err *err);

/* The leader's side. */
struct wiring_leader {
    struct wiring_shape shape;
    void *own;
    const void *ranks[RING_MAX_READERS]; /* read-only; also each rank's status page */
    struct ring_writer plans;
    struct ring_reader results[RING_MAX_READERS];
    bool attached[RING_MAX_READERS];
};

/* Maps leader_fd (writable, then sealed) and all rank_fds, and starts the step ring. The result
 * rings are attached later, when the ranks have made them (wiring_leader_attach). */
NODISCARD enum status wiring_leader_init(struct wiring_leader *wiring,
                                         const struct wiring_shape *shape, int leader_fd,
                                         const int *rank_fds, struct err *err);
NODISCARD enum status wiring_leader_attach(struct wiring_leader *wiring, uint32_t rank,
                                           struct err *err);
/* Whether the ranks are to write what they do into their trace rings, and a rank's ring. */
void wiring_leader_trace(struct wiring_leader *wiring, bool on);
const struct trace_ring *wiring_leader_trace_ring(const struct wiring_leader *wiring,
                                                  uint32_t rank);
void wiring_leader_release(struct wiring_leader *wiring); /* accepts a zeroed one */

/* A rank's side. */
struct wiring_rank {
    struct wiring_shape shape;
    uint32_t rank;
    const void *leader;
    void *own;
    size_t own_bytes;
    struct status_writer status;
    struct ring_reader plans;
    struct ring_writer results;
    struct trace_writer trace; /* asked for by nobody before wiring_rank_connect */
};

/* At the rank's start: maps its region (writable, then sealed) and starts its status page. */
NODISCARD enum status wiring_rank_init(struct wiring_rank *wiring, int own_fd, uint32_t rank,
                                       uint64_t epoch, struct err *err);

/* At comm_init: maps the leader's region and starts the result ring. */
NODISCARD enum status wiring_rank_connect(struct wiring_rank *wiring,
                                          const struct wiring_shape *shape, int leader_fd,
                                          struct err *err);
void wiring_rank_release(struct wiring_rank *wiring);
