/* SPDX-License-Identifier: Apache-2.0 */
/* Chat completions as clients get them: one JSON object, or chunks of it as server-sent events. */
#include <string.h>

#include "api/chat.h"
#include "api/logprobs.h"
#include "api/usage.h"

static const char *reason_text(enum finish_reason reason)
{
    static const char *const texts[] = {
        [FINISH_STOP] = "stop", [FINISH_LENGTH] = "length", [FINISH_TOOL_CALLS] = "tool_calls"};

    return texts[reason];
}

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,"choices":[ */
static void write_head(const struct generation *g, const char *object, struct buf *out)
{
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, object,
               (long long)g->created);
    json_write_str(out, g->model, strlen(g->model), false);
    buf_append_str(out, ",\"system_fingerprint\":\"lockstep-" LOCKSTEP_VERSION "\",\"choices\":[");
}

static void write_stop_reason(int32_t token, const char *text, struct buf *out)
{
    buf_append_str(out, ",\"stop_reason\":");
    if (text != NULL) {
        json_write_str(out, text, strlen(text), false);
    } else if (token >= 0) {
        buf_printf(out, "%d", token);
    } else {
        buf_append_str(out, "null");
    }
}

/* --- Streams --- */

static void begin_chunk(const struct generation *g, uint32_t choice, struct buf *out)
{
    frame_begin(out);
    write_head(g, "chat.completion.chunk", out);
    buf_printf(out, "{\"index\":%u,\"delta\":{", choice);
}

static void end_chunk(const struct generation *g, struct buf *out)
{
    buf_append_char(out, ']');
    if (g->include_usage) {
        buf_append_str(out, ",\"usage\":");
        if (g->continuous_usage && g->request != NULL) {
            struct request_usage usage = request_usage(g->request);

            usage_write_openai(out, &usage);
        } else {
            buf_append_str(out, "null");
        }
    }
    buf_append_char(out, '}');
    frame_end(out);
}

static void write_logprobs(const struct generation *g, const struct token_entry *entries,
                           uint32_t n, struct buf *out)
{
    buf_append_str(out, ",\"logprobs\":");
    if (!g->spec.logprobs) {
        buf_append_str(out, "null");
        return;
    }
    buf_append_str(out, "{\"content\":[");
    logprobs_write_chat(out, g, entries, n);
    buf_append_str(out, "],\"refusal\":null}");
}

static void begin(struct generation *g, struct buf *out)
{
    for (uint32_t i = 0; i < g->n_said; i++) {
        begin_chunk(g, i, out);
        buf_append_str(out, "\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                            "\"finish_reason\":null}");
        end_chunk(g, out);
    }
}

static void write_delta(struct generation *g, const struct request_event *event, struct buf *out)
{
    const struct output_event *o = &event->output;

    switch (o->kind) {
    case OUTPUT_CONTENT:
        buf_append_str(out, "\"content\":");
        json_write_str(out, o->text, o->n, false);
        break;
    case OUTPUT_REASONING:
        buf_append_str(out, "\"reasoning_content\":");
        json_write_str(out, o->text, o->n, false);
        break;
    case OUTPUT_TOOL_NAME:
        buf_printf(out,
                   "\"tool_calls\":[{\"index\":%u,\"id\":\"%s\",\"type\":\"function\","
                   "\"function\":{\"name\":",
                   o->index, generation_call_id(g, &g->said[event->choice], o->index));
        json_write_str(out, o->text, o->n, false);
        buf_append_str(out, ",\"arguments\":\"\"}}]");
        break;
    case OUTPUT_TOOL_ARGUMENTS:
        buf_printf(out, "\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":", o->index);
        json_write_str(out, o->text, o->n, false);
        buf_append_str(out, "}}]");
        break;
    case OUTPUT_TOOL_END:
        break;
    }
}

static void event(struct generation *g, const struct request_event *event, struct buf *out)
{
    if (event->kind == REQUEST_TEXT && event->output.kind == OUTPUT_TOOL_END &&
        event->n_entries == 0) {
        return;
    }
    if (g->hide_reasoning && event->kind == REQUEST_TEXT &&
        event->output.kind == OUTPUT_REASONING) {
        return;
    }
    begin_chunk(g, event->choice, out);
    if (event->kind == REQUEST_TEXT) {
        write_delta(g, event, out);
    }
    buf_append_char(out, '}');
    write_logprobs(g, event->entries, event->n_entries, out);
    if (event->kind == REQUEST_TEXT) {
        buf_append_str(out, ",\"finish_reason\":null}");
    } else {
        buf_printf(out, ",\"finish_reason\":\"%s\"", reason_text(event->reason));
        write_stop_reason(event->stop_token, event->stop_text, out);
        buf_append_char(out, '}');
    }
    end_chunk(g, out);
}

static void end(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    if (g->include_usage) {
        frame_begin(out);
        write_head(g, "chat.completion.chunk", out);
        buf_append_str(out, "],\"usage\":");
        usage_write_openai(out, usage);
        buf_append_char(out, '}');
        frame_end(out);
    }
    buf_append_str(out, "data: [DONE]\n\n");
}

void format_fail_openai(struct generation *g, const struct api_error *error, struct buf *out)
{
    (void)g;
    frame_begin(out);
    api_error_body(error, out);
    frame_end(out);
    buf_append_str(out, "data: [DONE]\n\n");
}

/* --- Whole --- */

static void write_calls(struct generation *g, struct said *said, struct buf *out)
{
    for (uint32_t i = 0; i < said->n_calls; i++) {
        const struct said_call *call = &said->calls[i];

        buf_printf(out, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":",
                   i > 0 ? "," : "", generation_call_id(g, said, i));
        json_write_str(out, buf_str(&call->name), call->name.len, false);
        buf_append_str(out, ",\"arguments\":");
        json_write_str(out, buf_str(&call->arguments), call->arguments.len, false);
        buf_append_str(out, "}}");
    }
}

static void write_message(struct generation *g, struct said *said, struct buf *out)
{
    buf_append_str(out, "{\"role\":\"assistant\",\"content\":");
    if (said->n_calls > 0 && said->content.len == 0) {
        buf_append_str(out, "null");
    } else {
        json_write_str(out, buf_str(&said->content), said->content.len, false);
    }
    buf_append_str(out, ",\"refusal\":null,\"annotations\":[]");
    if (said->reasoning.len > 0 && !g->hide_reasoning) {
        buf_append_str(out, ",\"reasoning_content\":");
        json_write_str(out, buf_str(&said->reasoning), said->reasoning.len, false);
    }
    if (said->n_calls > 0) {
        buf_append_str(out, ",\"tool_calls\":[");
        write_calls(g, said, out);
        buf_append_char(out, ']');
    }
    buf_append_char(out, '}');
}

static void whole(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    write_head(g, "chat.completion", out);
    for (uint32_t i = 0; i < g->n_said; i++) {
        struct said *said = &g->said[i];

        buf_printf(out, "%s{\"index\":%u,\"message\":", i > 0 ? "," : "", i);
        write_message(g, said, out);
        write_logprobs(g, said->entries, said->n_entries, out);
        buf_printf(out, ",\"finish_reason\":\"%s\"", reason_text(said->reason));
        write_stop_reason(said->stop_token, said->stop_text, out);
        buf_append_char(out, '}');
    }
    buf_append_str(out, "],\"usage\":");
    usage_write_openai(out, usage);
    if (g->list_prompt) {
        buf_append_str(out, ",\"prompt_logprobs\":");
        logprobs_write_prompt(out, g, 0);
    }
    buf_append_char(out, '}');
}

const struct format chat_format = {
    .begin = begin,
    .event = event,
    .end = end,
    .fail = format_fail_openai,
    .whole = whole,
};
