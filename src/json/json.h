/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON in and out. Values are jansson's json_t (reference counted: json_incref, json_decref); this
 * module adds parsing with errors that name the place, typed look-ups that name the field, and a
 * writer whose numbers round-trip: integers up to 64 bits exactly (larger ones are refused), floats
 * in the shortest form that reads back to the same double, spelt as Python's repr spells them.
 * Objects keep the order of the text. Duplicate keys are an error. Any thread (a value is owned by
 * one).
 */
#pragma once

#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

/* Parses size bytes as one JSON text (any value). On success *ret_value is a new reference. Errors:
 * STATUS_CORRUPT, with line and column. */
NODISCARD enum status json_parse(const char *text, size_t size, json_t **ret_value,
                                 struct err *err);

/* Reads and parses a file of at most max_bytes; the error names the path. */
NODISCARD enum status json_parse_file(const char *path, size_t max_bytes, json_t **ret_value,
                                      struct err *err);

/* Typed members of object. Absent or null: the value of fallback, STATUS_OK. Wrong type or out of
 * [min, max]: STATUS_INVALID naming key. A real with an integral value passes as an integer. */
NODISCARD enum status json_opt_int(const json_t *object, const char *key, int64_t min, int64_t max,
                                   int64_t fallback, int64_t *ret_value, struct err *err);
NODISCARD enum status json_opt_real(const json_t *object, const char *key, double fallback,
                                    double *ret_value, struct err *err);
NODISCARD enum status json_opt_bool(const json_t *object, const char *key, bool fallback,
                                    bool *ret_value, struct err *err);
/* Borrowed text, valid as long as object. fallback may be NULL. */
NODISCARD enum status json_opt_str(const json_t *object, const char *key, const char *fallback,
                                   const char **ret_value, struct err *err);
/* As json_opt_int, but absent is an error too. */
NODISCARD enum status json_need_int(const json_t *object, const char *key, int64_t min, int64_t max,
                                    int64_t *ret_value, struct err *err);

struct json_style {
    int indent;           /* spaces a level, -1: one line */
    bool ascii;           /* write non-ASCII characters as \uXXXX */
    bool sort_keys;       /* by code point */
    const char *item_sep; /* "," or ", " */
    const char *key_sep;  /* ":" or ": " */
};

extern const struct json_style json_style_compact; /* {"a":1,"b":[1,2]} */
extern const struct json_style
    json_style_python; /* {"a": 1, "b": [1, 2]}, json.dumps(ensure_ascii=False) */

void json_write(struct buf *buf, const json_t *value, const struct json_style *style);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void json_write_str(struct buf *buf, const char *text, size_t size, bool ascii);

/* Shortest decimal that reads back as value, spelt as Python's repr (1.0, 1e-05, 1e+16, inf, nan).
 */
void json_write_real(struct buf *buf, double value);
