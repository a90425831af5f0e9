/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens end an answer, and how to sample, as the files of a model's folder say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "engine/generation.h"
#include "weights/image.h"

/* The smallest file of weights: a header of one tensor, and its byte. */
static const char HEADER[] = "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";

struct folder {
    char path[64];
};

static void write_file(const struct folder *folder, const char *name, const void *bytes, size_t n)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void remove_file(const struct folder *folder, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    unlink(path);
}

static void open_folder(struct folder *folder)
{
    unsigned char bytes[8 + sizeof(HEADER)] = {sizeof(HEADER) - 1};

    snprintf(folder->path, sizeof(folder->path), "/tmp/test-generation-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    memcpy(bytes + 8, HEADER, sizeof(HEADER) - 1);
    write_file(folder, "model.safetensors", bytes, sizeof(bytes));
}

static void close_folder(const struct folder *folder)
{
    remove_file(folder, "model.safetensors");
    remove_file(folder, "generation_config.json");
    remove_file(folder, "config.json");
    assert_int_equal(rmdir(folder->path), 0);
}

/* NULL: there is no such file. */
static enum status load(const char *generation_config, const char *config,
                        struct generation_defaults *ret_defaults, struct err *err)
{
    struct folder folder;
    struct weights *weights = NULL;
    enum status status;

    open_folder(&folder);
    if (generation_config != NULL) {
        write_file(&folder, "generation_config.json", generation_config, strlen(generation_config));
    }
    if (config != NULL) {
        write_file(&folder, "config.json", config, strlen(config));
    }
    status = weights_open(folder.path, &weights, err);
    if (status != STATUS_OK) {
        fail_msg("%s", err->text);
    }
    status = generation_defaults_load(weights, ret_defaults, err);
    weights_close(&weights);
    close_folder(&folder);
    return status;
}

static void expect_ends(const char *generation_config, const char *config, const int32_t *ends,
                        uint32_t n)
{
    struct generation_defaults defaults = {0};
    struct err err = {0};

    if (load(generation_config, config, &defaults, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(defaults.n_end, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(generation_is_end(&defaults, ends[i]));
        assert_false(generation_is_end(&defaults, ends[i] + 100));
    }
}

/* A number, a list, both files, the same one twice. */
static void test_every_end_counts(void **state)
{
    static const int32_t ends[] = {7, 2, 9, 5};

    (void)state;
    expect_ends(NULL, NULL, ends, 0);
    expect_ends("{\"eos_token_id\": 7}", NULL, ends, 1);
    expect_ends("{\"eos_token_id\": null}", "{\"eos_token_id\": 7}", ends, 1);
    expect_ends("{\"eos_token_id\": [7, 2, 9]}", NULL, ends, 3);
    expect_ends("{\"eos_token_id\": [7, 2, 9]}", "{\"eos_token_id\": 5}", ends, 4);
    expect_ends("{\"eos_token_id\": 7}", "{\"eos_token_id\": [2, 7, 9, 2]}", ends, 3);
    expect_ends("{\"eos_token_id\": [-1, 7]}", NULL, ends, 1);
}

/* A GGUF file has a key each for the end of a text, of a turn and of a message. */
static void test_every_end_of_gguf_counts(void **state)
{
    struct buf image = image_gguf(3, 0, 3);
    struct generation_defaults defaults = {0};
    struct weights *weights;

    (void)state;
    put_gguf_u32(&image, "tokenizer.ggml.eos_token_id", 7);
    put_gguf_u32(&image, "tokenizer.ggml.eot_token_id", 2);
    put_gguf_u32(&image, "tokenizer.ggml.eom_token_id", 9);
    pad_gguf(&image, 32);
    weights = open_image(&image, WEIGHTS_FORMAT_GGUF);
    assert_int_equal(generation_defaults_load(weights, &defaults, NULL), STATUS_OK);
    assert_int_equal(defaults.n_end, 3);
    assert_true(generation_is_end(&defaults, 7));
    assert_true(generation_is_end(&defaults, 2));
    assert_true(generation_is_end(&defaults, 9));
    weights_close(&weights);
    buf_release(&image);
}

static void expect_refused(const char *generation_config, const char *config, const char *message)
{
    struct generation_defaults defaults = {.n_end = 3};
    struct err err = {0};

    assert_int_equal(load(generation_config, config, &defaults, &err), STATUS_INVALID);
    if (strcmp(err.text, message) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(defaults.n_end, 3);
}

static void test_what_is_no_token_is_refused(void **state)
{
    (void)state;
    expect_refused("{\"eos_token_id\": \"7\"}", NULL,
                   "generation_config.json: eos_token_id: must be an integer or a list of them");
    expect_refused(NULL, "{\"eos_token_id\": [7, 2.5]}",
                   "config.json: eos_token_id: item 1 must be an integer");
    expect_refused("{\"temperature\": -1}", NULL,
                   "generation_config.json: temperature: -1 is not in [0, 1e+06]");
}

/* A list that is too long is cut; what is in it counts. */
static void test_the_list_is_bounded(void **state)
{
    struct generation_defaults defaults = {0};

    (void)state;
    for (int64_t i = 0; i < 2 * GENERATION_MAX_END; i++) {
        generation_add_end(&defaults, i);
    }
    generation_add_end(&defaults, INT64_MAX);
    assert_int_equal(defaults.n_end, GENERATION_MAX_END);
    assert_true(generation_is_end(&defaults, GENERATION_MAX_END - 1));
    assert_false(generation_is_end(&defaults, GENERATION_MAX_END));
}

static void test_sampling_is_the_models(void **state)
{
    struct generation_defaults defaults = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(load("{\"do_sample\": true, \"temperature\": 0.25, \"top_k\": 20}",
                          "{\"temperature\": 0.75}", &defaults, &err),
                     STATUS_OK);
    assert_true(defaults.has_temperature && defaults.has_top_k);
    assert_false(defaults.has_top_p || defaults.has_min_p || defaults.has_repetition_penalty);
    assert_true(defaults.params.temperature == 0.25f);
    assert_int_equal(defaults.params.top_k, 20);
    assert_true(defaults.params.repetition_penalty == 1.0f); /* nobody asked for one */
    assert_int_equal(load("{\"do_sample\": false, \"temperature\": 0.25}", NULL, &defaults, &err),
                     STATUS_OK);
    assert_true(defaults.has_temperature && defaults.params.temperature == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_end_counts),
        cmocka_unit_test(test_every_end_of_gguf_counts),
        cmocka_unit_test(test_what_is_no_token_is_refused),
        cmocka_unit_test(test_the_list_is_bounded),
        cmocka_unit_test(test_sampling_is_the_models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
