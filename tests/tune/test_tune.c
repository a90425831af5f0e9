/* SPDX-License-Identifier: Apache-2.0 */
/* Choices of speed: as JSON, in their file, and measured on few weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "tune/tune.h"

static const struct ops_tune some = {
    .few_rows = {1, 0, 4}, .few_threads = 7, .likes_bf16_12 = OPS_NO};

static void assert_same(const struct ops_tune *a, const struct ops_tune *b)
{
    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        assert_int_equal(a->few_rows[i], b->few_rows[i]);
    }
    assert_int_equal(a->few_threads, b->few_threads);
    assert_int_equal(a->likes_bf16_12, b->likes_bf16_12);
}

static void test_json(void **state)
{
    const struct ops_tune unknown = {0};
    const struct ops_tune *all[] = {&some, &unknown};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        json_t *json = tune_to_json(all[i]);
        struct ops_tune found = {.few_threads = 99};

        assert_int_equal(tune_from_json(json, &found, NULL), STATUS_OK);
        assert_same(&found, all[i]);
        json_decref(json);
    }
}

static void assert_refused(const char *text, const char *names)
{
    struct err err = {0};
    struct ops_tune found = {.few_threads = 99};
    json_t *json = NULL;

    assert_int_equal(json_parse(text, strlen(text), &json, &err), STATUS_OK);
    assert_int_not_equal(tune_from_json(json, &found, &err), STATUS_OK);
    assert_non_null(strstr(err.text, names));
    assert_int_equal(found.few_threads, 99);
    json_decref(json);
}

static void test_bad_json_is_named(void **state)
{
    (void)state;
    assert_refused("{}", "few_threads");
    assert_refused("{\"few_threads\": -1}", "few_threads");
    assert_refused("{\"few_threads\": 0}", "plain");
    assert_refused("{\"few_threads\": 0, \"few_rows\": {\"plain\": 5}}", "plain");
    assert_refused("{\"few_threads\": 0, \"few_rows\": {\"plain\": 1, \"bf16_12\": 1, "
                   "\"integers\": 1}, \"bf16_12\": 1}",
                   "bf16_12");
}

/* Written, read back, and not taken for another number of threads or level. */
static void test_file(void **state)
{
    char folder[] = "/tmp/lockstep-tune-XXXXXX";
    const struct tune_key key = {"avx2", 2};
    const struct tune_key others[] = {{"avx2", 3}, {"avx512", 2}};
    struct ops_tune found;
    char *path;

    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    path = tune_path(&key);
    assert_false(tune_read(&key, &found));
    assert_int_equal(tune_write(&key, &some, NULL), STATUS_OK);
    assert_true(tune_read(&key, &found));
    assert_same(&found, &some);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        char *other = tune_path(&others[i]);

        assert_string_not_equal(path, other);
        assert_int_equal(rename(path, other), 0);
        assert_false(tune_read(&others[i], &found)); /* it says what it is for */
        assert_int_equal(found.few_threads, 0);
        assert_int_equal(rename(other, path), 0);
        free(other);
    }
    assert_int_equal(truncate(path, 20), 0);
    assert_false(tune_read(&key, &found));
    assert_int_equal(tune_write(&key, &some, NULL), STATUS_OK); /* in its place */
    assert_true(tune_read(&key, &found));
    assert_int_equal(unlink(path), 0);
    *strrchr(path, '/') = '\0';
    assert_int_equal(rmdir(path), 0); /* nothing else was left there */
    assert_int_equal(rmdir(folder), 0);
    free(path);
}

static void test_no_place(void **state)
{
    const struct tune_key key = {"avx2", 2};
    struct ops_tune found;
    struct err err = {0};

    (void)state;
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_null(tune_path(&key));
    assert_false(tune_read(&key, &found));
    assert_int_equal(tune_write(&key, &some, &err), STATUS_IO);
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    assert_int_equal(tune_write(&key, &some, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "/dev/null/lockstep/tune-"));
}

static void test_measure(void **state)
{
    struct tune_job job = {.ops = &cpu_ops, .key = {"avx2", 2}, .bytes = 1 << 20};
    struct tune_result result;

    (void)state;
    assert_int_equal(tune_measure(&job, &result, NULL), STATUS_OK);
    for (unsigned i = 0; i < OPS_PRODUCTS; i++) {
        assert_in_range(result.tune.few_rows[i], 0, OPS_FEW_ROWS_MAX);
    }
    assert_in_range(result.tune.few_threads, 0, 1);
    assert_true(result.tune.likes_bf16_12 == OPS_UNKNOWN || result.bf16_12 > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),    cmocka_unit_test(test_bad_json_is_named),
        cmocka_unit_test(test_file),    cmocka_unit_test(test_no_place),
        cmocka_unit_test(test_measure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
