/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaves: the fixed pieces along K in which a row-parallel product is summed, and the tree that
 * adds them (DESIGN.md, canonical arithmetic). The pieces depend on the model and its weight type
 * alone, never on the world size: a leaf is a chain of its own from zero, and leaves are added by
 * the tree that halves the range, the first half the larger. A rank owns a contiguous range of
 * leaves and ships one vector for each maximal subtree inside its range (a root).
 *
 * A leaf_plan is the program for one rank: push leaf 0, merge merges[0] times, push leaf 1, ...
 * where a merge pops b, pops a, pushes a + b. What is left on the stack are the roots, in order.
 * Pure; any thread. The plan owns its arrays.
 */
#pragma once

#include "base/base.h"

struct leaf_plan {
    uint32_t n_leaves; /* owned here; 1 for a column-parallel product (one chain over all of K) */
    uint32_t n_roots;  /* vectors left at the end; 0 if n_leaves is 0 */
    uint32_t depth;    /* most vectors on the stack at once */
    uint32_t *bounds;  /* [n_leaves + 1] element offsets along the rank's own K, from 0, even */
    uint8_t *merges;   /* [n_leaves] */
};

/* One leaf over all k elements. */
void leaf_plan_init_single(struct leaf_plan *plan, uint32_t k);

/* Leaves [first, first + count) of the total leaves whose bounds are given (total + 1 ascending
 * offsets along the model's whole K); the plan's own offsets start at 0. */
void leaf_plan_init(struct leaf_plan *plan, const uint32_t *bounds, uint32_t total, uint32_t first,
                    uint32_t count);
void leaf_plan_release(struct leaf_plan *plan);

/* FFN: L = min(16, n) leaves of whole units, unit = max(32, group), n = ceil(k / unit); leaf i is
 * units floor(i n / L) up to floor((i + 1) n / L). Writes L + 1 offsets (the last is k); returns L.
 */
enum { LEAVES_FFN_MAX = 16 };
uint32_t leaves_ffn(uint32_t k, uint32_t group, uint32_t bounds[LEAVES_FFN_MAX + 1]);

/* Where the tree over [0, n) splits: the size of the first half, ceil(n / 2). */
static inline uint32_t leaves_split(uint32_t n)
{
    return n - n / 2;
}

/* Inner nodes of the tree over [0, n) whose last leaf is i: how often to merge after leaf i. */
static inline uint32_t leaves_merges_after(uint32_t n, uint32_t i)
{
    uint32_t low = 0;
    uint32_t high = n;
    uint32_t merges = 0;

    while (high - low > 1) {
        uint32_t middle = low + leaves_split(high - low);

        merges += i == high - 1;
        if (i < middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return merges;
}
