/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing with errors that name the place, and typed look-ups that name the field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "json/json.h"

static json_t *parse(const char *text)
{
    struct err err = {0};
    json_t *value = NULL;

    assert_int_equal(json_parse(text, strlen(text), &value, &err), STATUS_OK);
    assert_non_null(value);
    return value;
}

static void check_refused(const char *text, size_t size, const char *part)
{
    struct err err = {0};
    json_t *value = (json_t *)(intptr_t)1;

    assert_int_equal(json_parse(text, size, &value, &err), STATUS_CORRUPT);
    assert_ptr_equal(value, (json_t *)(intptr_t)1); /* untouched */
    if (strstr(err.text, part) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err.text, part);
    }
}

static void check_refused_text(const char *text, const char *part)
{
    check_refused(text, strlen(text), part);
}

static void test_values(void **state)
{
    json_t *value = parse(" \"a\\u0000b\" ");

    (void)state;
    assert_int_equal(json_string_length(value), 3);
    assert_memory_equal(json_string_value(value), "a\0b", 3);
    json_decref(value);
    value = parse("-9223372036854775808");
    assert_true(json_integer_value(value) == INT64_MIN);
    json_decref(value);
    value = parse("1e2");
    assert_true(json_is_real(value));
    json_decref(value);
}

static void test_refused(void **state)
{
    (void)state;
    check_refused_text("", "line 1");
    check_refused_text("{\n\"a\": 1,\n]", "line 3");
    check_refused_text("{\"a\": 1, \"a\": 2}", "duplicate");
    check_refused_text("NaN", "line 1");
    check_refused_text("[Infinity]", "line 1");
    check_refused_text("[1] 2", "line 1");
    check_refused_text("[1,]", "line 1");
    check_refused_text("\"\\ud800\"", "line 1");
    check_refused("\"\xff\"", 3, "0xff");
    check_refused("[\0]", 3, "line 1");
}

static void test_large_integers_are_refused_by_name(void **state)
{
    (void)state;
    check_refused_text("9223372036854775808", "9223372036854775808");
    check_refused_text("9223372036854775808", "more than 64 bits");
    check_refused_text("[-9223372036854775809]", "-9223372036854775809");
    check_refused_text("1e999", "1e999");
}

static void test_depth_is_bounded(void **state)
{
    enum { DEPTH = 100000 };
    struct buf buf = {0};

    (void)state;
    for (int i = 0; i < DEPTH; i++) {
        buf_append_char(&buf, '[');
    }
    check_refused(buf.data, buf.len, "depth");
    for (int i = 0; i < DEPTH; i++) {
        buf_append_char(&buf, ']');
    }
    check_refused(buf.data, buf.len, "depth");
    buf_release(&buf);
}

static void test_int_members(void **state)
{
    json_t *object =
        parse("{\"n\":5,\"x\":5.0,\"half\":5.5,\"s\":\"5\",\"z\":null,\"huge\":1e300}");
    struct err err = {0};
    int64_t n = 77;

    (void)state;
    assert_int_equal(json_opt_int(object, "n", 0, 9, 1, &n, &err), STATUS_OK);
    assert_int_equal(n, 5);
    assert_int_equal(json_opt_int(object, "x", 0, 9, 1, &n, &err), STATUS_OK);
    assert_int_equal(n, 5);
    assert_int_equal(json_opt_int(object, "z", 2, 9, 1, &n, &err), STATUS_OK);
    assert_int_equal(n, 1); /* null counts as absent, and a fallback is not checked */
    assert_int_equal(json_opt_int(object, "n", 0, 4, 1, &n, &err), STATUS_INVALID);
    assert_string_equal(err.text, "n: 5 is not in [0, 4]");
    assert_int_equal(n, 1);
    assert_int_equal(json_opt_int(object, "half", 0, 9, 1, &n, &err), STATUS_INVALID);
    assert_int_equal(json_opt_int(object, "huge", 0, 9, 1, &n, &err), STATUS_INVALID);
    assert_int_equal(json_opt_int(object, "s", 0, 9, 1, &n, &err), STATUS_INVALID);
    assert_string_equal(err.text, "s: must be an integer");
    assert_int_equal(json_need_int(object, "z", 0, 9, &n, &err), STATUS_INVALID);
    assert_string_equal(err.text, "z: missing");
    assert_int_equal(json_need_int(object, "n", 5, 5, &n, &err), STATUS_OK);
    assert_int_equal(n, 5);
    json_decref(object);
}

static void test_other_members(void **state)
{
    json_t *object = parse("{\"x\":0.5,\"n\":2,\"s\":\"text\",\"b\":true}");
    struct err err = {0};
    double x = 0;
    bool b = false;
    const char *s = NULL;

    (void)state;
    assert_int_equal(json_opt_real(object, "x", 1, &x, &err), STATUS_OK);
    assert_true(x == 0.5);
    assert_int_equal(json_opt_real(object, "n", 1, &x, &err), STATUS_OK);
    assert_true(x == 2);
    assert_int_equal(json_opt_real(object, "none", 7, &x, &err), STATUS_OK);
    assert_true(x == 7);
    assert_int_equal(json_opt_real(object, "s", 1, &x, &err), STATUS_INVALID);
    assert_string_equal(err.text, "s: must be a number");
    assert_int_equal(json_opt_bool(object, "b", false, &b, &err), STATUS_OK);
    assert_true(b);
    assert_int_equal(json_opt_bool(object, "n", false, &b, &err), STATUS_INVALID);
    assert_string_equal(err.text, "n: must be true or false");
    assert_int_equal(json_opt_str(object, "s", NULL, &s, &err), STATUS_OK);
    assert_string_equal(s, "text");
    assert_int_equal(json_opt_str(object, "none", "other", &s, &err), STATUS_OK);
    assert_string_equal(s, "other");
    assert_int_equal(json_opt_str(object, "b", NULL, &s, &err), STATUS_INVALID);
    assert_string_equal(err.text, "b: must be a string");
    json_decref(object);
}

static void test_file(void **state)
{
    char path[] = "/tmp/lockstep-json-XXXXXX";
    int fd = mkstemp(path);
    struct err err = {0};
    json_t *value = NULL;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\": 1]", 8), 8);
    close(fd);
    assert_int_equal(json_parse_file(path, 100, &value, &err), STATUS_CORRUPT);
    assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
    assert_int_equal(json_parse_file(path, 7, &value, &err), STATUS_LIMIT);
    unlink(path);
    assert_int_equal(json_parse_file(path, 100, &value, &err), STATUS_NOT_FOUND);
    assert_null(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_large_integers_are_refused_by_name),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_int_members),
        cmocka_unit_test(test_other_members),
        cmocka_unit_test(test_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
