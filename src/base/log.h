/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on stderr, as text or as JSON:
 *
 *   lockstep: warning: rank 1 died                                  log_warn("rank %u died", 1)
 *   {"time":"2026-01-31T12:00:00.123Z","level":"warning","text":"rank 1 died"}
 *
 *   lockstep: request id=cmpl-7 code=200 seconds=0.25               log_event(LOG_INFO, "request",
 *   {"time":...,"level":"info","event":"request","id":"cmpl-7","code":200,"seconds":0.25}
 *                                               log_text("id", id), log_count("code", 200), ...)
 *
 * Control characters and what is no UTF-8 are escaped, so that nothing from outside can forge a
 * line; a line has at most LOG_LINE_BYTES, which a pipe takes whole, and what does not fit is cut.
 * It is written with one call, so lines of several threads and processes do not mix.
 *
 * Whoever reads stderr cannot hold the server up: if there is no room within LOG_WAIT_MS the line
 * is lost, further ones are lost at once until there is room again, and then a line says how many.
 *
 * Level, format and that count are among the few mutable globals. Any thread.
 */
#pragma once

#include "base/base.h"

enum { LOG_LINE_BYTES = 4096, LOG_WAIT_MS = 100 };

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

void log_set_level(enum log_level level);    /* default LOG_INFO */
void log_set_format(enum log_format format); /* default LOG_TEXT */
void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/* --- Events: a name and values for machines to read --- */

enum log_kind { LOG_FIELD_TEXT, LOG_FIELD_COUNT, LOG_FIELD_INT, LOG_FIELD_REAL, LOG_FIELD_BOOL };

/* Made by the functions below; keys are words of [a-z0-9_] and not time, level, text or event. */
struct log_field {
    const char *key;
    enum log_kind kind;
    union {
        const char *text; /* borrowed for the call; NULL: the field is left out */
        uint64_t count;
        int64_t integer;
        double real; /* what is no number is null */
        bool truth;
    };
};

static inline struct log_field log_text(const char *key, const char *text)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_TEXT, .text = text};
}

static inline struct log_field log_count(const char *key, uint64_t count)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_COUNT, .count = count};
}

static inline struct log_field log_int(const char *key, int64_t integer)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_INT, .integer = integer};
}

static inline struct log_field log_real(const char *key, double real)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_REAL, .real = real};
}

static inline struct log_field log_bool(const char *key, bool truth)
{
    return (struct log_field){.key = key, .kind = LOG_FIELD_BOOL, .truth = truth};
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields, size_t n);

/* log_event(level, event, fields...): at least one. */
#define log_event(level, event, ...)                                  \
    log_fields(level, event, (const struct log_field[]){__VA_ARGS__}, \
               sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

/* Lines that were lost so far. */
uint64_t log_lost(void);
