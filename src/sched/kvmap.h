/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which KV page belongs to whom, and which pages hold a prefix that a later prompt may begin with.
 * Numbers only: the pages themselves are in the ranks' memory.
 *
 *            grow                      release, not in the cache
 *    free ─────────▶ used by one ──────────────────────────────▶ free
 *                        │ commit: full, and computed by all ranks
 *                        ▼               take
 *                    used, in the cache ◀────── cached, used by nobody
 *                        └──── release of the last ────▶ │ the longest unused is evicted ─▶ used
 *
 * free + cached + used == total at all times. used: has a holder.
 *
 * A page in the cache is found by the hash of its chain: the hash of the page before it (of the
 * salt, for the first) is the seed of the hash of its own tokens. A hit is believed only if salt,
 * tokens and the page before it are the very same ones, so that a collision costs time, and never a
 * wrong answer. Only full pages that are committed are in it, so nobody writes to a page that has
 * two holders. Pages of a chain are given back from its end on, so that eviction takes tails before
 * what they hang on.
 *
 * Pure; one thread.
 */
#pragma once

#include "base/base.h"

struct kvmap;

struct kvmap_config {
    uint32_t n_pages;
    uint32_t page_tokens;
    uint32_t hash_bits; /* 0: all of them; few where a test wants collisions */
};

struct kvmap_counts {
    uint32_t total;
    uint32_t used;
    uint32_t cached;
    uint32_t free;
};

/* The pages of one sequence of tokens. Zeroed but for salt it has none. Read it, and change it
 * through the functions below only. */
struct kvmap_seq {
    uint64_t salt;
    uint32_t *pages; /* [n_pages] page i holds positions from i * page_tokens on */
    uint32_t n_pages;
    uint32_t pages_cap;
    uint64_t *hashes; /* [n_hashes] of the chain of its known tokens, one a full page */
    uint32_t n_hashes;
    uint32_t hashes_cap;
    uint32_t n_chained;  /* pages that are full and committed; the last of them is, in the cache, */
    uint32_t chain_page; /* this page, */
    uint64_t chain_id;   /* as long as that one's id is this */
    bool broken;         /* it no longer is: what follows cannot be found, and is not entered */
};

/* Never NULL. */
struct kvmap *kvmap_create(const struct kvmap_config *config);
/* Sequences that hold pages need not be released before. */
void kvmap_destroy(struct kvmap **map);

struct kvmap_counts kvmap_counts(const struct kvmap *map);
/* True if the page is neither held nor cached. */
bool kvmap_is_free(const struct kvmap *map, uint32_t page);

/* Hashes those of the first n tokens that fill pages and are not hashed yet. The tokens of a
 * sequence only ever grow. */
void kvmap_know(const struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t n);

/* How many of the first limit pages of the (known) tokens are in the cache; *ret_idle of these have
 * no holder: taking them leaves as many fewer to be evicted. */
uint32_t kvmap_match(const struct kvmap *map, const struct kvmap_seq *seq, const int32_t *tokens,
                     uint32_t limit, uint32_t *ret_idle);
/* Makes these the first pages of seq, which has none. Returns how many. */
uint32_t kvmap_take(struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens,
                    uint32_t limit);

/* Makes its pages at least n, evicting cached ones if need be. False, and nothing is changed: there
 * are not that many. */
bool kvmap_grow(struct kvmap *map, struct kvmap_seq *seq, uint32_t n);

/* All ranks have computed the first n positions, whose tokens are known: enters the pages that are
 * full now into the cache. */
void kvmap_commit(struct kvmap *map, struct kvmap_seq *seq, const int32_t *tokens, uint32_t n);

/* Gives all its pages back; what it has in the cache stays there. */
void kvmap_release(struct kvmap *map, struct kvmap_seq *seq);
/* As before, and frees its arrays. */
void kvmap_seq_release(struct kvmap *map, struct kvmap_seq *seq);

/* Forgets cached pages that nobody holds. */
void kvmap_drop_cached(struct kvmap *map);

/* For tests: every page in exactly one place, counts and links right. Aborts otherwise. O(pages).
 */
void kvmap_audit(const struct kvmap *map);
