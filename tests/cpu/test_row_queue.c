/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators on many rows wait and are done together, a thread's rows after the other's: a layer of
 * all rows at once gives what its rows give one by one, whatever has to wait for what.
 */
#include <unistd.h>

#include "cpu/device.h"
#include "kernel_fixture.h"

enum { HIDDEN = 160, FFN = 96, N_HEADS = 2, HEAD_DIM = 64, VOCABULARY = 40 };
enum { Q_DIM = N_HEADS * HEAD_DIM, LEAST = ROWS_EACH, MOST = 3 * ROWS_EACH + 17, N_LAYERS = 3 };

/* Matrices of a layer, and x of different lengths for them. */
enum matrix { Q, V, GATE, UP, OUT, DOWN, MATRICES };

static const struct {
    enum dtype dtype;
    uint32_t rows;
    uint32_t cols;
    bool wide;
} shapes[MATRICES] = {
    [Q] = {DTYPE_Q8_0, Q_DIM, HIDDEN, false},   [V] = {DTYPE_Q4_0, Q_DIM, HIDDEN, true},
    [GATE] = {DTYPE_BF16, FFN, HIDDEN, false},  [UP] = {DTYPE_Q8_0, FFN, HIDDEN, false},
    [OUT] = {DTYPE_Q4_1, HIDDEN, Q_DIM, false}, [DOWN] = {DTYPE_Q8_0, HIDDEN, FFN, false},
};

struct data {
    struct packed w[MATRICES];
    struct packed embed;
    float *norm;
    float *cos;
    float *sin;
    int32_t tokens[MOST];
};

/* Activations of some rows. */
struct rows {
    uint32_t n;
    float *x;
    float *h;
    float *q;
    float *v;
    float *gate;
    float *up;
    float *sum;
};

static float *rows_of(uint32_t n, uint32_t dim)
{
    float *rows = aligned_alloc(64, n * OPS_STRIDE(dim) * sizeof(float));

    assert_non_null(rows);
    memset(rows, 0, n * OPS_STRIDE(dim) * sizeof(float));
    return rows;
}

static struct rows rows_make(uint32_t n)
{
    return (struct rows){n,
                         rows_of(n, HIDDEN),
                         rows_of(n, HIDDEN),
                         rows_of(n, Q_DIM),
                         rows_of(n, Q_DIM),
                         rows_of(n, FFN),
                         rows_of(n, FFN),
                         rows_of(n, HIDDEN)};
}

static void rows_release(struct rows *rows)
{
    float *all[] = {rows->x, rows->h, rows->q, rows->v, rows->gate, rows->up, rows->sum};

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        free(all[i]);
    }
}

static void data_make(struct kernel_random *random, struct data *data)
{
    for (size_t i = 0; i < MATRICES; i++) {
        kernel_packed_init(&data->w[i], shapes[i].dtype, shapes[i].rows, shapes[i].cols);
        kernel_fill_packed(random, &data->w[i], KIND_NORMAL);
        leaf_plan_init_single(&data->w[i].leaves, shapes[i].cols);
    }
    kernel_packed_init(&data->embed, DTYPE_BF16, VOCABULARY, HIDDEN);
    kernel_fill_packed(random, &data->embed, KIND_NORMAL);
    data->norm = kernel_floats(random, OPS_STRIDE(HIDDEN), KIND_NORMAL, 0);
    data->cos = kernel_floats(random, MOST * HEAD_DIM / 2, KIND_NORMAL, 0);
    data->sin = kernel_floats(random, MOST * HEAD_DIM / 2, KIND_NORMAL, 0);
    for (int32_t i = 0; i < MOST; i++) {
        data->tokens[i] = i * 7 % VOCABULARY;
    }
}

static void data_release(struct data *data)
{
    for (size_t i = 0; i < MATRICES; i++) {
        kernel_packed_release(&data->w[i]);
    }
    kernel_packed_release(&data->embed);
    free(data->norm);
    free(data->cos);
    free(data->sin);
}

static void norm(struct ops_device *device, const float *x, float *y, size_t stride, uint32_t n,
                 uint32_t groups, uint32_t dim, const float *weight)
{
    cpu_ops.rmsnorm(device, &(struct ops_rmsnorm){.x = x,
                                                  .x_stride = stride,
                                                  .y = y,
                                                  .y_stride = stride,
                                                  .w = weight,
                                                  .n = n,
                                                  .groups = groups,
                                                  .dim = dim,
                                                  .eps = 1e-6f});
}

/* x times matrices a and b, or a alone. */
static void linear(struct ops_device *device, const struct data *data, const float *x, uint32_t n,
                   enum matrix a, float *y_a, enum matrix b, float *y_b)
{
    struct ops_linear_out out[2] = {
        {.w = &data->w[a],
         .y = y_a,
         .y_stride = OPS_STRIDE(shapes[a].rows),
         .wide = shapes[a].wide},
        {.w = &data->w[b],
         .y = y_b,
         .y_stride = OPS_STRIDE(shapes[b].rows),
         .wide = shapes[b].wide},
    };

    cpu_ops.linear(device, &(struct ops_linear){.x = x,
                                                .x_stride = OPS_STRIDE(shapes[a].cols),
                                                .n = n,
                                                .act = ACT_INT8,
                                                .out = out,
                                                .n_out = a == b ? 1 : 2});
    memset(out, 0, sizeof(out)); /* arguments are copied */
}

/* All operators on rows, for rows of `first` and so on of the tokens. */
static void layers(struct ops_device *device, const struct data *data, uint32_t first,
                   const struct rows *rows)
{
    const uint32_t n = rows->n;
    struct ops_rope rope = {.x = rows->q,
                            .x_stride = OPS_STRIDE(Q_DIM),
                            .cos = data->cos + (size_t)first * (HEAD_DIM / 2),
                            .sin = data->sin + (size_t)first * (HEAD_DIM / 2),
                            .n = n,
                            .n_heads = N_HEADS,
                            .head_dim = HEAD_DIM,
                            .rot = HEAD_DIM};

    cpu_ops.embed(device, &data->embed, data->tokens + first, n, rows->x, OPS_STRIDE(HIDDEN));
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) { /* more than wait at a time */
        norm(device, rows->x, rows->h, OPS_STRIDE(HIDDEN), n, 1, HIDDEN, data->norm);
        linear(device, data, rows->h, n, Q, rows->q, V, rows->v);
        norm(device, rows->q, rows->q, OPS_STRIDE(Q_DIM), n, N_HEADS, HEAD_DIM, data->norm);
        cpu_ops.rope(device, &rope);
        cpu_ops.add(device, rows->v, OPS_STRIDE(Q_DIM), rows->q, OPS_STRIDE(Q_DIM), n, Q_DIM);
        linear(device, data, rows->v, n, OUT, rows->sum, OUT, NULL);
        cpu_ops.add(device, rows->x, OPS_STRIDE(HIDDEN), rows->sum, OPS_STRIDE(HIDDEN), n, HIDDEN);
        norm(device, rows->x, rows->h, OPS_STRIDE(HIDDEN), n, 1, HIDDEN, data->norm);
        linear(device, data, rows->h, n, GATE, rows->gate, UP, rows->up);
        cpu_ops.silu_mul(device, rows->gate, rows->up, OPS_STRIDE(FFN), rows->gate, OPS_STRIDE(FFN),
                         n, FFN);
        linear(device, data, rows->gate, n, DOWN, rows->sum, DOWN, NULL);
        cpu_ops.add(device, rows->x, OPS_STRIDE(HIDDEN), rows->sum, OPS_STRIDE(HIDDEN), n, HIDDEN);
    }
}

static struct ops_device *make_device(uint32_t n_threads)
{
    struct ops_device *device = NULL;

    assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = n_threads}, &device, NULL),
                     STATUS_OK);
    assert_int_equal(
        cpu_ops.reserve(device, MOST, HIDDEN, (uint32_t)div_up(HIDDEN, QUANT_GROUP), NULL),
        STATUS_OK);
    return device;
}

/* The x of every row, computed by itself: nothing waits. */
static struct rows one_by_one(const struct data *data)
{
    struct ops_device *device = make_device(1);
    struct rows all = rows_make(MOST);

    for (uint32_t i = 0; i < MOST; i++) {
        struct rows one = rows_make(1);

        layers(device, data, i, &one);
        cpu_ops.sync(device);
        memcpy(all.x + i * OPS_STRIDE(HIDDEN), one.x, HIDDEN * sizeof(float));
        rows_release(&one);
    }
    cpu_ops.destroy(&device);
    return all;
}

static void assert_rows(const struct kernel_fixture *fixture, const struct rows *expected,
                        uint32_t first, const struct rows *found)
{
    for (uint32_t i = 0; i < found->n; i++) {
        kernel_assert_same(&fixture->ref, "rows", expected->x + (first + i) * OPS_STRIDE(HIDDEN),
                           found->x + i * OPS_STRIDE(HIDDEN), HIDDEN);
    }
}

static void test_rows_together(void **state)
{
    static const uint32_t counts[] = {MOST, LEAST, 2 * LEAST, 2 * LEAST + 1, LEAST - 1};
    struct kernel_fixture *fixture = *state;
    struct rows expected;
    struct data data;

    kernel_seed(fixture, 5);
    data_make(&fixture->random, &data);
    expected = one_by_one(&data);
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        struct ops_device *device = make_device(n_threads);

        for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
            struct rows rows = rows_make(counts[i]);

            layers(device, &data, MOST - counts[i], &rows);
            cpu_ops.sync(device);
            assert_rows(fixture, &expected, MOST - counts[i], &rows);
            rows_release(&rows);
        }
        cpu_ops.destroy(&device);
    }
    rows_release(&expected);
    data_release(&data);
}

/* What does not wait, or has other rows, comes behind what waits; looking for a NaN and the end of
 * a step do, too. */
static void test_order(void **state)
{
    struct kernel_fixture *fixture = *state;
    struct ops_device *device = make_device(2);
    struct rows some = rows_make(2 * LEAST);
    struct rows more = rows_make(2 * LEAST + 40);
    struct rows few = rows_make(3);
    struct rows expected;
    struct data data;

    kernel_seed(fixture, 6);
    data_make(&fixture->random, &data);
    expected = one_by_one(&data);
    layers(device, &data, 0, &some);
    layers(device, &data, 5, &more);
    cpu_ops.add(device, few.x, OPS_STRIDE(HIDDEN), more.x, OPS_STRIDE(HIDDEN), few.n, HIDDEN);
    assert_rows(fixture, &expected, 5, &few); /* 0 + more, which is done by now */
    assert_rows(fixture, &expected, 0, &some);
    assert_rows(fixture, &expected, 5, &more);
    cpu_ops.step_enter(device);
    cpu_ops.embed(device, &data.embed, data.tokens, some.n, some.x, OPS_STRIDE(HIDDEN));
    cpu_ops.add(device, some.x, OPS_STRIDE(HIDDEN), some.x, OPS_STRIDE(HIDDEN), some.n, HIDDEN);
    cpu_ops.step_leave(device);
    for (uint32_t j = 0; j < HIDDEN; j++) {
        assert_true(some.x[j] == 2 * packed_value(&data.embed, 0, j));
    }
    memcpy((void *)data.embed.codes, &(uint16_t){0x7fff}, 2); /* token 0, column 0: a NaN */
    cpu_ops.embed(device, &data.embed, data.tokens, some.n, some.x, OPS_STRIDE(HIDDEN));
    assert_true(cpu_ops.has_nan(device, some.x, OPS_STRIDE(HIDDEN), 1, 16));
    rows_release(&some);
    rows_release(&more);
    rows_release(&few);
    rows_release(&expected);
    data_release(&data);
    cpu_ops.destroy(&device);
}

static void count_tick(void *arg)
{
    ++*(uint32_t *)arg; /* plain: only the calling thread does this */
}

/* For 200 ms thread 1 computes and says so; the calling thread, whose share was small, waits. */
static void live(void *arg, uint32_t thread, uint32_t n_threads)
{
    (void)n_threads;
    for (uint32_t i = 0; thread == 1 && i < 40; i++) {
        usleep(5000);
        device_tick(arg, thread);
    }
}

static void hang(void *arg, uint32_t thread, uint32_t n_threads)
{
    (void)arg;
    (void)n_threads;
    if (thread == 1) {
        usleep(200 * 1000);
    }
}

/* A thread that waits passes on the other's signs of life, and gives none where there is none: a
 * rank whose thread hangs is replaced. */
static void test_signs_of_life(void **state)
{
    struct ops_device *device = NULL;
    uint32_t ticks = 0;
    uint32_t before;

    (void)state;
    assert_int_equal(
        cpu_ops.create(&(struct ops_config){.n_threads = 2, .tick = count_tick, .tick_arg = &ticks},
                       &device, NULL),
        STATUS_OK);
    pool_run(device->pool, live, device);
    assert_true(ticks >= 2);
    pool_run(device->pool, hang, device); /* the last sign before may be passed on now */
    before = ticks;
    pool_run(device->pool, hang, device);
    assert_int_equal(ticks, before);
    cpu_ops.destroy(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_together, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_order, kernel_setup, kernel_teardown),
        cmocka_unit_test(test_signs_of_life),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
