/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum_tree, which the steps of a model are made of, at every number of ranks and every count, as
 * threads and as processes, compared for equality with what one rank alone (the back end `self`,
 * over the tree written out here) makes of the same leaves.
 */
#include "world.h"

#include "base/float_env.h"
#include "base/mem.h"
#include "tensor/leaves.h"
#include "tensor/shard.h"

enum { LEAVES = 9 };

static const uint32_t rank_counts[] = {1, 2, 3, 5, 8, 16};
static const size_t counts[] = {0, 1, 7, 64, 4097, SANITIZED ? 70001 : 1 << 20};

struct matrix {
    uint32_t n_ranks;
    size_t count;
    float *leaves;        /* [LEAVES][count] */
    float *tree;          /* [count] expected */
    float *residual;      /* [count] */
    float *added;         /* [count] expected of residual += tree */
    struct shard_cut cut; /* of the leaves */
};

static uint32_t random_u32(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

/* Mostly ordinary, now and then so small that sums are denormal. */
static float random_float(uint64_t *state)
{
    uint32_t bits = random_u32(state);
    uint32_t exponent = bits % 61 == 0 ? 1 : 120 + bits % 13;
    float value;

    bits = (bits & 0x807fffffu) | exponent << 23;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void *alloc(size_t n, size_t count)
{
    void *memory = mem_alloc(n * MAX(count, 1), sizeof(float));

    assert_non_null(memory);
    return memory;
}

/* out[i] = the sum of leaves [low, high) by the tree. */
static void sum_leaves(const struct matrix *m, uint32_t low, uint32_t high, float *out)
{
    uint32_t middle = low + leaves_split(high - low);
    float *right;

    if (high - low == 1) {
        memcpy(out, m->leaves + low * m->count, m->count * sizeof(float));
        return;
    }
    right = alloc(1, m->count);
    sum_leaves(m, low, middle, out);
    sum_leaves(m, middle, high, right);
    for (size_t i = 0; i < m->count; i++) {
        out[i] = out[i] + right[i];
    }
    free(right);
}

/* Writes the roots of leaves [low, high) that lie in range, stride elements apart. */
static uint32_t put_roots(const struct matrix *m, uint32_t low, uint32_t high,
                          struct shard_range range, float *out, size_t stride)
{
    uint32_t middle = low + leaves_split(high - low);
    uint32_t n;

    if (high <= range.begin || low >= range.end || range.begin == range.end) {
        return 0;
    }
    if (low >= range.begin && high <= range.end) {
        sum_leaves(m, low, high, out);
        return 1;
    }
    n = put_roots(m, low, middle, range, out, stride);
    return n + put_roots(m, middle, high, range, out + n * stride, stride);
}

static void expect(struct matrix *m)
{
    struct comm *self = comm_self_create();
    struct comm_tree tree = {
        .n_leaves = LEAVES,
        .n_owned = LEAVES,
        .n_roots = 1,
        .partial = m->tree,
        .count = m->count,
    };
    struct float_env env;

    float_env_enter(&env);
    sum_leaves(m, 0, LEAVES, m->tree);
    float_env_leave(&env);
    memcpy(m->added, m->residual, m->count * sizeof(float));
    tree.sum = m->tree;
    assert_int_equal(comm_sum_tree(self, &tree, NULL), STATUS_OK);
    tree.sum = NULL;
    tree.add_to = m->added;
    assert_int_equal(comm_sum_tree(self, &tree, NULL), STATUS_OK);
    comm_destroy(&self);
}

static void matrix_init(struct matrix *m, uint32_t n_ranks, size_t count)
{
    const struct shard_world world = {.n_ranks = n_ranks};
    uint64_t state = n_ranks * 1000003 + count;

    *m = (struct matrix){.n_ranks = n_ranks, .count = count};
    m->leaves = alloc(LEAVES, count);
    m->tree = alloc(1, count);
    m->residual = alloc(1, count);
    m->added = alloc(1, count);
    for (size_t i = 0; i < LEAVES * count; i++) {
        m->leaves[i] = random_float(&state);
    }
    for (size_t i = 0; i < count; i++) {
        m->residual[i] = random_float(&state);
    }
    assert_int_equal(shard_leaves(&world, LEAVES, NULL, &m->cut, NULL), STATUS_OK);
    expect(m);
}

static void matrix_release(struct matrix *m)
{
    free(m->leaves);
    free(m->tree);
    free(m->residual);
    free(m->added);
}

/* True if the call went well and gave what was expected; else says which did not. */
static bool check(const struct comm *comm, const char *what, enum status status,
                  const struct err *err, const void *found, const void *expected, size_t count)
{
    if (status != STATUS_OK) {
        print_error("rank %u of %u, %s: %s\n", comm->rank, comm->n_ranks, what, err->text);
        return false;
    }
    if (count > 0 && memcmp(found, expected, count * 4) != 0) {
        print_error("rank %u of %u, %s of %zu: wrong result\n", comm->rank, comm->n_ranks, what,
                    count);
        return false;
    }
    return true;
}

/* sum_tree from own memory, in place, into a residual, and from the back end's buffer. */
static bool check_tree(struct comm *comm, const struct matrix *m, float *out)
{
    struct shard_range owned = {m->cut.bounds[comm->rank], m->cut.bounds[comm->rank + 1]};
    uint32_t n_roots = shard_n_roots(LEAVES, owned);
    float *roots = alloc(MAX(n_roots, 1), m->count);
    struct comm_tree tree = {
        .n_leaves = LEAVES,
        .first = owned.begin,
        .n_owned = owned.end - owned.begin,
        .n_roots = n_roots,
        .partial = roots,
        .root_stride = m->count,
        .count = m->count,
    };
    struct err err = {0};
    enum status status;
    float *buffer;
    bool good;

    put_roots(m, 0, LEAVES, owned, roots, m->count);
    tree.sum = out;
    status = comm_sum_tree(comm, &tree, &err);
    good = check(comm, "sum_tree", status, &err, out, m->tree, m->count);
    memcpy(out, m->residual, m->count * sizeof(float));
    tree.sum = NULL;
    tree.add_to = out;
    status = comm_sum_tree(comm, &tree, &err);
    good = good && check(comm, "sum_tree added", status, &err, out, m->added, m->count);
    buffer = comm_partial_buffer(comm, m->count, n_roots, &tree.root_stride);
    if (buffer != NULL) {
        put_roots(m, 0, LEAVES, owned, buffer, tree.root_stride);
        status = comm_barrier(comm, &err); /* leaves the buffer alone */
        good = good && check(comm, "barrier", status, &err, NULL, NULL, 0);
        memcpy(out, m->residual, m->count * sizeof(float));
        tree.partial = buffer;
        status = comm_sum_tree(comm, &tree, &err);
        good = good && check(comm, "sum_tree direct", status, &err, out, m->added, m->count);
    }
    tree.partial = roots;
    tree.root_stride = m->count;
    tree.sum = roots;
    tree.add_to = NULL;
    status = comm_sum_tree(comm, &tree, &err);
    good = good && check(comm, "sum_tree in place", status, &err, roots, m->tree, m->count);
    free(roots);
    return good;
}

static bool run_rank(struct comm *comm, void *arg)
{
    const struct matrix *m = arg;
    void *out = alloc(1, m->count);
    bool good = check_tree(comm, m, out);

    free(out);
    return good;
}

static void run_matrix(enum world_kind kind)
{
    for (size_t i = 0; i < ARRAY_LEN(rank_counts); i++) {
        for (size_t j = 0; j < ARRAY_LEN(counts); j++) {
            struct matrix matrix;
            struct world world;

            world_init(&world, rank_counts[i], 60 * 1000);
            matrix_init(&matrix, rank_counts[i], counts[j]);
            assert_int_equal(world_run(&world, kind, run_rank, &matrix), 0);
            matrix_release(&matrix);
            world_release(&world);
        }
    }
}

static void test_threads(void **state)
{
    (void)state;
    run_matrix(WORLD_THREADS);
}

static void test_processes(void **state)
{
    (void)state;
    run_matrix(WORLD_PROCESSES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_processes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
