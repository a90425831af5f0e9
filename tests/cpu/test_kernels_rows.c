/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels over rows: every instruction set gives the reference's bits. */
#include "kernel_fixture.h"

#include <math.h>

#include "tensor/canon.h"

enum { LONGEST = 1200 };

static const uint32_t lengths[] = {1,  2,  7,  8,  9,  15,  16,  17,  24,   31,
                                   32, 33, 63, 64, 80, 128, 129, 576, 1024, 1199};

/* Runs one case of every length and kind. */
static void each_case(struct kernel_fixture *fixture, int tiny,
                      void (*run)(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                                  float *const rows[3], uint32_t n))
{
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
            float *rows[3];

            for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
                /* of the exact length, so that a sanitizer sees what is read beyond it */
                rows[r] = kernel_floats(&fixture->random, lengths[i], (enum kernel_kind)kind, tiny);
            }
            for (uint32_t l = 0; l < fixture->n_levels; l++) {
                run(fixture, &fixture->levels[l], rows, lengths[i]);
            }
            for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
                free(rows[r]);
            }
        }
    }
}

static void run_rmsnorm(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                        float *const rows[3], uint32_t n)
{
    float expected[LONGEST];
    float found[LONGEST];

    for (int zero = 0; zero < 2; zero++) {
        float eps = zero != 0 ? 0.0f : 1e-6f;

        fixture->ref.rmsnorm(expected, rows[0], rows[1], n, eps);
        level->rmsnorm(found, rows[0], rows[1], n, eps);
        kernel_assert_same(level, "rmsnorm", expected, found, n);
    }
    memcpy(found, rows[0], n * sizeof(float));
    level->rmsnorm(found, found, rows[1], n, 0.0f);
    kernel_assert_same(level, "rmsnorm in place", expected, found, n);
}

static void test_rmsnorm(void **state)
{
    kernel_seed(*state, 1);
    each_case(*state, -63, run_rmsnorm);
}

static void run_round_bf16(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                           float *const rows[3], uint32_t n)
{
    float expected[LONGEST];
    float found[LONGEST];

    for (uint32_t i = 0; i < n; i++) { /* any bits at all, and halfway cases */
        uint64_t bits = kernel_next(&fixture->random);

        bits = i % 2 == 0 ? bits : (bits & 0xffff0000) | 0x8000;
        memcpy(&rows[0][i], &bits, sizeof(float));
    }
    fixture->ref.round_bf16(expected, rows[0], n);
    level->round_bf16(found, rows[0], n);
    kernel_assert_same(level, "round_bf16", expected, found, n);
    level->round_bf16(rows[0], rows[0], n);
    kernel_assert_same(level, "round_bf16 in place", expected, rows[0], n);
}

static void test_round_bf16(void **state)
{
    kernel_seed(*state, 2);
    each_case(*state, -126, run_round_bf16);
}

static void run_silu_mul(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                         float *const rows[3], uint32_t n)
{
    float expected[LONGEST];
    float found[LONGEST];

    fixture->ref.silu_mul(expected, rows[0], rows[1], n);
    memcpy(found, rows[0], n * sizeof(float));
    level->silu_mul(found, found, rows[1], n);
    kernel_assert_same(level, "silu_mul", expected, found, n);
}

/* Ordinary values, then the whole range of exp in small steps, its bounds among them. */
static void test_silu_mul(void **state)
{
    struct kernel_fixture *fixture = *state;
    static const float corners[] = {
        CANON_EXP_LOW, -CANON_EXP_LOW, CANON_EXP_HIGH, -CANON_EXP_HIGH, INFINITY, -INFINITY,
        NAN,           0.0f,           -0.0f};
    float ones[LONGEST];
    float gate[LONGEST];
    float *rows[3] = {gate, ones, NULL};

    kernel_seed(fixture, 3);
    each_case(fixture, -63, run_silu_mul);
    for (uint32_t i = 0; i < LONGEST; i++) {
        ones[i] = 1.0f;
    }
    for (int part = 0; part < 100; part++) {
        for (uint32_t i = 0; i < LONGEST; i++) {
            gate[i] = -90.0f + 180.0f * (float)(part * LONGEST + (int)i) / (100.0f * LONGEST);
        }
        for (uint32_t i = 0; part == 0 && i < ARRAY_LEN(corners); i++) {
            gate[3 * i] = corners[i];
            gate[3 * i + 1] = nextafterf(corners[i], INFINITY);
            gate[3 * i + 2] = nextafterf(corners[i], -INFINITY);
        }
        for (uint32_t l = 0; l < fixture->n_levels; l++) {
            run_silu_mul(fixture, &fixture->levels[l], rows, LONGEST);
        }
    }
}

static void run_add(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                    float *const rows[3], uint32_t n)
{
    float expected[LONGEST];
    float found[LONGEST];

    memcpy(expected, rows[0], n * sizeof(float));
    memcpy(found, rows[0], n * sizeof(float));
    fixture->ref.add(expected, rows[1], n);
    level->add(found, rows[1], n);
    kernel_assert_same(level, "add", expected, found, n);
}

static void test_add(void **state)
{
    kernel_seed(*state, 4);
    each_case(*state, -126, run_add);
}

static void run_rope(struct kernel_fixture *fixture, const struct cpu_kernels *level,
                     float *const rows[3], uint32_t n)
{
    uint32_t half = n / 2;
    float expected[LONGEST];
    float found[LONGEST];

    memcpy(expected, rows[0], n * sizeof(float));
    memcpy(found, rows[0], n * sizeof(float));
    fixture->ref.rope(expected, rows[1], rows[2], half);
    level->rope(found, rows[1], rows[2], half);
    kernel_assert_same(level, "rope", expected, found, n);
}

static void test_rope(void **state)
{
    kernel_seed(*state, 5);
    each_case(*state, -63, run_rope);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rmsnorm, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_round_bf16, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_silu_mul, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_add, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_rope, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
