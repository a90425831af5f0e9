/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/utf8.h"

static _Atomic int sink_level = LOG_INFO;
static _Atomic int sink_format = LOG_TEXT;
static _Atomic uint64_t n_lost;
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER; /* of the descriptor, and: */
static uint64_t n_unsaid; /* lines that were lost since one was written */

static const char *const prefixes[] = {"error: ", "warning: ", "", "debug: "};
static const char *const level_names[] = {"error", "warning", "info", "debug"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&sink_level, (int)level, memory_order_relaxed);
}

void log_set_format(enum log_format format)
{
    atomic_store_explicit(&sink_format, (int)format, memory_order_relaxed);
}

uint64_t log_lost(void)
{
    return atomic_load_explicit(&n_lost, memory_order_relaxed);
}

static bool is_json(void)
{
    return atomic_load_explicit(&sink_format, memory_order_relaxed) == LOG_JSON;
}

/* --- A line --- */

enum { TAIL_BYTES = 16 }; /* always left for what ends a line */

/* A line being made. What does not fit is left out, by whole parts. */
struct line {
    size_t len;
    bool cut;
    char text[LOG_LINE_BYTES];
};

static bool fits(const struct line *line, size_t n)
{
    return line->len + n <= sizeof(line->text) - TAIL_BYTES; /* len may be one more, by a quote */
}

static void add(struct line *line, const char *bytes, size_t n)
{
    if (!fits(line, n)) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->len, bytes, n);
    line->len += n;
}

static void add_str(struct line *line, const char *text)
{
    add(line, text, strlen(text));
}

/* The end of a line, for which there is always room. */
static void finish(struct line *line, const char *end)
{
    size_t n = strlen(end);

    ENSURE_OP(n, <=, TAIL_BYTES);
    memcpy(line->text + line->len, end, n);
    line->len += n;
}

/* The character at *at, n bytes left, as it may stand in a line: itself, or escaped (JSON: \u00XX,
 * U+FFFD for what is no UTF-8; text: \xXX). Moves *at on; false once the line is full. */
static bool add_char(struct line *line, const char **at, size_t n, bool json)
{
    unsigned char c = (unsigned char)**at;
    size_t bytes = utf8_valid_prefix(*at, n);
    bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && n > 1 && (unsigned char)(*at)[1] < 0xa0);
    char escaped[8];

    if (bytes > 0 && !control && c != '"' && c != '\\') {
        add(line, *at, bytes);
        *at += bytes;
        return !line->cut;
    }
    if (c == '"' || c == '\\') {
        snprintf(escaped, sizeof(escaped), "\\%c", c);
    } else if (!json) {
        snprintf(escaped, sizeof(escaped), "\\x%02x", c);
        bytes = 1;
    } else if (bytes == 0) {
        snprintf(escaped, sizeof(escaped), "\\ufffd");
    } else {
        snprintf(escaped, sizeof(escaped), "\\u00%02x",
                 bytes == 2 ? (unsigned char)(*at)[1] : (unsigned)c);
    }
    add_str(line, escaped);
    *at += MAX(bytes, (size_t)1);
    return !line->cut;
}

/* A string in quotes; cut at its end where the line is full, and the quote is there all the same.
 */
static void add_quoted(struct line *line, const char *text, bool json)
{
    const char *end = text + strlen(text);
    size_t start = line->len;

    add_str(line, "\"");
    if (line->cut) {
        return;
    }
    while (text < end && add_char(line, &text, (size_t)(end - text), json)) {
    }
    if (line->cut && line->len == start + 1) {
        line->len = start; /* nothing of it: the key is taken back too */
        return;
    }
    finish(line, "\""); /* TAIL_BYTES has room for it and what comes after */
}

static void add_time(struct line *line)
{
    struct timespec now;
    struct tm parts;
    char text[64];
    size_t n;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + n, sizeof(text) - n, ".%03ldZ", now.tv_nsec / 1000000);
    add_str(line, text);
}

/* --- Out --- */

/* A descriptor that poll calls writable takes a line of up to PIPE_BUF bytes without waiting. */
static bool has_room(int timeout_ms)
{
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&out, 1, timeout_ms) != 0; /* an error will be write's */
}

static bool write_line(const struct line *line)
{
    ssize_t n;

    do {
        n = write(STDERR_FILENO, line->text, line->len);
    } while (n < 0 && errno == EINTR);
    return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK); /* else nowhere is left to say it */
}

static void say_lost(void)
{
    struct line line = {.len = 0};
    char text[96];

    snprintf(text, sizeof(text), "%llu log line%s lost: nobody read them",
             (unsigned long long)n_unsaid, n_unsaid == 1 ? " was" : "s were");
    if (is_json()) {
        add_str(&line, "{\"time\":\"");
        add_time(&line);
        add_str(&line, "\",\"level\":\"warning\",\"text\":\"");
        add_str(&line, text);
        finish(&line, "\"}\n");
    } else {
        add_str(&line, "lockstep: warning: ");
        add_str(&line, text);
        finish(&line, "\n");
    }
    if (write_line(&line)) {
        n_unsaid = 0;
    }
}

static void put(const struct line *line)
{
    pthread_mutex_lock(&sink_lock);
    if (n_unsaid > 0 && has_room(0)) {
        say_lost();
    }
    if (!has_room(n_unsaid > 0 ? 0 : LOG_WAIT_MS) || !write_line(line)) {
        n_unsaid++;
        atomic_fetch_add_explicit(&n_lost, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&sink_lock);
}

static bool is_wanted(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&sink_level, memory_order_relaxed);
}

static void begin_json(struct line *line, enum log_level level)
{
    add_str(line, "{\"time\":\"");
    add_time(line);
    add_str(line, "\",\"level\":\"");
    add_str(line, level_names[level]);
    add_str(line, "\"");
}

void log_write(enum log_level level, const char *format, ...)
{
    struct line line;
    char text[ERR_TEXT_BYTES];
    char escaped[ERR_TEXT_BYTES];
    va_list args;

    if (!is_wanted(level)) {
        return;
    }
    line.len = 0;
    line.cut = false;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (is_json()) {
        begin_json(&line, level);
        add_str(&line, ",\"text\":");
        add_quoted(&line, text, true);
        finish(&line, "}\n");
    } else {
        add_str(&line, "lockstep: ");
        add_str(&line, prefixes[level]);
        add_str(&line, err_escape(text, escaped, sizeof(escaped)));
        finish(&line, "\n");
    }
    put(&line);
}

/* --- Events --- */

/* True if a text can stand without quotes in a line of key=value. */
static bool is_word(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || strchr("\"\\=", *c) != NULL) {
            return false;
        }
    }
    return *text != '\0';
}

static void add_value(struct line *line, const struct log_field *field, bool json)
{
    char text[40];

    switch (field->kind) {
    case LOG_FIELD_TEXT:
        if (!json && is_word(field->text) && fits(line, strlen(field->text))) {
            add_str(line, field->text);
        } else {
            add_quoted(line, field->text, json);
        }
        return;
    case LOG_FIELD_COUNT:
        snprintf(text, sizeof(text), "%llu", (unsigned long long)field->count);
        break;
    case LOG_FIELD_INT:
        snprintf(text, sizeof(text), "%lld", (long long)field->integer);
        break;
    case LOG_FIELD_REAL:
        snprintf(text, sizeof(text), isfinite(field->real) ? "%.9g" : "null", field->real);
        break;
    case LOG_FIELD_BOOL:
        snprintf(text, sizeof(text), "%s", field->truth ? "true" : "false");
        break;
    }
    add_str(line, text);
}

/* Whole or, if it does not fit, not at all; a text is cut instead. */
static void add_field(struct line *line, const struct log_field *field, bool json)
{
    size_t start = line->len;
    size_t value;

    if ((field->kind == LOG_FIELD_TEXT && field->text == NULL) || line->cut) {
        return;
    }
    add_str(line, json ? ",\"" : " ");
    add_str(line, field->key);
    add_str(line, json ? "\":" : "=");
    value = line->len;
    if (!line->cut) {
        add_value(line, field, json);
    }
    if (line->cut && line->len <= value) {
        line->len = start;
    }
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields, size_t n)
{
    bool json = is_json();
    struct line line;

    if (!is_wanted(level)) {
        return;
    }
    line.len = 0;
    line.cut = false;
    if (json) {
        begin_json(&line, level);
        add_str(&line, ",\"event\":");
        add_quoted(&line, event, true);
    } else {
        add_str(&line, "lockstep: ");
        add_str(&line, prefixes[level]);
        add_str(&line, event);
    }
    for (size_t i = 0; i < n; i++) {
        add_field(&line, &fields[i], json);
    }
    finish(&line, json ? (line.cut ? ",\"cut\":true}\n" : "}\n") : (line.cut ? " ...\n" : "\n"));
    put(&line);
}
