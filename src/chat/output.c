/* SPDX-License-Identifier: Apache-2.0 */
/* Tags, white space and events; see output_priv.h. */
#include "chat/output.h"

#include "base/mem.h"
#include "chat/output_priv.h"

static const char *const marker_texts[MARKER_COUNT] = {
    [MARKER_TOOL_BEGIN] = "<tool_call>", [MARKER_TOOL_END] = "</tool_call>",
    [MARKER_FUNCTION] = "<function=",    [MARKER_FUNCTION_END] = "</function>",
    [MARKER_PARAMETER] = "<parameter=",  [MARKER_PARAMETER_END] = "</parameter>",
    [MARKER_ARRAY] = "[TOOL_CALLS]",     [MARKER_PYTHON] = "<|python_tag|>",
};

enum status output_parser_create(const struct output_options *options,
                                 struct output_parser **ret_parser, struct err *err)
{
    const char *begin = options->think_begin != NULL ? options->think_begin : "<think>";
    const char *end = options->think_end != NULL ? options->think_end : "</think>";
    struct output_parser *parser;

    if (*begin == '\0' || *end == '\0') {
        return err_set(err, STATUS_INVALID, "reasoning: a tag is empty");
    }
    parser = xalloc(sizeof(*parser));
    parser->options = *options;
    if (parser->options.forms == 0) {
        parser->options.forms = OUTPUT_FORM_TAGGED;
    }
    memcpy(parser->markers, marker_texts, sizeof(marker_texts));
    parser->think[0] = xstrdup(begin);
    parser->think[1] = xstrdup(end);
    parser->markers[MARKER_THINK_BEGIN] = parser->think[0];
    parser->markers[MARKER_THINK_END] = parser->think[1];
    if (options->reasoning && options->reasoning_open) {
        parser->mode = MODE_REASONING;
        parser->drops_breaks = true;
    }
    *ret_parser = parser;
    return STATUS_OK;
}

void output_parser_destroy(struct output_parser **parser)
{
    if (*parser == NULL) {
        return;
    }
    free((*parser)->think[0]);
    free((*parser)->think[1]);
    buf_release(&(*parser)->held);
    buf_release(&(*parser)->space);
    buf_release(&(*parser)->raw);
    buf_release(&(*parser)->out);
    call_release(&(*parser)->call);
    free(*parser);
    *parser = NULL;
}

/* Calls beyond the limit are parsed but not reported. */
static bool is_beyond_limit(const struct output_parser *parser)
{
    uint32_t max = parser->options.max_calls;

    return max != 0 && parser->n_calls > max;
}

static void flush(struct output_parser *parser)
{
    struct output_event event = {
        .kind = parser->out_kind,
        .text = buf_str(&parser->out),
        .n = parser->out.len,
    };

    if (event.kind == OUTPUT_TOOL_ARGUMENTS) {
        event.index = parser->n_calls - 1;
    }
    if (event.n > 0) {
        parser->emit(parser->emit_arg, &event);
        buf_clear(&parser->out);
    }
}

void output_say(struct output_parser *parser, enum output_kind kind, const char *text, size_t n)
{
    if (kind == OUTPUT_TOOL_ARGUMENTS && is_beyond_limit(parser)) {
        return;
    }
    if (kind != parser->out_kind) {
        flush(parser);
        parser->out_kind = kind;
    }
    buf_append(&parser->out, text, n);
}

static void say_at_once(struct output_parser *parser, enum output_kind kind, const char *text,
                        size_t n)
{
    struct output_event event = {.kind = kind, .index = parser->n_calls - 1, .text = text, .n = n};

    if (!is_beyond_limit(parser)) {
        parser->emit(parser->emit_arg, &event);
    }
}

void output_begin_call(struct output_parser *parser, const char *name, size_t n)
{
    flush(parser);
    buf_clear(&parser->space);
    buf_clear(&parser->raw);
    parser->n_calls++;
    parser->call.is_named = true;
    say_at_once(parser, OUTPUT_TOOL_NAME, name, n);
}

void output_end_call(struct output_parser *parser, enum place place)
{
    flush(parser);
    say_at_once(parser, OUTPUT_TOOL_END, "", 0);
    parser->n_ended = parser->n_calls;
    call_reset(&parser->call);
    buf_clear(&parser->space);
    parser->mode = MODE_TEXT;
    parser->place = place;
    parser->drops_breaks = true;
}

static void put_content(struct output_parser *parser, enum output_kind kind, char c)
{
    output_say(parser, kind, buf_str(&parser->space), parser->space.len);
    buf_clear(&parser->space);
    output_say(parser, kind, &c, 1);
}

/* Whether c goes on with a list of calls or begins a bare one; then it is taken. */
static bool begins_call(struct output_parser *parser, char c)
{
    switch (parser->place) {
    case PLACE_START:
        if (c == '{' && parser->options.tools && (parser->options.forms & OUTPUT_FORM_BARE) != 0) {
            call_open(parser, OUTPUT_FORM_BARE, "");
            break;
        }
        return false;
    case PLACE_TAGGED:
        if (c == '{') {
            call_open(parser, OUTPUT_FORM_TAGGED, "");
            break;
        }
        if (c == '}') { /* one too many, a common slip: gone if the end tag follows */
            buf_append_char(&parser->space, c);
            return true;
        }
        return false;
    case PLACE_BARE:
        if (c == '{' || c == ';') {
            call_open(parser, OUTPUT_FORM_BARE, "");
            break;
        }
        return false;
    case PLACE_ARRAY:
        if (c == ',') {
            call_open(parser, OUTPUT_FORM_ARRAY, "");
            break;
        }
        if (c == ']') {
            parser->place = PLACE_CLOSED;
            return true;
        }
        return false;
    default:
        return false;
    }
    call_open_byte(parser, c);
    return true;
}

/* A byte that is part of no tag. */
static void put(struct output_parser *parser, char c)
{
    static const enum output_kind kinds[] = {
        [MODE_TEXT] = OUTPUT_CONTENT,
        [MODE_REASONING] = OUTPUT_REASONING,
        [MODE_BROKEN] = OUTPUT_TOOL_ARGUMENTS,
    };

    if (parser->mode == MODE_BODY) {
        xml_body_byte(parser, c);
        return;
    }
    if (parser->mode == MODE_VALUE) {
        xml_value_byte(parser, c);
        return;
    }
    if (json_scan_is_space(c) && (parser->options.tools || parser->options.reasoning)) {
        if (!parser->drops_breaks || (c != '\n' && c != '\r')) {
            buf_append_char(&parser->space, c);
            parser->drops_breaks = false;
        }
        return;
    }
    if (parser->mode == MODE_TEXT && begins_call(parser, c)) {
        return;
    }
    parser->drops_breaks = false;
    if (parser->mode == MODE_TEXT) {
        parser->place = PLACE_TEXT;
    }
    if (parser->mode == MODE_REASONING) {
        parser->said_reasoning = true;
    }
    put_content(parser, kinds[parser->mode], c);
}

void output_no_call(struct output_parser *parser)
{
    struct buf raw = parser->raw;

    parser->raw = (struct buf){0};
    parser->mode = MODE_TEXT;
    parser->place = PLACE_TEXT;
    parser->drops_breaks = false;
    call_reset(&parser->call);
    /* The rest may hold a call of its own. It is shorter, and at most one call can have begun
     * inside of the strings of another, so this does not go deep. */
    for (size_t i = 0; i < raw.len; i++) {
        if (i < parser->n_marker) {
            put(parser, raw.data[i]);
        } else {
            struct buf rest = {0};

            buf_append(&rest, raw.data + i, raw.len - i);
            output_feed_all(parser, &rest);
            break;
        }
    }
    buf_release(&raw);
}

/* Which tags are looked for now. */
static bool is_active(const struct output_parser *parser, enum marker marker)
{
    bool in_text = parser->mode == MODE_TEXT;
    bool with_tools = in_text && parser->options.tools;
    uint32_t forms = parser->options.forms;

    switch (marker) {
    case MARKER_THINK_BEGIN:
        return parser->options.reasoning &&
               (in_text || (parser->mode == MODE_REASONING && !parser->said_reasoning));
    case MARKER_THINK_END:
        return parser->options.reasoning && (in_text || parser->mode == MODE_REASONING);
    case MARKER_TOOL_BEGIN:
        return with_tools && (forms & (OUTPUT_FORM_TAGGED | OUTPUT_FORM_XML)) != 0;
    case MARKER_TOOL_END:
        return (in_text && parser->place == PLACE_TAGGED) || xml_takes_tags(parser) ||
               (parser->mode == MODE_BROKEN && parser->call.form == OUTPUT_FORM_TAGGED);
    case MARKER_FUNCTION:
        return with_tools && ((forms & OUTPUT_FORM_XML) != 0 || parser->place == PLACE_TAGGED);
    case MARKER_ARRAY:
        return with_tools && (forms & OUTPUT_FORM_ARRAY) != 0;
    case MARKER_PYTHON:
        return with_tools && (forms & OUTPUT_FORM_BARE) != 0;
    case MARKER_FUNCTION_END:
    case MARKER_PARAMETER:
        return xml_takes_tags(parser);
    case MARKER_PARAMETER_END:
        return parser->mode == MODE_VALUE;
    default:
        return false;
    }
}

static void begin_reasoning(struct output_parser *parser)
{
    buf_clear(&parser->space);
    parser->mode = MODE_REASONING;
    parser->said_reasoning = false;
    parser->drops_breaks = true;
}

static void end_reasoning(struct output_parser *parser)
{
    buf_clear(&parser->space);
    if (parser->mode == MODE_REASONING) {
        parser->mode = MODE_TEXT;
        parser->place = PLACE_START;
    }
    parser->drops_breaks = true;
}

static void marker_found(struct output_parser *parser, enum marker marker)
{
    switch (marker) {
    case MARKER_THINK_BEGIN:
        begin_reasoning(parser);
        break;
    case MARKER_THINK_END:
        end_reasoning(parser);
        break;
    case MARKER_TOOL_BEGIN:
        call_open(parser, OUTPUT_FORM_TAGGED, parser->markers[marker]);
        break;
    case MARKER_ARRAY:
        call_open(parser, OUTPUT_FORM_ARRAY, parser->markers[marker]);
        parser->needs_bracket = true;
        break;
    case MARKER_PYTHON:
        call_open(parser, OUTPUT_FORM_BARE, parser->markers[marker]);
        break;
    case MARKER_FUNCTION:
        call_open(parser, OUTPUT_FORM_TAGGED, parser->markers[marker]);
        xml_open(parser);
        break;
    case MARKER_TOOL_END:
        if (parser->mode == MODE_BROKEN) {
            output_end_call(parser, PLACE_CLOSED);
        } else if (parser->mode == MODE_BODY) {
            xml_marker(parser, marker);
        } else {
            buf_clear(&parser->space);
            parser->place = PLACE_CLOSED;
            parser->drops_breaks = true;
        }
        break;
    default:
        xml_marker(parser, marker);
        break;
    }
}

/* An active tag that held begins or is; MARKER_COUNT if there is none. */
static enum marker find_marker(const struct output_parser *parser, bool *ret_whole)
{
    for (enum marker marker = 0; marker < MARKER_COUNT; marker++) {
        const char *text = parser->markers[marker];

        if (is_active(parser, marker) && strncmp(text, parser->held.data, parser->held.len) == 0) {
            *ret_whole = text[parser->held.len] == '\0';
            return marker;
        }
    }
    return MARKER_COUNT;
}

/* What is held cannot become a tag: its first byte is none of one. The rest may be. */
static void release_first(struct output_parser *parser)
{
    struct buf rest = parser->held;
    enum mode mode = parser->mode;
    char c = rest.data[0];

    rest.len--;
    memmove(rest.data, rest.data + 1, rest.len);
    rest.data[rest.len] = '\0';
    parser->held = (struct buf){0};
    put(parser, c);
    if (parser->mode == mode && parser->held.len == 0) {
        buf_release(&parser->held);
        parser->held = rest;
    } else {
        output_feed_all(parser, &rest);
    }
}

static void text_byte(struct output_parser *parser, char c)
{
    buf_append_char(&parser->held, c);
    while (parser->held.len > 0) {
        bool whole = false;
        enum marker marker = find_marker(parser, &whole);

        if (marker == MARKER_COUNT) {
            release_first(parser);
        } else if (whole) {
            buf_clear(&parser->held);
            marker_found(parser, marker);
        } else {
            break;
        }
    }
}

void output_feed(struct output_parser *parser, char c)
{
    switch (parser->mode) {
    case MODE_OPEN:
        call_open_byte(parser, c);
        break;
    case MODE_OBJECT:
        call_object_byte(parser, c);
        break;
    case MODE_FUNCTION:
    case MODE_PARAMETER:
        xml_name_byte(parser, c);
        break;
    default:
        text_byte(parser, c);
        break;
    }
}

void output_feed_all(struct output_parser *parser, struct buf *text)
{
    for (size_t i = 0; i < text->len; i++) {
        output_feed(parser, text->data[i]);
    }
    buf_release(text);
}

void output_parser_push(struct output_parser *parser, const char *text, size_t n, output_emit *emit,
                        void *arg)
{
    ENSURE(!parser->is_finished);
    parser->emit = emit;
    parser->emit_arg = arg;
    for (size_t i = 0; i < n; i++) {
        output_feed(parser, text[i]);
    }
    flush(parser);
}

/* The beginning of a tag that will not be completed. */
static void release_held(struct output_parser *parser)
{
    /* that of the end of a call which came out whole tells nobody anything */
    if (parser->mode == MODE_TEXT && parser->place == PLACE_TAGGED && parser->held.len > 1 &&
        strncmp(parser->held.data, parser->markers[MARKER_TOOL_END], parser->held.len) == 0) {
        buf_clear(&parser->held);
    }
    while (parser->held.len > 0) {
        release_first(parser);
    }
}

static void finish_call(struct output_parser *parser)
{
    if (parser->mode == MODE_VALUE) {
        xml_finish(parser);
    }
    output_end_call(parser, PLACE_CLOSED);
}

void output_parser_finish(struct output_parser *parser, output_emit *emit, void *arg)
{
    enum output_kind kind;

    ENSURE(!parser->is_finished);
    parser->emit = emit;
    parser->emit_arg = arg;
    for (;;) {
        release_held(parser);
        if (parser->mode <= MODE_REASONING) {
            break;
        }
        if (!parser->call.is_named) {
            output_no_call(parser);
        } else {
            finish_call(parser);
        }
    }
    kind = parser->mode == MODE_TEXT ? OUTPUT_CONTENT : OUTPUT_REASONING;
    if (parser->mode == MODE_REASONING || parser->place <= PLACE_TEXT) {
        output_say(parser, kind, buf_str(&parser->space), parser->space.len);
    }
    flush(parser);
    parser->is_finished = true;
}

uint32_t output_parser_n_calls(const struct output_parser *parser)
{
    uint32_t max = parser->options.max_calls;

    return max == 0 ? parser->n_calls : MIN(parser->n_calls, max);
}

bool output_parser_is_full(const struct output_parser *parser)
{
    return parser->options.max_calls != 0 && parser->n_ended >= parser->options.max_calls;
}
