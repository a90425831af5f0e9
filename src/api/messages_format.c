/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as Anthropic's clients read them. A stream is
 *
 *   message_start, ping, (content_block_start, _delta ..., _stop) ..., message_delta, message_stop
 *
 * with a block for each run of thinking or text and for each call. input_tokens is the whole
 * prompt, as count_tokens says it; what of it came from the cache is not told apart, for in this
 * API the numbers of cached tokens are to be added to it.
 */
#include <stdlib.h>
#include <string.h>

#include "api/messages.h"

/* --- Errors --- */

static const char *error_type(int status)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"},
        {413, "request_too_large"},    {429, "rate_limit_error"}, {503, "overloaded_error"},
    };

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (types[i].status == status) {
            return types[i].type;
        }
    }
    return status < 500 ? "invalid_request_error" : "api_error";
}

void messages_error_body(const struct answer *answer, const struct api_error *error,
                         struct buf *out)
{
    buf_printf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
               error_type(error->status));
    json_write_str(out, error->message, strlen(error->message), false);
    buf_append_str(out, "},\"request_id\":");
    json_write_str(out, answer->id, strlen(answer->id), false);
    buf_append_char(out, '}');
}

/* --- Parts of a message --- */

static void write_usage(struct buf *out, uint64_t input, uint64_t output, uint64_t thinking)
{
    buf_printf(out,
               "{\"input_tokens\":%llu,\"output_tokens\":%llu,\"cache_creation\":null,"
               "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"
               "\"inference_geo\":null,\"output_tokens_details\":{\"thinking_tokens\":%llu},"
               "\"server_tool_use\":null,\"service_tier\":\"standard\",\"speed\":null}",
               (unsigned long long)input, (unsigned long long)output, (unsigned long long)thinking);
}

/* "stop_reason":...,"stop_sequence":...,"stop_details":null,"container":null */
static void write_stop(const struct said *said, struct buf *out)
{
    const char *reason = "end_turn";

    if (said->reason == FINISH_LENGTH) {
        reason = "max_tokens";
    } else if (said->reason == FINISH_TOOL_CALLS || said->n_calls > 0) {
        reason = "tool_use";
    } else if (said->stop_text != NULL) {
        reason = "stop_sequence";
    }
    buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason);
    if (said->stop_text != NULL) {
        json_write_str(out, said->stop_text, strlen(said->stop_text), false);
    } else {
        buf_append_str(out, "null");
    }
    buf_append_str(out, ",\"stop_details\":null,\"container\":null");
}

/* Up to and with "content":[ */
static void write_head(const struct generation *g, struct buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", g->id);
    json_write_str(out, g->model, strlen(g->model), false);
    buf_append_str(out, ",\"diagnostics\":null,\"content\":[");
}

/* A tool_use up to and with "input": */
static void write_use(struct generation *g, uint32_t call, const char *name, size_t n,
                      struct buf *out)
{
    /* "call_X" of the other formats is "toolu_X" here */
    buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"toolu_%s\",\"name\":",
               generation_call_id(g, &g->said[0], call) + strlen("call_"));
    json_write_str(out, name, n, false);
    buf_append_str(out, ",\"caller\":null,\"toolset_name\":null,\"input\":");
}

/* --- Streams --- */

static void begin(struct generation *g, struct buf *out)
{
    frame_begin_event(out, "message_start");
    buf_append_str(out, "{\"type\":\"message_start\",\"message\":");
    write_head(g, out);
    buf_append_str(out, "],\"stop_reason\":null,\"stop_sequence\":null,\"stop_details\":null,"
                        "\"container\":null,\"usage\":");
    write_usage(out, g->prompts[0].n, 0, 0);
    buf_append_str(out, "}}");
    frame_end(out);
    frame_begin_event(out, "ping");
    buf_append_str(out, "{\"type\":\"ping\"}");
    frame_end(out);
}

static void close_block(struct messages_state *m, struct buf *out)
{
    if (!m->open) {
        return;
    }
    if (m->kind == OUTPUT_REASONING) { /* clients wait for one before they take the block */
        frame_begin_event(out, "content_block_delta");
        buf_printf(out,
                   "{\"type\":\"content_block_delta\",\"index\":%u,"
                   "\"delta\":{\"type\":\"signature_delta\",\"signature\":\"\"}}",
                   m->index);
        frame_end(out);
    }
    frame_begin_event(out, "content_block_stop");
    buf_printf(out, "{\"type\":\"content_block_stop\",\"index\":%u}", m->index);
    frame_end(out);
    m->open = false;
    m->index++;
}

static void open_block(struct generation *g, const struct output_event *o, struct buf *out)
{
    struct messages_state *m = g->state;

    close_block(m, out);
    m->open = true;
    m->kind = o->kind;
    frame_begin_event(out, "content_block_start");
    buf_printf(out, "{\"type\":\"content_block_start\",\"index\":%u,\"content_block\":", m->index);
    if (o->kind == OUTPUT_CONTENT) {
        buf_append_str(out, "{\"type\":\"text\",\"text\":\"\",\"citations\":null}}");
    } else if (o->kind == OUTPUT_REASONING) {
        buf_append_str(out, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}");
    } else {
        write_use(g, o->index, o->text, o->n, out);
        buf_append_str(out, "{}}}");
    }
    frame_end(out);
}

static void write_delta(const struct messages_state *m, const struct output_event *o,
                        struct buf *out)
{
    static const char *const starts[] = {
        [OUTPUT_CONTENT] = "\"text_delta\",\"text\":",
        [OUTPUT_REASONING] = "\"thinking_delta\",\"thinking\":",
        [OUTPUT_TOOL_ARGUMENTS] = "\"input_json_delta\",\"partial_json\":",
    };

    frame_begin_event(out, "content_block_delta");
    buf_printf(out, "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":%s",
               m->index, starts[o->kind]);
    json_write_str(out, o->text, o->n, false);
    buf_append_str(out, "}}");
    frame_end(out);
}

static void event(struct generation *g, const struct request_event *event, struct buf *out)
{
    struct messages_state *m = g->state;
    const struct output_event *o = &event->output;

    if (event->kind == REQUEST_FINISH) {
        close_block(m, out);
        return;
    }
    switch (o->kind) {
    case OUTPUT_CONTENT:
    case OUTPUT_REASONING:
        if (o->n == 0) {
            return;
        }
        if (!m->open || m->kind != o->kind) {
            open_block(g, o, out);
        }
        write_delta(m, o, out);
        break;
    case OUTPUT_TOOL_NAME:
        open_block(g, o, out);
        break;
    case OUTPUT_TOOL_ARGUMENTS:
        write_delta(m, o, out);
        break;
    case OUTPUT_TOOL_END:
        close_block(m, out);
        break;
    }
}

static void end(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    frame_begin_event(out, "message_delta");
    buf_append_str(out, "{\"type\":\"message_delta\",\"delta\":{");
    write_stop(&g->said[0], out);
    buf_append_str(out, "},\"usage\":");
    write_usage(out, usage->prompt_tokens, usage->completion_tokens, usage->reasoning_tokens);
    buf_append_char(out, '}');
    frame_end(out);
    frame_begin_event(out, "message_stop");
    buf_append_str(out, "{\"type\":\"message_stop\"}");
    frame_end(out);
}

static void fail(struct generation *g, const struct api_error *error, struct buf *out)
{
    frame_begin_event(out, "error");
    messages_error_body(g->answer, error, out);
    frame_end(out);
}

/* --- Whole --- */

/* A call's arguments must be an object here; what is none is wrapped, as Anthropic's documentation
 * of streamed arguments has it. */
static void write_input(const struct said_call *call, struct buf *out)
{
    json_t *input = NULL;

    if (call->arguments.len == 0) {
        buf_append_str(out, "{}");
    } else if (json_parse(buf_str(&call->arguments), call->arguments.len, &input, NULL) ==
                   STATUS_OK &&
               json_is_object(input)) {
        json_write(out, input, &json_style_compact);
    } else {
        buf_append_str(out, "{\"INVALID_JSON\":");
        json_write_str(out, buf_str(&call->arguments), call->arguments.len, false);
        buf_append_char(out, '}');
    }
    json_decref(input);
}

static void whole(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    struct said *said = &g->said[0];
    bool comma = false;

    write_head(g, out);
    if (said->reasoning.len > 0) {
        buf_append_str(out, "{\"type\":\"thinking\",\"thinking\":");
        json_write_str(out, buf_str(&said->reasoning), said->reasoning.len, false);
        buf_append_str(out, ",\"signature\":\"\"}");
        comma = true;
    }
    if (said->content.len > 0) {
        buf_append_str(out,
                       comma ? ",{\"type\":\"text\",\"text\":" : "{\"type\":\"text\",\"text\":");
        json_write_str(out, buf_str(&said->content), said->content.len, false);
        buf_append_str(out, ",\"citations\":null}");
        comma = true;
    }
    for (uint32_t i = 0; i < said->n_calls; i++, comma = true) {
        buf_append(out, ",", comma);
        write_use(g, i, buf_str(&said->calls[i].name), said->calls[i].name.len, out);
        write_input(&said->calls[i], out);
        buf_append_char(out, '}');
    }
    buf_append_str(out, "],");
    write_stop(said, out);
    buf_append_str(out, ",\"usage\":");
    write_usage(out, usage->prompt_tokens, usage->completion_tokens, usage->reasoning_tokens);
    buf_append_char(out, '}');
}

static void release(struct generation *g)
{
    struct messages_state *m = g->state;

    if (m != NULL) {
        json_decref(m->chat);
        free(m);
    }
}

const struct format messages_format = {
    .begin = begin,
    .event = event,
    .end = end,
    .fail = fail,
    .whole = whole,
    .release = release,
};
