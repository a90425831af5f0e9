/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed weights on disk (--pack-cache): once a model is loaded the memfds of its weights and its
 * embedding are copied to files of the same layout, and a later start of the same model in the same
 * way hands these to the ranks, which map them instead of reading and packing. What a file is for
 * is in its name, so that the leader can look before there are ranks; whether it is what a rank
 * would have made is for the rank's own check of the identity (engine/kept.h).
 *
 * A set is the files KEY.host and KEY.0 ... KEY.n-1, and KEY.sums: their sizes and a hash of each
 * MiB, written last. Files have no name before they are complete, so nothing is left of a start
 * that is cut off. Two that write the same set write the same bytes; whatever a mixture does not
 * agree with its hashes is no set. The folder keeps the PACK_CACHE_SETS that were used last.
 *
 * Nothing here fails a load: what goes wrong is logged, and the weights are packed as ever. One
 * thread calls, which has signals blocked; copying has a thread of its own.
 */
#pragma once

#include "base/err.h"
#include "comm/comm.h"
#include "json/json.h"

enum { PACK_CACHE_SETS = 4, PACK_CACHE_MAX_RANKS = 64 };

struct pack_cache;

/* What is in a set. */
struct pack_cache_key {
    const char *build;
    uint32_t layout;
    uint32_t n_ranks;   /* at most PACK_CACHE_MAX_RANKS */
    const json_t *load; /* {"model", "options"} as in the load message (borrowed) */
};

/* Open files, or memfds. */
struct pack_cache_files {
    int host;
    int ranks[PACK_CACHE_MAX_RANKS];
};

/* folder is made when something is saved. NULL for a folder that is NULL. */
struct pack_cache *pack_cache_create(const char *folder);
/* Waits for what is being saved. */
void pack_cache_destroy(struct pack_cache **cache);

/* Opens the set for reading and checks all of it against its hashes, in a time that grows with its
 * size as reading it does. False: there is none that is of use; one that is damaged is removed. The
 * caller closes the files. */
bool pack_cache_find(struct pack_cache *cache, const struct pack_cache_key *key,
                     struct pack_cache_files *ret_files);

/* Removes the set, which a rank had no use for. */
void pack_cache_discard(struct pack_cache *cache, const struct pack_cache_key *key);

/* Copies the memory, which nobody writes any more, to a new set, in a thread that leaves the cores
 * to others. The descriptors stay the caller's and may be closed at once. Nothing if a copy is
 * still under way. */
void pack_cache_save(struct pack_cache *cache, const struct pack_cache_key *key,
                     const struct pack_cache_files *files);
