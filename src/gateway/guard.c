/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/guard.h"

#include <stdio.h>
#include <string.h>

void call_guard_init(struct call_guard *guard, const struct request_spec *spec)
{
    *guard = (struct call_guard){.spec = spec, .is_ahead = spec->forced_object};
    json_scan_reset(&guard->scan);
    json_scan_reset(&guard->ahead);
    if (guard->is_ahead) {
        ENSURE_OP(json_scan_push(&guard->ahead, '{'), ==, JSON_SCAN_MORE);
    }
}

void call_guard_release(struct call_guard *guard)
{
    json_scan_release(&guard->scan);
    json_scan_release(&guard->ahead);
    *guard = (struct call_guard){0};
}

/* --- Tokens --- */

/* What becomes of the object with a token: next is where it is then. */
static enum json_scan_step scan_token(const struct call_guard *guard, int32_t token,
                                      struct json_scan *next)
{
    const struct tokenizer *tokenizer = guard->spec->tokenizer;
    enum json_scan_step step = JSON_SCAN_MORE;
    struct buf open = next->open;
    size_t n = 0;
    const char *bytes = tokenizer_token_bytes(tokenizer, token, &n);

    if (bytes == NULL || tokenizer_is_special(tokenizer, token)) {
        return JSON_SCAN_BAD;
    }
    buf_clear(&open);
    buf_append(&open, buf_str(&guard->ahead.open), guard->ahead.open.len);
    *next = guard->ahead;
    next->open = open;
    for (size_t i = 0; i < n && step == JSON_SCAN_MORE; i++) {
        step = json_scan_push(next, bytes[i]);
    }
    return step;
}

bool call_guard_refuses(struct call_guard *guard, int32_t token)
{
    struct json_scan next = {0};
    enum json_scan_step step;

    if (!guard->is_ahead) {
        return false;
    }
    step = scan_token(guard, token, &next);
    if (step == JSON_SCAN_BAD) {
        json_scan_release(&next);
        return true;
    }
    json_scan_release(&guard->ahead);
    guard->ahead = next;
    guard->is_ahead = step == JSON_SCAN_MORE;
    guard->is_done = step == JSON_SCAN_END;
    return false;
}

enum status call_guard_refused(const struct call_guard *guard, uint32_t n_tokens,
                               struct token_ids *out)
{
    struct json_scan next = {0};
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < n_tokens && status == STATUS_OK; i++) {
        if (scan_token(guard, (int32_t)i, &next) == JSON_SCAN_BAD) {
            status = token_ids_push(out, (int32_t)i);
        }
    }
    json_scan_release(&next);
    return status;
}

bool call_guard_is_over(const struct call_guard *guard)
{
    return guard->why[0] != '\0' || (guard->is_done && guard->spec->output.max_calls == 1);
}

/* --- Events --- */

static bool is_tool(const struct request_spec *spec, const char *name, size_t n)
{
    for (size_t i = 0; i < json_array_size(spec->output.schemas); i++) {
        const json_t *tool = json_array_get(spec->output.schemas, i);
        const json_t *known = json_object_get(json_object_get(tool, "function"), "name");

        if (json_string_length(known) == n && memcmp(json_string_value(known), name, n) == 0) {
            return true;
        }
    }
    return false;
}

static void begin_call(struct call_guard *guard, const struct output_event *event)
{
    json_scan_reset(&guard->scan);
    guard->is_complete = false;
    guard->n_calls++;
    if (!is_tool(guard->spec, event->text, event->n)) {
        snprintf(guard->why, sizeof(guard->why), "the model called \"%.*s\", which is no tool",
                 (int)MIN(event->n, (size_t)64), event->text);
    }
}

static void note_broken(struct call_guard *guard)
{
    if (guard->why[0] == '\0') {
        snprintf(guard->why, sizeof(guard->why),
                 "the model wrote arguments of tool call %u that are no JSON object",
                 guard->n_calls);
    }
}

/* Bytes up to the end of the object, and up to the first that cannot be in one. */
static size_t take_arguments(struct call_guard *guard, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool at_start = guard->scan.state == SCAN_VALUE && guard->scan.open.len == 0;
        enum json_scan_step step;

        if (at_start && text[i] != '{' && !json_scan_is_space(text[i])) {
            note_broken(guard);
            return i;
        }
        step = json_scan_push(&guard->scan, text[i]);
        if (step == JSON_SCAN_END) {
            guard->is_complete = true;
            return i + 1;
        }
        if (step != JSON_SCAN_MORE) {
            note_broken(guard);
            return i;
        }
    }
    return n;
}

bool call_guard_take(struct call_guard *guard, struct output_event *event)
{
    if (guard->why[0] != '\0') {
        return false;
    }
    switch (event->kind) {
    case OUTPUT_TOOL_NAME:
        begin_call(guard, event);
        return guard->why[0] == '\0';
    case OUTPUT_TOOL_ARGUMENTS:
        event->n = guard->is_complete ? 0 : take_arguments(guard, event->text, event->n);
        return event->n > 0;
    case OUTPUT_TOOL_END:
        if (!guard->is_complete) {
            note_broken(guard);
        }
        return true;
    case OUTPUT_CONTENT:
    case OUTPUT_REASONING:
        break;
    }
    return true;
}

const char *call_guard_why(struct call_guard *guard)
{
    if (guard->n_calls == 0 && guard->why[0] == '\0') {
        snprintf(guard->why, sizeof(guard->why), "the model called no tool");
    }
    return guard->why[0] == '\0' ? NULL : guard->why;
}
