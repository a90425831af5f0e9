/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/leaves.h"

#include "base/mem.h"

/* Counts a merge at the last leaf of every inner node of the tree over [low, high) that lies inside
 * the owned range [first, end). */
static void count_merges(struct leaf_plan *plan, uint32_t low, uint32_t high, uint32_t first,
                         uint32_t end)
{
    uint32_t middle = low + leaves_split(high - low);

    if (high - low <= 1 || high <= first || low >= end) {
        return;
    }
    count_merges(plan, low, middle, first, end);
    count_merges(plan, middle, high, first, end);
    if (low >= first && high <= end) {
        plan->merges[high - 1 - first]++;
    }
}

void leaf_plan_init(struct leaf_plan *plan, const uint32_t *bounds, uint32_t total, uint32_t first,
                    uint32_t count)
{
    uint32_t stack = 0;

    ENSURE_OP(first + count, <=, total);
    *plan = (struct leaf_plan){.n_leaves = count};
    plan->bounds = xcalloc(count + 1, sizeof(*plan->bounds));
    plan->merges = xcalloc(count, sizeof(*plan->merges));
    for (uint32_t i = 0; i <= count; i++) {
        plan->bounds[i] = bounds[first + i] - bounds[first];
    }
    count_merges(plan, 0, total, first, first + count);
    for (uint32_t i = 0; i < count; i++) {
        stack++;
        plan->depth = MAX(plan->depth, stack);
        stack -= plan->merges[i];
    }
    plan->n_roots = stack;
}

void leaf_plan_init_single(struct leaf_plan *plan, uint32_t k)
{
    const uint32_t bounds[2] = {0, k};

    leaf_plan_init(plan, bounds, 1, 0, 1);
}

void leaf_plan_release(struct leaf_plan *plan)
{
    free(plan->bounds);
    free(plan->merges);
    *plan = (struct leaf_plan){0};
}

uint32_t leaves_ffn(uint32_t k, uint32_t group, uint32_t bounds[LEAVES_FFN_MAX + 1])
{
    uint32_t unit = MAX(32, group);
    uint32_t n = (uint32_t)div_up(k, unit);
    uint32_t total = MIN(LEAVES_FFN_MAX, n);

    for (uint32_t i = 0; i <= total; i++) {
        uint64_t offset = (uint64_t)i * n / total * unit;

        bounds[i] = (uint32_t)MIN(offset, k);
    }
    return total;
}
