/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/jsonl.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/utf8.h"

enum { READ_BYTES = 1 << 18 };

/* Appends what can be read now, or waits for it. *ret_n is 0 at the end. */
static enum status read_some(int fd, struct buf *data, size_t *ret_n, struct err *err)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    ssize_t n;

    if (poll(&ready, 1, 0) == 0) { /* about to wait: what is done shall be seen */
        fflush(stdout);
    }
    buf_reserve(data, READ_BYTES);
    do {
        n = read(fd, data->data + data->len, READ_BYTES);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return err_set(err, STATUS_IO, "standard input: %s", strerror(errno));
    }
    data->len += (size_t)n;
    data->data[data->len] = '\0';
    *ret_n = (size_t)n;
    return STATUS_OK;
}

/* Drops the lines that were handed out, so that the buffer holds one line and what was read of the
 * next ones. */
static void discard(struct jsonl *in)
{
    if (in->start > 0) {
        in->data.len -= in->start;
        memmove(in->data.data, in->data.data + in->start, in->data.len + 1);
        in->scanned -= in->start;
        in->start = 0;
    }
}

enum status jsonl_next(struct jsonl *in, const char **ret_line, size_t *ret_size, struct err *err)
{
    for (;;) {
        const char *line = buf_str(&in->data) + in->start;
        const char *end = in->data.len == in->scanned ? NULL
                                                      : memchr(buf_str(&in->data) + in->scanned,
                                                               '\n', in->data.len - in->scanned);
        enum status status;
        size_t n;

        if (end != NULL || (in->ended && in->start < in->data.len)) {
            *ret_line = line;
            *ret_size = end != NULL ? (size_t)(end - line) : in->data.len - in->start;
            in->start += *ret_size + (end != NULL);
            in->scanned = in->start;
            in->n_lines++;
            return STATUS_OK;
        }
        if (in->ended) {
            return STATUS_NOT_FOUND;
        }
        in->scanned = in->data.len;
        discard(in);
        if (in->data.len > JSONL_MAX_LINE) {
            return err_set(err, STATUS_LIMIT, "standard input: line %zu is longer than %d bytes",
                           in->n_lines + 1, JSONL_MAX_LINE);
        }
        status = read_some(in->fd, &in->data, &n, err);
        if (status != STATUS_OK) {
            return status;
        }
        in->ended = n == 0;
    }
}

void jsonl_release(struct jsonl *in)
{
    buf_release(&in->data);
}

enum status jsonl_run(int fd, jsonl_answer *answer, void *data, struct err *err)
{
    struct jsonl in = {.fd = fd};
    struct buf out = {0};
    enum status status;
    const char *line;
    size_t size;

    while ((status = jsonl_next(&in, &line, &size, err)) == STATUS_OK) {
        struct err line_err = {0};

        buf_clear(&out);
        if (answer(data, line, size, &out, &line_err) == STATUS_OK) {
            fwrite(buf_str(&out), 1, out.len, stdout);
        } else {
            jsonl_print_error(&in, &line_err);
        }
    }
    buf_release(&out);
    jsonl_release(&in);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

enum status jsonl_read_all(int fd, struct buf *text, struct err *err)
{
    enum status status;
    size_t n;

    do {
        if (text->len > JSONL_MAX_LINE) {
            return err_set(err, STATUS_LIMIT, "standard input: more than %d bytes", JSONL_MAX_LINE);
        }
        status = read_some(fd, text, &n, err);
    } while (status == STATUS_OK && n > 0);
    return status;
}

void jsonl_print_error(const struct jsonl *in, const struct err *err)
{
    struct buf text = {0};
    struct buf out = {0};

    buf_printf(&text, "line %zu: %s", in->n_lines, err->text);
    buf_append_str(&out, "{\"error\":");
    json_write_str(&out, text.data, text.len, false);
    buf_append_str(&out, "}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_release(&text);
    buf_release(&out);
}

enum status jsonl_read_bytes(const json_t *value, struct buf *bytes, struct err *err)
{
    const json_t *b64 = json_object_get(value, "b64");
    const char *text = json_string_value(b64);
    size_t size = json_string_length(b64);

    if (json_is_string(value)) {
        buf_append(bytes, json_string_value(value), json_string_length(value));
        return STATUS_OK;
    }
    if (text == NULL || json_object_size(value) != 1) {
        return err_set(err, STATUS_INVALID, "must be a string or {\"b64\": \"...\"}");
    }
    return base64_decode(text, size, bytes, err) == STATUS_OK ? STATUS_OK : err_prefix(err, "b64");
}

void jsonl_write_bytes(struct buf *out, const char *bytes, size_t size)
{
    if (utf8_is_valid(bytes, size)) {
        json_write_str(out, bytes, size, false);
        return;
    }
    buf_append_str(out, "{\"b64\":\"");
    base64_encode(bytes, size, out);
    buf_append_str(out, "\"}");
}
