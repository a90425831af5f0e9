/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels clear the upper halves of the vector registers before they return. If one does not, its
 * results are right and everything else in the process is slow: scalar code of the C library ran
 * eight times slower. Only where the processor can say which registers are in use.
 */
#if defined(__x86_64__)
#include <cpuid.h>

#include "kernel_fixture.h"

enum { XSAVE_LEAF = 13, XINUSE_BIT = 2, AVX_STATE = 1 << 2 };

static bool can_tell(void)
{
    unsigned a = 0;
    unsigned b;
    unsigned c;
    unsigned d;

    return __get_cpuid_count(XSAVE_LEAF, 1, &a, &b, &c, &d) != 0 && (a >> XINUSE_BIT & 1) != 0;
}

static void clear_upper(void)
{
    __asm__ volatile("vzeroupper");
}

/* True if upper halves of the first sixteen registers are in use. */
static bool upper_in_use(void)
{
    unsigned low;
    unsigned high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return (low & AVX_STATE) != 0;
}

/* Products of every type, whole steps and ends of leaves, few rows and many. */
/* Without a vector level there is nothing to leave; without XGETBV's in-use bits nobody can see it.
 */
static void skip_unless_visible(const struct kernel_fixture *fixture)
{
    if (fixture->n_real == 0 || !can_tell()) {
        print_message(
            "skipped: no vector level, or XGETBV does not tell which registers are in use\n");
        skip();
    }
}

/* The rows of args->x as integers, and their product. */
static void product_int8(const struct cpu_kernels *level, const struct cpu_matmul *args, bool wide)
{
    static _Alignas(64) uint8_t memory[16 * 256 / QUANT_GROUP * 72];
    const struct leaf_plan *leaves = &args->w->leaves;
    struct cpu_matmul integers = *args;
    uint32_t n = quant_n_groups(leaves);
    size_t bytes;

    assert_true(quant_bytes(args->m, n, wide, &bytes) && bytes <= sizeof(memory));
    integers.q = quant_attach(memory, args->m, n, wide);
    for (size_t i = 0; i < args->m; i++) {
        struct quant row = quant_from(integers.q, i);

        clear_upper();
        level->quant_row(args->x + i * args->x_stride, leaves, &row);
        assert_false(upper_in_use());
    }
    clear_upper();
    level->matmul_int8[args->w->dtype](&integers);
    assert_false(upper_in_use());
}

static void test_products(void **state)
{
    static const uint32_t shapes[][2] = {{17, 32}, {150, 64}, {20, 70}, {20, 256}};
    struct kernel_fixture *fixture = *state;

    skip_unless_visible(fixture);
    fixture->random.state = 1;
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        for (unsigned dtype = 0; dtype < DTYPE_COUNT; dtype++) {
            float *x = kernel_floats(&fixture->random, 16 * 320, KIND_NORMAL, 0);
            float *y = kernel_floats(&fixture->random, 16 * 160, KIND_NORMAL, 0);
            struct packed w;

            if (shapes[s][1] % dtype_info((enum dtype)dtype)->group == 0) {
                kernel_packed_init(&w, (enum dtype)dtype, shapes[s][0], shapes[s][1]);
                kernel_fill_packed(&fixture->random, &w, KIND_NORMAL);
                leaf_plan_init_single(&w.leaves, shapes[s][1]);
                for (uint32_t i = 0; i < fixture->n_real * 16; i++) {
                    struct cpu_matmul args = {.w = &w,
                                              .x = x,
                                              .x_stride = 320,
                                              .y = y,
                                              .y_stride = 160,
                                              .m = 1 + i / fixture->n_real,
                                              .panel_end = w.n_panels,
                                              .scratch = fixture->scratch};

                    clear_upper();
                    fixture->levels[i % fixture->n_real].matmul[dtype](&args);
                    assert_false(upper_in_use());
                    if (dtype_is_quantised((enum dtype)dtype)) {
                        product_int8(&fixture->levels[i % fixture->n_real], &args, false);
                        product_int8(&fixture->levels[i % fixture->n_real], &args, true);
                    }
                }
                kernel_packed_release(&w);
            }
            free(x);
            free(y);
        }
    }
}

static void test_rows(void **state)
{
    struct kernel_fixture *fixture = *state;

    skip_unless_visible(fixture);
    for (uint32_t n = 1; n < 70; n++) {
        float a[160] = {0};
        float b[160] = {0};
        float y[160] = {0};

        for (uint32_t l = 0; l < fixture->n_real; l++) {
            const struct cpu_kernels *kernels = &fixture->levels[l];

            clear_upper();
            kernels->rmsnorm(y, a, b, n, 1.0f);
            assert_false(upper_in_use());
            kernels->round_bf16(y, a, n);
            assert_false(upper_in_use());
            kernels->silu_mul(y, a, b, n);
            assert_false(upper_in_use());
            kernels->add(y, a, n);
            assert_false(upper_in_use());
            kernels->rope(y, a, b, n);
            assert_false(upper_in_use());
            kernels->attn_merge(y + 158, y + 159, y, a, b, a, n);
            assert_false(upper_in_use());
            kernels->attn_finish(y, a, 1.0f, n);
            assert_false(upper_in_use());
        }
    }
}

static void test_attention(void **state)
{
    enum { KEYS = 64, HEAD_DIM = 64, QUERIES = 9 };
    struct kernel_fixture *fixture = *state;
    float *q;
    float *o;
    uint8_t *page;

    skip_unless_visible(fixture);
    q = kernel_floats(&fixture->random, QUERIES * HEAD_DIM, KIND_NORMAL, 0);
    o = kernel_floats(&fixture->random, QUERIES * HEAD_DIM, KIND_NORMAL, 0);
    page = aligned_alloc(64, KEYS * HEAD_DIM * 4);
    assert_non_null(page);
    memset(page, 0x3c, KEYS * HEAD_DIM * 4);
    for (uint32_t keys = 1; keys <= KEYS; keys++) {
        for (uint32_t i = 0; i < 2 * fixture->n_real; i++) {
            uint32_t valid[QUERIES];
            float m[QUERIES];
            float l[QUERIES];

            for (uint32_t j = 0; j < QUERIES; j++) {
                valid[j] = keys;
            }
            clear_upper();
            fixture->levels[i / 2].attn_block(&(struct cpu_attn_block){
                .k = page,
                .next = page,
                .v = page,
                .head_dim = HEAD_DIM,
                .kv = i % 2 == 0 ? KV_BF16 : KV_F32,
                .product = fixture->levels[i / 2].matmul[DTYPE_BF16],
                .scale = 1.0f,
                .q = q,
                .q_stride = HEAD_DIM,
                .n_q = 1 + keys % QUERIES,
                .valid = valid,
                .m = m,
                .l = l,
                .o = o,
                .o_stride = HEAD_DIM,
                .scratch = fixture->scratch,
            });
            assert_false(upper_in_use());
        }
    }
    free(q);
    free(o);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_products, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_rows, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_attention, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
