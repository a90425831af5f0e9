/* SPDX-License-Identifier: Apache-2.0 */
/* Products: every instruction set gives the reference's bits. */
#include "kernel_fixture.h"

#include <math.h>

enum { MANY = 64 };

static const uint32_t row_counts[] = {1, 2, 3, 4, 5, 7, 8, 13, 33, MANY};

struct shape {
    uint32_t rows;
    uint32_t cols;
    uint32_t unit; /* leaves end at multiples of it */
    uint32_t total;
    uint32_t first;
    uint32_t count;
    uint32_t lead; /* columns before the first leaf: a quantised group that another rank has, too */
};

static void product(const struct cpu_kernels *kernels, const struct cpu_matmul *args)
{
    (args->x == NULL ? kernels->matmul_int8 : kernels->matmul)[args->w->dtype](args);
}

/* One matrix by m rows of x (args: w, m and x or q), panels [begin, end), with every level. */
static void check_product(struct kernel_fixture *fixture, const struct cpu_matmul *given)
{
    struct cpu_matmul args = *given;
    const struct packed *w = args.w;
    size_t size;
    float *expected;
    float *found;

    args.y_stride = w->rows + 3;
    args.root_stride = args.m * args.y_stride + 5;
    args.panel_begin = kernel_below(&fixture->random, 3) == 0 ? w->n_panels / 2 : 0;
    args.panel_end = kernel_below(&fixture->random, 3) == 0 ? MAX(args.panel_begin, w->n_panels - 1)
                                                            : w->n_panels;
    args.few = kernel_below(&fixture->random, 5); /* so that low tiles have their turn */
    args.scratch = fixture->scratch;
    size = (w->leaves.n_roots + 1) * args.root_stride;
    expected = xcalloc(size, sizeof(float));
    found = xcalloc(size, sizeof(float));
    args.y = expected;
    product(&fixture->ref, &args);
    args.y = found;
    for (uint32_t l = 0; l < fixture->n_levels; l++) {
        size_t at;

        memset(found, 0, size * sizeof(float)); /* what is not written stays zero in both */
        product(&fixture->levels[l], &args);
        at = kernel_differs(expected, found, size);
        if (at < size) {
            fail_msg("%s %s%s: %u x %u, m %u, %u leaves: y[%zu] is %a, not %a",
                     fixture->levels[l].level, dtype_info(w->dtype)->name,
                     args.x != NULL        ? ""
                     : args.q.wide != NULL ? " int16"
                                           : " int8",
                     w->rows, w->cols, args.m, w->leaves.n_leaves, at, (double)found[at],
                     (double)expected[at]);
        }
    }
    free(expected);
    free(found);
}

/* Quantises the rows of x with one level's kernel. */
static struct quant quantise(const struct cpu_kernels *kernels, const struct packed *w, uint32_t m,
                             const float *x, size_t x_stride, bool wide)
{
    uint32_t n = quant_n_groups(&w->leaves);
    struct quant q;
    size_t bytes;
    void *memory;

    assert_true(quant_bytes(m, n, wide, &bytes));
    memory = aligned_alloc(64, round_up(bytes, 64));
    assert_non_null(memory);
    q = quant_attach(memory, m, n, wide);
    for (uint32_t i = 0; i < m; i++) {
        struct quant row = quant_from(q, i);

        kernels->quant_row(x + i * x_stride, &w->leaves, &row);
    }
    return q;
}

/* The memory that quantise made. */
static void *codes_of(const struct quant *q)
{
    return q->wide != NULL ? (void *)q->wide : (void *)q->codes;
}

/* The same codes, scales and sums from every level. */
static void check_quantised(struct kernel_fixture *fixture, const struct packed *w, uint32_t m,
                            const float *x, size_t x_stride, const struct quant *expected)
{
    size_t n = (size_t)m * expected->n_groups;
    bool wide = expected->wide != NULL;

    for (uint32_t l = 0; l < fixture->n_levels; l++) {
        struct quant found = quantise(&fixture->levels[l], w, m, x, x_stride, wide);

        assert_memory_equal(codes_of(&found), codes_of(expected),
                            n * QUANT_GROUP * (wide ? sizeof(int16_t) : 1));
        assert_int_equal(kernel_differs(expected->scales, found.scales, n), n);
        assert_memory_equal(found.sums, expected->sums, n * sizeof(int32_t));
        free(codes_of(&found));
    }
}

/* The same product of x rounded to bf16, for which a level may have another kernel. */
static void check_rounded(struct kernel_fixture *fixture, const struct packed *w, uint32_t m,
                          const float *x, size_t x_stride)
{
    float *rounded = aligned_alloc(CACHE_LINE, round_up(m * x_stride * sizeof(float), CACHE_LINE));

    assert_non_null(rounded);
    fixture->ref.round_bf16(rounded, x, m * x_stride);
    check_product(fixture, &(struct cpu_matmul){
                               .w = w, .x = rounded, .x_stride = x_stride, .x_bf16 = true, .m = m});
    free(rounded);
}

static void check(struct kernel_fixture *fixture, const struct packed *w, uint32_t m,
                  const float *x, size_t x_stride)
{
    check_product(fixture, &(struct cpu_matmul){.w = w, .x = x, .x_stride = x_stride, .m = m});
    if (w->dtype == DTYPE_BF16 || w->dtype == DTYPE_BF16_12) {
        check_rounded(fixture, w, m, x, x_stride);
    }
    for (int wide = 0; wide < 2 && dtype_is_quantised(w->dtype); wide++) {
        struct quant q = quantise(&fixture->ref, w, m, x, x_stride, wide != 0);

        check_quantised(fixture, w, m, x, x_stride, &q);
        check_product(fixture, &(struct cpu_matmul){.w = w, .q = q, .m = m});
        free(codes_of(&q));
    }
}

static void check_shape(struct kernel_fixture *fixture, enum dtype dtype, const struct shape *shape,
                        enum kernel_kind kind)
{
    size_t x_stride = round_up(shape->cols, 32) + 32;
    bool large = shape->rows * shape->cols > 3000;
    float *x = kernel_floats(&fixture->random, MANY * x_stride, kind, kernel_x_tiny(dtype));
    struct packed w;

    kernel_packed_init(&w, dtype, shape->rows, shape->cols);
    kernel_fill_packed(&fixture->random, &w, kind);
    kernel_plan_init(&fixture->random, &w.leaves, shape->cols - shape->lead, shape->unit,
                     shape->total, shape->first, shape->count);
    for (uint32_t i = 0; i <= w.leaves.n_leaves; i++) {
        w.leaves.bounds[i] += shape->lead;
    }
    /* every number of rows with small matrices; with large ones each third, by turns */
    for (size_t i = large ? (size_t)kind % 3 : 0; i < ARRAY_LEN(row_counts); i += large ? 3 : 1) {
        check(fixture, &w, row_counts[i], x, x_stride);
    }
    kernel_packed_release(&w);
    free(x);
}

static void check_dtypes(struct kernel_fixture *fixture, const struct shape *shapes, size_t n,
                         uint64_t seed)
{
    const uint32_t every = kernel_sample();
    uint32_t number = 0;

    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        uint32_t group = dtype_info((enum dtype)dtype)->group;

        for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
            for (size_t i = 0; i < n; i++) {
                struct shape shape = shapes[i];

                if (number++ % every != 0) {
                    continue;
                }
                shape.cols = (uint32_t)round_up(shape.cols, group);
                fixture->random.state = seed + dtype * 1000 + kind * 100 + i;
                check_shape(fixture, (enum dtype)dtype, &shape, (enum kernel_kind)kind);
            }
        }
    }
}

/* Odd sizes, one leaf. */
static void test_sizes(void **state)
{
    static const struct shape shapes[] = {
        {1, 1, 2, 1, 0, 1},    {15, 2, 2, 1, 0, 1},   {16, 31, 2, 1, 0, 1},  {17, 32, 2, 1, 0, 1},
        {33, 33, 2, 1, 0, 1},  {50, 63, 2, 1, 0, 1},  {20, 97, 2, 1, 0, 1},  {150, 64, 2, 1, 0, 1},
        {16, 260, 2, 1, 0, 1}, {35, 291, 2, 1, 0, 1}, {17, 545, 2, 1, 0, 1},
    };
    const uint64_t seed = 20261122;

    print_message("seed %llu\n", (unsigned long long)seed);
    check_dtypes(*state, shapes, ARRAY_LEN(shapes), seed);
}

/* Leaves: whole steps, any even length, many, and parts of a tree with several roots. */
static void test_leaves(void **state)
{
    static const struct shape shapes[] = {
        {33, 96, 32, 3, 0, 3},      {17, 192, 24, 8, 0, 8},     {20, 720, 80, 9, 0, 9},
        {16, 280, 20, 14, 0, 14},   {18, 1024, 64, 16, 0, 16},  {16, 320, 2, 40, 0, 40},
        {34, 257, 2, 9, 5, 4},      {16, 512, 32, 40, 7, 16},   {17, 224, 2, 14, 3, 7},
        {16, 96, 2, 16, 1, 3},      {20, 640, 80, 9, 1, 8},     {130, 160, 2, 5, 4, 1},
        {18, 256, 16, 9, 3, 4, 16}, {33, 512, 20, 9, 1, 5, 44}, {16, 320, 2, 8, 2, 1, 6},
    };
    const uint64_t seed = 31415926;

    print_message("seed %llu\n", (unsigned long long)seed);
    check_dtypes(*state, shapes, ARRAY_LEN(shapes), seed);
}

/* Rows of x in several blocks, down to one tile in each, and the widest that a model may be. */
static void test_wide(void **state)
{
    static const struct {
        enum dtype dtype;
        uint32_t rows;
        uint32_t cols;
        uint32_t m;
    } shapes[] = {{DTYPE_BF16, 33, 40000, 60},
                  {DTYPE_BF16, 17, (1 << 18) + 32, 15},
                  {DTYPE_Q8_0, 1, 1 << 20, 6},
                  {DTYPE_BF16, 2, 1 << 20, 5}};
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 5);
    for (size_t i = kernel_sample() > 1 ? ARRAY_LEN(shapes) - 1 : 0; i < ARRAY_LEN(shapes); i++) {
        uint32_t cols = shapes[i].cols;
        uint32_t m = shapes[i].m;
        size_t x_stride = cols + 32;
        float *x = kernel_floats(&fixture->random, m * x_stride, KIND_NORMAL, 0);
        struct packed w;

        kernel_packed_init(&w, shapes[i].dtype, shapes[i].rows, cols);
        kernel_fill_packed(&fixture->random, &w, KIND_NORMAL);
        kernel_plan_init(&fixture->random, &w.leaves, cols, 32, 16, 0, 16);
        check(fixture, &w, m, x, x_stride);
        kernel_packed_release(&w);
        free(x);
    }
}

/* The data must reach the corners they are made for: flushed sums of both signs, NaNs, infinities.
 */
static void test_data_is_awkward(void **state)
{
    struct kernel_fixture *fixture = *state;
    struct packed w;
    uint32_t n_negative_zero = 0;
    uint32_t n_nan = 0;
    uint32_t n_infinite = 0;

    fixture->random.state = 7;
    kernel_packed_init(&w, DTYPE_BF16, 64, 64);
    leaf_plan_init_single(&w.leaves, 64);
    for (int round = 0; round < 64; round++) {
        enum kernel_kind kind = round % 2 == 0 ? KIND_TINY : KIND_SPECIAL;
        float *x = kernel_floats(&fixture->random, 96, kind, -63);
        float y[64];

        kernel_fill_packed(&fixture->random, &w, kind);
        fixture->ref.matmul[DTYPE_BF16](&(struct cpu_matmul){.w = &w,
                                                             .x = x,
                                                             .x_stride = 96,
                                                             .y = y,
                                                             .y_stride = 64,
                                                             .m = 1,
                                                             .panel_end = w.n_panels,
                                                             .scratch = fixture->scratch});
        for (size_t i = 0; i < ARRAY_LEN(y); i++) {
            n_negative_zero += y[i] == 0.0f && signbit(y[i]);
            n_nan += isnan(y[i]) != 0;
            n_infinite += isinf(y[i]) != 0;
        }
        free(x);
    }
    kernel_packed_release(&w);
    assert_true(n_negative_zero > 5);
    assert_true(n_nan > 5);
    assert_true(n_infinite > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_data_is_awkward, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_sizes, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_leaves, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_wide, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
