/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep render: conversations on standard input to prompts. Each line is {"messages": ...,
 * "tools":
 * ..., "add_generation_prompt": ..., other variables} and gives {"text": ...}, or {"error": ...}
 * with what the template gave to raise_exception or "line N: ..." (of the template); that neither
 * ends the run nor changes the exit status.
 */
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/jsonl.h"
#include "cmd/open_chat.h"

static void render_line(const struct chat_prompt *prompt, const json_t *request, struct buf *text,
                        struct buf *out)
{
    struct buf message = {0};
    bool rendered = chat_prompt_render(prompt, request, text, &message) == STATUS_OK;
    const struct buf *result = rendered ? text : &message;

    buf_append_str(out, rendered ? "{\"text\":" : "{\"error\":");
    json_write_str(out, buf_str(result), result->len, false);
    buf_append_str(out, "}\n");
    buf_release(&message);
}

static enum status render_lines(const struct chat_prompt *prompt, struct err *err)
{
    struct jsonl in = {.fd = STDIN_FILENO};
    struct buf text = {0};
    struct buf out = {0};
    enum status status;
    const char *line;
    size_t size;

    while ((status = jsonl_next(&in, &line, &size, err)) == STATUS_OK) {
        struct err line_err = {0};
        json_t *request = NULL;

        if (json_parse(line, size, &request, &line_err) != STATUS_OK) {
            jsonl_print_error(&in, &line_err);
            continue;
        }
        buf_clear(&text);
        buf_clear(&out);
        render_line(prompt, request, &text, &out);
        fwrite(buf_str(&out), 1, out.len, stdout);
        json_decref(request);
    }
    buf_release(&text);
    buf_release(&out);
    jsonl_release(&in);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

int cmd_render(const struct options *options)
{
    struct chat_prompt *prompt = NULL;
    struct err err = {0};
    enum status status;

    if (!options->jsonl) {
        return cmd_usage(options, "--jsonl is needed: a conversation a line");
    }
    status = open_chat(options->path, &prompt, &err);
    if (status == STATUS_OK) {
        status = render_lines(prompt, &err);
    }
    chat_prompt_destroy(&prompt);
    return status == STATUS_OK ? CMD_OK : cmd_fail(&err);
}
