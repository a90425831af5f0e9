/* SPDX-License-Identifier: Apache-2.0 */
/* Masses of blocks of logits: every instruction set gives the bits of tensor/mass.h, and so does
 * the operator with any number of threads. */
#include "kernel_fixture.h"

#include <math.h>

static const uint32_t lengths[] = {1,  2,  7,  8,  9,   15,  16,  17,  23,  24,   25,
                                   31, 32, 33, 63, 100, 255, 500, 512, 999, 1023, MASS_BLOCK_ROWS};
static const float inv_temperatures[] = {1.0f, 1.0f / 0.7f, 0.01f, 50.0f, INFINITY};

/* What is beside the kinds of numbers: all rows impossible, some, one certain without end, one not
 * a number. */
enum special { PLAIN, ALL_IMPOSSIBLE, SOME_IMPOSSIBLE, CERTAIN, NOT_A_NUMBER, SPECIAL_COUNT };

static void spoil(float *logits, uint32_t n, enum special special)
{
    for (uint32_t i = 0; i < n; i++) {
        if (special == ALL_IMPOSSIBLE || (special == SOME_IMPOSSIBLE && i % 3 != 1)) {
            logits[i] = -INFINITY;
        }
    }
    if (special == CERTAIN) {
        logits[n / 2] = INFINITY;
    } else if (special == NOT_A_NUMBER) {
        logits[n - 1] = NAN;
    }
}

static void check_sums(const struct kernel_fixture *fixture, const struct cpu_kernels *level,
                       const float *logits, uint32_t n, float max)
{
    float *found = xcalloc(n, sizeof(float)); /* of the exact length, for sanitizers */
    float expected[MASS_BLOCK_ROWS];

    for (size_t t = 0; t < ARRAY_LEN(inv_temperatures); t++) {
        float inv_temperature = inv_temperatures[t];
        float sum = fixture->ref.mass_sum(logits, n, max, inv_temperature, expected);
        float other = level->mass_sum(logits, n, max, inv_temperature, NULL);

        kernel_assert_same(level, "mass_sum", &sum, &other, 1);
        other = level->mass_sum(logits, n, max, inv_temperature, found);
        kernel_assert_same(level, "mass_sum with masses", &sum, &other, 1);
        kernel_assert_same(level, "masses", expected, found, n);
    }
    free(found);
}

static void check_block(struct kernel_fixture *fixture, uint32_t n, enum kernel_kind kind,
                        enum special special)
{
    float *logits = kernel_floats(&fixture->random, n, kind, -126);
    float max;

    for (uint32_t i = 0; i < n; i++) { /* over the range of exp and somewhat more */
        logits[i] = kind == KIND_NORMAL ? logits[i] * 16.0f : logits[i];
    }
    spoil(logits, n, special);
    max = fixture->ref.mass_max(logits, n);
    for (uint32_t l = 0; l < fixture->n_levels; l++) {
        float found = fixture->levels[l].mass_max(logits, n);

        kernel_assert_same(&fixture->levels[l], "mass_max", &max, &found, 1);
        if (max == max) {
            check_sums(fixture, &fixture->levels[l], logits, n, max);
        }
    }
    free(logits);
}

static void test_kernels(void **state)
{
    kernel_seed(*state, 1);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
            for (unsigned special = 0; special < SPECIAL_COUNT; special++) {
                check_block(*state, lengths[i], (enum kernel_kind)kind, (enum special)special);
            }
        }
    }
}

/* The definition itself, on numbers that are exact. */
static void test_definition(void **state)
{
    float logits[20];
    float masses[20];

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        logits[i] = i == 3 || i == 19 ? 2.0f : -INFINITY;
    }
    assert_true(mass_block_max(logits, 20) == 2.0f);
    assert_true(mass_block_sum(logits, 20, 2.0f, 1.0f, masses) == 2.0f);
    assert_true(masses[3] == 1.0f && masses[4] == 0.0f && masses[19] == 1.0f);
    logits[4] = 1.0f;
    assert_true(mass_block_sum(logits, 20, 2.0f, 3.0f, masses) == 2.0f + canon_exp(-3.0f));
    assert_true(mass_block_max(logits, 3) == -INFINITY);
    assert_true(mass_block_sum(logits, 3, -INFINITY, 1.0f, masses) == 0.0f && masses[0] == 0.0f);
    logits[19] = NAN;
    assert_true(isnan(mass_block_max(logits, 20)));
}

static void check_operator(struct kernel_fixture *fixture, const char *level, uint32_t n_threads)
{
    static const uint32_t n_rows[] = {0, 1, 1024, 1025, 16383, 16384, 20480, 33333};
    const struct ops_config config = {.n_threads = n_threads, .level = level};
    struct ops_device *device;
    struct mass_table masses;
    struct err err = {0};

    assert_int_equal(cpu_ops.create(&config, &device, &err), STATUS_OK);
    masses = cpu_ops.masses(device);
    for (size_t i = 0; i < ARRAY_LEN(n_rows); i++) {
        struct mass_block expected[64] = {0};
        struct mass_block found[64] = {0};
        float *logits = kernel_floats(&fixture->random, n_rows[i] + 1, KIND_WIDE, 0);
        float *weighed = xcalloc(2 * (size_t)n_rows[i] + 1, sizeof(float));
        struct mass_rows rows = {logits, n_rows[i], expected, 1.25f, weighed};

        mass_plain.max(mass_plain.arg, &rows);
        mass_plain.sum(mass_plain.arg, &rows);
        rows.blocks = found;
        rows.masses = weighed + n_rows[i];
        masses.max(masses.arg, &rows);
        masses.sum(masses.arg, &rows);
        assert_memory_equal(expected, found, sizeof(expected));
        assert_memory_equal(weighed, rows.masses, n_rows[i] * sizeof(float));
        free(weighed);
        free(logits);
    }
    cpu_ops.destroy(&device);
}

static void test_operator(void **state)
{
    kernel_seed(*state, 2);
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        bool there = cpu_level_is_supported((enum cpu_level)level);

        for (uint32_t n_threads = 1; there && n_threads <= 3; n_threads++) {
            check_operator(*state, cpu_level_name((enum cpu_level)level), n_threads);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kernels, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_definition, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_operator, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
