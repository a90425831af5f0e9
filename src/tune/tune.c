/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measurement: products of one matrix of each kind with one to four rows, on the device that
 * ranks use. Alternatives take turns, and of each the middle of three counts.
 */
#include "tune/tune.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tensor/bf16_12.h"
#include "tensor/quant.h"

enum {
    MOST_MS = 1000,
    COLS = 1024,
    TURNS = 3,
    ALTERNATIVES = 2,
    FILL = 0x3c /* 0.0115 as bf16, 1.06 as half */
};

/* What is to be gained at the least. */
static const double WORTH = 0.97;

struct bench {
    const struct tune_job *job;
    struct ops_device *device;
    void *memory; /* of all three: [job->bytes] */
    struct packed w[OPS_PRODUCTS];
    float *x; /* [OPS_FEW_ROWS_MAX][OPS_STRIDE(COLS)] */
    float *y; /* [OPS_FEW_ROWS_MAX][rows] */
    size_t y_stride;
    uint64_t until_ns; /* what is not measured until then stays as built in */
    struct tune_result *result;
};

/* About normally distributed, as weights are: how often a panel has patches decides the speed. */
static uint16_t normal_element(uint32_t *random)
{
    float sum = 0.0f;

    for (int i = 0; i < 4; i++) {
        *random = *random * 1664525u + 1013904223u;
        sum += (float)(int32_t)*random * 0x1p-36f;
    }
    return bf16_from_f32(sum);
}

/* The records of a matrix at 12 bits: each that of one panel; codes may be anything. */
static enum status put_records(struct bench *b, struct packed *w)
{
    uint16_t *elements = mem_alloc((size_t)COLS * PACKED_LANES, sizeof(*elements));
    uint8_t *codes = mem_alloc(w->panel_code_bytes, 1);
    uint8_t *record = (uint8_t *)b->memory + packed_scale_offset(w);
    const uint8_t *rows[PACKED_LANES];
    uint32_t random = 1;

    if (elements == NULL || codes == NULL) {
        free(elements);
        free(codes);
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < (size_t)COLS * PACKED_LANES; i++) {
        elements[i] = normal_element(&random);
    }
    for (size_t i = 0; i < PACKED_LANES; i++) {
        rows[i] = (const uint8_t *)(elements + i * COLS);
    }
    memset(record, 0, w->panel_scale_bytes);
    ENSURE(bf16_12_pack(w, rows, codes, record));
    for (size_t panel = 1; panel < w->n_panels; panel++) {
        memcpy(record + panel * w->panel_scale_bytes, record, w->panel_scale_bytes);
    }
    free(elements);
    free(codes);
    return STATUS_OK;
}

/* All kinds have as many rows as BF16 has in the memory, integers twice as many. */
static enum status make(struct bench *b)
{
    static const enum dtype dtypes[OPS_PRODUCTS] = {DTYPE_BF16, DTYPE_BF16_12, DTYPE_Q8_0};
    uint32_t rows = (uint32_t)(b->job->bytes / (2 * COLS) / 4 * 3 / 128 * 128);

    b->y_stride = 2 * (size_t)rows;
    b->memory = b->job->ops->alloc(b->device, b->job->bytes);
    b->x = aligned_alloc(64, OPS_FEW_ROWS_MAX * OPS_STRIDE(COLS) * sizeof(float));
    b->y = mem_alloc(OPS_FEW_ROWS_MAX * b->y_stride, sizeof(float));
    if (b->memory == NULL || b->x == NULL || b->y == NULL || rows == 0) {
        return STATUS_NO_MEMORY;
    }
    memset(b->memory, FILL, b->job->bytes);
    for (size_t i = 0; i < OPS_FEW_ROWS_MAX * OPS_STRIDE(COLS); i++) {
        b->x[i] = (float)(i % 61) - 30.0f;
    }
    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        struct packed *w = &b->w[i];

        ENSURE(packed_init(w, dtypes[i], i == OPS_INTEGERS ? rows * 4 / 3 : rows, COLS));
        ENSURE_OP(packed_bytes(w), <=, b->job->bytes);
        packed_attach(w, b->memory);
        w->plain = b->memory; /* no panel lies there */
        leaf_plan_init_single(&w->leaves, COLS);
    }
    return put_records(b, &b->w[OPS_BF16_12]);
}

/* Microseconds of one product of n rows; the device chooses as tune says. */
static double measure(struct bench *b, enum ops_product product, uint32_t n,
                      const struct ops_tune *tune)
{
    const struct ops *ops = b->job->ops;
    const struct ops_linear_out out = {.w = &b->w[product], .y = b->y, .y_stride = b->y_stride};
    const struct ops_linear linear = {
        .x = b->x,
        .x_stride = OPS_STRIDE(COLS),
        .n = n,
        .act = product == OPS_INTEGERS ? ACT_INT8 : ACT_BF16,
        .out = &out,
        .n_out = 1,
    };
    uint64_t began;

    ops->tune(b->device, tune);
    ops->step_enter(b->device);
    began = clock_ns();
    ops->linear(b->device, &linear);
    began = clock_ns() - began;
    ops->step_leave(b->device);
    return (double)began / 1000;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* One of two that are compared. */
struct alternative {
    enum ops_product product;
    struct ops_tune tune;
    double us[TURNS];
};

/* Both in turn. False if there is no time left. */
static bool compare(struct bench *b, uint32_t n, struct alternative alternatives[ALTERNATIVES])
{
    if (clock_ns() >= b->until_ns) {
        return false;
    }
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < ALTERNATIVES; i++) {
            struct alternative *it = &alternatives[i];

            it->us[turn] = measure(b, it->product, n, &it->tune);
        }
    }
    for (int i = 0; i < ALTERNATIVES; i++) {
        qsort(alternatives[i].us, TURNS, sizeof(alternatives[i].us[0]), ascending);
    }
    return true;
}

/* Up to how many rows streaming is not slower. */
static void choose_few_rows(struct bench *b, enum ops_product product)
{
    struct tune_result *result = b->result;
    uint32_t few = OPS_FEW_ROWS_MAX;

    for (uint32_t n = 2; n <= OPS_FEW_ROWS_MAX; n++) {
        struct alternative both[ALTERNATIVES] = {{.product = product}, {.product = product}};

        both[0].tune.few_rows[product] = n;
        both[1].tune.few_rows[product] = 1;
        if (!compare(b, n, both)) {
            return;
        }
        result->streamed[product][n] = both[0].us[TURNS / 2];
        result->taken_apart[product][n] = both[1].us[TURNS / 2];
        if (both[1].us[TURNS / 2] < WORTH * both[0].us[TURNS / 2]) {
            few = MIN(few, n - 1);
        }
    }
    result->tune.few_rows[product] = few;
}

static void choose_bf16_12(struct bench *b)
{
    struct alternative both[ALTERNATIVES] = {{.product = OPS_PLAIN}, {.product = OPS_BF16_12}};
    struct tune_result *result = b->result;

    if (!compare(b, 1, both)) {
        return;
    }
    result->bf16 = both[0].us[TURNS / 2];
    result->bf16_12 = both[1].us[TURNS / 2];
    result->tune.likes_bf16_12 = result->bf16_12 < WORTH * result->bf16 ? OPS_YES : OPS_NO;
}

/* Half as many threads as long as that is no slower: where a few read all that memory gives, the
 * others only come and go. */
static void choose_few_threads(struct bench *b)
{
    uint32_t all = b->job->ops->n_threads(b->device);
    uint32_t best = all;

    for (uint32_t half = all / 2; half >= 1; half /= 2) {
        struct alternative both[ALTERNATIVES] = {
            {.product = OPS_PLAIN, .tune.few_threads = best},
            {.product = OPS_PLAIN, .tune.few_threads = half},
        };

        if (!compare(b, 1, both)) {
            return;
        }
        if (both[1].us[TURNS / 2] > both[0].us[TURNS / 2] / WORTH) {
            break;
        }
        best = half;
    }
    b->result->tune.few_threads = best == all ? 0 : best;
}

static void choose_all(struct bench *b)
{
    choose_bf16_12(b);
    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        choose_few_rows(b, (enum ops_product)i);
    }
    choose_few_threads(b);
}

enum status tune_measure(const struct tune_job *job, struct tune_result *ret_result,
                         struct err *err)
{
    struct tune_result result = {0};
    struct bench b = {.job = job, .result = &result};
    enum status status = job->ops->create(
        &(struct ops_config){.n_threads = job->key.n_threads, .level = job->key.level}, &b.device,
        err);

    if (status != STATUS_OK) {
        return status;
    }
    status = job->ops->reserve(b.device, OPS_FEW_ROWS_MAX, COLS, COLS / QUANT_GROUP, err);
    if (status == STATUS_OK && make(&b) != STATUS_OK) {
        status = err_set(err, STATUS_NO_MEMORY, "no memory to measure products in");
    }
    if (status == STATUS_OK) {
        b.until_ns = clock_ns() + (uint64_t)MOST_MS * 1000000;
        choose_all(&b);
    }
    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        leaf_plan_release(&b.w[i].leaves);
    }
    if (b.memory != NULL) {
        job->ops->release(b.device, b.memory, job->bytes);
    }
    free(b.x);
    free(b.y);
    job->ops->destroy(&b.device);
    *ret_result = result;
    return status;
}
