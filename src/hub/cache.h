/* SPDX-License-Identifier: Apache-2.0 */
/* The hub's cache on this machine (its layout is in hub/hub.h). Several processes may use it. */
#pragma once

#include "hub/listing.h"
#include "hub/name.h"

enum { CACHE_COMMIT_DIGITS = 40, CACHE_COMMIT_BYTES = 41 };

struct cache {
    char *root;
    char *folder; /* ROOT/models--ORG--MODEL */
    char *locks;  /* ROOT/.locks/models--ORG--MODEL */
};

/* Where it is; nothing is made yet. root NULL: as the environment says. STATUS_INVALID if it says
 * nothing. */
NODISCARD enum status cache_init(struct cache *cache, const char *root, const struct hub_name *name,
                                 struct err *err);
void cache_release(struct cache *cache);

/* Makes its folders. */
NODISCARD enum status cache_make(const struct cache *cache, struct err *err);

/* The commit of a revision, from refs/ or because it is one. STATUS_NOT_FOUND. */
NODISCARD enum status cache_commit(const struct cache *cache, const char *revision,
                                   char ret_commit[CACHE_COMMIT_BYTES], struct err *err);
/* Moves a ref; does nothing if revision is the commit. */
NODISCARD enum status cache_set_ref(const struct cache *cache, const char *revision,
                                    const char *commit, struct err *err);

/* All three: free() the result. */
char *cache_snapshot(const struct cache *cache, const char *commit);
char *cache_blob(const struct cache *cache, const char *hash);
char *cache_incomplete(const struct cache *cache, const char *hash);

/* Adds what a snapshot holds, without dead links. STATUS_NOT_FOUND if there is no such folder. */
NODISCARD enum status cache_list(const char *snapshot, struct hub_listing *listing,
                                 struct err *err);

/* Puts the link of a file into the snapshot, over an older one. */
NODISCARD enum status cache_link(const struct cache *cache, const char *commit, const char *path,
                                 const char *hash, struct err *err);

/* Takes the lock of a blob: *ret_fd, to be closed. STATUS_PENDING if somebody else has it. */
NODISCARD enum status cache_lock(const struct cache *cache, const char *hash, int *ret_fd,
                                 struct err *err);

/* Bytes that may still be written there. */
NODISCARD enum status cache_free_bytes(const struct cache *cache, uint64_t *ret_bytes,
                                       struct err *err);

/* Where the environment keeps the hub's things, ".../huggingface"; NULL if it does not say. */
char *cache_home(void);
