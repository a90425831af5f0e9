/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's edges: sequences side by side in one step, prefixes kept, pages given back, bytes
 * read once, tokens and contexts out of range, results that are not numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include "engine/sequence.h"

#define FIXTURE(name) TEST_SOURCE_DIR "/tests/model/golden/" name

enum { MAX_VOCAB = 4096 };

static struct engine *create(const struct engine_options *options)
{
    struct engine *engine = NULL;
    struct err err = {0};

    if (engine_create(options, &engine, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    return engine;
}

static struct engine *open_engine(const char *path, uint32_t max_context, uint32_t max_chunk)
{
    return create(&(struct engine_options){
        .path = path,
        .n_threads = 2,
        .max_context = max_context,
        .max_chunk = max_chunk,
        .ops = &cpu_ops,
    });
}

/* The same with a type of the KV cache. */
static struct engine *open_with_kv(const char *path, enum kv_type kv)
{
    return create(&(struct engine_options){
        .path = path,
        .n_threads = 2,
        .kv_given = true,
        .kv = kv,
        .max_context = 256,
        .max_chunk = 64,
        .ops = &cpu_ops,
    });
}

/* The logits of the last of n tokens, for memory comparison. */
struct last {
    uint32_t vocab;
    float logits[MAX_VOCAB];
};

static enum status keep_last(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct last *last = arg;

    (void)pos;
    (void)err;
    memcpy(last->logits, logits, last->vocab * sizeof(float));
    return STATUS_OK;
}

static void extend(struct sequence *sequence, const int32_t *tokens, uint32_t n, struct last *last)
{
    struct err err = {0};

    last->vocab = engine_config(sequence->engine)->vocab;
    assert_in_range(last->vocab, 1, MAX_VOCAB);
    if (sequence_extend(
            sequence,
            &(struct sequence_extend){.tokens = tokens, .n = n, .logits = keep_last, .arg = last},
            &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
}

static void make_tokens(int32_t *tokens, uint32_t n, uint32_t salt)
{
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)(((i + salt) * 2654435761u >> 9) % 250);
    }
}

/* Three sequences of different lengths in one step, decoding and prefilling mixed, against each
 * alone. */
static void check_batch(const char *path)
{
    enum { N = 3 };
    const uint32_t before[N] = {70, 3, 129};
    const uint32_t now[N] = {1, 40, 5};
    struct engine *engine = open_engine(path, 600, 200);
    struct sequence sequences[N];
    struct last *alone[N];
    struct last ignored;
    int32_t tokens[N][200];
    int32_t row_tokens[64];
    struct ops_segment segments[N];
    struct model_want wants[N];
    struct err err = {0};
    uint32_t pages = 0;
    uint32_t rows = 0;

    for (int i = 0; i < N; i++) {
        make_tokens(tokens[i], 200, (uint32_t)i * 1000);
        alone[i] = xalloc(sizeof(*alone[i]));
        sequence_init(&sequences[i], engine);
        sequences[i].first_page = pages;
        pages += (uint32_t)div_up(before[i] + now[i], OPS_PAGE_TOKENS);
        extend(&sequences[i], tokens[i], before[i] + now[i], alone[i]);
        sequence_truncate(&sequences[i], 0);
    }
    for (int i = 0; i < N; i++) {
        extend(&sequences[i], tokens[i], before[i], &ignored);
        assert_int_equal(sequence_take_pages(&sequences[i], before[i] + now[i], &err), STATUS_OK);
        segments[i] = (struct ops_segment){rows, now[i], before[i], sequences[i].pages};
        memcpy(row_tokens + rows, tokens[i] + before[i], now[i] * sizeof(int32_t));
        rows += now[i];
        wants[i] = (struct model_want){.row = rows - 1};
    }
    assert_int_equal(engine_step(engine,
                                 &(struct model_step){.tokens = row_tokens,
                                                      .n_tokens = rows,
                                                      .segments = segments,
                                                      .n_segments = N,
                                                      .wants = wants,
                                                      .n_wants = N},
                                 &err),
                     STATUS_OK);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(wants[i].logits, alone[i]->logits, alone[i]->vocab * sizeof(float));
        sequence_release(&sequences[i]);
        free(alone[i]);
    }
    assert_true(pages <= engine_n_pages(engine));
    engine_destroy(&engine);
}

static void test_batch(void **state)
{
    (void)state;
    check_batch(FIXTURE("qwen3-bf16"));
    check_batch(FIXTURE("gguf-q4_1"));
}

/* A kept prefix gives what a cold start gives, also when the page held other positions before. */
static void check_truncate(enum kv_type kv)
{
    struct engine *engine = open_with_kv(FIXTURE("qwen3-f32"), kv);
    struct sequence sequence;
    struct last warm;
    struct last cold;
    int32_t tokens[160];
    int32_t other[160];

    make_tokens(tokens, 160, 0);
    make_tokens(other, 160, 77);
    sequence_init(&sequence, engine);
    extend(&sequence, tokens, 160, &cold);
    sequence_truncate(&sequence, 100);
    extend(&sequence, other, 50, &warm); /* fills positions 100 to 149 with something else */
    sequence_truncate(&sequence, 100);
    extend(&sequence, tokens + 100, 60, &warm);
    assert_memory_equal(warm.logits, cold.logits, cold.vocab * sizeof(float));
    sequence_release(&sequence);
    engine_destroy(&engine);
}

static void test_truncate(void **state)
{
    (void)state;
    for (unsigned kv = 0; kv < KV_TYPE_COUNT; kv++) {
        check_truncate((enum kv_type)kv);
    }
}

/* Each type takes the memory that it is chosen for, and computes something else. */
static void test_kv_types(void **state)
{
    static const double shares[KV_TYPE_COUNT] = {[KV_F32] = 1, [KV_BF16] = 0.5, [KV_INT8] = 0.28};
    struct last last[KV_TYPE_COUNT];
    uint64_t most = 0;
    int32_t tokens[100];

    (void)state;
    make_tokens(tokens, 100, 3);
    for (unsigned kv = 0; kv < KV_TYPE_COUNT; kv++) {
        struct engine *engine = open_with_kv(FIXTURE("qwen3-bf16"), (enum kv_type)kv);
        struct sequence sequence;
        char name[16];

        snprintf(name, sizeof(name), " kv %s", kv_type_name((enum kv_type)kv));
        assert_non_null(strstr(engine_arith_class(engine), name));
        most = MAX(most, engine_kv_bytes(engine));
        assert_true((double)engine_kv_bytes(engine) <= shares[kv] * (double)most);
        sequence_init(&sequence, engine);
        extend(&sequence, tokens, 100, &last[kv]);
        sequence_release(&sequence);
        engine_destroy(&engine);
        for (unsigned i = 0; i < kv; i++) {
            assert_memory_not_equal(last[kv].logits, last[i].logits,
                                    last[kv].vocab * sizeof(float));
        }
    }
}

static void test_limits(void **state)
{
    struct engine *engine = open_engine(FIXTURE("qwen3-f32"), 100, 32);
    struct sequence sequence;
    struct sequence_extend args = {0};
    struct err err = {0};
    int32_t tokens[101];
    struct last last;

    (void)state;
    make_tokens(tokens, 101, 5);
    sequence_init(&sequence, engine);
    args = (struct sequence_extend){.tokens = tokens, .n = 101};
    assert_int_equal(sequence_extend(&sequence, &args, &err), STATUS_LIMIT);
    assert_int_equal(sequence.pos, 0);
    tokens[50] = 100000;
    args.n = 60;
    assert_int_equal(sequence_extend(&sequence, &args, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "100000"));
    tokens[50] = -1;
    assert_int_equal(sequence_extend(&sequence, &args, &err), STATUS_INVALID);
    assert_int_equal(sequence.pos, 0);
    tokens[50] = 1;
    extend(&sequence, tokens, 100, &last);
    assert_int_equal(sequence.pos, 100);
    args = (struct sequence_extend){.tokens = tokens, .n = 1};
    assert_int_equal(sequence_extend(&sequence, &args, &err), STATUS_LIMIT);
    sequence_release(&sequence);
    engine_destroy(&engine);
}

/* The byte counter: every tensor once, and nothing else but a little. */
static void test_bytes_read(void **state)
{
    static const char *const paths[] = {FIXTURE("llama-f32"), FIXTURE("qwen3-bf16"),
                                        FIXTURE("gguf-q4_1"), FIXTURE("gguf-q6_k")};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct engine *engine = open_engine(paths[i], 64, 1);
        struct weights *weights = NULL;
        uint64_t bytes = 0;

        assert_int_equal(weights_open(paths[i], &weights, NULL), STATUS_OK);
        for (size_t t = 0; t < weights_n_tensors(weights); t++) {
            bytes += weights_tensor_at(weights, t)->bytes;
        }
        assert_true(engine_load_bytes(engine) * 100 <= bytes * 105);
        assert_true(engine_load_bytes(engine) >= bytes * 9 / 10);
        weights_close(&weights);
        engine_destroy(&engine);
    }
}

/* Copies a fixture and overwrites the first element of a tensor with NaN; the folder is in
 * `folder`. */
static void poison(const char *from, const char *tensor, char *folder)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    const struct weights_tensor *found;
    struct weights *weights = NULL;
    uint64_t offset;
    char path[256];
    uint32_t nan_bits = 0x7fc00000;
    FILE *file;

    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct buf data = {0};

        snprintf(path, sizeof(path), "%s/%s", from, files[i]);
        assert_int_equal(file_read_all(path, 1 << 24, &data, NULL), STATUS_OK);
        snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(data.data, 1, data.len, file), data.len);
        fclose(file);
        buf_release(&data);
    }
    assert_int_equal(weights_open(folder, &weights, NULL), STATUS_OK);
    found = weights_find(weights, tensor);
    assert_non_null(found);
    assert_int_equal(found->dtype, DTYPE_F32);
    offset = found->offset;
    weights_close(&weights);
    file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(&nan_bits, sizeof(nan_bits), 1, file), 1);
    fclose(file);
}

static void expect_nan(const char *tensor, const char *message)
{
    char folder[] = "/tmp/lockstep-test-XXXXXX";
    char path[256];
    struct engine *engine;
    struct sequence sequence;
    struct err err = {0};
    int32_t tokens[20];

    poison(FIXTURE("qwen3-f32"), tensor, folder);
    engine = open_engine(folder, 64, 64);
    make_tokens(tokens, 20, 3);
    sequence_init(&sequence, engine);
    assert_int_equal(
        sequence_extend(&sequence, &(struct sequence_extend){.tokens = tokens, .n = 20}, &err),
        STATUS_NUMERIC);
    assert_non_null(strstr(err.text, message));
    sequence_release(&sequence);
    engine_destroy(&engine);
    snprintf(path, sizeof(path), "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

static void test_nan(void **state)
{
    (void)state;
    expect_nan("model.layers.1.mlp.up_proj.weight", "layer 1");
    expect_nan("model.layers.0.input_layernorm.weight", "layer 0");
    expect_nan("model.norm.weight", "output head");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch),      cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_kv_types),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bytes_read), cmocka_unit_test(test_nan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
