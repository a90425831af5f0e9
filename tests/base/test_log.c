/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: both forms, hostile text, lines that are too long, and a pipe that nobody reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"

/* stderr goes into a pipe from redirect to restore; take reads what is in it. */
static int saved = -1;
static int reading = -1;

static void redirect(void)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    reading = ends[0];
    assert_int_equal(fcntl(reading, F_SETFL, O_NONBLOCK), 0);
}

static void restore(void)
{
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(reading);
    log_set_format(LOG_TEXT);
    log_set_level(LOG_INFO);
}

static void take(struct buf *text)
{
    char part[4096];
    ssize_t n;

    buf_clear(text);
    while ((n = read(reading, part, sizeof(part))) > 0) {
        buf_append(text, part, (size_t)n);
    }
}

/* Checks "{"time":"YYYY-MM-DDTHH:MM:SS.mmmZ"," and gives what is behind it. */
static const char *after_time(const char *line)
{
    static const char form[] = "{\"time\":\"dddd-dd-ddTdd:dd:dd.dddZ\",";

    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == 'd' && i > 8) {
            assert_true(line[i] >= '0' && line[i] <= '9');
        } else {
            assert_int_equal(line[i], form[i]);
        }
    }
    return line + sizeof(form) - 1;
}

static void text_form(void **state)
{
    struct buf text = {0};

    (void)state;
    redirect();
    log_event(LOG_INFO, "request", log_text("id", "cmpl-7"), log_count("code", 200),
              log_int("left", -3), log_real("seconds", 0.25), log_bool("stream", true),
              log_text("none", NULL), log_text("model", "a \"b\"\\\n\x1b\xff"), log_text("e", ""),
              log_text("eq", "a=b"));
    log_event(LOG_WARN, "slow", log_real("x", __builtin_nan("")));
    log_event(LOG_DEBUG, "hidden", log_count("n", 1));
    log_warn("plain\n");
    take(&text);
    restore();
    assert_string_equal(buf_str(&text),
                        "lockstep: request id=cmpl-7 code=200 left=-3 seconds=0.25 stream=true "
                        "model=\"a \\\"b\\\"\\\\\\x0a\\x1b\\xff\" e=\"\" eq=\"a=b\"\n"
                        "lockstep: warning: slow x=null\n"
                        "lockstep: warning: plain\\x0a\n");
    buf_release(&text);
}

static void json_form(void **state)
{
    struct buf text = {0};
    const char *line;

    (void)state;
    redirect();
    log_set_format(LOG_JSON);
    log_event(LOG_INFO, "request", log_text("id", "cmpl-7"), log_count("big", UINT64_MAX),
              log_int("small", INT64_MIN), log_real("seconds", 0.25), log_bool("stream", false),
              log_text("none", NULL), log_real("inf", -__builtin_inf()),
              log_text("model", "\xc3\xa9 \"\\\n\x7f\xff\xc2\x9b\xc3"));
    log_error("it's %s", "\"so\"");
    take(&text);
    restore();
    line = after_time(buf_str(&text));
    assert_memory_equal(
        line,
        "\"level\":\"info\",\"event\":\"request\",\"id\":\"cmpl-7\",\"big\":18446744073709551615,"
        "\"small\":-9223372036854775808,\"seconds\":0.25,\"stream\":false,\"inf\":null,"
        "\"model\":\"\xc3\xa9 \\\"\\\\\\u000a\\u007f\\ufffd\\u009b\\ufffd\"}\n",
        strcspn(line, "\n") + 1);
    line = after_time(strchr(line, '\n') + 1);
    assert_string_equal(line, "\"level\":\"error\",\"text\":\"it's \\\"so\\\"\"}\n");
    buf_release(&text);
}

/* Whatever its length, a line is whole: it ends as it should and its quotes are in pairs. */
static void check_long(const char *text, bool quoted, bool json)
{
    size_t n = strlen(text);
    uint32_t quotes = 0;

    assert_true(n > 0 && n <= LOG_LINE_BYTES);
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    assert_true(utf8_is_valid(text, n));
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '\\') {
            c++; /* what is escaped is no quote */
        } else {
            quotes += *c == '"';
        }
    }
    assert_true(!quoted || quotes % 2 == 0);
    assert_true(!json || (text[0] == '{' && text[n - 2] == '}'));
}

static void long_lines(void **state)
{
    static const char *const units[] = {"x", "\n", "\xc3\xa9", "\"", " "};
    struct buf value = {0};
    struct buf text = {0};

    (void)state;
    redirect();
    for (uint32_t form = LOG_TEXT; form <= LOG_JSON; form++) {
        log_set_format((enum log_format)form);
        for (uint32_t unit = 0; unit < ARRAY_LEN(units); unit++) {
            buf_clear(&value);
            while (value.len < LOG_LINE_BYTES + 50) {
                buf_append_str(&value, units[unit]);
                if (value.len < LOG_LINE_BYTES / 8 - 40 || (value.len > 800 && value.len < 3900)) {
                    continue; /* only lengths near a limit of either form */
                }
                log_event(LOG_INFO, "e", log_text("a", buf_str(&value)), log_text("b", "next one"),
                          log_count("n", 12345678));
                take(&text);
                check_long(buf_str(&text), true, form == LOG_JSON);
                log_info("%s", buf_str(&value));
                take(&text);
                check_long(buf_str(&text), form == LOG_JSON, form == LOG_JSON);
            }
            assert_true(strlen(buf_str(&value)) > LOG_LINE_BYTES);
            log_event(LOG_INFO, "e", log_text("a", buf_str(&value)), log_count("n", 1));
            take(&text);
            assert_non_null(
                strstr(buf_str(&text), form == LOG_JSON ? ",\"cut\":true}\n" : " ...\n"));
            assert_null(strstr(buf_str(&text), form == LOG_JSON ? "\"n\"" : " n="));
            assert_true(text.len > LOG_LINE_BYTES - 50); /* the value is cut, not left out */
        }
    }
    restore();
    buf_release(&value);
    buf_release(&text);
}

/* A pipe that nobody reads costs the first line its wait, the others nothing, and is owned up to.
 */
static void full_pipe(void **state)
{
    struct buf text = {0};
    uint64_t before = log_lost();
    uint64_t start;
    uint64_t lost;

    (void)state;
    redirect();
    start = clock_ns();
    for (uint32_t i = 0; i < 2000; i++) { /* more than a pipe's 64 KiB */
        log_info("line %u %0100d", i, 0);
    }
    lost = log_lost() - before;
    assert_true(clock_ns() - start < UINT64_C(30000000000));
    assert_true(lost > 100 && lost < 2000);
    take(&text);
    assert_non_null(strstr(buf_str(&text), "lockstep: line 0 "));
    assert_int_equal(buf_str(&text)[text.len - 1], '\n');
    log_info("again");
    take(&text);
    {
        char expected[100];

        snprintf(expected, sizeof(expected),
                 "lockstep: warning: %llu log lines were lost: nobody read them\nlockstep: again\n",
                 (unsigned long long)lost);
        assert_string_equal(buf_str(&text), expected);
    }
    log_info("and on");
    take(&text);
    assert_string_equal(buf_str(&text), "lockstep: and on\n");
    restore();
    buf_release(&text);
}

enum { THREADS = 4, LINES = 200 };

static void *write_lines(void *arg)
{
    for (uint32_t i = 0; i < LINES; i++) {
        log_event(LOG_INFO, "e", log_count("thread", (uintptr_t)arg), log_count("i", i));
    }
    return NULL;
}

/* Lines of several threads are whole, each thread's in order. */
static void threads(void **state)
{
    pthread_t all[THREADS];
    uint32_t next[THREADS] = {0};
    struct buf text = {0};
    const char *line;

    (void)state;
    redirect();
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&all[i], NULL, write_lines, (void *)i), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(all[i], NULL);
    }
    take(&text); /* 800 short lines fit a pipe */
    restore();
    line = buf_str(&text);
    for (uint32_t k = 0; k < THREADS * LINES; k++) {
        unsigned thread = THREADS;
        unsigned i = 0;

        assert_int_equal(sscanf(line, "lockstep: e thread=%u i=%u\n", &thread, &i), 2);
        assert_true(thread < THREADS);
        assert_int_equal(i, next[thread]++);
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(*line, '\0');
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_form), cmocka_unit_test(json_form), cmocka_unit_test(long_lines),
        cmocka_unit_test(full_pipe), cmocka_unit_test(threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
