/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a stream become bounded log lines: cuts, rubbish, floods, lines without an end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "world/capture.h"

enum { MS = 1000000 };

struct sink {
    struct capture capture;
    struct buf text; /* lines, each in brackets */
    size_t n_lines;
    size_t longest;
};

static void emit(void *arg, const char *line)
{
    struct sink *sink = arg;

    buf_printf(&sink->text, "[%s]", line);
    sink->n_lines++;
    sink->longest = MAX(sink->longest, strlen(line));
    assert_null(strchr(line, '\n'));
}

static void begin(struct sink *sink)
{
    *sink = (struct sink){0};
    capture_init(&sink->capture, emit, sink);
}

static void feed(struct sink *sink, const char *text, uint64_t now)
{
    capture_feed(&sink->capture, text, strlen(text), now);
}

static void expect(struct sink *sink, const char *text)
{
    assert_string_equal(buf_str(&sink->text), text);
    buf_clear(&sink->text);
}

static void test_lines(void **state)
{
    struct sink sink;

    (void)state;
    begin(&sink);
    feed(&sink, "one\ntwo\n\nthr", 0);
    expect(&sink, "[one][two][]");
    feed(&sink, "ee\n", 5 * MS);
    expect(&sink, "[three]");
    capture_feed(&sink.capture, "a\0b\n", 4, 0);
    expect(&sink, "[a\\x00b]");
    capture_flush(&sink.capture, 0, true);
    expect(&sink, "");
    buf_release(&sink.text);
}

static void test_line_without_end(void **state)
{
    struct sink sink;

    (void)state;
    begin(&sink);
    assert_int_equal(capture_wake_at(&sink.capture), UINT64_MAX);
    feed(&sink, "loading ", 1000ull * MS);
    feed(&sink, "50 %", 1100ull * MS);
    assert_int_equal(capture_wake_at(&sink.capture), 1200ull * MS);
    capture_flush(&sink.capture, 1199ull * MS, false);
    expect(&sink, "");
    capture_flush(&sink.capture, 1200ull * MS, false);
    expect(&sink, "[loading 50 %]");
    assert_int_equal(capture_wake_at(&sink.capture), UINT64_MAX);
    feed(&sink, "the last words", 1300ull * MS);
    capture_flush(&sink.capture, 1300ull * MS, true);
    expect(&sink, "[the last words]");
    buf_release(&sink.text);
}

static void test_long_lines(void **state)
{
    static char line[10 * CAPTURE_LINE_BYTES + 2];
    struct sink sink;

    (void)state;
    memset(line, 'x', sizeof(line) - 2);
    line[sizeof(line) - 2] = '\n';
    begin(&sink);
    feed(&sink, line, 0);
    assert_int_equal(sink.n_lines, 1);
    assert_int_equal(sink.longest, CAPTURE_LINE_BYTES);
    buf_clear(&sink.text);
    feed(&sink, "next\n", 0);
    expect(&sink, "[next]");
    for (int i = 0; i < 1000; i++) { /* 6 MB without a newline are one line too */
        capture_feed(&sink.capture, line, sizeof(line) - 2, 0);
    }
    assert_int_equal(sink.n_lines, 3);
    memset(line, 0, sizeof(line)); /* and zero bytes take four */
    feed(&sink, "\n", 0);
    capture_feed(&sink.capture, line, sizeof(line), 0);
    assert_int_equal(sink.longest, CAPTURE_LINE_BYTES);
    buf_release(&sink.text);
}

static void test_flood(void **state)
{
    struct sink sink;

    (void)state;
    begin(&sink);
    for (int i = 0; i < 1000000; i++) {
        feed(&sink, "flood\n", 7ull * MS);
    }
    assert_int_equal(sink.n_lines, CAPTURE_BURST);
    buf_clear(&sink.text);
    feed(&sink, "after a while\n", 7ull * MS + 1000000000 / CAPTURE_PER_SECOND);
    expect(&sink, "[(lines dropped: 999800)][after a while]");
    feed(&sink, "too soon\n", 8ull * MS + 1000000000 / CAPTURE_PER_SECOND);
    expect(&sink, "");
    capture_flush(&sink.capture, 8ull * MS, true); /* what was lost is said at the latest now */
    expect(&sink, "[(lines dropped: 1)]");

    sink.n_lines = 0;
    for (uint64_t t = 0; t < 100; t++) { /* the rate holds for ever */
        for (int i = 0; i < 100; i++) {
            feed(&sink, "flood\n", (1000 + t * 1000) * MS);
        }
    }
    assert_in_range(sink.n_lines, 99 * CAPTURE_PER_SECOND,
                    2 * 100 * CAPTURE_PER_SECOND + CAPTURE_BURST);
    buf_release(&sink.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_line_without_end),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_flood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
