/* SPDX-License-Identifier: Apache-2.0 */
/* The start-up check: passes for right kernels, names a wrong one, is quick. */
#include "cpu/selfcheck.h"

#include "base/clock.h"
#include "kernel_fixture.h"

static void test_levels_pass(void **state)
{
    struct kernel_fixture *fixture = *state;

    assert_null(cpu_selfcheck(&fixture->ref, &fixture->ref));
    for (uint32_t l = 0; l < fixture->n_levels; l++) {
        uint64_t best = UINT64_MAX;

        for (int i = 0; i < 5; i++) {
            uint64_t start = clock_ns();

            assert_null(cpu_selfcheck(&fixture->levels[l], &fixture->ref));
            best = MIN(best, clock_ns() - start);
        }
        print_message("%s: %.2f ms\n", fixture->levels[l].level, (double)best / 1e6);
    }
}

/* Wrong kernels: each spoils one bit of a right result. */
static struct cpu_kernels right;

static void flip(float *value)
{
    uint32_t bits;

    memcpy(&bits, value, sizeof(bits));
    bits ^= 1;
    memcpy(value, &bits, sizeof(bits));
}

static void wrong_matmul(const struct cpu_matmul *args)
{
    right.matmul[args->w->dtype](args);
    flip(&args->y[(args->m - 1) * args->y_stride]);
}

/* Wrong where x's codes are of 8 bits, or of 16. */
static void wrong_integers(const struct cpu_matmul *args, bool wide)
{
    right.matmul_int8[args->w->dtype](args);
    if ((args->q.wide != NULL) == wide) {
        flip(&args->y[(args->m - 1) * args->y_stride]);
    }
}

static void wrong_matmul_int8(const struct cpu_matmul *args)
{
    wrong_integers(args, false);
}

static void wrong_matmul_wide(const struct cpu_matmul *args)
{
    wrong_integers(args, true);
}

static void wrong_quant_row(const float *x, const struct leaf_plan *leaves, const struct quant *out)
{
    right.quant_row(x, leaves, out);
    if (out->wide == NULL) {
        flip(&out->scales[quant_n_groups(leaves) - 1]);
    }
}

static void wrong_quant_row_wide(const float *x, const struct leaf_plan *leaves,
                                 const struct quant *out)
{
    right.quant_row(x, leaves, out);
    if (out->wide != NULL) {
        flip(&out->scales[quant_n_groups(leaves) - 1]);
    }
}

static void wrong_rmsnorm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    right.rmsnorm(y, x, w, n, eps);
    flip(&y[n - 1]);
}

static void wrong_round_bf16(float *y, const float *x, size_t n)
{
    right.round_bf16(y, x, n);
    flip(&y[n - 1]);
}

static void wrong_silu_mul(float *y, const float *gate, const float *up, size_t n)
{
    right.silu_mul(y, gate, up, n);
    flip(&y[n - 1]);
}

static void wrong_add(float *x, const float *y, size_t n)
{
    right.add(x, y, n);
    flip(&x[n - 1]);
}

static void wrong_rope(float *x, const float *cos, const float *sin, uint32_t half)
{
    right.rope(x, cos, sin, half);
    flip(&x[2 * half - 1]);
}

static void wrong_attn_block(const struct cpu_attn_block *args)
{
    right.attn_block(args);
    flip(&args->l[args->n_q - 1]);
}

static enum kv_type spoilt; /* the type whose blocks are wrong */

static void wrong_attn_block_of_a_type(const struct cpu_attn_block *args)
{
    right.attn_block(args);
    if (args->kv == spoilt) {
        flip(&args->o[args->head_dim - 1]);
    }
}

static void wrong_attn_merge(float *m, float *l, float *o, const float *m_b, const float *l_b,
                             const float *o_b, uint32_t n)
{
    right.attn_merge(m, l, o, m_b, l_b, o_b, n);
    flip(l);
}

static void wrong_attn_finish(float *out, const float *o, float l, uint32_t n)
{
    right.attn_finish(out, o, l, n);
    flip(&out[n - 1]);
}

static float wrong_mass_max(const float *logits, uint32_t n)
{
    float max = right.mass_max(logits, n);

    flip(&max);
    return max;
}

static float wrong_mass_sum(const float *logits, uint32_t n, float max, float inv_temperature,
                            float *masses)
{
    float sum = right.mass_sum(logits, n, max, inv_temperature, masses);

    flip(&masses[n - 1]);
    return sum;
}

static void assert_found(struct cpu_kernels *wrong, const char *name)
{
    const char *differs = cpu_selfcheck(wrong, &right);

    assert_non_null(differs);
    assert_non_null(strstr(differs, name));
    *wrong = right;
}

static void test_wrong_kernels_are_named(void **state)
{
    struct kernel_fixture *fixture = *state;
    struct cpu_kernels wrong;

    right = fixture->ref;
    wrong = right;
    for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        wrong.matmul[dtype] = wrong_matmul;
        assert_found(&wrong, dtype_info((enum dtype)dtype)->name);
        if (dtype_is_quantised((enum dtype)dtype)) {
            wrong.matmul_int8[dtype] = wrong_matmul_int8;
            assert_found(&wrong, dtype_info((enum dtype)dtype)->name);
            wrong.matmul_int8[dtype] = wrong_matmul_wide;
            assert_found(&wrong, dtype_info((enum dtype)dtype)->name);
        }
    }
    wrong.quant_row = wrong_quant_row;
    assert_found(&wrong, "the product with ");
    wrong.quant_row = right.quant_row;
    wrong.quant_row = wrong_quant_row_wide;
    assert_found(&wrong, "the product with ");
    wrong.rmsnorm = wrong_rmsnorm;
    assert_found(&wrong, "rmsnorm");
    wrong.round_bf16 = wrong_round_bf16;
    assert_found(&wrong, "round_bf16");
    wrong.silu_mul = wrong_silu_mul;
    assert_found(&wrong, "silu_mul");
    wrong.add = wrong_add;
    assert_found(&wrong, "add");
    wrong.rope = wrong_rope;
    assert_found(&wrong, "rope");
    wrong.attn_block = wrong_attn_block;
    assert_found(&wrong, "attn_block");
    for (unsigned type = 0; type < KV_TYPE_COUNT; type++) {
        spoilt = (enum kv_type)type;
        wrong.attn_block = wrong_attn_block_of_a_type;
        assert_found(&wrong, "attn_block");
    }
    wrong.attn_merge = wrong_attn_merge;
    assert_found(&wrong, "attn_merge");
    wrong.attn_finish = wrong_attn_finish;
    assert_found(&wrong, "attn_finish");
    wrong.mass_max = wrong_mass_max;
    assert_found(&wrong, "mass_max");
    wrong.mass_sum = wrong_mass_sum;
    assert_found(&wrong, "mass_sum");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels_pass, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_kernels_are_named, kernel_setup,
                                        kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
