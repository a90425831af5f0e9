/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sign of zero in products, which random data hardly ever reach. Every weight is W, and x makes
 * the running sum flush to -0 after two steps:
 *
 *   step 0   x[0] W = 1.5 * 2^-126                      run = 1.5 * 2^-126
 *   step 1   x[32] W = -1.75 * 2^-126                   run = -0.25 * 2^-126, flushed: -0
 *   step 2   its products are -2^-128, flushed: -0      e = o = -0 (a shorter step makes them +0)
 *
 * so that the result is -0 after a whole third step and +0 after a shorter one.
 */
#include "kernel_fixture.h"

#include <math.h>

enum { ROWS = 20, COLS = 256, X_STRIDE = COLS + 32, MOST = 9 };

/* How each type spells W. */
struct spelling {
    float w;
    uint8_t code; /* every byte of the codes */
    uint8_t more; /* every byte of the fifth (and sixth) bits */
};

static const struct spelling spellings[DTYPE_COUNT] = {
    [DTYPE_F32] = {0x1p-63f, 0, 0},     [DTYPE_F16] = {0x1p-14f, 0, 0},
    [DTYPE_BF16] = {0x1p-63f, 0, 0},    [DTYPE_BF16_12] = {0x1p-63f, 0, 0},
    [DTYPE_Q8_0] = {0x1p-14f, 129, 0},  [DTYPE_Q4_0] = {0x1p-14f, 0x99, 0},
    [DTYPE_Q4_1] = {0x1p-14f, 0x11, 0}, [DTYPE_Q5_0] = {0x1p-14f, 0x11, 0xff},
    [DTYPE_Q5_1] = {0x1p-14f, 0x11, 0}, [DTYPE_Q4_K] = {0x1p-14f, 0x11, 0},
    [DTYPE_Q5_K] = {0x1p-14f, 0x11, 0}, [DTYPE_Q6_K] = {0x1p-14f, 0x11, 0xaa},
};

enum { HALF_2_14 = 0x0400, HALF_MINUS_2_14 = 0x8400 };

static void put_half(uint8_t *at, size_t n, uint16_t half)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(at + 2 * i, &half, sizeof(half));
    }
}

static void fill_plain(struct packed *w)
{
    uint8_t *codes = (uint8_t *)w->codes;
    size_t bytes = w->panel_code_bytes * w->n_panels;
    float value = spellings[w->dtype].w;
    uint16_t half = bf16_from_f32(value);

    if (w->dtype == DTYPE_F32) {
        for (size_t i = 0; i < bytes; i += sizeof(value)) {
            memcpy(codes + i, &value, sizeof(value));
        }
    } else {
        put_half(codes, bytes / 2, w->dtype == DTYPE_F16 ? HALF_2_14 : half);
    }
}

/* Scales of 1 and minima of 0 where a type has them beside d. */
static void fill_scales(struct packed *w, uint16_t d)
{
    size_t record = w->dtype == DTYPE_Q6_K                             ? 288
                    : w->dtype == DTYPE_Q4_K || w->dtype == DTYPE_Q5_K ? 256
                    : w->dtype == DTYPE_Q4_1 || w->dtype == DTYPE_Q5_1 ? 64
                                                                       : 32;
    size_t bytes = w->panel_scale_bytes * w->n_panels;

    for (size_t i = 0; i < bytes; i += record) {
        uint8_t *at = (uint8_t *)w->scales + i;

        memset(at, 0, record);
        put_half(at, PACKED_LANES, d);
        if (record == 288) {
            memset(at + 32, 1, 256);
        } else if (record == 256) {
            memset(at + 64, 1, 64);       /* scales of sub-blocks 0 .. 3 */
            memset(at + 64 + 128, 1, 64); /* and 4 .. 7 */
        }
    }
}

static void fill_bf16_12(struct packed *w)
{
    const uint8_t *rows[PACKED_LANES];
    uint8_t row[COLS * 2];

    put_half(row, COLS, bf16_from_f32(spellings[w->dtype].w));
    memset((uint8_t *)w->codes, 0, packed_bytes(w));
    for (uint32_t i = 0; i < PACKED_LANES; i++) {
        rows[i] = row;
    }
    for (uint32_t panel = 0; panel < w->n_panels; panel++) {
        assert_true(bf16_12_pack(w, rows, (uint8_t *)w->codes + panel * w->panel_code_bytes,
                                 (uint8_t *)w->scales + panel * w->panel_scale_bytes));
    }
}

static void fill_uniform(struct packed *w, uint16_t d)
{
    uint8_t *codes = (uint8_t *)w->codes;
    size_t group = w->panel_code_bytes / (COLS / 32);

    if (!dtype_is_quantised(w->dtype)) {
        (w->dtype == DTYPE_BF16_12 ? fill_bf16_12 : fill_plain)(w);
        return;
    }
    for (size_t i = 0; i < w->panel_code_bytes * w->n_panels; i++) {
        bool more = w->dtype != DTYPE_Q8_0 && i % group >= 256;

        codes[i] = more ? spellings[w->dtype].more : spellings[w->dtype].code;
    }
    fill_scales(w, d);
}

/* Leaves [0, end) and [end, COLS), not added to each other; only the first is looked at. */
static void check(struct kernel_fixture *fixture, struct packed *w, const float *x, uint32_t end,
                  bool negative)
{
    const uint32_t bounds[] = {0, 2, 2 + end, 2 + COLS, 4 + COLS};
    float *y[2] = {xcalloc(2 * MOST * ROWS, sizeof(float)),
                   xcalloc(2 * MOST * ROWS, sizeof(float))};

    leaf_plan_init(&w->leaves, bounds, 4, 1, 2);
    assert_int_equal(w->leaves.n_roots, 2);
    for (uint32_t m = 1; m <= MOST; m++) {
        struct cpu_matmul args = {.w = w,
                                  .x = x,
                                  .x_stride = X_STRIDE,
                                  .y = y[0],
                                  .y_stride = ROWS,
                                  .root_stride = MOST * ROWS,
                                  .m = m,
                                  .panel_end = w->n_panels,
                                  .scratch = fixture->scratch};

        fixture->ref.matmul[w->dtype](&args);
        assert_true(y[0][0] == 0.0f && !signbit(y[0][0]) == !negative);
        args.y = y[1];
        for (uint32_t l = 0; l < fixture->n_levels; l++) {
            fixture->levels[l].matmul[w->dtype](&args);
            kernel_assert_same(&fixture->levels[l], dtype_info(w->dtype)->name, y[0], y[1],
                               m * ROWS);
        }
    }
    leaf_plan_release(&w->leaves);
    free(y[0]);
    free(y[1]);
}

/* Rows of x as in the picture; the third step is filled up to end. w may be negative. */
static float *make_x(float w, uint32_t end)
{
    float *x = aligned_alloc(64, MOST * X_STRIDE * sizeof(float));

    assert_non_null(x);
    memset(x, 0, MOST * X_STRIDE * sizeof(float));
    for (uint32_t i = 0; i < MOST; i++) {
        float *row = x + (size_t)i * X_STRIDE;

        row[0] = 0x1.8p-63f / w * 0x1p-63f;
        row[32] = -0x1.cp-63f / w * 0x1p-63f;
        for (uint32_t k = 64; k < end; k++) {
            row[k] = -0x1p-64f / w * 0x1p-64f;
        }
    }
    return x;
}

static void test_shorter_and_whole_steps(void **state)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        enum dtype dtype = (enum dtype)i;
        float *x = make_x(spellings[i].w, 96);
        struct packed w;

        kernel_packed_init(&w, dtype, ROWS, COLS);
        fill_uniform(&w, HALF_2_14);
        assert_true(packed_value(&w, ROWS - 1, COLS - 1) == spellings[i].w);
        check(*state, &w, x, 96, true);
        check(*state, &w, x, 66, false);
        check(*state, &w, x, 94, false);
        kernel_packed_release(&w);
        free(x);
    }
}

/* The value of code 0 with a negative d and no minimum is -0 in Q4_K and Q5_K (fma(0, d, -0)); with
 * a positive x it keeps -0 in e and o, which +0 would not. */
static void test_negative_zero_weights(void **state)
{
    static const enum dtype dtypes[] = {DTYPE_Q4_K, DTYPE_Q5_K};

    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        float *x = make_x(-0x1p-14f, 66);
        struct packed w;
        uint8_t *codes;

        for (uint32_t row = 0; row < MOST; row++) {
            for (uint32_t k = 66; k < 96; k++) {
                x[(size_t)row * X_STRIDE + k] = 1.0f;
            }
        }
        kernel_packed_init(&w, dtypes[i], ROWS, COLS);
        fill_uniform(&w, HALF_MINUS_2_14);
        codes = (uint8_t *)w.codes;
        for (uint32_t row = 0; row < ROWS; row++) { /* code 1 for columns 64 and 65, else 0 */
            uint8_t *group = codes + row / 16 * w.panel_code_bytes +
                             2 * (w.panel_code_bytes / (COLS / 32)) + row % 16 * 4;

            for (uint32_t j = 0; j < 4; j++) {
                memset(group + j * 64, 0, 4);
            }
            group[0] = 1;
            group[1] = 1;
        }
        assert_true(signbit(packed_value(&w, 3, 70)) && packed_value(&w, 3, 70) == 0.0f);
        assert_true(packed_value(&w, 3, 65) == -0x1p-14f);
        check(*state, &w, x, 96, true);
        kernel_packed_release(&w);
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shorter_and_whole_steps, kernel_setup,
                                        kernel_teardown),
        cmocka_unit_test_setup_teardown(test_negative_zero_weights, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
