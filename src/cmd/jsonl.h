/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines in and out for the commands with --jsonl: one JSON value a line, and an answer to each, at
 * the latest when the writer on the other side pauses. Bytes that are no text travel as
 * {"b64": "..."} (RFC 4648, padded). Belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "json/json.h"

enum { JSONL_MAX_LINE = 1 << 30 };

/* Zero-initialise but for fd; release with jsonl_release. */
struct jsonl {
    int fd;
    struct buf data;
    size_t start;   /* of the line that comes next */
    size_t scanned; /* no line feed before it */
    size_t n_lines; /* handed out */
    bool ended;
};

/* The next line without its line feed, valid until the next call; the last one needs none. Flushes
 * stdout before it waits for input. STATUS_NOT_FOUND at the end, STATUS_IO, STATUS_LIMIT (a line
 * above JSONL_MAX_LINE). */
NODISCARD enum status jsonl_next(struct jsonl *in, const char **ret_line, size_t *ret_size,
                                 struct err *err);
void jsonl_release(struct jsonl *in);

/* Appends to out what answers one line, with a line feed at its end. */
typedef enum status jsonl_answer(void *data, const char *line, size_t size, struct buf *out,
                                 struct err *err);

/* Calls answer for each line of fd and writes to stdout what it appends or, if it fails, its error
 * as jsonl_print_error does; one bad line does not end the run. Errors: as jsonl_next. */
NODISCARD enum status jsonl_run(int fd, jsonl_answer *answer, void *data, struct err *err);

/* Appends all that is left of the input to text. STATUS_IO, STATUS_LIMIT. */
NODISCARD enum status jsonl_read_all(int fd, struct buf *text, struct err *err);

/* Writes {"error": "line N: ..."} and a line feed to stdout. */
void jsonl_print_error(const struct jsonl *in, const struct err *err);

/* Appends the bytes of a JSON string or of {"b64": "..."}. STATUS_INVALID. */
NODISCARD enum status jsonl_read_bytes(const json_t *value, struct buf *bytes, struct err *err);

/* Appends size bytes as a JSON string if they are UTF-8, else as {"b64": "..."}. */
void jsonl_write_bytes(struct buf *out, const char *bytes, size_t size);
