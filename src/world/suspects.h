/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which requests may be what kills the ranks. A request is blamed when a step that it took part in
 * is lost to a fault, and cleared when a step computes something new for it. Two failures in a row:
 * it is run alone. A third: it is given up, and the others go on. A lone step that succeeds lifts
 * the isolation the first time; a request that needed it twice stays alone for the rest of its life
 * (it kills only in company).
 *
 * Positions that are prefilled again after a rebuild are nothing new: a request that kills at its
 * 40th token commits 39 of them again each time, and would never be found out otherwise.
 *
 * Plain data; part of the world's machine (state.h) and used by its thread only.
 */
#pragma once

#include "base/base.h"

/* A request's part in a step. */
struct world_part {
    uint64_t request;
    bool again; /* only computes positions that had been committed before */
};

struct suspect {
    uint64_t request;
    uint32_t failed;   /* steps lost in a row */
    uint32_t isolated; /* times */
    bool alone;
};

struct suspects {
    struct suspect *list;
    size_t n;
    size_t cap;
    uint64_t *ids; /* what the last call below returned */
    size_t ids_cap;
};

enum { SUSPECT_ALONE_AT = 2, SUSPECT_GIVEN_UP_AT = 3 };

void suspects_release(struct suspects *suspects);
void suspects_clear(struct suspects *suspects);

bool suspects_is_alone(const struct suspects *suspects, uint64_t request);

/* Blames each request once, however often it is listed. Returns how many are to be given up now
 * (they are forgotten here) and lends their ids until the next call. */
size_t suspects_blame(struct suspects *suspects, const struct world_part *parts, size_t n,
                      const uint64_t **ret_ids);

/* A step of these parts is committed. */
void suspects_commit(struct suspects *suspects, const struct world_part *parts, size_t n);

/* The request has ended. */
void suspects_forget(struct suspects *suspects, uint64_t request);

/* The requests that are run alone, lent until the next call. */
size_t suspects_alone(struct suspects *suspects, const uint64_t **ret_ids);
