/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/shard.h"

#include "base/mem.h"
#include "tensor/leaves.h"

enum { IMPOSSIBLE = UINT16_MAX }; /* no number of roots comes near it */

/* A share of the work in relation to the rank's weight. {1, 0} is infinite. */
struct share {
    uint64_t cost;
    uint64_t weight;
};

static bool share_less(struct share a, struct share b)
{
    return a.cost * b.weight < b.cost * a.weight; /* factors are below 2^32 */
}

/* One division of leaves while it is computed. Tables over the first leaf not yet given away. */
struct division {
    const struct shard_world *world;
    uint32_t n;
    const uint32_t *offsets;
    struct share limit;  /* no rank's share may be larger */
    uint32_t root_limit; /* nor may it have more roots */
};

static uint32_t weight_of(const struct shard_world *world, uint32_t rank)
{
    return world->weights == NULL ? 1 : world->weights[rank];
}

static enum status check_world(const struct shard_world *world, struct err *err)
{
    uint64_t sum = 0;

    if (world->n_ranks < 1 || world->n_ranks > SHARD_RANKS_MAX) {
        return err_set(err, STATUS_INVALID, "a world of %u ranks: 1 to %d are possible",
                       world->n_ranks, SHARD_RANKS_MAX);
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        sum += weight_of(world, r);
    }
    if (sum == 0) {
        return err_set(err, STATUS_INVALID, "the weights of all %u ranks are 0", world->n_ranks);
    }
    return STATUS_OK;
}

static struct share share_of(const struct division *d, uint32_t rank, uint32_t begin, uint32_t end)
{
    uint64_t cost = d->offsets == NULL ? end - begin : d->offsets[end] - d->offsets[begin];

    if (end == begin) {
        return (struct share){0, 1};
    }
    return (struct share){MAX(cost, 1), weight_of(d->world, rank)};
}

static uint32_t count_roots(uint32_t low, uint32_t high, struct shard_range range)
{
    uint32_t middle = low + leaves_split(high - low);

    if (high <= range.begin || low >= range.end || low == high) {
        return 0;
    }
    if (low >= range.begin && high <= range.end) {
        return 1;
    }
    return count_roots(low, middle, range) + count_roots(middle, high, range);
}

uint32_t shard_n_roots(uint32_t n, struct shard_range range)
{
    return range.begin == range.end ? 0 : count_roots(0, n, range);
}

/* The least possible largest share. least[b] is that of leaves [b, n) over ranks r and up, for r
 * from the last down. */
static struct share least_largest_share(const struct division *d, struct share *least)
{
    for (uint32_t b = 0; b <= d->n; b++) {
        least[b] = b == d->n ? (struct share){0, 1} : (struct share){1, 0};
    }
    for (uint32_t r = d->world->n_ranks; r-- > 0;) {
        for (uint32_t b = 0; b <= d->n;
             b++) { /* ascending: least[e] with e >= b is still r + 1's */
            struct share best = least[b];

            for (uint32_t e = b + 1; e <= d->n; e++) {
                struct share mine = share_of(d, r, b, e);
                struct share largest = share_less(mine, least[e]) ? least[e] : mine;

                if (!share_less(mine, best)) {
                    break; /* further leaves only add to it */
                }
                best = share_less(largest, best) ? largest : best;
            }
            least[b] = best;
        }
    }
    return least[0];
}

/* The least possible most roots of a rank (total false) or of all together (total true) within the
 * limits. fewest[b] is that of leaves [b, n) over ranks r and up; choice[r * (n + 1) + b] where
 * rank r ends then, as late as possible. */
static uint16_t fewest_roots(const struct division *d, bool total, uint16_t *fewest,
                             uint16_t *choice)
{
    for (uint32_t b = 0; b <= d->n; b++) {
        fewest[b] = b == d->n ? 0 : IMPOSSIBLE;
    }
    for (uint32_t r = d->world->n_ranks; r-- > 0;) {
        for (uint32_t b = 0; b <= d->n; b++) { /* ascending, as above */
            uint16_t best = fewest[b];
            uint32_t end = b;

            for (uint32_t e = b + 1; e <= d->n; e++) {
                uint32_t roots;
                uint32_t all;

                if (share_less(d->limit, share_of(d, r, b, e))) {
                    break; /* further leaves only add to it */
                }
                roots = shard_n_roots(d->n, (struct shard_range){b, e});
                all = total ? roots + fewest[e] : MAX(roots, fewest[e]);
                if (roots <= d->root_limit && all <= best && fewest[e] != IMPOSSIBLE) {
                    best = (uint16_t)all;
                    end = e;
                }
            }
            fewest[b] = best;
            choice[r * (d->n + 1) + b] = (uint16_t)end;
        }
    }
    return fewest[0];
}

enum status shard_leaves(const struct shard_world *world, uint32_t n, const uint32_t *offsets,
                         struct shard_cut *ret_cut, struct err *err)
{
    struct division d = {.world = world, .n = n, .offsets = offsets, .root_limit = UINT32_MAX};
    enum status status = check_world(world, err);
    struct share *shares = NULL;
    uint16_t *fewest = NULL;
    uint16_t *choice = NULL;

    if (status != STATUS_OK) {
        return status;
    }
    if (n > SHARD_LEAVES_MAX) {
        return err_set(err, STATUS_LIMIT, "a product of %u leaves: at most %d are possible", n,
                       SHARD_LEAVES_MAX);
    }
    shares = mem_alloc(n + 1, sizeof(*shares));
    fewest = mem_alloc(n + 1, sizeof(*fewest));
    choice = mem_alloc((size_t)world->n_ranks * (n + 1), sizeof(*choice));
    if (shares == NULL || fewest == NULL || choice == NULL) {
        status = err_set(err, STATUS_NO_MEMORY, "no memory to divide %u leaves", n);
        goto out;
    }
    d.limit = least_largest_share(&d, shares);
    d.root_limit = fewest_roots(&d, false, fewest, choice);
    fewest_roots(&d, true, fewest, choice);
    *ret_cut = (struct shard_cut){.n_ranks = world->n_ranks};
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        ret_cut->bounds[r + 1] = choice[r * (n + 1) + ret_cut->bounds[r]];
    }
    ENSURE_OP(ret_cut->bounds[world->n_ranks], ==, n);
out:
    free(shares);
    free(fewest);
    free(choice);
    return status;
}

/* The rank whose share is smallest with one block more. */
static uint32_t next_rank(const struct shard_world *world, const uint32_t *counts)
{
    struct share least = {1, 0};
    uint32_t found = 0;

    for (uint32_t r = 0; r < world->n_ranks; r++) {
        struct share share = {(uint64_t)counts[r] + 1, weight_of(world, r)};

        if (share_less(share, least)) {
            least = share;
            found = r;
        }
    }
    return found;
}

enum status shard_blocks(const struct shard_world *world, uint32_t n, uint32_t block,
                         struct shard_cut *ret_cut, struct err *err)
{
    enum status status = check_world(world, err);
    uint32_t counts[SHARD_RANKS_MAX];
    uint64_t n_blocks;
    uint64_t given = 0;
    uint64_t sum = 0;
    uint64_t row = 0;

    if (status != STATUS_OK) {
        return status;
    }
    ENSURE_OP(block, >=, 1);
    n_blocks = div_up(n, block);
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        sum += weight_of(world, r);
    }
    /* The floor of the exact share is below every best division; what is left, less than one a
     * rank, goes one by one to where it hurts least. */
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        counts[r] = (uint32_t)(n_blocks * weight_of(world, r) / sum);
        given += counts[r];
    }
    for (; given < n_blocks; given++) {
        counts[next_rank(world, counts)]++;
    }
    *ret_cut = (struct shard_cut){.n_ranks = world->n_ranks};
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        row += (uint64_t)counts[r] * block;
        ret_cut->bounds[r + 1] = (uint32_t)MIN(row, n);
    }
    return STATUS_OK;
}

struct shard_range shard_kv_heads(uint32_t n_heads, uint32_t n_kv_heads, struct shard_range heads)
{
    uint32_t group;

    ENSURE(n_kv_heads > 0 && n_heads % n_kv_heads == 0);
    group = n_heads / n_kv_heads;
    if (heads.begin == heads.end) {
        return (struct shard_range){heads.begin / group, heads.begin / group};
    }
    return (struct shard_range){heads.begin / group, (heads.end - 1) / group + 1};
}

enum status shard_slice_of(const struct shard_world *world, uint32_t rank,
                           const struct shard_shape *shape, struct shard_slice *ret_slice,
                           struct err *err)
{
    struct shard_cut heads;
    struct shard_cut vocab;
    struct shard_range kv;
    enum status status;

    if (shape->n_kv_heads == 0 || shape->n_heads % shape->n_kv_heads != 0) {
        return err_set(err, STATUS_INVALID, "%u query heads cannot share %u KV heads",
                       shape->n_heads, shape->n_kv_heads);
    }
    status = shard_leaves(world, shape->n_heads, NULL, &heads, err);
    if (status == STATUS_OK) {
        status = shard_blocks(world, shape->vocab, SHARD_VOCAB_BLOCK, &vocab, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    ENSURE_OP(rank, <, world->n_ranks);
    kv = shard_kv_heads(shape->n_heads, shape->n_kv_heads,
                        (struct shard_range){heads.bounds[rank], heads.bounds[rank + 1]});
    *ret_slice = (struct shard_slice){
        .head_begin = heads.bounds[rank],
        .head_end = heads.bounds[rank + 1],
        .kv_begin = kv.begin,
        .kv_end = kv.end,
        .vocab_begin = vocab.bounds[rank],
        .vocab_end = vocab.bounds[rank + 1],
    };
    return STATUS_OK;
}

uint32_t shard_fused(const struct shard_region *regions, uint32_t n_regions,
                     struct shard_range *ret_rows)
{
    uint32_t first = 0;
    uint32_t total = 0;

    for (uint32_t i = 0; i < n_regions; i++) {
        const struct shard_region *region = &regions[i];

        ENSURE(region->owned.begin <= region->owned.end && region->owned.end <= region->n_units);
        ret_rows[i] = (struct shard_range){first + region->owned.begin * region->unit_rows,
                                           first + region->owned.end * region->unit_rows};
        total += ret_rows[i].end - ret_rows[i].begin;
        first += region->n_units * region->unit_rows;
    }
    return total;
}
