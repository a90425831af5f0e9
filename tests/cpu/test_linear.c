/* SPDX-License-Identifier: Apache-2.0 */
/* The product as an operator: what x becomes for each of several matrices that share it. */
#include "kernel_fixture.h"

enum { ROWS = 600, COLS = 96, X_STRIDE = COLS + 32 /* OPS_STRIDE */, MOST = 67 };

static const enum dtype dtypes[] = {DTYPE_Q8_0, DTYPE_BF16, DTYPE_F32, DTYPE_Q4_0};

static const uint32_t counts[] = {1, 2, 3, 5, MOST}; /* of rows of x */

/* One matrix by itself, by the reference. */
static void expect(const struct kernel_fixture *fixture, const struct packed *w, enum act act,
                   bool wide, uint32_t n, const float *x, float *y)
{
    static _Alignas(64) float rounded[MOST * X_STRIDE];
    static _Alignas(64) uint8_t memory[MOST * COLS / QUANT_GROUP * 72];
    struct quant q = quant_attach(memory, n, quant_n_groups(&w->leaves), wide);
    struct cpu_matmul args = {.w = w,
                              .x = x,
                              .x_stride = X_STRIDE,
                              .q = q,
                              .y = y,
                              .y_stride = ROWS,
                              .m = n,
                              .panel_end = w->n_panels,
                              .scratch = fixture->scratch};

    for (size_t i = 0; i < n; i++) {
        struct quant row = quant_from(q, i);

        fixture->ref.round_bf16(rounded + i * X_STRIDE, x + i * X_STRIDE, COLS);
        quant_row(x + i * X_STRIDE, &w->leaves, &row);
    }
    if (act == ACT_INT8 && dtype_is_quantised(w->dtype)) {
        fixture->ref.matmul_int8[w->dtype](&args);
        return;
    }
    args.x = act != ACT_F32 && w->dtype == DTYPE_BF16 ? rounded : x;
    fixture->ref.matmul[w->dtype](&args);
}

static void check(struct kernel_fixture *fixture, struct ops_device *device, enum act act,
                  bool wide, uint32_t n, uint32_t few)
{
    const struct ops_tune tune = {.few_rows = {few, few, few}, .few_threads = few % 3};

    static float expected[ARRAY_LEN(dtypes)][MOST * ROWS];
    static float found[ARRAY_LEN(dtypes)][MOST * ROWS];
    float *x = kernel_floats(&fixture->random, MOST * X_STRIDE, KIND_NORMAL, 0);
    struct ops_linear_out out[ARRAY_LEN(dtypes)];
    struct packed w[ARRAY_LEN(dtypes)];

    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        kernel_packed_init(&w[i], dtypes[i], ROWS, COLS);
        kernel_fill_packed(&fixture->random, &w[i], KIND_NORMAL);
        leaf_plan_init_single(&w[i].leaves, COLS);
        /* the last two beside one that takes integers of 8 bits */
        expect(fixture, &w[i], act, wide && i > 0, n, x, expected[i]);
        out[i] = (struct ops_linear_out){
            .w = &w[i], .y = found[i], .y_stride = ROWS, .wide = wide && i > 0};
    }
    cpu_ops.tune(device, &tune);
    cpu_ops.linear(
        device,
        &(struct ops_linear){
            .x = x, .x_stride = X_STRIDE, .n = n, .act = act, .out = out, .n_out = ARRAY_LEN(out)});
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        kernel_assert_same(&fixture->ref, dtype_info(dtypes[i])->name, expected[i], found[i],
                           (size_t)n * ROWS);
        kernel_packed_release(&w[i]);
    }
    free(x);
}

/* Integers for quantised weights, rounded x for BF16, x itself for the others; and nothing but x
 * itself with ACT_F32. */
static void test_each_matrix_takes_its_own(void **state)
{
    struct kernel_fixture *fixture = *state;
    struct ops_device *device = NULL;

    kernel_seed(fixture, 3);
    assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = 2}, &device, NULL),
                     STATUS_OK);
    assert_int_equal(cpu_ops.reserve(device, MOST, COLS, COLS / QUANT_GROUP, NULL), STATUS_OK);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        for (uint32_t few = 0; few <= OPS_FEW_ROWS_MAX; few++) { /* which changes nothing */
            check(fixture, device, ACT_INT8, false, counts[i], few);
            check(fixture, device, ACT_INT8, true, counts[i], few);
            check(fixture, device, ACT_F32, true, counts[i], few);
        }
    }
    cpu_ops.destroy(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(
        test_each_matrix_takes_its_own, kernel_setup, kernel_teardown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
