/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over a KV cache of integers: every instruction set gives the reference's bits. */
#include "kernel_fixture.h"

#include <math.h>

enum { KEYS = 64, MOST_QUERIES = 150 };

/* How `valid` varies over the queries of a block. */
enum pattern { ALL_KEYS, ONE_NUMBER, DIAGONAL, RANDOM, PATTERN_COUNT };

static void fill_valid(struct kernel_random *random, enum pattern pattern, uint32_t n,
                       uint32_t *valid)
{
    uint32_t number = 1 + kernel_below(random, KEYS);

    for (uint32_t i = 0; i < n; i++) {
        valid[i] = pattern == ALL_KEYS     ? KEYS
                   : pattern == ONE_NUMBER ? number
                   : pattern == DIAGONAL   ? MIN(i / 3 + 1, KEYS)
                                           : 1 + kernel_below(random, KEYS);
    }
}

/* One block's K, V and queries. */
struct block {
    uint32_t head_dim;
    uint32_t n_q;
    size_t o_stride;
    struct packed keys;
    uint8_t *v;
    void *q_memory;
    struct quant q8;
    uint32_t valid[MOST_QUERIES];
};

/* Scales of V: of the kind, but for infinities, which quant_group never makes. */
static float value_scale(struct kernel_random *random, enum kernel_kind kind)
{
    float scale = kernel_value(random, kind, -126);

    return isinf(scale) ? NAN : fabsf(scale);
}

static void make_block(struct kernel_fixture *fixture, struct block *b, enum kernel_kind kind)
{
    struct kernel_random *random = &fixture->random;
    uint32_t n_groups = (uint32_t)div_up(b->head_dim, QUANT_GROUP);
    size_t code_bytes = cpu_v8_scale_offset(b->head_dim);
    size_t x_stride = round_up(b->head_dim, 32) + 32;
    float *x = kernel_floats(random, b->n_q * x_stride, kind, -101);
    uint32_t bounds[2] = {0, b->head_dim};
    struct leaf_plan plan = {.n_leaves = 1, .bounds = bounds};
    size_t q_bytes;

    kernel_packed_init(&b->keys, DTYPE_Q8_0, KEYS, n_groups * QUANT_GROUP);
    kernel_fill_packed(random, &b->keys, kind);
    for (size_t i = 0; kind == KIND_SPECIAL && i < b->keys.n_panels; i++) {
        uint16_t half = i % 2 == 0 ? 0x7e00 : 0x7c00; /* NaN; too large for f16 */

        memcpy((uint8_t *)b->keys.scales + i * b->keys.panel_scale_bytes +
                   2 * (size_t)kernel_below(random, PACKED_LANES),
               &half, sizeof(half));
    }
    b->v = aligned_alloc(64, round_up(cpu_v8_bytes(b->head_dim), 64));
    assert_non_null(b->v);
    for (size_t i = 0; i < code_bytes; i++) {
        b->v[i] = (uint8_t)kernel_next(random);
    }
    for (size_t i = 0; i < (size_t)n_groups * KEYS; i++) {
        ((float *)(void *)(b->v + code_bytes))[i] = value_scale(random, kind);
    }
    assert_true(quant_bytes(b->n_q, n_groups, false, &q_bytes));
    b->q_memory = aligned_alloc(64, round_up(q_bytes, 64));
    assert_non_null(b->q_memory);
    b->q8 = quant_attach(b->q_memory, b->n_q, n_groups, false);
    for (uint32_t i = 0; i < b->n_q; i++) {
        struct quant row = quant_from(b->q8, i);

        fixture->ref.quant_row(x + i * x_stride, &plan, &row);
    }
    free(x);
}

/* (m, l, o) of the block's queries, one behind the other. */
static float *compute(const struct kernel_fixture *fixture, const struct cpu_kernels *level,
                      const struct block *b, enum kernel_kind kind, size_t n)
{
    float *out = xcalloc(n, sizeof(float));

    level->attn_block(&(struct cpu_attn_block){
        .k = b->keys.codes,
        .v = b->v,
        .next = b->v,
        .head_dim = b->head_dim,
        .kv = KV_INT8,
        .scale = kind == KIND_TINY ? 1.5f : 0.01f / sqrtf((float)b->head_dim),
        .q8 = b->q8,
        .product = level->matmul_int8[DTYPE_Q8_0],
        .n_q = b->n_q,
        .valid = b->valid,
        .m = out,
        .l = out + b->n_q,
        .o = out + 2 * b->n_q,
        .o_stride = b->o_stride,
        .scratch = fixture->scratch,
    });
    return out;
}

static void check_block(struct kernel_fixture *fixture, uint32_t head_dim, uint32_t n_q,
                        enum pattern pattern, enum kernel_kind kind)
{
    struct block b = {.head_dim = head_dim, .n_q = n_q, .o_stride = round_up(head_dim, 16) + 16};
    size_t n = n_q * (2 + b.o_stride);
    float *expected;

    make_block(fixture, &b, kind);
    fill_valid(&fixture->random, pattern, n_q, b.valid);
    expected = compute(fixture, &fixture->ref, &b, kind, n);
    for (uint32_t i = 0; i < fixture->n_levels; i++) {
        float *found = compute(fixture, &fixture->levels[i], &b, kind, n);

        kernel_assert_same(&fixture->levels[i], "attn_block m", expected, found, n_q);
        kernel_assert_same(&fixture->levels[i], "attn_block l", expected + n_q, found + n_q, n_q);
        kernel_assert_same(&fixture->levels[i], "attn_block o", expected + 2 * n_q, found + 2 * n_q,
                           n - 2 * n_q);
        free(found);
    }
    free(expected);
    free(b.v);
    free(b.q_memory);
    kernel_packed_release(&b.keys);
}

static void test_block(void **state)
{
    static const uint32_t head_dims[] = {2, 20, 34, 64, 80, 96, 128, 256};
    static const uint32_t query_counts[] = {1, 2, 3, 4, 5, 16, 70, MOST_QUERIES};

    kernel_seed(*state, 21);
    for (size_t d = 0; d < ARRAY_LEN(head_dims); d++) {
        for (size_t n = 0; n < ARRAY_LEN(query_counts); n++) {
            for (unsigned pattern = 0; pattern < PATTERN_COUNT; pattern++) {
                if (query_counts[n] * head_dims[d] <= 70 * 128) {
                    check_block(*state, head_dims[d], query_counts[n], (enum pattern)pattern,
                                (enum kernel_kind)((d + n + pattern) % KIND_COUNT));
                }
            }
        }
    }
}

/* Many small blocks, every number of keys and of queries that is done in registers. */
static void test_block_every_valid(void **state)
{
    kernel_seed(*state, 22);
    for (uint32_t round = 0; round < 400; round++) {
        check_block(*state, round % 3 == 0 ? 18 : 32, 1 + round % 5,
                    round % 4 < 2 ? RANDOM : ONE_NUMBER,
                    (enum kernel_kind)(round / 4 % KIND_COUNT));
    }
}

/* The reference itself, against the attention of the same integers in double. Scores of a size of
 * some tens are good to about 1e-5, so weights are too. */
static void test_block_is_near_double(void **state)
{
    enum { DIM = 64, QUERIES = 3 };
    struct kernel_fixture *fixture = *state;
    struct block b = {.head_dim = DIM, .n_q = QUERIES, .o_stride = DIM};
    size_t n = QUERIES * (2 + DIM);
    float *out;

    kernel_seed(fixture, 23);
    make_block(fixture, &b, KIND_NORMAL);
    for (uint32_t i = 0; i < QUERIES; i++) {
        b.valid[i] = 40 + i;
    }
    out = compute(fixture, &fixture->ref, &b, KIND_NORMAL, n);
    for (uint32_t i = 0; i < QUERIES; i++) {
        double scores[KEYS];
        double top = -INFINITY;
        double l = 0;

        for (uint32_t j = 0; j < b.valid[i]; j++) {
            scores[j] = 0;
            for (uint32_t d = 0; d < DIM; d++) {
                size_t at = (size_t)i * b.q8.n_groups + d / QUANT_GROUP;

                scores[j] += (double)b.q8.codes[at * QUANT_GROUP + d % QUANT_GROUP] *
                             (double)b.q8.scales[at] * (double)packed_value(&b.keys, j, d);
            }
            scores[j] *= (double)(0.01f / sqrtf(DIM));
            top = fmax(top, scores[j]);
        }
        for (uint32_t j = 0; j < b.valid[i]; j++) {
            l += exp(scores[j] - top);
        }
        for (uint32_t d = 0; d < DIM; d++) {
            const float *scales = (const void *)(b.v + cpu_v8_scale_offset(DIM));
            double o = 0;
            double size = 0;

            for (uint32_t j = 0; j < b.valid[i]; j++) {
                size_t at = (size_t)(d / QUANT_GROUP) * KEYS + j;
                double v =
                    (double)(int8_t)b.v[at * QUANT_GROUP + d % QUANT_GROUP] * (double)scales[at];

                o += exp(scores[j] - top) * v;
                size += fabs(v);
            }
            assert_true(fabs(o / l - (double)out[2 * QUERIES + i * DIM + d] /
                                         (double)out[QUERIES + i]) < 1e-4 * size);
        }
    }
    free(out);
    free(b.v);
    free(b.q_memory);
    kernel_packed_release(&b.keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_block, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_block_every_valid, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_block_is_near_double, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
