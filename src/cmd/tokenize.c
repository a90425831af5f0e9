/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep tokenize: text on standard input to token ids. Without --jsonl all of the input is one
 * text and gives one line of ids; with it each line is a JSON string (or {"b64": ...}) and gives an
 * array, or {"error": "line N: ..."}, which neither ends the run nor changes the exit status.
 */
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/jsonl.h"
#include "cmd/open_tokenizer.h"

struct job {
    struct tokenizer *tokenizer;
    unsigned flags;
};

static enum status tokenize_line(void *data, const char *line, size_t size, struct buf *out,
                                 struct err *err)
{
    const struct job *job = data;
    struct token_ids ids = {0};
    struct buf bytes = {0};
    json_t *value = NULL;
    enum status status = json_parse(line, size, &value, err);

    if (status == STATUS_OK) {
        status = jsonl_read_bytes(value, &bytes, err);
    }
    if (status == STATUS_OK) {
        status =
            tokenizer_encode(job->tokenizer, buf_str(&bytes), bytes.len, job->flags, &ids, err);
    }
    if (status == STATUS_OK) {
        buf_append_char(out, '[');
        for (size_t i = 0; i < ids.n; i++) {
            buf_printf(out, i == 0 ? "%d" : ",%d", ids.data[i]);
        }
        buf_append_str(out, "]\n");
    }
    json_decref(value);
    buf_release(&bytes);
    token_ids_release(&ids);
    return status;
}

static enum status tokenize_text(const struct job *job, struct err *err)
{
    struct token_ids ids = {0};
    struct buf text = {0};
    enum status status = jsonl_read_all(STDIN_FILENO, &text, err);

    if (status == STATUS_OK) {
        status = tokenizer_encode(job->tokenizer, buf_str(&text), text.len, job->flags, &ids, err);
    }
    if (status == STATUS_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            printf(i == 0 ? "%d" : " %d", ids.data[i]);
        }
        putchar('\n');
    }
    buf_release(&text);
    token_ids_release(&ids);
    return status;
}

int cmd_tokenize(const struct options *options)
{
    struct job job = {.flags = options->no_special ? 0 : TOKENIZER_PARSE_SPECIAL};
    struct err err = {0};
    enum status status = open_tokenizer(options->path, &job.tokenizer, &err);

    if (status == STATUS_OK) {
        status = options->jsonl ? jsonl_run(STDIN_FILENO, tokenize_line, &job, &err)
                                : tokenize_text(&job, &err);
    }
    tokenizer_destroy(&job.tokenizer);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
