/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of reductions: every instruction set against the reference, and programs for any
 * division of leaves against the tree written out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/float_env.h"
#include "base/mem.h"
#include "comm/combine.h"
#include "tensor/leaves.h"

enum { MAX_N = 1100, MAX_LEAVES = 64, GUARD = 16 };

static uint64_t random_state;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* Any sign; denormals, zeros and infinities among them, no NaN. */
static float random_float(void)
{
    static const uint32_t odd[] = {0, 1, 0x7fffff, 0x800000, 0x7f800000, 0x3f800000};
    uint32_t bits = random_u32();
    float value;

    bits = bits % 9 == 0 ? (bits & 0x80000000u) | odd[bits / 9 % ARRAY_LEN(odd)]
                         : (bits & 0x807fffffu) | (1 + random_u32() % 200) << 23;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void fill(float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = random_float();
    }
}

/* Equal bits; any NaN equals any NaN (infinities of both signs meet). */
static void assert_same(const float *found, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (expected[i] != expected[i]) {
            assert_true(found[i] != found[i]);
        } else {
            assert_memory_equal(&found[i], &expected[i], sizeof(float));
        }
    }
}

static void check_sums(const struct combine_sums *sums)
{
    float a[80];
    float b[80];

    print_message("%s\n", sums->name);
    for (size_t n = 0; n <= 70; n++) {
        for (size_t at = 0; at < 5; at++) {
            float expected[80];
            float found[80];

            fill(a, ARRAY_LEN(a));
            fill(b, ARRAY_LEN(b));
            fill(expected, ARRAY_LEN(expected));
            memcpy(found, expected, sizeof(found));
            combine_sums_ref.sum(expected + at, a + at, b + 1, n);
            sums->sum(found + at, a + at, b + 1, n);
            assert_same(found, expected, ARRAY_LEN(found));
            combine_sums_ref.add_sum(expected + at, a + 2, b + at, n);
            sums->add_sum(found + at, a + 2, b + at, n);
            assert_same(found, expected, ARRAY_LEN(found));
        }
    }
}

static void test_sums(void **state)
{
    struct float_env env;

    (void)state;
    random_state = 11;
    float_env_enter(&env);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        check_sums(&combine_sums_avx2);
    }
    if (__builtin_cpu_supports("avx512f")) {
        check_sums(&combine_sums_avx512);
    }
#endif
    check_sums(combine_sums_find());
    float_env_leave(&env);
}

struct shape {
    uint32_t n_leaves;
    struct shard_cut cut;
};

/* Any division, empty ranges among them. */
static void random_shape(struct shape *shape)
{
    shape->n_leaves = 1 + random_u32() % MAX_LEAVES;
    shape->cut = (struct shard_cut){.n_ranks = 1 + random_u32() % 16};
    for (uint32_t r = 1; r < shape->cut.n_ranks; r++) {
        uint32_t left = shape->n_leaves - shape->cut.bounds[r - 1];

        shape->cut.bounds[r] =
            shape->cut.bounds[r - 1] +
            MIN(left, random_u32() % (2 + 2 * shape->n_leaves / shape->cut.n_ranks));
    }
    shape->cut.bounds[shape->cut.n_ranks] = shape->n_leaves;
}

static float tree_sum(const float *leaves, uint32_t low, uint32_t high, size_t i)
{
    uint32_t middle = low + leaves_split(high - low);

    return high - low == 1 ? leaves[low * MAX_N + i]
                           : tree_sum(leaves, low, middle, i) + tree_sum(leaves, middle, high, i);
}

/* The roots of all ranks, in order. */
static uint32_t put_roots(const struct shape *shape, const float *leaves, uint32_t low,
                          uint32_t high, float *out)
{
    uint32_t middle = low + leaves_split(high - low);
    uint32_t n;

    for (uint32_t r = 0; r < shape->cut.n_ranks; r++) {
        if (low >= shape->cut.bounds[r] && high <= shape->cut.bounds[r + 1]) {
            for (size_t i = 0; i < MAX_N; i++) {
                out[i] = tree_sum(leaves, low, high, i);
            }
            return 1;
        }
    }
    n = put_roots(shape, leaves, low, middle, out);
    return n + put_roots(shape, leaves, middle, high, out + n * MAX_N);
}

/* The whole vector in one run, or the middle of it, into memory or onto what is there. */
static void check_program(const struct shape *shape, const float *leaves, float *roots)
{
    static const size_t counts[] = {0, 1, 511, 512, 513, 1027};
    const void *inputs[MAX_LEAVES];
    struct combine_program program;
    float found[MAX_N + GUARD];
    float expected[MAX_N + GUARD];
    uint32_t n = put_roots(shape, leaves, 0, shape->n_leaves, roots);
    size_t count = counts[random_u32() % ARRAY_LEN(counts)];
    size_t offset = random_u32() % (MAX_N - count);
    bool add = random_u32() % 2 == 0;
    const struct combine_math math = combine_math_find(COMM_F32, COMM_SUM);
    struct combine_run run = {
        .math = &math,
        .inputs = inputs,
        .offset = offset,
        .count = count,
        .out = add ? NULL : found,
        .add_to = add ? found : NULL,
    };

    combine_program_init(&program, shape->n_leaves, &shape->cut);
    assert_int_equal(program.n_inputs, n);
    assert_int_equal(program.n_steps, n - 1);
    assert_int_equal(program.first_input[shape->cut.n_ranks], n);
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = roots + i * MAX_N;
    }
    fill(found, ARRAY_LEN(found));
    memcpy(expected, found, sizeof(found));
    for (size_t i = 0; i < count; i++) {
        float sum = tree_sum(leaves, 0, shape->n_leaves, offset + i);

        expected[i] = add ? expected[i] + sum : sum;
    }
    combine_program_run(&program, &run);
    assert_same(found, expected, ARRAY_LEN(found));
    combine_program_release(&program);
}

static void test_programs(void **state)
{
    float *leaves = xcalloc((size_t)MAX_LEAVES * MAX_N, sizeof(float));
    float *roots = xcalloc((size_t)MAX_LEAVES * MAX_N, sizeof(float));
    struct float_env env;

    (void)state;
    random_state = 12;
    float_env_enter(&env);
    fill(leaves, (size_t)MAX_LEAVES * MAX_N);
    for (uint32_t round = 0; round < 400; round++) {
        struct shape shape;

        random_shape(&shape);
        check_program(&shape, leaves, roots);
    }
    float_env_leave(&env);
    free(leaves);
    free(roots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_programs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
