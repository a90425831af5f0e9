/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers as OpenAI's responses: a list of items. A stream is
 *
 *   response.created, .in_progress
 *   for each item: .output_item.added, its parts, deltas and what they came to, .output_item.done
 *   response.completed, .incomplete or .failed
 *
 * each event with its number. A run of text is a message item, a run of reasoning a reasoning item,
 * a call a function_call item.
 */
#include "api/responses.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/fields.h"
#include "api/logprobs.h"
#include "base/mem.h"

/* --- Items --- */

static struct responses_item *item_add(struct responses_state *r, enum output_kind kind)
{
    r->items = xrealloc(r->items, r->n_items + 1, sizeof(*r->items));
    r->items[r->n_items] = (struct responses_item){.kind = kind};
    return &r->items[r->n_items++];
}

/* msg_, rs_ or fc_, the answer's id, the item's number. */
static void write_id(const struct generation *g, uint32_t i, struct buf *out)
{
    const struct responses_state *r = g->state;
    const char *prefix = r->items[i].kind == OUTPUT_CONTENT     ? "msg"
                         : r->items[i].kind == OUTPUT_REASONING ? "rs"
                                                                : "fc";

    buf_printf(out, "\"%s_%s%03u\"", prefix, g->answer->id, i);
}

/* More tokens of the item. */
static void add_logprobs(struct generation *g, struct responses_item *item,
                         const struct token_entry *entries, uint32_t n)
{
    if (n > 0) {
        buf_append(&item->logprobs, ",", item->logprobs.len > 0);
        logprobs_write_chat(&item->logprobs, g, entries, n);
    }
}

static void write_part(const struct responses_item *item, bool empty, struct buf *out)
{
    if (item->kind == OUTPUT_CONTENT) {
        buf_append_str(out, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[");
        buf_append(out, buf_str(&item->logprobs), empty ? 0 : item->logprobs.len);
        buf_append_str(out, "],\"text\":");
    } else {
        buf_append_str(out, "{\"type\":\"reasoning_text\",\"text\":");
    }
    json_write_str(out, buf_str(&item->text), empty ? 0 : item->text.len, false);
    buf_append_char(out, '}');
}

/* status: in_progress has no content yet. */
static void write_item(struct generation *g, uint32_t i, bool in_progress, struct buf *out)
{
    struct responses_state *r = g->state;
    const struct responses_item *item = &r->items[i];

    buf_append_str(out, "{\"id\":");
    write_id(g, i, out);
    buf_printf(out, ",\"status\":\"%s\"",
               in_progress ? "in_progress" : (item->cut ? "incomplete" : "completed"));
    switch (item->kind) {
    case OUTPUT_CONTENT:
        buf_append_str(out, ",\"type\":\"message\",\"role\":\"assistant\",\"content\":[");
        if (!in_progress) {
            write_part(item, false, out);
        }
        buf_append_str(out, "]}");
        break;
    case OUTPUT_REASONING:
        buf_append_str(out, ",\"type\":\"reasoning\",\"summary\":[],\"encrypted_content\":null,"
                            "\"content\":[");
        if (!in_progress) {
            write_part(item, false, out);
        }
        buf_append_str(out, "]}");
        break;
    default:
        buf_printf(out, ",\"type\":\"function_call\",\"call_id\":\"%s\",\"name\":",
                   generation_call_id(g, &g->said[0], item->call));
        json_write_str(out, buf_str(&item->name), item->name.len, false);
        buf_append_str(out, ",\"arguments\":");
        json_write_str(out, buf_str(&item->text), in_progress ? 0 : item->text.len, false);
        buf_append_char(out, '}');
        break;
    }
}

/* --- The response --- */

static void write_usage(const struct request_usage *usage, struct buf *out)
{
    if (usage == NULL) {
        buf_append_str(out, "null");
        return;
    }
    buf_printf(out,
               "{\"input_tokens\":%llu,\"input_tokens_details\":{\"cached_tokens\":%llu,"
               "\"cache_write_tokens\":0},\"output_tokens\":%llu,\"output_tokens_details\":"
               "{\"reasoning_tokens\":%llu},\"total_tokens\":%llu}",
               (unsigned long long)usage->prompt_tokens, (unsigned long long)usage->cached_tokens,
               (unsigned long long)usage->completion_tokens,
               (unsigned long long)usage->reasoning_tokens,
               (unsigned long long)(usage->prompt_tokens + usage->completion_tokens));
}

/* ,"name": and the body's member as it was, else the fallback. */
static void echo(const struct generation *g, const char *name, const char *fallback,
                 struct buf *out)
{
    const json_t *value = field_get(g->answer->json, name);

    buf_printf(out, ",\"%s\":", name);
    if (value != NULL) {
        json_write(out, value, &json_style_compact);
    } else {
        buf_append_str(out, fallback);
    }
}

static void write_settings(const struct generation *g, struct buf *out)
{
    const struct responses_state *r = g->state;
    char temperature[32];
    char top_p[32];

    snprintf(temperature, sizeof(temperature), "%.6g", (double)g->spec.params.temperature);
    snprintf(top_p, sizeof(top_p), "%.6g", (double)g->spec.params.top_p);
    echo(g, "instructions", "null", out);
    echo(g, "metadata", "{}", out);
    echo(g, "parallel_tool_calls", "true", out);
    echo(g, "temperature", temperature, out);
    echo(g, "top_p", top_p, out);
    echo(g, "tool_choice", "\"auto\"", out);
    echo(g, "tools", "[]", out);
    echo(g, "reasoning", "{\"effort\":null,\"summary\":null}", out);
    echo(g, "text", "{\"format\":{\"type\":\"text\"}}", out);
    echo(g, "user", "null", out);
    if (r->max_tokens > 0) {
        buf_printf(out, ",\"max_output_tokens\":%u", r->max_tokens);
    } else {
        buf_append_str(out, ",\"max_output_tokens\":null");
    }
    buf_append_str(out, ",\"max_tool_calls\":null,\"previous_response_id\":null,"
                        "\"background\":false,\"store\":false,\"service_tier\":\"default\","
                        "\"truncation\":\"disabled\"");
    buf_printf(out, ",\"top_logprobs\":%u", g->spec.n_top);
}

static void write_response(struct generation *g, const char *status,
                           const struct request_usage *usage, const struct api_error *error,
                           struct buf *out)
{
    const struct responses_state *r = g->state;

    buf_printf(out, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\"",
               g->id, (long long)g->created, status);
    if (strcmp(status, "completed") == 0) {
        buf_printf(out, ",\"completed_at\":%lld", (long long)time(NULL));
    } else {
        buf_append_str(out, ",\"completed_at\":null");
    }
    buf_append_str(out, ",\"error\":");
    if (error != NULL) {
        buf_append_str(out, "{\"code\":\"server_error\",\"message\":");
        json_write_str(out, error->message, strlen(error->message), false);
        buf_append_char(out, '}');
    } else {
        buf_append_str(out, "null");
    }
    buf_append_str(out, ",\"incomplete_details\":");
    buf_append_str(out, strcmp(status, "incomplete") == 0 ? "{\"reason\":\"max_output_tokens\"}"
                                                          : "null");
    buf_append_str(out, ",\"model\":");
    json_write_str(out, g->model, strlen(g->model), false);
    buf_append_str(out, ",\"output\":[");
    for (uint32_t i = 0; i < r->n_items; i++) {
        buf_append(out, ",", i > 0);
        write_item(g, i, false, out);
    }
    buf_append_char(out, ']');
    write_settings(g, out);
    buf_append_str(out, ",\"usage\":");
    write_usage(usage, out);
    buf_append_char(out, '}');
}

/* --- Streams --- */

static void begin_event(struct generation *g, const char *type, struct buf *out)
{
    struct responses_state *r = g->state;

    frame_begin_event(out, type);
    buf_printf(out, "{\"type\":\"%s\",\"sequence_number\":%llu", type,
               (unsigned long long)r->sequence++);
}

static void end_event(struct buf *out)
{
    buf_append_char(out, '}');
    frame_end(out);
}

/* An event that belongs to the last item. */
static void begin_item_event(struct generation *g, const char *type, struct buf *out)
{
    const struct responses_state *r = g->state;

    begin_event(g, type, out);
    buf_printf(out, ",\"output_index\":%u,\"item_id\":", r->n_items - 1);
    write_id(g, r->n_items - 1, out);
    if (r->items[r->n_items - 1].kind != OUTPUT_TOOL_NAME) {
        buf_append_str(out, ",\"content_index\":0");
    }
}

static void response_event(struct generation *g, const char *type, const char *status,
                           const struct request_usage *usage, const struct api_error *error,
                           struct buf *out)
{
    begin_event(g, type, out);
    buf_append_str(out, ",\"response\":");
    write_response(g, status, usage, error, out);
    end_event(out);
}

static void begin(struct generation *g, struct buf *out)
{
    response_event(g, "response.created", "in_progress", NULL, NULL, out);
    response_event(g, "response.in_progress", "in_progress", NULL, NULL, out);
}

static void item_event(struct generation *g, const char *type, bool in_progress, struct buf *out)
{
    const struct responses_state *r = g->state;

    begin_event(g, type, out);
    buf_printf(out, ",\"output_index\":%u,\"item\":", r->n_items - 1);
    write_item(g, r->n_items - 1, in_progress, out);
    end_event(out);
}

static void part_event(struct generation *g, const char *type, bool empty, struct buf *out)
{
    const struct responses_state *r = g->state;

    begin_item_event(g, type, out);
    buf_append_str(out, ",\"part\":");
    write_part(&r->items[r->n_items - 1], empty, out);
    end_event(out);
}

static void close_item(struct generation *g, bool cut, struct buf *out)
{
    static const char *const done[] = {
        [OUTPUT_CONTENT] = "response.output_text.done",
        [OUTPUT_REASONING] = "response.reasoning_text.done",
        [OUTPUT_TOOL_NAME] = "response.function_call_arguments.done",
    };
    struct responses_state *r = g->state;
    struct responses_item *item;

    if (!r->open) {
        return;
    }
    r->open = false;
    item = &r->items[r->n_items - 1];
    item->cut = cut;
    begin_item_event(g, done[item->kind], out);
    if (item->kind == OUTPUT_TOOL_NAME) {
        buf_append_str(out, ",\"name\":");
        json_write_str(out, buf_str(&item->name), item->name.len, false);
    }
    if (item->kind == OUTPUT_CONTENT) {
        buf_append_str(out, ",\"logprobs\":[");
        buf_append(out, buf_str(&item->logprobs), item->logprobs.len);
        buf_append_char(out, ']');
    }
    buf_append_str(out, item->kind == OUTPUT_TOOL_NAME ? ",\"arguments\":" : ",\"text\":");
    json_write_str(out, buf_str(&item->text), item->text.len, false);
    end_event(out);
    if (item->kind != OUTPUT_TOOL_NAME) {
        part_event(g, "response.content_part.done", false, out);
    }
    item_event(g, "response.output_item.done", false, out);
}

static void open_item(struct generation *g, const struct output_event *o, struct buf *out)
{
    struct responses_state *r = g->state;
    struct responses_item *item;

    close_item(g, false, out);
    item = item_add(r, o->kind);
    r->open = true;
    if (o->kind == OUTPUT_TOOL_NAME) {
        item->call = o->index;
        buf_append(&item->name, o->text, o->n);
    }
    item_event(g, "response.output_item.added", true, out);
    if (o->kind != OUTPUT_TOOL_NAME) {
        part_event(g, "response.content_part.added", true, out);
    }
}

/* entries: told with a message's text. */
static void delta(struct generation *g, const struct output_event *o,
                  const struct token_entry *entries, uint32_t n_entries, struct buf *out)
{
    static const char *const types[] = {
        [OUTPUT_CONTENT] = "response.output_text.delta",
        [OUTPUT_REASONING] = "response.reasoning_text.delta",
        [OUTPUT_TOOL_ARGUMENTS] = "response.function_call_arguments.delta",
    };
    struct responses_state *r = g->state;
    struct responses_item *item = &r->items[r->n_items - 1];

    buf_append(&item->text, o->text, o->n);
    begin_item_event(g, types[o->kind], out);
    if (o->kind == OUTPUT_CONTENT) {
        add_logprobs(g, item, entries, n_entries);
        buf_append_str(out, ",\"logprobs\":[");
        logprobs_write_chat(out, g, entries, n_entries);
        buf_append_char(out, ']');
    }
    buf_append_str(out, ",\"delta\":");
    json_write_str(out, o->text, o->n, false);
    end_event(out);
}

static void event(struct generation *g, const struct request_event *event, struct buf *out)
{
    struct responses_state *r = g->state;
    const struct output_event *o = &event->output;

    if (event->kind == REQUEST_FINISH) {
        if (event->n_entries > 0 && r->open && r->items[r->n_items - 1].kind == OUTPUT_CONTENT) {
            delta(g, &(struct output_event){.kind = OUTPUT_CONTENT, .text = ""}, event->entries,
                  event->n_entries, out); /* of tokens without a text of their own */
        }
        close_item(g, event->reason == FINISH_LENGTH, out);
        return;
    }
    switch (o->kind) {
    case OUTPUT_CONTENT:
    case OUTPUT_REASONING:
        if (o->n == 0) {
            return;
        }
        if (!r->open || r->items[r->n_items - 1].kind != o->kind) {
            open_item(g, o, out);
        }
        delta(g, o, event->entries, event->n_entries, out);
        break;
    case OUTPUT_TOOL_NAME:
        open_item(g, o, out);
        break;
    case OUTPUT_TOOL_ARGUMENTS:
        delta(g, o, NULL, 0, out);
        break;
    case OUTPUT_TOOL_END:
        close_item(g, false, out);
        break;
    }
}

static void end(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    bool cut = g->said[0].reason == FINISH_LENGTH;

    response_event(g, cut ? "response.incomplete" : "response.completed",
                   cut ? "incomplete" : "completed", usage, NULL, out);
}

static void fail(struct generation *g, const struct api_error *error, struct buf *out)
{
    struct responses_state *r = g->state;

    if (r->open) {
        r->open = false;
        r->items[r->n_items - 1].cut = true;
    }
    begin_event(g, "error", out);
    buf_append_str(out, ",\"code\":");
    json_write_str(out, error->code, strlen(error->code), false);
    buf_append_str(out, ",\"message\":");
    json_write_str(out, error->message, strlen(error->message), false);
    buf_append_str(out, ",\"param\":null");
    end_event(out);
    response_event(g, "response.failed", "failed", NULL, error, out);
}

/* --- Whole --- */

static void take_items(struct generation *g)
{
    struct responses_state *r = g->state;
    struct said *said = &g->said[0];

    if (said->reasoning.len > 0) {
        buf_append(&item_add(r, OUTPUT_REASONING)->text, said->reasoning.data, said->reasoning.len);
    }
    if (said->content.len > 0) {
        struct responses_item *item = item_add(r, OUTPUT_CONTENT);

        buf_append(&item->text, said->content.data, said->content.len);
        for (uint32_t i = 0; i < said->n_entries; i++) {
            add_logprobs(g, item, &said->entries[i], said->kinds[i] == OUTPUT_CONTENT);
        }
    }
    for (uint32_t i = 0; i < said->n_calls; i++) {
        struct responses_item *item = item_add(r, OUTPUT_TOOL_NAME);

        item->call = i;
        buf_append(&item->name, buf_str(&said->calls[i].name), said->calls[i].name.len);
        buf_append(&item->text, buf_str(&said->calls[i].arguments), said->calls[i].arguments.len);
    }
    if (r->n_items > 0) {
        r->items[r->n_items - 1].cut = said->reason == FINISH_LENGTH;
    }
}

static void whole(struct generation *g, const struct request_usage *usage, struct buf *out)
{
    take_items(g);
    write_response(g, g->said[0].reason == FINISH_LENGTH ? "incomplete" : "completed", usage, NULL,
                   out);
}

static void release(struct generation *g)
{
    struct responses_state *r = g->state;

    if (r == NULL) {
        return;
    }
    for (uint32_t i = 0; i < r->n_items; i++) {
        buf_release(&r->items[i].name);
        buf_release(&r->items[i].text);
        buf_release(&r->items[i].logprobs);
    }
    free(r->items);
    json_decref(r->chat);
    free(r);
}

const struct format responses_format = {
    .begin = begin,
    .event = event,
    .end = end,
    .fail = fail,
    .whole = whole,
    .release = release,
};
