/* SPDX-License-Identifier: Apache-2.0 */
/* Leaf plans against the tree they stand for, and the arithmetic of packed weights. */
#include "tensor/leaves.h"
#include "tensor/packed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/mem.h"

enum { MOST = 40 };

/* An expression as text: "(0+1)". Sums of strings show which leaves are added in which order. */
struct text {
    char chars[16 * MOST];
};

static void text_add(struct text *a, const struct text *b)
{
    struct text sum;

    snprintf(sum.chars, sizeof(sum.chars), "(%.*s+%.*s)", (int)sizeof(sum.chars) / 2 - 2, a->chars,
             (int)sizeof(sum.chars) / 2 - 2, b->chars);
    *a = sum;
}

static struct text tree(uint32_t low, uint32_t high)
{
    struct text left;
    struct text right;

    if (high - low == 1) {
        snprintf(left.chars, sizeof(left.chars), "%u", low);
        return left;
    }
    left = tree(low, low + (high - low + 1) / 2);
    right = tree(low + (high - low + 1) / 2, high);
    text_add(&left, &right);
    return left;
}

/* The maximal subtrees of [low, high) inside [first, end), in order. */
static uint32_t roots(uint32_t low, uint32_t high, uint32_t first, uint32_t end,
                      struct text *ret_roots)
{
    uint32_t middle = low + (high - low + 1) / 2;
    uint32_t n;

    if (high <= first || low >= end) {
        return 0;
    }
    if (low >= first && high <= end) {
        ret_roots[0] = tree(low, high);
        return 1;
    }
    n = roots(low, middle, first, end, ret_roots);
    return n + roots(middle, high, first, end, ret_roots + n);
}

/* Runs the plan's program on texts. */
static uint32_t evaluate(const struct leaf_plan *plan, uint32_t first, struct text *stack,
                         uint32_t *ret_depth)
{
    uint32_t n = 0;

    *ret_depth = 0;
    for (uint32_t i = 0; i < plan->n_leaves; i++) {
        snprintf(stack[n].chars, sizeof(stack[n].chars), "%u", first + i);
        n++;
        *ret_depth = MAX(*ret_depth, n);
        for (uint32_t j = 0; j < plan->merges[i]; j++) {
            assert_true(n >= 2);
            n--;
            text_add(&stack[n - 1], &stack[n]);
        }
    }
    return n;
}

static void test_plans_are_the_tree(void **state)
{
    static struct text expected[MOST];
    static struct text found[MOST];
    uint32_t bounds[MOST + 1];

    (void)state;
    for (uint32_t i = 0; i <= MOST; i++) {
        bounds[i] = 2 * i * i; /* uneven leaves */
    }
    for (uint32_t total = 1; total <= MOST; total++) {
        for (uint32_t first = 0; first < total; first++) {
            for (uint32_t count = 0; first + count <= total; count++) {
                uint32_t n = roots(0, total, first, first + count, expected);
                struct leaf_plan plan;
                uint32_t depth;

                leaf_plan_init(&plan, bounds, total, first, count);
                assert_int_equal(plan.n_leaves, count);
                assert_int_equal(plan.n_roots, n);
                assert_int_equal(evaluate(&plan, first, found, &depth), n);
                assert_int_equal(plan.depth, depth);
                for (uint32_t i = 0; i < n; i++) {
                    assert_string_equal(found[i].chars, expected[i].chars);
                }
                for (uint32_t i = 0; i <= count; i++) {
                    assert_int_equal(plan.bounds[i], bounds[first + i] - bounds[first]);
                }
                leaf_plan_release(&plan);
            }
        }
    }
}

static void test_single(void **state)
{
    struct leaf_plan plan;

    (void)state;
    leaf_plan_init_single(&plan, 77);
    assert_int_equal(plan.n_leaves, 1);
    assert_int_equal(plan.n_roots, 1);
    assert_int_equal(plan.depth, 1);
    assert_int_equal(plan.bounds[0], 0);
    assert_int_equal(plan.bounds[1], 77);
    assert_int_equal(plan.merges[0], 0);
    leaf_plan_release(&plan);
}

/* Whole units, all of K, as even as units allow. */
static void test_ffn(void **state)
{
    static const uint32_t sizes[] = {1,    31,   32,   33,   100,  512,  513,   576,
                                     1024, 1536, 3072, 4864, 8960, 9728, 12288, 18944};
    static const uint32_t groups[] = {1, 32, 256};

    (void)state;
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
            uint32_t unit = MAX(32, groups[g]);
            uint32_t n = (uint32_t)div_up(sizes[s], unit);
            uint32_t bounds[LEAVES_FFN_MAX + 1];
            uint32_t total = leaves_ffn(sizes[s], groups[g], bounds);

            assert_int_equal(total, MIN(LEAVES_FFN_MAX, n));
            assert_int_equal(bounds[0], 0);
            assert_int_equal(bounds[total], sizes[s]);
            for (uint32_t i = 0; i < total; i++) {
                uint32_t units = (uint32_t)div_up(bounds[i + 1] - bounds[i], unit);

                assert_int_equal(bounds[i] % unit, 0);
                assert_true(units == n / total || units == n / total + 1);
            }
        }
    }
}

/* Bits of a weight with its share of the scales, as the file has it, or as its type says. */
static double type_bits(enum dtype dtype)
{
    return dtype == DTYPE_BF16_12 ? 12
                                  : 8.0 * dtype_info(dtype)->group_bytes / dtype_info(dtype)->group;
}

/* Shapes of real models: stored bytes are within 3 % of the weights' and scales' bits. */
static void test_packed_bytes(void **state)
{
    static const uint32_t shapes[][2] = {
        {960, 576},    {576, 576},     {576, 1536},   {3072, 576},   {49152, 576},
        {4096, 1024},  {1024, 2048},   {6144, 1024},  {1024, 3072},  {151936, 1024},
        {6144, 4096},  {4096, 12288},  {1152, 896},   {896, 4864},   {151936, 896},
        {14336, 4096}, {128256, 4096}, {18944, 3584}, {5120, 27648},
    };

    (void)state;
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        for (unsigned i = 0; i < DTYPE_COUNT; i++) {
            enum dtype dtype = (enum dtype)i;
            struct packed packed;
            double exact;

            if (!packed_init(&packed, dtype, shapes[s][0], shapes[s][1])) {
                assert_true(shapes[s][1] % dtype_info(dtype)->group != 0);
                continue;
            }
            exact = type_bits(dtype) / 8.0 * shapes[s][0] * shapes[s][1];
            assert_true((double)packed_bytes(&packed) <= 1.03 * exact);
            assert_true((double)packed_bytes(&packed) >= exact);
        }
    }
}

static void test_packed_layout(void **state)
{
    struct packed packed;
    uint8_t storage[1] = {0};

    (void)state;
    assert_false(packed_init(&packed, DTYPE_BF16, 0, 32));
    assert_false(packed_init(&packed, DTYPE_BF16, 32, 0));
    assert_false(packed_init(&packed, DTYPE_Q4_0, 32, 48));
    assert_false(packed_init(&packed, DTYPE_Q6_K, 32, 128));
    assert_true(packed_init(&packed, DTYPE_BF16, 17, 33));
    assert_int_equal(packed.n_panels, 2);
    assert_int_equal(packed.panel_code_bytes, 17 * 64); /* 33 columns padded to 17 pairs */
    assert_int_equal(packed.panel_scale_bytes, 0);
    packed_attach(&packed, storage);
    assert_null(packed.scales);
    assert_true(packed_init(&packed, DTYPE_Q4_1, 40, 96));
    assert_int_equal(packed.n_panels, 3);
    assert_int_equal(packed.panel_code_bytes, 3 * 256);
    assert_int_equal(packed.panel_scale_bytes, 3 * 64);
    assert_int_equal(packed_scale_offset(&packed) % CACHE_LINE, 0);
    assert_int_equal(packed_bytes(&packed), packed_scale_offset(&packed) + 9 * 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_are_the_tree),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_ffn),
        cmocka_unit_test(test_packed_bytes),
        cmocka_unit_test(test_packed_layout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
