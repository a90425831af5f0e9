/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end `shm`: 1 to 16 ranks, processes or threads of one host, over one region of shared
 * memory that the caller provides and every member maps, such as a memfd. Whoever makes the region
 * initialises it once; it serves one world in one epoch and is never used again: the next epoch has
 * a fresh region and a fresh id.
 *
 * How it works. Each rank has two slots for data and two arrival lines, used alternately. A step of
 * a collective is: write the data into the own slot, describe the call in the own arrival line,
 * publish both by the step's number; wait until every rank has published that number; compare the
 * descriptions; read all slots. A slot may be written again two steps later without another
 * handshake, because who publishes step k has finished reading step k - 1. Vectors above 128 KB go
 * in pieces. With more than 4 ranks, a large piece is reduced in shares, one a rank, and a second
 * step collects them.
 *
 * No lock lies in the region, only words with a single writer and futexes with a time limit, so a
 * member may be killed at any instruction: the others run into their deadline and name it. Waiting
 * is a spin of about 20 us (a moment, if there are more ranks than cores), then a futex. What is
 * read from the region is checked before it is used.
 */
#pragma once

#include "comm/comm.h"

enum { COMM_SHM_RANKS_MAX = 16 };

/* Bytes of a region for that many ranks; 0 if n_ranks is not 1 to COMM_SHM_RANKS_MAX. Only what is
 * used costs memory: of each rank two pieces of up to 128 KB, as often as it has roots. */
size_t comm_shm_region_bytes(uint32_t n_ranks);

/* Makes zeroed memory (page-aligned, of that size) a region. */
void comm_shm_region_init(void *region, uint32_t n_ranks, const struct comm_id *id);

struct comm_shm_member {
    void *region; /* borrowed until the communicator is destroyed */
    size_t region_bytes;
    const struct comm_id *id; /* as the region was initialised with */
    uint32_t rank;
    uint32_t n_ranks;
};

/* Joins as rank; does not wait for others, their absence shows in the first collective. Each rank
 * joins once: STATUS_LINK if it has before, or if the region is another world's. */
NODISCARD enum status comm_shm_join(const struct comm_shm_member *member, struct comm **ret_comm,
                                    struct err *err);

/* For whoever watches a region from outside, also after its members' death. */

/* Ends every member's calls with STATUS_CANCELLED. */
void comm_shm_abort(void *region);

/* How far a rank is. A rank that hangs is one that is not inside a collective, or else the one with
 * the lowest number. */
struct comm_shm_progress {
    bool joined;
    bool inside;     /* a collective is under way */
    uint64_t number; /* of the newest collective, from 1; 0: none yet */
    const char *name;
};

void comm_shm_progress_read(const void *region, uint32_t rank,
                            struct comm_shm_progress *ret_progress);
