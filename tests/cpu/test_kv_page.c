/* SPDX-License-Identifier: Apache-2.0 */
/* KV pages: what is written is what the definition says, whoever writes it and in which pieces. */
#include "kernel_fixture.h"

#include <math.h>

#include "cpu/kv_page.h"

enum { KEYS = OPS_PAGE_TOKENS, N_LAYERS = 2, N_HEADS = 3, N_ROWS = 90, N_PAGES = 3 };

struct cache {
    struct ops_device *device;
    struct ops_kv kv;
    size_t stride;
    float *k; /* [N_ROWS][stride] */
    float *v;
};

static void cache_init(struct cache *cache, struct kernel_random *random, enum kv_type type,
                       uint32_t head_dim, enum kernel_kind kind)
{
    struct err err = {0};

    *cache = (struct cache){
        .kv = {.n_layers = N_LAYERS, .n_kv_heads = N_HEADS, .head_dim = head_dim, .type = type}};
    assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = 3}, &cache->device, &err),
                     STATUS_OK);
    cache->kv.n_pages = N_PAGES;
    cache->kv.page_bytes = cpu_ops.kv_page_bytes(&cache->kv);
    cache->kv.pages =
        cpu_ops.alloc(cache->device, N_PAGES * round_up(cache->kv.page_bytes, CACHE_LINE));
    assert_non_null(cache->kv.pages);
    cache->stride = (size_t)N_HEADS * head_dim; /* no room behind the last head */
    cache->k = kernel_floats(random, N_ROWS * cache->stride, kind, -101);
    cache->v = kernel_floats(random, N_ROWS * cache->stride, kind, -101);
}

static void cache_release(struct cache *cache)
{
    cpu_ops.release(cache->device, cache->kv.pages,
                    N_PAGES * round_up(cache->kv.page_bytes, CACHE_LINE));
    cpu_ops.destroy(&cache->device);
    free(cache->k);
    free(cache->v);
}

static const uint32_t pages[] = {2, 0}; /* of the sequence */

/* Positions [begin, end) of layer 1 from rows of the same numbers. */
static void write_rows(const struct cache *cache, uint32_t begin, uint32_t end)
{
    const struct ops_segment segment = {
        .row = begin, .n = end - begin, .pos = begin, .pages = pages};

    cpu_ops.step_enter(cache->device);
    cpu_ops.kv_write(cache->device, &(struct ops_kv_write){
                                        .kv = &cache->kv,
                                        .layer = 1,
                                        .k = cache->k,
                                        .v = cache->v,
                                        .stride = cache->stride,
                                        .segments = &segment,
                                        .n_segments = 1,
                                    });
    cpu_ops.step_leave(cache->device);
}

static void clear(const struct cache *cache)
{
    for (uint32_t i = 0; i < N_PAGES; i++) {
        cpu_ops.kv_page_clear(cache->device, &cache->kv, i);
    }
}

/* All at once by three threads; then one by one, after other positions had lain there. */
static void check_pieces(struct cache *cache)
{
    size_t bytes = N_PAGES * cache->kv.page_bytes;
    uint8_t *expected = xcalloc(bytes, 1);

    clear(cache);
    write_rows(cache, 0, N_ROWS);
    memcpy(expected, cache->kv.pages, bytes);
    for (uint32_t i = 0; i < N_ROWS; i++) {
        write_rows(cache, N_ROWS - 1 - i, N_ROWS - i);
    }
    assert_memory_equal(cache->kv.pages, expected, bytes);
    for (size_t i = 0; i < cache->kv.page_bytes; i++) { /* a page of nobody's */
        assert_int_equal(expected[cache->kv.page_bytes + i], 0);
    }
    free(expected);
}

static void test_pieces(void **state)
{
    static const uint32_t head_dims[] = {2, 20, 32, 80, 128};
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 31);
    for (size_t d = 0; d < ARRAY_LEN(head_dims); d++) {
        for (unsigned type = 0; type < KV_TYPE_COUNT; type++) {
            struct cache cache;

            cache_init(&cache, &fixture->random, (enum kv_type)type, head_dims[d], KIND_WIDE);
            check_pieces(&cache);
            cache_release(&cache);
        }
    }
}

/* Group g of a row of one head, by the definition. */
static float group_of(const float *row, uint32_t head_dim, uint32_t g, int8_t codes[QUANT_GROUP])
{
    uint32_t first = g * QUANT_GROUP;
    float scale;
    int32_t sum;

    quant_group(row + first, 0, MIN(head_dim - first, (uint32_t)QUANT_GROUP), codes, &scale, &sum);
    return scale;
}

/* One head's integers of one position. */
static void check_head(const struct cache *cache, uint32_t pos, uint32_t head)
{
    const struct kv_layout layout = kv_layout_of(&cache->kv);
    const uint8_t *at = kv_page_head(&cache->kv, &layout, pages[pos / KEYS], 1, head);
    const uint8_t *v = at + layout.v_offset;
    const float *v_scales = (const void *)(v + cpu_v8_scale_offset(cache->kv.head_dim));
    size_t row = pos * cache->stride + (size_t)head * cache->kv.head_dim;
    uint32_t key = pos % KEYS;
    struct packed keys = layout.keys;

    packed_attach(&keys, at);
    for (uint32_t g = 0; g < div_up(cache->kv.head_dim, QUANT_GROUP); g++) {
        int8_t codes[QUANT_GROUP];
        float scale = group_of(cache->k + row, cache->kv.head_dim, g, codes);
        struct packed_group found = packed_group(&keys, key, g * QUANT_GROUP);

        scale = f32_from_f16(f16_from_f32(scale));
        assert_int_equal(kernel_differs(&scale, found.d, 1), 1);
        for (uint32_t i = 0; i < QUANT_GROUP; i++) {
            assert_int_equal(found.codes[i], codes[i]);
        }
        scale = group_of(cache->v + row, cache->kv.head_dim, g, codes);
        assert_int_equal(kernel_differs(&scale, &v_scales[g * KEYS + key], 1), 1);
        assert_memory_equal(v + ((size_t)g * KEYS + key) * QUANT_GROUP, codes, QUANT_GROUP);
    }
}

static void test_integers(void **state)
{
    static const uint32_t head_dims[] = {2, 34, 64, 80};
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 32);
    for (size_t d = 0; d < ARRAY_LEN(head_dims); d++) {
        for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
            struct cache cache;

            cache_init(&cache, &fixture->random, KV_INT8, head_dims[d], (enum kernel_kind)kind);
            clear(&cache);
            write_rows(&cache, 0, N_ROWS);
            for (uint32_t i = 0; i < N_ROWS * N_HEADS; i++) {
                check_head(&cache, i / N_HEADS, i % N_HEADS);
            }
            cache_release(&cache);
        }
    }
}

/* Bytes of a position: codes and scales are 17/64 and 18/64 of f32's. */
static void test_bytes(void **state)
{
    struct ops_kv kv = {.n_layers = 28, .n_kv_heads = 8, .head_dim = 128, .type = KV_F32};
    size_t plain = cpu_ops.kv_page_bytes(&kv);

    (void)state;
    assert_int_equal(plain, (size_t)28 * 8 * 128 * 2 * 4 * KEYS);
    kv.type = KV_BF16;
    assert_int_equal(cpu_ops.kv_page_bytes(&kv), plain / 2);
    kv.type = KV_INT8;
    assert_int_equal(cpu_ops.kv_page_bytes(&kv), plain * 35 / 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pieces, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_integers, kernel_setup, kernel_teardown),
        cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
