/* SPDX-License-Identifier: Apache-2.0 */
/* Attention: every instruction set gives the reference's bits. */
#include "kernel_fixture.h"

#include <math.h>

enum { KEYS = 64, MOST_QUERIES = 150 };

/* How `valid` varies over the queries of a block. */
enum pattern { ALL_KEYS, ONE_NUMBER, DIAGONAL, RANDOM, PATTERN_COUNT };

static void fill_valid(struct kernel_random *random, enum pattern pattern, uint32_t n,
                       uint32_t *valid)
{
    uint32_t number = 1 + kernel_below(random, KEYS);
    uint32_t group = 1 + kernel_below(random, 6);

    for (uint32_t i = 0; i < n; i++) {
        switch (pattern) {
        case ALL_KEYS:
            valid[i] = KEYS;
            break;
        case ONE_NUMBER:
            valid[i] = number;
            break;
        case DIAGONAL:
            valid[i] = MIN(i / group + 1, KEYS);
            break;
        default:
            valid[i] = 1 + kernel_below(random, KEYS);
            break;
        }
    }
}

/* (m, l, o) of some queries. */
struct partials {
    float m[MOST_QUERIES];
    float l[MOST_QUERIES];
    float *o;
};

/* Makes the values of keys [first, KEYS) infinite: they are absent. */
static void spoil_values(struct packed *values, bool bf16, uint32_t first)
{
    const uint16_t half = 0x7f80;
    const float infinity = INFINITY;

    for (uint32_t panel = 0; panel < values->n_panels; panel++) {
        uint8_t *codes = (uint8_t *)values->codes + panel * values->panel_code_bytes;

        for (uint32_t i = first * 16; i < KEYS * 16; i++) {
            if (bf16) {
                memcpy(codes + (i / 32 * 16 + i % 16) * 4 + i / 16 % 2 * 2, &half, sizeof(half));
            } else {
                memcpy(codes + i * 4, &infinity, sizeof(infinity));
            }
        }
    }
}

/* Every level that has attention of its own, with every level's product, to args' m, l and o. */
static void check_levels(struct kernel_fixture *fixture, struct cpu_attn_block *args,
                         const struct partials *expected)
{
    for (uint32_t i = 0; i < fixture->n_levels * fixture->n_levels; i++) {
        const struct cpu_kernels *level = &fixture->levels[i / fixture->n_levels];
        const struct cpu_kernels *other = &fixture->levels[i % fixture->n_levels];

        if (level->attn_block == fixture->ref.attn_block ||
            (level != other && args->kv != KV_BF16)) {
            continue; /* which calls no product */
        }
        memset(args->o, 0, args->n_q * args->o_stride * sizeof(float));
        args->product = other->matmul[DTYPE_BF16];
        level->attn_block(args);
        kernel_assert_same(level, "attn_block m", expected->m, args->m, args->n_q);
        kernel_assert_same(level, "attn_block l", expected->l, args->l, args->n_q);
        kernel_assert_same(level, "attn_block o", expected->o, args->o, args->n_q * args->o_stride);
    }
}

/* Powers of two for TINY: scores flush to zeros of both signs (-63), or weights times values do
 * (values at -126, scores near 0). */
static void check_block(struct kernel_fixture *fixture, bool bf16, uint32_t head_dim, uint32_t n_q,
                        enum pattern pattern, enum kernel_kind kind)
{
    enum dtype dtype = bf16 ? DTYPE_BF16 : DTYPE_F32;
    size_t q_stride = round_up(head_dim, 16) + 64;
    size_t o_stride = round_up(head_dim, 16) + 16;
    float *q = kernel_floats(&fixture->random, n_q * q_stride, kind, -63);
    uint32_t valid[MOST_QUERIES];
    struct packed keys;
    struct packed values;
    struct partials expected = {.o = xcalloc(n_q * o_stride, sizeof(float))};
    struct partials found = {.o = xcalloc(n_q * o_stride, sizeof(float))};
    struct cpu_attn_block args = {
        .head_dim = head_dim,
        .kv = bf16 ? KV_BF16 : KV_F32,
        .scale = kind == KIND_TINY ? 1.5f : 1.0f / sqrtf((float)head_dim),
        .q = q,
        .q_stride = q_stride,
        .n_q = n_q,
        .valid = valid,
        .o_stride = o_stride,
        .scratch = fixture->scratch,
    };

    kernel_packed_init(&keys, dtype, KEYS, head_dim);
    kernel_packed_init(&values, dtype, head_dim, KEYS);
    kernel_fill_packed(&fixture->random, &keys, kind);
    kernel_fill_packed(&fixture->random, &values, kind);
    for (size_t i = 0; kind == KIND_TINY && i < packed_bytes(&values); i += 4) {
        uint32_t bits; /* lower by 63 binades; the odd elements of BF16 only */

        memcpy(&bits, values.codes + i, sizeof(bits));
        bits = (bits & 0x7f800000) > (63u << 23) ? bits - (63u << 23) : bits;
        memcpy((uint8_t *)values.codes + i, &bits, sizeof(bits));
    }
    fill_valid(&fixture->random, pattern, n_q, valid);
    if (pattern == ONE_NUMBER) {
        spoil_values(&values, bf16, valid[0]);
    }
    if (bf16) {
        fixture->ref.round_bf16(q, q, n_q * q_stride);
    }
    args.k = keys.codes;
    args.next = keys.codes;
    args.v = values.codes;
    args.m = expected.m;
    args.l = expected.l;
    args.o = expected.o;
    fixture->ref.attn_block(&args);
    args.m = found.m;
    args.l = found.l;
    args.o = found.o;
    check_levels(fixture, &args, &expected);
    kernel_packed_release(&keys);
    kernel_packed_release(&values);
    free(expected.o);
    free(found.o);
    free(q);
}

static void test_block(void **state)
{
    static const uint32_t head_dims[] = {1, 20, 33, 64, 80, 96, 128, 256};
    static const uint32_t query_counts[] = {1, 2, 4, 7, 16, 70, MOST_QUERIES};

    kernel_seed(*state, 11);
    for (size_t d = 0; d < ARRAY_LEN(head_dims); d++) {
        for (size_t n = 0; n < ARRAY_LEN(query_counts); n++) {
            for (unsigned pattern = 0; pattern < PATTERN_COUNT; pattern++) {
                enum kernel_kind kind = (enum kernel_kind)((d + n + pattern) % KIND_COUNT);
                bool bf16 = (d + n / 2 + pattern) % 2 == 0;

                if (query_counts[n] * head_dims[d] <= 70 * 128) {
                    check_block(*state, bf16, head_dims[d], query_counts[n], (enum pattern)pattern,
                                kind);
                }
            }
        }
    }
}

/* Many small blocks, every number of keys. */
static void test_block_every_valid(void **state)
{
    kernel_seed(*state, 12);
    for (int round = 0; round < 200; round++) {
        check_block(*state, round % 2 == 0, 16, 4, round % 4 < 2 ? RANDOM : ONE_NUMBER,
                    (enum kernel_kind)(round / 4 % KIND_COUNT));
    }
}

/* Scores that tie at zeros of both signs: m keeps the first one's sign. A score is
 * (1.5 - 1.75) 2^-126, flushed to -0, or (1.75 - 1.5) 2^-126, flushed to +0, over two steps. */
static void test_block_zero_scores(void **state)
{
    enum { HEAD_DIM = 64 };
    struct kernel_fixture *fixture = *state;
    uint32_t n_negative = 0;

    kernel_seed(fixture, 13);
    for (int round = 0; round < 100; round++) {
        float q[HEAD_DIM] = {0};
        uint32_t valid = 1 + kernel_below(&fixture->random, KEYS);
        struct packed keys;
        struct packed values;
        float m[2];
        float l[2];
        float o[2][HEAD_DIM];
        struct cpu_attn_block args = {.head_dim = HEAD_DIM,
                                      .scale = 1.0f,
                                      .q = q,
                                      .q_stride = HEAD_DIM,
                                      .n_q = 1,
                                      .valid = &valid,
                                      .o_stride = HEAD_DIM,
                                      .scratch = fixture->scratch};

        kernel_packed_init(&keys, DTYPE_F32, KEYS, HEAD_DIM);
        kernel_packed_init(&values, DTYPE_F32, HEAD_DIM, KEYS);
        kernel_fill_packed(&fixture->random, &keys, KIND_NORMAL);
        kernel_fill_packed(&fixture->random, &values, KIND_NORMAL);
        q[0] = 0x1p-63f;
        q[32] = -0x1p-63f;
        for (uint32_t j = 0; j < KEYS; j++) {
            bool negative = kernel_below(&fixture->random, 2) == 0;
            float first = negative ? 0x1.8p-63f : 0x1.cp-63f;
            float second = negative ? 0x1.cp-63f : 0x1.8p-63f;
            float *panel = (float *)(keys.codes + j / 16 * keys.panel_code_bytes);

            panel[j % 16] = first;
            panel[32 * 16 + j % 16] = second;
        }
        args.k = keys.codes;
        args.next = keys.codes;
        args.v = values.codes;
        args.m = &m[0];
        args.l = &l[0];
        args.o = o[0];
        fixture->ref.attn_block(&args);
        assert_true(m[0] == 0.0f);
        n_negative += signbit(m[0]) != 0;
        for (uint32_t i = 0; i < fixture->n_levels; i++) {
            args.m = &m[1];
            args.l = &l[1];
            args.o = o[1];
            fixture->levels[i].attn_block(&args);
            kernel_assert_same(&fixture->levels[i], "attn_block m", &m[0], &m[1], 1);
            kernel_assert_same(&fixture->levels[i], "attn_block l", &l[0], &l[1], 1);
            kernel_assert_same(&fixture->levels[i], "attn_block o", o[0], o[1], HEAD_DIM);
        }
        kernel_packed_release(&keys);
        kernel_packed_release(&values);
    }
    assert_true(n_negative > 20 && n_negative < 80);
}

static void test_merge_and_finish(void **state)
{
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 14);
    for (int round = 0; round < 400; round++) {
        enum kernel_kind kind = (enum kernel_kind)(round % KIND_COUNT);
        uint32_t n = 1 + kernel_below(&fixture->random, 160);
        float *a = kernel_floats(&fixture->random, n + 2, kind, -126);
        float *b = kernel_floats(&fixture->random, n + 2, kind, -126);

        if (round % 8 == 0) { /* far apart: one side's factor is 0 */
            a[n] = -90.0f;
            b[n] = 0.0f;
        }
        for (uint32_t l = 0; l < fixture->n_levels; l++) {
            float expected[164];
            float found[164];

            memcpy(expected, a, (n + 2) * sizeof(float));
            memcpy(found, a, (n + 2) * sizeof(float));
            fixture->ref.attn_merge(&expected[n], &expected[n + 1], expected, &b[n], &b[n + 1], b,
                                    n);
            fixture->levels[l].attn_merge(&found[n], &found[n + 1], found, &b[n], &b[n + 1], b, n);
            kernel_assert_same(&fixture->levels[l], "attn_merge", expected, found, n + 2);
            fixture->ref.attn_finish(expected, a, b[n + 1], n);
            fixture->levels[l].attn_finish(found, a, b[n + 1], n);
            kernel_assert_same(&fixture->levels[l], "attn_finish", expected, found, n);
        }
        free(a);
        free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_block, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_block_every_valid, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_block_zero_scores, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_merge_and_finish, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
