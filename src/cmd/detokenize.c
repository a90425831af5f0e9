/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep detokenize: token ids on standard input to text. With --jsonl each line is an array of
 * ids and gives a JSON string, {"b64": ...} if the bytes are not UTF-8, or {"error": "line N: ..."}
 * (an id without a token, for example), which neither ends the run nor changes the exit status.
 * Without
 * --jsonl all of the input is ids with white space between, and the bytes come out as they are.
 */
#include <errno.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/jsonl.h"
#include "cmd/open_tokenizer.h"

static enum status read_ids(const json_t *value, struct token_ids *ids, struct err *err)
{
    if (!json_is_array(value)) {
        return err_set(err, STATUS_INVALID, "must be an array of ids");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *id = json_array_get(value, i);
        enum status status;

        if (!json_is_integer(id)) {
            return err_set(err, STATUS_INVALID, "the item at index %zu is no id", i);
        }
        if (json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
            return err_set(err, STATUS_INVALID, "id %lld (at index %zu) has no token",
                           (long long)json_integer_value(id), i);
        }
        status = token_ids_push(ids, (int32_t)json_integer_value(id));
        if (status != STATUS_OK) {
            return err_set(err, status, "no memory for %zu ids", json_array_size(value));
        }
    }
    return STATUS_OK;
}

static enum status detokenize_line(void *data, const char *line, size_t size, struct buf *out,
                                   struct err *err)
{
    const struct tokenizer *tokenizer = data;
    struct token_ids ids = {0};
    struct buf text = {0};
    json_t *value = NULL;
    enum status status = json_parse(line, size, &value, err);

    if (status == STATUS_OK) {
        status = read_ids(value, &ids, err);
    }
    if (status == STATUS_OK) {
        status = tokenizer_decode(tokenizer, ids.data, ids.n, 0, &text, err);
    }
    if (status == STATUS_OK) {
        jsonl_write_bytes(out, buf_str(&text), text.len);
        buf_append_char(out, '\n');
    }
    json_decref(value);
    buf_release(&text);
    token_ids_release(&ids);
    return status;
}

/* "1 2 3\n4" */
static enum status parse_ids(const char *text, struct token_ids *ids, struct err *err)
{
    static const char white[] = " \t\r\n";

    for (text += strspn(text, white); *text != '\0'; text += strspn(text, white)) {
        char *end;
        long id;

        errno = 0;
        id = strtol(text, &end, 10);
        if (end == text || (*end != '\0' && strspn(end, white) == 0)) {
            return err_set(err, STATUS_INVALID, "standard input: \"%.*s\" is no id",
                           (int)MIN(strcspn(text, white), 32), text);
        }
        if (errno != 0 || id < 0 || id > INT32_MAX) {
            return err_set(err, STATUS_INVALID, "standard input: id %.*s has no token",
                           (int)MIN(end - text, 32), text);
        }
        if (token_ids_push(ids, (int32_t)id) != STATUS_OK) {
            return err_set(err, STATUS_NO_MEMORY, "no memory for the ids");
        }
        text = end;
    }
    return STATUS_OK;
}

static enum status detokenize_text(const struct tokenizer *tokenizer, struct err *err)
{
    struct token_ids ids = {0};
    struct buf text = {0};
    struct buf in = {0};
    enum status status = jsonl_read_all(STDIN_FILENO, &in, err);

    if (status == STATUS_OK && strlen(buf_str(&in)) != in.len) {
        status = err_set(err, STATUS_INVALID, "standard input: a zero byte is no id");
    }
    if (status == STATUS_OK) {
        status = parse_ids(buf_str(&in), &ids, err);
    }
    if (status == STATUS_OK) {
        status = tokenizer_decode(tokenizer, ids.data, ids.n, 0, &text, err);
    }
    if (status == STATUS_OK) {
        fwrite(buf_str(&text), 1, text.len, stdout);
    }
    buf_release(&in);
    buf_release(&text);
    token_ids_release(&ids);
    return status;
}

int cmd_detokenize(const struct options *options)
{
    struct tokenizer *tokenizer = NULL;
    struct err err = {0};
    enum status status = open_tokenizer(options->path, &tokenizer, &err);

    if (status == STATUS_OK) {
        status = options->jsonl ? jsonl_run(STDIN_FILENO, detokenize_line, tokenizer, &err)
                                : detokenize_text(tokenizer, &err);
    }
    tokenizer_destroy(&tokenizer);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
