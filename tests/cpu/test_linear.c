/* SPDX-License-Identifier: Apache-2.0 */
/* The product as an operator: what x becomes for each of several matrices that share it. */
#include "kernel_fixture.h"

/* Matrices of one call: some take the same of x as the one before, some do not. */
static const enum dtype dtypes[] = {DTYPE_Q8_0, DTYPE_Q8_0, DTYPE_BF16, DTYPE_BF16,
                                    DTYPE_F32,  DTYPE_Q4_0, DTYPE_Q4_0, DTYPE_Q8_0};

enum { MATRICES = ARRAY_LEN(dtypes) };

/* A call, and how the device is tuned. */
struct call {
    uint32_t rows; /* of every matrix */
    uint32_t cols;
    uint32_t n; /* rows of x */
    enum act act;
    bool wide; /* all but the first matrix */
    uint32_t few;
};

/* One matrix by itself, by the reference. */
static void expect(const struct kernel_fixture *fixture, const struct call *call,
                   const struct ops_linear_out *out, const float *x, float *y)
{
    const struct packed *w = out->w;
    size_t stride = OPS_STRIDE(call->cols);
    float *rounded = aligned_alloc(64, call->n * stride * sizeof(float));
    size_t bytes;
    void *memory;
    struct cpu_matmul args = {.w = w,
                              .x = x,
                              .x_stride = stride,
                              .y = y,
                              .y_stride = call->rows,
                              .m = call->n,
                              .panel_end = w->n_panels,
                              .scratch = fixture->scratch};

    assert_true(quant_bytes(call->n, quant_n_groups(&w->leaves), out->wide, &bytes));
    memory = aligned_alloc(64, round_up(bytes, 64));
    assert_true(rounded != NULL && memory != NULL);
    args.q = quant_attach(memory, call->n, quant_n_groups(&w->leaves), out->wide);
    for (size_t i = 0; i < call->n; i++) {
        struct quant row = quant_from(args.q, i);

        fixture->ref.round_bf16(rounded + i * stride, x + i * stride, call->cols);
        quant_row(x + i * stride, &w->leaves, &row);
    }
    if (call->act == ACT_INT8 && dtype_is_quantised(w->dtype)) {
        fixture->ref.matmul_int8[w->dtype](&args);
    } else {
        args.x = call->act != ACT_F32 && w->dtype == DTYPE_BF16 ? rounded : x;
        fixture->ref.matmul[w->dtype](&args);
    }
    for (size_t i = 0; i < call->n * call->rows && out->bias != NULL; i++) {
        y[i] += out->bias[i % call->rows];
    }
    free(rounded);
    free(memory);
}

static void check(struct kernel_fixture *fixture, struct ops_device *device,
                  const struct call *call)
{
    const struct ops_tune tune = {.few_rows = {call->few, call->few, call->few},
                                  .few_threads = call->few % 3};
    const size_t size = (size_t)call->n * call->rows;
    float *x = kernel_floats(&fixture->random, call->n * OPS_STRIDE(call->cols), KIND_NORMAL, 0);
    float *bias = kernel_floats(&fixture->random, call->rows, KIND_NORMAL, 0);
    float *expected = xcalloc(size, sizeof(float));
    struct ops_linear_out out[MATRICES];
    struct packed w[MATRICES];

    for (size_t i = 0; i < MATRICES; i++) {
        kernel_packed_init(&w[i], dtypes[i], call->rows, call->cols);
        kernel_fill_packed(&fixture->random, &w[i], KIND_NORMAL);
        leaf_plan_init_single(&w[i].leaves, call->cols);
        out[i] = (struct ops_linear_out){.w = &w[i],
                                         .bias = i % 3 == 1 ? bias : NULL,
                                         .y = xcalloc(size, sizeof(float)),
                                         .y_stride = call->rows,
                                         .wide = call->wide && i > 0};
    }
    cpu_ops.tune(device, &tune);
    cpu_ops.linear(device, &(struct ops_linear){.x = x,
                                                .x_stride = OPS_STRIDE(call->cols),
                                                .n = call->n,
                                                .act = call->act,
                                                .out = out,
                                                .n_out = MATRICES});
    cpu_ops.sync(device);
    for (size_t i = 0; i < MATRICES; i++) {
        expect(fixture, call, &out[i], x, expected);
        kernel_assert_same(&fixture->ref, dtype_info(dtypes[i])->name, expected, out[i].y, size);
        kernel_packed_release(&w[i]);
        free(out[i].y);
    }
    free(expected);
    free(bias);
    free(x);
}

static struct ops_device *make_device(uint32_t n_threads, uint32_t rows, uint32_t cols)
{
    struct ops_device *device = NULL;

    assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = n_threads}, &device, NULL),
                     STATUS_OK);
    assert_int_equal(cpu_ops.reserve(device, rows, cols, (uint32_t)div_up(cols, QUANT_GROUP), NULL),
                     STATUS_OK);
    return device;
}

/* Integers for quantised weights, rounded x for BF16, x itself for the others; and nothing but x
 * itself with ACT_F32. */
static void test_each_matrix_takes_its_own(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 5, 67};
    struct ops_device *device = make_device(2, 67, 96);

    kernel_seed(*state, 3);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        for (uint32_t few = 0; few <= OPS_FEW_ROWS_MAX; few++) { /* which changes nothing */
            struct call call = {600, 96, counts[i], ACT_INT8, false, few};

            check(*state, device, &call);
            call.wide = true;
            check(*state, device, &call);
            call.act = ACT_F32;
            check(*state, device, &call);
        }
    }
    cpu_ops.destroy(&device);
}

/* Threads share rows, panels or both, and x has more columns than a block of it may. */
static void test_shares(void **state)
{
    static const uint32_t counts[] = {127, 256, 301};
    const uint32_t sample = kernel_sample();

    kernel_seed(*state, 4);
    for (uint32_t n_threads = 1; n_threads <= 6; n_threads += n_threads < 4 ? 1 : 2) {
        struct ops_device *device = make_device(n_threads, 301, 4096);

        for (size_t i = 0; i < ARRAY_LEN(counts); i += sample) {
            check(*state, device, &(struct call){75, 96, counts[i], ACT_INT8, true, 0});
        }
        if (n_threads < 3 && sample == 1) {
            check(*state, device, &(struct call){40, 4096, 301, ACT_INT8, false, 0});
        }
        cpu_ops.destroy(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_matrix_takes_its_own, kernel_setup,
                                        kernel_teardown),
        cmocka_unit_test_setup_teardown(test_shares, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
