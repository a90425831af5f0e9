/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second promise: the same bits whatever computes them. Every fixture's logits, at all
 * instruction set levels of this machine, several chunk sizes and thread counts, are compared with
 * the reference kernels' on one thread in one chunk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "engine/sequence.h"

enum { N_TOKENS = 140 }; /* three attention blocks */

struct collected {
    float *logits; /* [N_TOKENS][vocab] */
    uint32_t vocab;
};

static enum status collect(void *arg, uint32_t pos, const float *logits, struct err *err)
{
    struct collected *c = arg;

    (void)err;
    memcpy(c->logits + (size_t)pos * c->vocab, logits, c->vocab * sizeof(float));
    return STATUS_OK;
}

struct variant {
    enum cpu_level level;
    uint32_t n_threads;
    uint32_t chunk;
};

/* Tokens that differ from position to position, inside any vocabulary. */
static void make_tokens(int32_t *tokens, uint32_t vocab)
{
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (int32_t)((i * 2654435761u >> 8) % vocab);
    }
}

static enum act act_of(const char *name)
{
    enum act act = ACT_F32;

    assert_true(act_from_name(name, &act));
    return act;
}

static enum kv_type kv_of(const char *name)
{
    enum kv_type kv = KV_F32;

    assert_true(kv_type_from_name(name, &kv));
    return kv;
}

static struct collected run(const char *path, const char *act, const char *kv,
                            const struct variant *variant)
{
    struct engine_options options = {
        .path = path,
        .level = cpu_level_name(variant->level),
        .n_threads = variant->n_threads,
        .act_given = true,
        .act = act_of(act),
        .kv_given = kv != NULL,
        .kv = kv != NULL ? kv_of(kv) : KV_F32,
        .max_context = N_TOKENS,
        .max_chunk = variant->chunk,
        .ops = &cpu_ops,
    };
    struct engine *engine = NULL;
    struct collected c = {0};
    struct sequence sequence;
    struct err err = {0};
    int32_t tokens[N_TOKENS];

    if (engine_create(&options, &engine, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    c.vocab = engine_config(engine)->vocab;
    c.logits = xcalloc((size_t)N_TOKENS * c.vocab, sizeof(float));
    make_tokens(tokens, c.vocab);
    sequence_init(&sequence, engine);
    if (sequence_extend(
            &sequence,
            &(struct sequence_extend){
                .tokens = tokens, .n = N_TOKENS, .every = true, .logits = collect, .arg = &c},
            &err) != STATUS_OK) {
        fail_msg("%s: %s", path, err.text);
    }
    sequence_release(&sequence);
    engine_destroy(&engine);
    return c;
}

/* kv: NULL, or a type of the KV cache that does not go with act by itself. */
static void compare(const char *path, const char *act, const char *kv)
{
    static const struct variant variants[] = {
        {CPU_LEVEL_REF, 2, 9},           {CPU_LEVEL_AVX2, 1, N_TOKENS},
        {CPU_LEVEL_AVX2, 2, 1},          {CPU_LEVEL_AVX2, 3, 13},
        {CPU_LEVEL_AVX512, 1, N_TOKENS}, {CPU_LEVEL_AVX512VNNI, 2, 1},
        {CPU_LEVEL_AVX512VNNI, 3, 67},   {CPU_LEVEL_AVXVNNI, 5, 4},
    };
    struct collected expected = run(path, act, kv, &(struct variant){CPU_LEVEL_REF, 1, N_TOKENS});

    for (size_t i = 0; i < ARRAY_LEN(variants); i++) {
        struct collected got;

        if (!cpu_level_is_supported(variants[i].level)) {
            continue;
        }
        got = run(path, act, kv, &variants[i]);
        if (memcmp(got.logits, expected.logits,
                   (size_t)N_TOKENS * expected.vocab * sizeof(float)) != 0) {
            fail_msg("%s, act %s, kv %s: %s with %u threads and chunk %u differs", path, act,
                     kv == NULL ? "auto" : kv, cpu_level_name(variants[i].level),
                     variants[i].n_threads, variants[i].chunk);
        }
        free(got.logits);
    }
    free(expected.logits);
}

/* Fixtures whose matrices are all BF16 are also computed with rounded activations, those with
 * quantised ones with integers. */
static bool is_bf16(const char *name)
{
    return strstr(name, "bf16") != NULL;
}

static bool is_quantised(const char *name)
{
    return strstr(name, "-q") != NULL || strstr(name, "-mixed") != NULL;
}

static void test_fixtures(void **state)
{
    const char *folder = TEST_SOURCE_DIR "/tests/model/golden";
    struct dirent *entry;
    uint32_t n = 0;
    DIR *dir = opendir(folder);

    (void)state;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        char file[PATH_MAX + 16];

        /* rotary variants differ in tables alone: the golden test has them */
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, "rope-", 5) == 0) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        snprintf(file, sizeof(file), "%s/config.json", path);
        if (access(file, R_OK) != 0) {
            snprintf(file, sizeof(file), "%s/model.gguf", path);
            if (access(file, R_OK) != 0) {
                continue;
            }
        }
        compare(path, "f32", NULL);
        if (is_bf16(entry->d_name)) {
            compare(path, "bf16", NULL);
            compare(path, "bf16", "f32");
            compare(path, "bf16", "int8");
        }
        if (is_quantised(entry->d_name)) {
            compare(path, "int8", NULL);
        }
        if (strstr(entry->d_name, "q8_0") != NULL) {
            compare(path, "int8", "int8");
        }
        n++;
    }
    closedir(dir);
    assert_true(n >= 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fixtures)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
