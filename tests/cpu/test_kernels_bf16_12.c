/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with BF16 at 12 bits against those with the same elements as plain BF16, at every level:
 * patches at every place, panels that lie plain among others, all numbers of rows and of panels.
 */
#include "kernel_fixture.h"

static const uint32_t row_counts[] = {1, 2, 3, 4, 5, 9, 60};

enum { MOST = 60, HIGH_BYTES = 16 };

/* The same elements in both types; the caller frees with kernel_packed_release. */
static void pack_both(const uint16_t *elements, uint32_t rows, uint32_t cols, struct packed w[2])
{
    kernel_packed_init(&w[0], DTYPE_BF16, rows, cols);
    kernel_packed_init(&w[1], DTYPE_BF16_12, rows, cols);
    memset((uint8_t *)w[0].codes, 0, packed_bytes(&w[0]));
    memset((uint8_t *)w[1].codes, 0, packed_bytes(&w[1]));
    memset((uint8_t *)w[1].plain, 0, packed_plain_bytes(&w[1]));
    for (uint32_t i = 0; i < rows * cols; i++) {
        uint32_t row = i / cols;
        uint32_t col = i % cols;

        memcpy((uint8_t *)w[0].codes + row / PACKED_LANES * w[0].panel_code_bytes +
                   (col / 2 * PACKED_LANES + row % PACKED_LANES) * 4 + col % 2 * 2,
               &elements[i], 2);
    }
    for (uint32_t panel = 0; panel < w[1].n_panels; panel++) {
        const uint8_t *lanes[PACKED_LANES] = {NULL};

        for (uint32_t i = 0; i < MIN(rows - panel * PACKED_LANES, (uint32_t)PACKED_LANES); i++) {
            lanes[i] = (const uint8_t *)(elements + (size_t)(panel * PACKED_LANES + i) * cols);
        }
        if (!bf16_12_pack(&w[1], lanes, (uint8_t *)w[1].codes + panel * w[1].panel_code_bytes,
                          (uint8_t *)w[1].scales + panel * w[1].panel_scale_bytes)) {
            memcpy((uint8_t *)w[1].plain + panel * w[1].panel_plain_bytes,
                   w[0].codes + panel * w[0].panel_code_bytes, w[0].panel_code_bytes);
        }
    }
}

/* m rows of x by panels from `begin` on. */
static void check(struct kernel_fixture *fixture, struct packed w[2], uint32_t m, const float *x,
                  size_t x_stride, uint32_t begin)
{
    size_t n = (size_t)m * w->rows;
    float *y[2] = {xcalloc(n, sizeof(float)), xcalloc(n, sizeof(float))};

    for (uint32_t l = 0; l < fixture->n_levels; l++) {
        for (int i = 0; i < 2; i++) {
            fixture->levels[l].matmul[w[i].dtype](
                &(struct cpu_matmul){.w = &w[i],
                                     .x = x,
                                     .x_stride = x_stride,
                                     .y = y[i],
                                     .y_stride = w->rows,
                                     .root_stride = n,
                                     .m = m,
                                     .panel_begin = begin,
                                     .panel_end = w->n_panels,
                                     .scratch = fixture->scratch});
        }
        kernel_assert_same(&fixture->levels[l], "BF16 at 12 bits", y[0], y[1], n);
    }
    free(y[0]);
    free(y[1]);
}

static void release_both(struct packed w[2])
{
    kernel_packed_release(&w[0]);
    kernel_packed_release(&w[1]);
}

/* One element in another binade than all others, which have sixteen high bytes. */
static void test_patch_anywhere(void **state)
{
    enum { ROWS = 16, COLS = 104 };
    static const uint16_t rare[] = {0x7f80, 0xff80, 0x7fc1, 0x0001, 0x8000, 0x4b12};
    struct kernel_fixture *fixture = *state;
    float *x;

    kernel_seed(fixture, 99);
    x = kernel_floats(&fixture->random, MOST * (COLS + 64), KIND_NORMAL, 0);
    for (uint32_t at = 0; at < ROWS * COLS; at += 1 + at % 5) {
        uint16_t elements[ROWS * COLS];
        struct packed w[2];

        for (uint32_t i = 0; i < ROWS * COLS; i++) {
            uint32_t r = (uint32_t)kernel_next(&fixture->random);

            elements[i] = (uint16_t)((r & 0x80ff) | (0x3a + (i + r) % (HIGH_BYTES / 2)) << 8);
        }
        elements[at] = rare[at % ARRAY_LEN(rare)];
        pack_both(elements, ROWS, COLS, w);
        assert_int_equal(bf16_12_head(&w[1], 0)->n_patches, 1);
        for (int i = 0; i < 2; i++) {
            leaf_plan_init_single(&w[i].leaves, COLS);
        }
        check(fixture, w, row_counts[at % ARRAY_LEN(row_counts)], x, COLS + 64, 0);
        release_both(w);
    }
    free(x);
}

/* Panels of all three forms in one matrix, in every order that a group of panels can have. */
static void test_forms(void **state)
{
    enum { PANELS = 19, ROWS = PANELS * PACKED_LANES - 3, COLS = 328 };
    struct kernel_fixture *fixture = *state;
    uint16_t *elements = xcalloc(ROWS * COLS, sizeof(*elements));
    uint32_t n_forms[3] = {0};
    float *x;

    kernel_seed(fixture, 100);
    x = kernel_floats(&fixture->random, MOST * (COLS + 64), KIND_NORMAL, 0);
    for (uint32_t round = 0; round < 6; round++) {
        uint64_t seed = kernel_next(&fixture->random);
        uint32_t form = 0;
        struct packed w[2];

        for (uint32_t i = 0; i < ROWS * COLS; i++) {
            uint32_t spread = kernel_below(&fixture->random, 400) == 0 ? 30 : 0;

            form = i % (PACKED_LANES * COLS) == 0 ? kernel_below(&fixture->random, 3) : form;
            elements[i] = bf16_from_f32(kernel_value(&fixture->random, KIND_NORMAL, 0));
            elements[i] =
                (uint16_t)(elements[i] - ((form == 1   ? spread
                                           : form == 2 ? kernel_below(&fixture->random, 40)
                                                       : 0)
                                          << 8));
        }
        pack_both(elements, ROWS, COLS, w);
        for (int i = 0; i < 2; i++) { /* leaves that end inside units, too */
            fixture->random.state = seed;
            kernel_plan_init(&fixture->random, &w[i].leaves, COLS, round % 2 == 0 ? 8 : 2, 5, 0, 5);
        }
        for (uint32_t panel = 0; panel < w[1].n_panels; panel++) {
            uint32_t n = bf16_12_head(&w[1], panel)->n_patches;

            n_forms[n == BF16_12_PLAIN ? 2 : n > 0]++;
        }
        for (size_t i = 0; i < ARRAY_LEN(row_counts); i++) {
            check(fixture, w, row_counts[i], x, COLS + 64, round % 3);
        }
        release_both(w);
    }
    free(x);
    free(elements);
    for (int i = 0; i < 3; i++) {
        assert_true(n_forms[i] > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_patch_anywhere, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_forms, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
