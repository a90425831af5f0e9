/* SPDX-License-Identifier: Apache-2.0 */
/* Division over ranks: every element owned as often as it should be at every N, the best division
 * against brute force, few roots, weights, and the bits of the tree at every N. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tensor/leaves.h"
#include "tensor/shard.h"

enum { MAX_RANKS = 16, MAX_LEAVES = 48 };

static uint64_t random_state;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static struct shard_range owned_by(const struct shard_cut *cut, uint32_t rank)
{
    return (struct shard_range){cut->bounds[rank], cut->bounds[rank + 1]};
}

static uint32_t max_roots(const struct shard_cut *cut, uint32_t n)
{
    uint32_t most = 0;

    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        most = MAX(most, shard_n_roots(n, owned_by(cut, r)));
    }
    return most;
}

/* Contiguous, in order, everything given away. */
static void assert_covers(const struct shard_cut *cut, uint32_t n_ranks, uint32_t n)
{
    assert_int_equal(cut->n_ranks, n_ranks);
    assert_int_equal(cut->bounds[0], 0);
    for (uint32_t r = 0; r < n_ranks; r++) {
        assert_true(cut->bounds[r] <= cut->bounds[r + 1]);
    }
    assert_int_equal(cut->bounds[n_ranks], n);
}

static void divide(const struct shard_world *world, uint32_t n, const uint32_t *offsets,
                   struct shard_cut *ret_cut)
{
    struct shard_cut again;
    struct err err = {0};

    assert_int_equal(shard_leaves(world, n, offsets, ret_cut, &err), STATUS_OK);
    assert_covers(ret_cut, world->n_ranks, n);
    assert_int_equal(shard_leaves(world, n, offsets, &again, NULL), STATUS_OK);
    assert_memory_equal(&again, ret_cut, sizeof(again));
}

static void test_leaves(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= SHARD_RANKS_MAX; n_ranks++) {
        const struct shard_world world = {.n_ranks = n_ranks};
        bool halves = (n_ranks & (n_ranks - 1)) == 0;

        for (uint32_t n = 0; n <= MAX_LEAVES; n++) {
            struct shard_cut cut;
            uint32_t largest = 0;

            divide(&world, n, NULL, &cut);
            for (uint32_t r = 0; r < n_ranks; r++) {
                largest = MAX(largest, cut.bounds[r + 1] - cut.bounds[r]);
            }
            assert_int_equal(largest, div_up(n, n_ranks));
            if (halves) {
                assert_true(max_roots(&cut, n) <= 1);
            } else if (n_ranks <= MAX_RANKS) {
                assert_true(max_roots(&cut, n) <= (n == 9 || n == 14 || n == 16 ? 2 : 5));
            }
        }
    }
}

/* FFN leaves of whole units: the largest share counts elements. */
static void test_ffn(void **state)
{
    (void)state;
    for (uint32_t k = 32; k <= 6144; k += k < 700 ? 4 : 160) {
        for (uint32_t group = 32; group <= 256; group *= 8) {
            uint32_t offsets[LEAVES_FFN_MAX + 1];
            uint32_t unit_count = (uint32_t)div_up(k, group);
            uint32_t n = leaves_ffn(k, group, offsets);

            for (uint32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
                const struct shard_world world = {.n_ranks = n_ranks};
                struct shard_cut cut;

                divide(&world, n, offsets, &cut);
                assert_true(max_roots(&cut, n) <= 3);
                if ((n_ranks & (n_ranks - 1)) != 0 || n < LEAVES_FFN_MAX) {
                    continue;
                }
                assert_true(max_roots(&cut, n) <= 1);
                for (uint32_t r = 0; r < n_ranks; r++) {
                    uint32_t mine = offsets[cut.bounds[r + 1]] - offsets[cut.bounds[r]];

                    assert_true(mine <= div_up(unit_count, n_ranks) * group);
                }
            }
        }
    }
}

/* What is minimised, largest share as a fraction first. */
struct score {
    uint64_t cost;
    uint64_t weight;
    uint32_t most;
    uint32_t total;
};

static int compare_scores(struct score a, struct score b)
{
    uint64_t x = a.cost * b.weight;
    uint64_t y = b.cost * a.weight;

    if (x != y) {
        return x < y ? -1 : 1;
    }
    if (a.most != b.most) {
        return a.most < b.most ? -1 : 1;
    }
    return a.total < b.total ? -1 : a.total > b.total;
}

static struct score score_of(const struct shard_world *world, const struct shard_cut *cut,
                             uint32_t n, const uint32_t *offsets)
{
    struct score score = {.weight = 1};

    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        uint64_t cost = offsets[cut->bounds[r + 1]] - offsets[cut->bounds[r]];
        uint64_t weight = world->weights[r];
        uint32_t roots = shard_n_roots(n, owned_by(cut, r));

        if (cost * score.weight > score.cost * weight) {
            score.cost = cost;
            score.weight = weight;
        }
        score.most = MAX(score.most, roots);
        score.total += roots;
    }
    return score;
}

/* Tries every division of leaves [cut->bounds[rank], n) over ranks rank and up. */
static void try_all(const struct shard_world *world, uint32_t n, const uint32_t *offsets,
                    struct shard_cut *cut, uint32_t rank, struct score *best)
{
    if (rank + 1 == world->n_ranks) {
        struct score score;

        cut->bounds[rank + 1] = n;
        score = score_of(world, cut, n, offsets);
        if (compare_scores(score, *best) < 0) {
            *best = score;
        }
        return;
    }
    for (uint32_t end = cut->bounds[rank]; end <= n; end++) {
        cut->bounds[rank + 1] = end;
        try_all(world, n, offsets, cut, rank + 1, best);
    }
}

static void test_best(void **state)
{
    (void)state;
    random_state = 20261122;
    print_message("seed %llu\n", (unsigned long long)random_state);
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t weights[5];
        uint32_t offsets[13] = {0};
        uint32_t n = random_u32() % 13;
        const struct shard_world world = {.n_ranks = 1 + random_u32() % 5, .weights = weights};
        struct score best = {.cost = 1, .weight = 0};
        struct shard_cut found;
        struct shard_cut cut = {.n_ranks = world.n_ranks};

        for (uint32_t r = 0; r < world.n_ranks; r++) {
            weights[r] = round % 3 == 0 ? 1 : 1 + random_u32() % 9;
        }
        for (uint32_t i = 0; i < n; i++) {
            offsets[i + 1] = offsets[i] + (round % 2 == 0 ? 64 : 32 * (1 + random_u32() % 3));
        }
        divide(&world, n, offsets, &found);
        try_all(&world, n, offsets, &cut, 0, &best);
        assert_int_equal(compare_scores(score_of(&world, &found, n, offsets), best), 0);
    }
}

static void test_weights(void **state)
{
    const uint32_t faster[] = {3, 1};
    const uint32_t idle[] = {0, 5, 0, 5};
    const uint32_t none[] = {0, 0};
    struct shard_cut cut;
    struct err err = {0};

    (void)state;
    divide(&(struct shard_world){2, faster}, 16, NULL, &cut);
    assert_int_equal(cut.bounds[1], 12);
    assert_int_equal(
        shard_blocks(&(struct shard_world){2, faster}, 49152, SHARD_VOCAB_BLOCK, &cut, &err),
        STATUS_OK);
    assert_int_equal(cut.bounds[1], 36864);

    divide(&(struct shard_world){4, idle}, 9, NULL, &cut);
    assert_int_equal(cut.bounds[1], 0);
    assert_int_equal(cut.bounds[2], 5);
    assert_int_equal(cut.bounds[3], 5);
    assert_int_equal(shard_blocks(&(struct shard_world){4, idle}, 5, 1, &cut, &err), STATUS_OK);
    assert_int_equal(cut.bounds[1], 0);
    assert_int_equal(cut.bounds[3], cut.bounds[2]);

    assert_int_equal(shard_leaves(&(struct shard_world){2, none}, 9, NULL, &cut, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "weights"));
    assert_int_equal(shard_blocks(&(struct shard_world){2, none}, 9, 1, &cut, &err),
                     STATUS_INVALID);
}

static void test_refused(void **state)
{
    const struct shard_shape bad = {.n_heads = 9, .n_kv_heads = 2, .vocab = 10};
    struct shard_cut cut;
    struct shard_slice slice;
    struct err err = {0};

    (void)state;
    assert_int_equal(shard_leaves(&(struct shard_world){0, NULL}, 9, NULL, &cut, &err),
                     STATUS_INVALID);
    assert_int_equal(shard_leaves(&(struct shard_world){65, NULL}, 9, NULL, &cut, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "65"));
    assert_int_equal(shard_leaves(&(struct shard_world){2, NULL}, 1025, NULL, &cut, &err),
                     STATUS_LIMIT);
    assert_non_null(strstr(err.text, "1025"));
    assert_int_equal(shard_slice_of(&(struct shard_world){2, NULL}, 0, &bad, &slice, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "9 query heads"));
}

static void test_largest(void **state)
{
    struct shard_cut cut;

    (void)state;
    divide(&(struct shard_world){SHARD_RANKS_MAX, NULL}, SHARD_LEAVES_MAX, NULL, &cut);
    assert_int_equal(max_roots(&cut, SHARD_LEAVES_MAX), 1);
    assert_int_equal(shard_blocks(&(struct shard_world){61, NULL}, UINT32_MAX, 1, &cut, NULL),
                     STATUS_OK);
    assert_covers(&cut, 61, UINT32_MAX);
}

/* A model's slices at every N: query heads and vocabulary exactly once, each KV head exactly by the
 * ranks that own one of its query heads. */
static void check_slices(const struct shard_shape *shape, uint32_t n_ranks)
{
    const struct shard_world world = {.n_ranks = n_ranks};
    uint32_t group = shape->n_heads / shape->n_kv_heads;
    uint32_t next_head = 0;
    uint32_t next_row = 0;

    for (uint32_t r = 0; r < n_ranks; r++) {
        struct shard_slice s;

        assert_int_equal(shard_slice_of(&world, r, shape, &s, NULL), STATUS_OK);
        assert_int_equal(s.head_begin, next_head);
        assert_int_equal(s.vocab_begin, next_row);
        next_head = s.head_end;
        next_row = s.vocab_end;
        assert_true(s.vocab_begin % SHARD_VOCAB_BLOCK == 0 || s.vocab_begin == shape->vocab);
        assert_true(div_up(s.vocab_end - s.vocab_begin, SHARD_VOCAB_BLOCK) <=
                    div_up(div_up(shape->vocab, SHARD_VOCAB_BLOCK), n_ranks));
        for (uint32_t kv = 0; kv < shape->n_kv_heads; kv++) {
            bool wanted = MAX(s.head_begin, kv * group) < MIN(s.head_end, (kv + 1) * group);

            assert_int_equal(kv >= s.kv_begin && kv < s.kv_end, wanted);
        }
    }
    assert_int_equal(next_head, shape->n_heads);
    assert_int_equal(next_row, shape->vocab);
}

static void test_slices(void **state)
{
    static const struct shard_shape shapes[] = {
        {9, 3, 49152}, {14, 2, 151936}, {16, 8, 151669}, {32, 8, 128256}, {40, 8, 1},
        {1, 1, 1023},  {8, 1, 1025},    {5, 5, 2048},    {64, 4, 0},      {28, 4, 262144},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        for (uint32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
            check_slices(&shapes[i], n_ranks);
        }
        check_slices(&shapes[i], SHARD_RANKS_MAX);
    }
}

/* q, k and v heads on top of each other, then a region that is cut by element. */
static void test_fused(void **state)
{
    enum { DIM = 4, HEADS = 9, KV = 3, TAIL = 10, ROWS = (HEADS + 2 * KV) * DIM + TAIL };
    const struct shard_shape shape = {HEADS, KV, 0};

    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
        const struct shard_world world = {.n_ranks = n_ranks};
        uint32_t times[ROWS] = {0};
        uint32_t kv_times[KV] = {0};
        struct shard_cut tail;

        assert_int_equal(shard_blocks(&world, TAIL, 1, &tail, NULL), STATUS_OK);
        for (uint32_t r = 0; r < n_ranks; r++) {
            struct shard_range rows[4];
            struct shard_slice s;
            uint32_t total;
            uint32_t found = 0;

            assert_int_equal(shard_slice_of(&world, r, &shape, &s, NULL), STATUS_OK);
            total = shard_fused(
                (const struct shard_region[]){
                    {.unit_rows = DIM, .n_units = HEADS, .owned = {s.head_begin, s.head_end}},
                    {.unit_rows = DIM, .n_units = KV, .owned = {s.kv_begin, s.kv_end}},
                    {.unit_rows = DIM, .n_units = KV, .owned = {s.kv_begin, s.kv_end}},
                    {.unit_rows = 1, .n_units = TAIL, .owned = owned_by(&tail, r)},
                },
                4, rows);
            for (uint32_t i = 0; i < 4; i++) {
                for (uint32_t row = rows[i].begin; row < rows[i].end; row++, found++) {
                    times[row]++;
                }
            }
            assert_int_equal(found, total);
            for (uint32_t kv = s.kv_begin; kv < s.kv_end; kv++) {
                kv_times[kv]++;
            }
        }
        for (uint32_t row = 0; row < ROWS; row++) {
            bool is_kv = row >= HEADS * DIM && row < (HEADS + 2 * KV) * DIM;

            assert_int_equal(times[row], is_kv ? kv_times[(row / DIM - HEADS) % KV] : 1);
        }
    }
}

/* The sum of leaves [low, high) by the tree. */
static float tree_sum(const float *leaves, uint32_t low, uint32_t high)
{
    uint32_t middle = low + leaves_split(high - low);

    return high - low == 1 ? leaves[low]
                           : tree_sum(leaves, low, middle) + tree_sum(leaves, middle, high);
}

/* The same from the roots that ranks shipped, in order; *next is the first not yet used. */
static float tree_of_roots(const float *roots, uint32_t *next, const struct shard_cut *cut,
                           uint32_t low, uint32_t high)
{
    uint32_t middle = low + leaves_split(high - low);
    float a;
    float b;

    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        if (low >= cut->bounds[r] && high <= cut->bounds[r + 1]) {
            return roots[(*next)++];
        }
    }
    a = tree_of_roots(roots, next, cut, low, middle);
    b = tree_of_roots(roots, next, cut, middle, high);
    return a + b;
}

/* What one rank ships: its program of pushes and merges over its own leaves. */
static uint32_t run_plan(const float *leaves, uint32_t n, struct shard_range range,
                         float *ret_roots)
{
    uint32_t bounds[MAX_LEAVES + 1];
    struct leaf_plan plan;
    uint32_t height = 0;

    for (uint32_t i = 0; i <= n; i++) {
        bounds[i] = 2 * i;
    }
    leaf_plan_init(&plan, bounds, n, range.begin, range.end - range.begin);
    for (uint32_t i = 0; i < plan.n_leaves; i++) {
        ret_roots[height++] = leaves[range.begin + i];
        for (uint32_t m = 0; m < plan.merges[i]; m++) {
            height--;
            ret_roots[height - 1] += ret_roots[height];
        }
    }
    assert_int_equal(height, plan.n_roots);
    assert_int_equal(height, shard_n_roots(n, range));
    leaf_plan_release(&plan);
    return height;
}

/* Every N gives the bits of one rank. */
static void test_tree_bits(void **state)
{
    (void)state;
    random_state = 7;
    print_message("seed %llu\n", (unsigned long long)random_state);
    for (uint32_t n = 1; n <= MAX_LEAVES; n++) {
        for (uint32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
            uint32_t weights[MAX_RANKS];
            struct shard_world world = {.n_ranks = n_ranks};

            for (uint32_t r = 0; r < n_ranks; r++) {
                weights[r] = 1 + random_u32() % 4;
            }
            for (uint32_t sample = 0; sample < 4; sample++) {
                float leaves[MAX_LEAVES];
                float roots[MAX_LEAVES];
                struct shard_cut cut;
                uint32_t n_roots = 0;
                uint32_t used = 0;
                float expected;
                float found;

                world.weights = sample % 2 == 0 ? NULL : weights;
                for (uint32_t i = 0; i < n; i++) {
                    leaves[i] = (float)(int32_t)random_u32() * (1.0f / (float)(1 + i % 7));
                }
                divide(&world, n, NULL, &cut);
                for (uint32_t r = 0; r < n_ranks; r++) {
                    n_roots += run_plan(leaves, n, owned_by(&cut, r), roots + n_roots);
                }
                expected = tree_sum(leaves, 0, n);
                found = tree_of_roots(roots, &used, &cut, 0, n);
                assert_int_equal(used, n_roots);
                assert_memory_equal(&found, &expected, sizeof(found));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaves),    cmocka_unit_test(test_ffn),
        cmocka_unit_test(test_best),      cmocka_unit_test(test_weights),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_largest),
        cmocka_unit_test(test_slices),    cmocka_unit_test(test_fused),
        cmocka_unit_test(test_tree_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
