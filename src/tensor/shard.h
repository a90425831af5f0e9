/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which slice of a tensor rank r of N owns, for any N. Everything is cut into contiguous ranges in
 * rank order, and the cut depends on the model's shape, N and the ranks' weights alone, so every
 * process computes the same one and nobody sends it.
 *
 *   leaves    the pieces along K of a row-parallel product (tensor/leaves.h): query heads for the
 *             attention output, FFN leaves for ffn_down. The rows of the column-parallel products
 *             before them (q; gate, up) are cut at the same places.
 *   KV heads  those that the owned query heads read: held by several ranks when there are fewer of
 *             them than ranks, or when a cut goes through a group.
 *   blocks    the vocabulary, in whole blocks of 1,024 rows.
 *   fused     a tensor that is several of these on top of each other is cut region by region.
 *
 * Leaves are dealt so that, in this order: the largest share (elements / weight) is smallest; the
 * most roots (maximal subtrees, one vector each to ship) of any rank are fewest; all roots together
 * are fewest, since every rank reads them all; the first ranks own most. So a rank may stay without
 * a leaf where a wider spread would shorten no step: 16 leaves over 5 ranks are 4, 4, 4, 4, 0.
 *
 * What that gives with equal weights: one root a rank at N = 1, 2, 4, 8, 16, for any number of
 * heads and for 16 FFN leaves of any size; at every other N <= 16 at most two for 16 leaves of one
 * size and for 9 or 14 heads, three where FFN leaves differ by a unit at N = 3, and up to five for
 * other numbers of heads (48 over 3 ranks). Shares come first: a vector costs about a microsecond,
 * a unit or a head more than that.
 *
 * Pure arithmetic; any thread; nothing is kept.
 */
#pragma once

#include "base/err.h"

enum { SHARD_RANKS_MAX = 64, SHARD_LEAVES_MAX = 1024, SHARD_VOCAB_BLOCK = 1024 };

/* [begin, end); begin == end is empty. */
struct shard_range {
    uint32_t begin;
    uint32_t end;
};

struct shard_world {
    uint32_t n_ranks;        /* 1 to SHARD_RANKS_MAX */
    const uint32_t *weights; /* [n_ranks] relative speeds, 0: owns nothing; NULL: all equal */
};

/* A whole division: rank r owns units [bounds[r], bounds[r + 1]). */
struct shard_cut {
    uint32_t n_ranks;
    uint32_t bounds[SHARD_RANKS_MAX + 1];
};

/* Divides n leaves (at most SHARD_LEAVES_MAX); offsets are their n + 1 ascending bounds along K,
 * NULL if all are of one size. */
NODISCARD enum status shard_leaves(const struct shard_world *world, uint32_t n,
                                   const uint32_t *offsets, struct shard_cut *ret_cut,
                                   struct err *err);

/* Divides n rows in whole blocks (the last may be short) so that the largest number of blocks /
 * weight is smallest, earlier ranks larger on ties. Bounds are rows. */
NODISCARD enum status shard_blocks(const struct shard_world *world, uint32_t n, uint32_t block,
                                   struct shard_cut *ret_cut, struct err *err);

/* Maximal subtrees of the tree over [0, n) that lie in range. */
uint32_t shard_n_roots(uint32_t n, struct shard_range range);

/* The KV heads that a range of query heads reads; n_heads is a multiple of n_kv_heads. */
struct shard_range shard_kv_heads(uint32_t n_heads, uint32_t n_kv_heads, struct shard_range heads);

/* What the parts of a dense decoder that do not differ between layers divide into. */
struct shard_shape {
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t vocab;
};

/* One rank's share of them. */
struct shard_slice {
    uint32_t head_begin; /* query heads [head_begin, head_end), and so the leaves of attn_out */
    uint32_t head_end;
    uint32_t kv_begin; /* key/value heads that those read */
    uint32_t kv_end;
    uint32_t vocab_begin; /* rows of the output head, whole blocks of 1,024 */
    uint32_t vocab_end;
};

NODISCARD enum status shard_slice_of(const struct shard_world *world, uint32_t rank,
                                     const struct shard_shape *shape, struct shard_slice *ret_slice,
                                     struct err *err);

/* A region of a fused tensor: n_units times unit_rows rows, of which the rank owns some units. */
struct shard_region {
    uint32_t unit_rows;
    uint32_t n_units;
    struct shard_range owned;
};

/* Row ranges of the fused tensor that the rank owns, one a region (possibly empty), in order; the
 * sum of all regions' rows fits 32 bits. Returns the number of rows owned. */
uint32_t shard_fused(const struct shard_region *regions, uint32_t n_regions,
                     struct shard_range *ret_rows);
