/* SPDX-License-Identifier: Apache-2.0 */
/* Stop strings, compared with a search over the whole text, cut in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "chat/stop.h"

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static struct stop_matcher *make(const char *const *stops, size_t n, bool include_stop)
{
    struct stop_matcher *matcher = stop_matcher_create(include_stop);

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(stop_matcher_add(matcher, stops[i], strlen(stops[i]), NULL), STATUS_OK);
    }
    return matcher;
}

/* The definition: the end of the stop string that is complete first behind what was passed, the
 * longest of several. */
static int search(const char *const *stops, size_t n, const char *text, size_t passed,
                  size_t *ret_end)
{
    for (size_t end = passed + 1; end <= strlen(text); end++) {
        int found = -1;

        for (size_t i = 0; i < n; i++) {
            size_t len = strlen(stops[i]);

            if (len <= end && memcmp(text + end - len, stops[i], len) == 0 &&
                (found < 0 || len > strlen(stops[found]))) {
                found = (int)i;
            }
        }
        if (found >= 0) {
            *ret_end = end;
            return found;
        }
    }
    return -1;
}

/* A tail of the first n bytes of text that begins a stop string: what must be held back. */
static size_t longest_tail(const char *const *stops, size_t n_stops, const char *text, size_t n)
{
    for (size_t len = n; len > 0; len--) {
        for (size_t i = 0; i < n_stops; i++) {
            if (strlen(stops[i]) > len && memcmp(text + n - len, stops[i], len) == 0) {
                return len;
            }
        }
    }
    return 0;
}

static void check(const char *const *stops, size_t n, const char *text, bool include_stop,
                  uint32_t *random)
{
    struct stop_matcher *matcher = make(stops, n, include_stop);
    struct buf out = {0};
    size_t len = strlen(text);
    size_t want = len;
    size_t end = 0;
    size_t at = 0;
    size_t early = next_random(random) % 3 * 7;
    size_t passed = MIN(len, early);
    int found = search(stops, n, text, passed, &end);

    if (found >= 0) {
        want = include_stop ? end : end - strlen(stops[found]);
    }
    while (at < len) {
        size_t drawn = next_random(random) % 5;
        size_t piece = MIN((at < passed ? passed : len) - at, drawn);
        bool stopped = false;

        if (at < passed) {
            stop_matcher_pass(matcher, text + at, piece, &out);
        } else {
            stopped = stop_matcher_push(matcher, text + at, piece, &out);
        }
        at += piece;
        assert_int_equal(stopped, found >= 0 && at >= end);
        if (!stopped) {
            assert_int_equal(out.len, at - longest_tail(stops, n, text, at));
        }
        assert_int_equal(strlen(buf_str(&out)), out.len);
    }
    stop_matcher_finish(matcher, &out);
    assert_int_equal(stop_matcher_matched(matcher), found);
    assert_int_equal(out.len, want);
    assert_memory_equal(buf_str(&out), text, want);
    stop_matcher_destroy(&matcher);
    buf_release(&out);
}

static void test_random(void **state)
{
    uint32_t random = 11;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char stops[4][8];
        const char *list[4];
        char text[64];
        size_t n = next_random(&random) % 5;
        size_t len = next_random(&random) % sizeof(text);

        for (size_t i = 0; i < n; i++) {
            size_t stop_len = 1 + next_random(&random) % 6;

            for (size_t k = 0; k < stop_len; k++) {
                stops[i][k] = (char)('a' + next_random(&random) % 2);
            }
            stops[i][stop_len] = '\0';
            list[i] = stops[i];
        }
        for (size_t k = 0; k < len; k++) {
            text[k] = (char)('a' + next_random(&random) % (2 + round % 2));
        }
        text[len] = '\0';
        check(list, n, text, round % 3 == 0, &random);
    }
}

static void test_texts(void **state)
{
    static const char *const stops[] = {"\n\nUser:", "</s>", "\xe3\x80\x82", "\nObservation:"};
    static const char *const texts[] = {
        "",
        "Nothing here.\n\nUse it.",
        "Yes.\n\nUser: and",
        "a</</s>b",
        "\xe3\x81\x82\xe3\x80\x81\xe3\x80\x82x",
        "Thought: x\nAction: y\nObservation",
    };
    uint32_t random = 5;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        for (int round = 0; round < 50; round++) {
            check(stops, ARRAY_LEN(stops), texts[i], round % 2 == 0, &random);
        }
    }
}

static void test_order(void **state)
{
    static const char *const stops[] = {"cd", "bcd", "abcde"};
    struct stop_matcher *matcher = make(stops, 3, false);
    struct buf out = {0};

    (void)state;
    assert_true(stop_matcher_push(matcher, "xabcdefg", 8, &out));
    assert_int_equal(stop_matcher_matched(matcher), 1);
    assert_string_equal(buf_str(&out), "xa");
    assert_true(stop_matcher_push(matcher, "more", 4, &out));
    stop_matcher_finish(matcher, &out);
    assert_string_equal(buf_str(&out), "xa");
    stop_matcher_destroy(&matcher);
    assert_null(matcher);
    stop_matcher_destroy(&matcher);
    buf_release(&out);
}

/* Characters are not cut, whatever shares bytes with a stop string. */
static void test_utf8(void **state)
{
    static const char *const stops[] = {"\xe3\x80\x82\xe3\x80\x82"};
    static const char *const pieces[] = {"\xe3\x80\x81", "\xe3\x80\x82", "\xe3\x80\x81",
                                         "\xe2\x82\xac"};
    struct stop_matcher *matcher = make(stops, 1, false);
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        assert_false(stop_matcher_push(matcher, pieces[i], 3, &out));
        assert_true(utf8_is_valid(buf_str(&out), out.len));
        assert_int_equal(out.len, i == 1 ? 3 : 3 * (i + 1));
    }
    stop_matcher_destroy(&matcher);
    buf_release(&out);
}

static void test_refused(void **state)
{
    struct stop_matcher *matcher = stop_matcher_create(false);
    struct buf out = {0};
    struct err err = {0};

    (void)state;
    assert_int_equal(stop_matcher_add(matcher, "", 0, &err), STATUS_INVALID);
    assert_string_equal(err.text, "stop: string 0 is empty");
    assert_int_equal(stop_matcher_add(matcher, "\xff", 1, &err), STATUS_INVALID);
    assert_string_equal(err.text, "stop: string 0 is no UTF-8");
    assert_int_equal(stop_matcher_add(matcher, "a\0b", 3, &err), STATUS_OK);
    for (int i = 1; i < STOP_MAX; i++) {
        assert_int_equal(stop_matcher_add(matcher, "zz", 2, &err), STATUS_OK);
    }
    assert_int_equal(stop_matcher_add(matcher, "x", 1, &err), STATUS_LIMIT);
    assert_string_equal(err.text, "stop: at most 16 strings");
    assert_false(stop_matcher_push(matcher, "a\0a\0", 4, &out));
    assert_int_equal(out.len, 2);
    assert_true(stop_matcher_push(matcher, "b", 1, &out));
    assert_int_equal(stop_matcher_matched(matcher), 0);
    assert_int_equal(out.len, 2);
    stop_matcher_destroy(&matcher);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_texts),   cmocka_unit_test(test_order),
        cmocka_unit_test(test_utf8),   cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
