/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix of collectives: every operation, type and reduction at every number of ranks and every
 * count, as threads and as processes, compared for equality with what one rank alone (the back end
 * `self`, over the tree written out here) makes of the same data.
 */
#include "world.h"

#include "base/float_env.h"
#include "base/mem.h"
#include "tensor/leaves.h"
#include "tensor/shard.h"

enum { LEAVES = 9, GATHERED_MAX = 1 << 20 };

static const uint32_t rank_counts[] = {1, 2, 3, 5, 8, 16};
static const size_t counts[] = {0, 1, 7, 64, 4097, WORLD_SANITIZED ? 70001 : 1 << 20};

struct matrix {
    uint32_t n_ranks;
    size_t count;
    float *f32;                                               /* [n_ranks][count] inputs */
    uint32_t *u32;                                            /* likewise */
    uint32_t *reduced[COMM_TYPE_COUNT][COMM_REDUCTION_COUNT]; /* [count] expected bits */
    float *leaves;                                            /* [LEAVES][count] */
    float *tree;                                              /* [count] expected */
    float *residual;                                          /* [count] */
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

/* One element combined over ranks [low, high) by the tree. */
static float reduce_f32(const struct matrix *m, enum comm_reduction what, uint32_t low,
                        uint32_t high, size_t i)
{
    uint32_t middle = low + leaves_split(high - low);
    float a;
    float b;

    if (high - low == 1) {
        return m->f32[low * m->count + i];
    }
    a = reduce_f32(m, what, low, middle, i);
    b = reduce_f32(m, what, middle, high, i);
    switch (what) {
    case COMM_SUM:
        return a + b;
    case COMM_PROD:
        return a * b;
    case COMM_MIN:
        return MIN(a, b);
    default:
        return MAX(a, b);
    }
}

static uint32_t reduce_u32(const struct matrix *m, enum comm_reduction what, size_t i)
{
    uint32_t result = m->u32[i];

    for (uint32_t r = 1; r < m->n_ranks; r++) {
        uint32_t next = m->u32[r * m->count + i];

        switch (what) {
        case COMM_SUM:
            result += next;
            break;
        case COMM_PROD:
            result *= next;
            break;
        case COMM_MIN:
            result = MIN(result, next);
            break;
        default:
            result = MAX(result, next);
            break;
        }
    }
    return result;
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
    for (unsigned what = 0; what < COMM_REDUCTION_COUNT; what++) {
        for (size_t i = 0; i < m->count; i++) {
            float f = reduce_f32(m, (enum comm_reduction)what, 0, m->n_ranks, i);

            memcpy(&m->reduced[COMM_F32][what][i], &f, sizeof(f));
            m->reduced[COMM_U32][what][i] = reduce_u32(m, (enum comm_reduction)what, i);
        }
    }
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
    m->f32 = alloc(n_ranks, count);
    m->u32 = alloc(n_ranks, count);
    m->leaves = alloc(LEAVES, count);
    m->tree = alloc(1, count);
    m->residual = alloc(1, count);
    m->added = alloc(1, count);
    for (size_t i = 0; i < n_ranks * count; i++) {
        m->f32[i] = random_float(&state);
        m->u32[i] = random_u32(&state);
    }
    for (size_t i = 0; i < LEAVES * count; i++) {
        m->leaves[i] = random_float(&state);
    }
    for (size_t i = 0; i < count; i++) {
        m->residual[i] = random_float(&state);
    }
    for (unsigned i = 0; i < COMM_REDUCTION_COUNT; i++) {
        m->reduced[COMM_F32][i] = alloc(1, count);
        m->reduced[COMM_U32][i] = alloc(1, count);
    }
    assert_int_equal(shard_leaves(&world, LEAVES, NULL, &m->cut, NULL), STATUS_OK);
    expect(m);
}

static void matrix_release(struct matrix *m)
{
    free(m->f32);
    free(m->u32);
    free(m->leaves);
    free(m->tree);
    free(m->residual);
    free(m->added);
    for (unsigned i = 0; i < COMM_REDUCTION_COUNT; i++) {
        free(m->reduced[COMM_F32][i]);
        free(m->reduced[COMM_U32][i]);
    }
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

static bool check_reduce(struct comm *comm, const struct matrix *m, void *out)
{
    struct err err = {0};

    for (unsigned type = 0; type < COMM_TYPE_COUNT; type++) {
        for (unsigned what = 0; what < COMM_REDUCTION_COUNT; what++) {
            const void *in = type == COMM_F32 ? (const void *)(m->f32 + comm->rank * m->count)
                                              : (const void *)(m->u32 + comm->rank * m->count);
            struct comm_data data = {in, out, m->count, (enum comm_type)type};
            enum status status;

            if (what % 2 == 1) { /* in place */
                memcpy(out, in, m->count * 4);
                data.in = out;
            }
            status = comm_all_reduce(comm, &data, (enum comm_reduction)what, &err);
            if (!check(comm, "all_reduce", status, &err, out, m->reduced[type][what], m->count)) {
                return false;
            }
        }
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

static bool check_gather(struct comm *comm, const struct matrix *m, uint32_t *out)
{
    size_t count = MIN(m->count, GATHERED_MAX / m->n_ranks);
    uint32_t *mine = out + comm->rank * count;
    struct err err = {0};
    enum status status;
    bool good = true;

    status = comm_all_gather(
        comm, &(struct comm_data){m->u32 + comm->rank * m->count, out, count, COMM_U32}, &err);
    for (uint32_t r = 0; r < m->n_ranks; r++) {
        good = good && check(comm, "all_gather", status, &err, out + r * count,
                             m->u32 + r * m->count, count);
    }
    memset(out, 0, m->n_ranks * count * 4);
    memcpy(mine, m->f32 + comm->rank * m->count, count * 4);
    status = comm_all_gather(comm, &(struct comm_data){mine, out, count, COMM_F32}, &err);
    for (uint32_t r = 0; r < m->n_ranks; r++) {
        good = good && check(comm, "all_gather in place", status, &err, out + r * count,
                             m->f32 + r * m->count, count);
    }
    return good;
}

static bool check_broadcast(struct comm *comm, const struct matrix *m, uint32_t *out)
{
    struct err err = {0};

    for (uint32_t root = 0; root < m->n_ranks; root += MAX(1, m->n_ranks - 1)) {
        const void *in = comm->rank == root ? m->f32 + root * m->count : NULL;
        enum status status;

        status = comm_broadcast(comm, &(struct comm_data){in, out, m->count, COMM_F32}, root, &err);
        if (!check(comm, "broadcast", status, &err, out, m->f32 + root * m->count, m->count)) {
            return false;
        }
    }
    return true;
}

static bool run_rank(struct comm *comm, void *arg)
{
    const struct matrix *m = arg;
    void *out = alloc(1, MAX(m->count, m->n_ranks * MIN(m->count, GATHERED_MAX / m->n_ranks)));
    bool good = check_reduce(comm, m, out) && check_tree(comm, m, out) &&
                check_gather(comm, m, out) && check_broadcast(comm, m, out);

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
