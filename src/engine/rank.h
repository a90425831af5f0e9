/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of one rank: it answers the leader's control messages and carries out its plans, and
 * decides nothing. What it is asked, in the order of its life:
 *
 *   (spawned) ─▶ hello ─▶ comm_init ─▶ sanity ─▶ load ─▶ plans … ─▶ unload, shutdown
 *
 * Control messages come over the channel. Once comm_init has named the rings, the rank waits at the
 * step ring only: a plan is a record there, and a control message is announced by one. Plans and
 * results too long for the rings go over the channel as well, in the same order.
 *
 * rank.c is the loop and the answers, rank_load.c what comm_init and load build up, rank_step.c the
 * way from a plan to a result. One thread.
 */
#pragma once

#include "ops/ops.h"
#include "rpc/fault.h"

enum { RANK_MAX_FAULTS = 16 };

struct rank_args {
    uint32_t rank;
    uint64_t epoch;
    int channel_fd;    /* this end of the control channel; taken */
    int region_fd;     /* this rank's region (rpc/wiring.h); taken */
    const char *build; /* identifies the program, for hello */
    const struct ops *ops;
    const struct fault_spec *faults; /* [n_faults] to be armed from the start */
    const uint32_t *fault_ids;       /* [n_faults] under which they are recorded */
    uint32_t n_faults;
};

/* Version of what ranks keep in memory that outlives them: packed weights and KV pages. */
enum { RANK_LAYOUT_VERSION = 1 };

/* Serves until shutdown (STATUS_OK). STATUS_LINK: the leader is gone or talks rubbish. */
NODISCARD enum status rank_run(const struct rank_args *args, struct err *err);
