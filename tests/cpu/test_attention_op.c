/* SPDX-License-Identifier: Apache-2.0 */
/* Attention as an operator: however many threads share its blocks, and however many rows come
 * together, the bytes are those of one. */
#include "kernel_fixture.h"

enum {
    KEYS = OPS_PAGE_TOKENS,
    HEAD_DIM = 32,
    MOST_HEADS = 8,
    MOST = 9000,
    CHUNK = 5,
    TOGETHER = 301
};
enum { SEQUENCE_PAGES = MOST / KEYS + 1, N_PAGES = 2 * SEQUENCE_PAGES };

/* Heads of queries and of KV. */
struct shape {
    uint32_t n_kv;
    uint32_t group;
};

/* Rows of q, k and v for both sequences, and where their pages are. */
struct data {
    float *k; /* [MOST][n_kv * HEAD_DIM]; both sequences have the same keys */
    float *v;
    float *q; /* [TOGETHER][n_kv * group * HEAD_DIM] */
    uint32_t pages[2][SEQUENCE_PAGES];
};

static void data_init(struct data *data, struct kernel_random *random, const struct shape *shape)
{
    size_t row = (size_t)shape->n_kv * HEAD_DIM;

    data->k = kernel_floats(random, MOST * row, KIND_NORMAL, 0);
    data->v = kernel_floats(random, MOST * row, KIND_NORMAL, 0);
    data->q = kernel_floats(random, TOGETHER * row * shape->group, KIND_NORMAL, 0);
    for (uint32_t i = 0; i < SEQUENCE_PAGES; i++) { /* of the two by turns, backwards */
        data->pages[0][i] = N_PAGES - 1 - 2 * i;
        data->pages[1][i] = N_PAGES - 2 - 2 * i;
    }
}

static void data_release(struct data *data)
{
    free(data->k);
    free(data->v);
    free(data->q);
}

/* A device of so many threads with both sequences in its cache. */
struct cache {
    struct ops_device *device;
    struct ops_kv kv;
    size_t bytes;
};

static void cache_init(struct cache *cache, const struct data *data, const struct shape *shape,
                       enum kv_type type, uint32_t n_threads, const char *level)
{
    *cache = (struct cache){
        .kv = {.n_layers = 1, .n_kv_heads = shape->n_kv, .head_dim = HEAD_DIM, .type = type}};
    assert_int_equal(cpu_ops.create(&(struct ops_config){.n_threads = n_threads, .level = level},
                                    &cache->device, NULL),
                     STATUS_OK);
    cache->kv.n_pages = N_PAGES;
    cache->kv.page_bytes = cpu_ops.kv_page_bytes(&cache->kv);
    cache->bytes = N_PAGES * cache->kv.page_bytes;
    cache->kv.pages = cpu_ops.alloc(cache->device, cache->bytes);
    assert_non_null(cache->kv.pages);
    for (uint32_t s = 0; s < 2; s++) {
        const struct ops_segment all = {.n = MOST, .pages = data->pages[s]};

        cpu_ops.kv_write(cache->device, &(struct ops_kv_write){
                                            .kv = &cache->kv,
                                            .k = data->k,
                                            .v = data->v,
                                            .stride = (size_t)shape->n_kv * HEAD_DIM,
                                            .segments = &all,
                                            .n_segments = 1,
                                        });
        cpu_ops.sync(cache->device); /* while `all` is there */
    }
}

static void cache_release(struct cache *cache)
{
    cpu_ops.release(cache->device, cache->kv.pages, cache->bytes);
    cpu_ops.destroy(&cache->device);
}

/* Rows of q, as many as the segments have, to out. */
static void attend_segments(const struct cache *cache, const struct shape *shape, const float *q,
                            const struct ops_segment *segments, uint32_t n_segments, float *out)
{
    size_t stride = (size_t)shape->n_kv * shape->group * HEAD_DIM;
    uint32_t kv_head_of[MOST_HEADS];

    for (uint32_t i = 0; i < shape->n_kv * shape->group; i++) {
        kv_head_of[i] = i / shape->group;
    }
    cpu_ops.step_enter(cache->device);
    cpu_ops.attention(cache->device, &(struct ops_attention){
                                         .kv = &cache->kv,
                                         .q = q,
                                         .q_stride = stride,
                                         .out = out,
                                         .out_stride = stride,
                                         .kv_head_of = kv_head_of,
                                         .n_heads = shape->n_kv * shape->group,
                                         .scale = 0.125f,
                                         .segments = segments,
                                         .n_segments = n_segments,
                                     });
    cpu_ops.step_leave(cache->device);
}

/* One token at position pos of the first sequence, and a chunk of a prompt somewhere in the second,
 * or (chunk is false) the token alone. */
static float *attend(const struct cache *cache, const struct data *data, const struct shape *shape,
                     uint32_t pos, bool chunk)
{
    size_t stride = (size_t)shape->n_kv * shape->group * HEAD_DIM;
    float *out = xcalloc((CHUNK + 1) * stride, sizeof(float));
    const struct ops_segment segments[] = {
        {.row = 0, .n = 1, .pos = pos, .pages = data->pages[0]},
        {.row = 1, .n = CHUNK, .pos = pos / 3, .pages = data->pages[1]},
    };

    attend_segments(cache, shape, data->q, segments, chunk ? 2 : 1, out);
    return out;
}

/* Contexts of one block, of too few for parts, and of some that make trees of any shape. */
static void check(struct kernel_fixture *fixture, const struct shape *shape, enum kv_type type)
{
    static const uint32_t threads[] = {2, 3, 5, 8, 16};
    static const uint32_t positions[] = {0, 63, 64, 500, 1023, 1024, 1700, 2900, 5000, MOST - 1};
    size_t size = (size_t)(CHUNK + 1) * shape->n_kv * shape->group * HEAD_DIM;
    struct data data;
    struct cache one;

    data_init(&data, &fixture->random, shape);
    cache_init(&one, &data, shape, type, 1, NULL);
    for (size_t t = 0; t < ARRAY_LEN(threads); t++) {
        struct cache many;

        cache_init(&many, &data, shape, type, threads[t], NULL);
        for (size_t i = 0; i < 2 * ARRAY_LEN(positions); i++) {
            float *expected = attend(&one, &data, shape, positions[i / 2], i % 2 != 0);
            float *found = attend(&many, &data, shape, positions[i / 2], i % 2 != 0);

            if (memcmp(expected, found, size * sizeof(float)) != 0) {
                fail_msg("%u threads, position %u, %u KV heads, type %d: other bytes than by one",
                         threads[t], positions[i / 2], shape->n_kv, (int)type);
            }
            free(expected);
            free(found);
        }
        cache_release(&many);
    }
    cache_release(&one);
    data_release(&data);
}

static void test_threads(void **state)
{
    static const struct shape shapes[] = {{1, 8}, {3, 2}, {1, 1}};
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 41);
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        for (unsigned type = 0; type < KV_TYPE_COUNT; type++) {
            check(fixture, &shapes[s], (enum kv_type)type);
        }
    }
}

/* Many rows of one sequence, whose tiles begin and end anywhere in a block. */
static void check_together(const struct data *data, const struct shape *shape, enum kv_type type,
                           const char *level)
{
    static const uint32_t positions[] = {0, 37, 64, 191};
    size_t stride = (size_t)shape->n_kv * shape->group * HEAD_DIM;
    float *expected = xcalloc(TOGETHER * stride, sizeof(float));
    float *found = xcalloc(TOGETHER * stride, sizeof(float));
    struct cache cache;

    cache_init(&cache, data, shape, type, 2, level);
    for (size_t i = 0; i < ARRAY_LEN(positions); i++) {
        struct ops_segment segment = {.n = TOGETHER, .pos = positions[i], .pages = data->pages[0]};

        attend_segments(&cache, shape, data->q, &segment, 1, found);
        segment.n = 1;
        for (size_t row = 0; row < TOGETHER; row++, segment.pos++) {
            attend_segments(&cache, shape, data->q + row * stride, &segment, 1,
                            expected + row * stride);
        }
        if (memcmp(expected, found, TOGETHER * stride * sizeof(float)) != 0) {
            fail_msg("%s, from position %u, %u KV heads, type %d: other bytes than row by row",
                     cpu_ops.level(cache.device), positions[i], shape->n_kv, (int)type);
        }
    }
    cache_release(&cache);
    free(expected);
    free(found);
}

static void test_together(void **state)
{
    static const struct shape shapes[] = {{1, 8}, {3, 2}, {1, 1}};
    static const char *const levels[] = {NULL, "avx512", "avx2"};
    struct kernel_fixture *fixture = *state;

    kernel_seed(fixture, 42);
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        struct data data;

        data_init(&data, &fixture->random, &shapes[s]);
        for (unsigned type = 0; type < KV_TYPE_COUNT; type++) {
            for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
                check_together(&data, &shapes[s], (enum kv_type)type, levels[i]);
            }
        }
        data_release(&data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, kernel_setup, kernel_teardown),
        cmocka_unit_test_setup_teardown(test_together, kernel_setup, kernel_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
