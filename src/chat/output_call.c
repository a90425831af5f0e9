/* SPDX-License-Identifier: Apache-2.0 */
/* Calls in JSON: an object with the members name and arguments (or parameters), in any order. */
#include "base/utf8.h"
#include "chat/output_priv.h"

void call_reset(struct call *call)
{
    struct call fresh = {
        .scan = call->scan,
        .text = call->text,
        .name = call->name,
        .arguments = call->arguments,
        .seen = call->seen,
        .value = call->value,
    };

    json_scan_reset(&fresh.scan);
    buf_clear(&fresh.text);
    buf_clear(&fresh.name);
    buf_clear(&fresh.arguments);
    buf_clear(&fresh.seen);
    buf_clear(&fresh.value);
    *call = fresh;
}

void call_release(struct call *call)
{
    json_scan_release(&call->scan);
    buf_release(&call->text);
    buf_release(&call->name);
    buf_release(&call->arguments);
    buf_release(&call->seen);
    buf_release(&call->value);
}

void call_open(struct output_parser *parser, enum output_form form, const char *marker)
{
    call_reset(&parser->call);
    parser->call.form = form;
    parser->mode = MODE_OPEN;
    parser->n_opened = 0;
    parser->needs_bracket = false;
    parser->n_marker = strlen(marker);
    buf_clear(&parser->raw);
    buf_append_str(&parser->raw, marker);
}

void call_open_byte(struct output_parser *parser, char c)
{
    const char *function = parser->markers[MARKER_FUNCTION];
    bool is_separator = parser->call.form == OUTPUT_FORM_ARRAY ? c == ',' : c == ';';

    is_separator = is_separator && parser->raw.len == 0;
    buf_append_char(&parser->raw, c);
    if (parser->n_opened > 0 || (c == '<' && parser->call.form == OUTPUT_FORM_TAGGED)) {
        if (c != function[parser->n_opened]) {
            output_no_call(parser);
        } else if (function[++parser->n_opened] == '\0') {
            xml_open(parser);
        }
    } else if (json_scan_is_space(c) || is_separator) {
        return;
    } else if (parser->needs_bracket && c == '[') {
        parser->needs_bracket = false;
    } else if (!parser->needs_bracket && c == '{') {
        parser->mode = MODE_OBJECT;
    } else {
        output_no_call(parser);
    }
}

/* Something that cannot stand here. */
static void fail(struct output_parser *parser, char c)
{
    if (!parser->call.is_named) {
        output_no_call(parser);
        return;
    }
    parser->mode = MODE_BROKEN;
    parser->drops_breaks = false;
    output_feed(parser, c);
}

static void say_argument(struct output_parser *parser, const char *text, size_t n)
{
    if (!parser->call.is_named) {
        buf_append(&parser->call.arguments, text, n);
        return;
    }
    parser->call.said_arguments = parser->call.said_arguments || n > 0;
    output_say(parser, OUTPUT_TOOL_ARGUMENTS, text, n);
}

static void say_code(struct output_parser *parser, uint32_t code)
{
    char text[4];

    say_argument(parser, text, utf8_encode(code, text));
}

/* Four digits are there: a character, or a half of one (a lone one becomes U+FFFD). */
static void unescape_unit(struct output_parser *parser, uint32_t unit)
{
    struct unescape *unescape = &parser->call.unescape;

    if (unit >= 0xdc00 && unit < 0xe000 && unescape->high != 0) {
        say_code(parser, 0x10000 + ((unescape->high - 0xd800) << 10) + (unit - 0xdc00));
        unescape->high = 0;
        return;
    }
    if (unescape->high != 0) {
        say_code(parser, 0xfffd);
        unescape->high = 0;
    }
    if (unit >= 0xd800 && unit < 0xdc00) {
        unescape->high = unit;
    } else {
        say_code(parser, unit >= 0xdc00 && unit < 0xe000 ? 0xfffd : unit);
    }
}

static uint32_t hex_digit(char c)
{
    return (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* A byte inside the string that the arguments are; the scan has found it in order. */
static void unescape_byte(struct output_parser *parser, char c)
{
    static const char from[] = "bfnrt";
    static const char to[] = "\b\f\n\r\t";
    struct unescape *unescape = &parser->call.unescape;
    const char *at;

    if (unescape->pending >= 2) {
        unescape->code = unescape->code << 4 | hex_digit(c);
        if (++unescape->pending == 6) {
            unescape->pending = 0;
            unescape_unit(parser, unescape->code);
        }
        return;
    }
    if (unescape->pending == 1 && c == 'u') {
        unescape->pending = 2;
        unescape->code = 0;
        return;
    }
    if (unescape->pending == 0 && c == '\\') {
        unescape->pending = 1;
        return;
    }
    if (unescape->high != 0) {
        say_code(parser, 0xfffd);
        unescape->high = 0;
    }
    at = unescape->pending == 1 ? strchr(from, c) : NULL;
    unescape->pending = 0;
    say_argument(parser, at != NULL ? &to[at - from] : &c, 1);
}

/* in_string: c stands inside of one. */
static void argument_byte(struct output_parser *parser, char c, bool in_string)
{
    struct call *call = &parser->call;

    if (call->is_string) {
        if (in_string && (c != '"' || call->unescape.pending == 1)) {
            unescape_byte(parser, c);
        } else if (in_string && call->unescape.high != 0) {
            say_code(parser, 0xfffd);
        }
    } else if (in_string && (unsigned char)c < 0x20) {
        char text[8];
        int n = c == '\n' ? snprintf(text, sizeof(text), "\\n")
                          : snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);

        say_argument(parser, text, (size_t)n);
    } else {
        say_argument(parser, &c, 1);
    }
}

/* Says the name when it is certain that this is a call: a bare object is one only with arguments,
 * as an answer in JSON may well have a name. */
static void try_name(struct output_parser *parser)
{
    struct call *call = &parser->call;

    if (call->is_named || !call->has_name ||
        (call->form == OUTPUT_FORM_BARE && !call->has_arguments)) {
        return;
    }
    output_begin_call(parser, buf_str(&call->name), call->name.len);
    say_argument(parser, buf_str(&call->arguments), call->arguments.len);
}

/* The string in call->text; false if it is none, or empty. */
static bool read_string(struct call *call, struct buf *out)
{
    json_t *value = NULL;
    bool ok = json_parse(buf_str(&call->text), call->text.len, &value, NULL) == STATUS_OK &&
              json_is_string(value) && json_string_length(value) > 0;

    if (ok) {
        buf_append(out, json_string_value(value), json_string_length(value));
    }
    json_decref(value);
    return ok;
}

static enum call_field classify(const struct call *call)
{
    const char *key = buf_str(&call->text);

    if (strcmp(key, "\"name\"") == 0 && !call->has_name) {
        return FIELD_NAME;
    }
    if ((strcmp(key, "\"arguments\"") == 0 || strcmp(key, "\"parameters\"") == 0) &&
        !call->has_arguments) {
        return FIELD_ARGUMENTS;
    }
    return FIELD_OTHER;
}

/* False if it cannot be what it is for. */
static NODISCARD bool begin_value(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;

    call->step = CALL_IN_VALUE;
    json_scan_reset(&call->scan);
    buf_clear(&call->text);
    if (call->field == FIELD_ARGUMENTS) {
        call->has_arguments = true;
        call->is_string = c == '"';
        if (call->form == OUTPUT_FORM_BARE && c != '{' && c != '"') {
            return false;
        }
        try_name(parser);
    }
    return true;
}

/* False if the value cannot be what it is for. */
static NODISCARD bool end_value(struct output_parser *parser)
{
    struct call *call = &parser->call;

    call->step = CALL_NEXT;
    if (call->field == FIELD_NAME) {
        call->has_name = read_string(call, &call->name);
        if (!call->has_name) {
            return false;
        }
    }
    try_name(parser);
    return true;
}

static void end_object(struct output_parser *parser, char c)
{
    static const enum place places[] = {
        [OUTPUT_FORM_TAGGED] = PLACE_TAGGED,
        [OUTPUT_FORM_BARE] = PLACE_BARE,
        [OUTPUT_FORM_ARRAY] = PLACE_ARRAY,
    };

    if (!parser->call.is_named) {
        fail(parser, c);
        return;
    }
    if (!parser->call.said_arguments) {
        output_say(parser, OUTPUT_TOOL_ARGUMENTS, "{}", 2);
    }
    output_end_call(parser, places[parser->call.form]);
}

static void structure_byte(struct output_parser *parser, char c);

static void value_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;
    enum json_scan_state before = call->scan.state;
    bool in_string = before == SCAN_STRING || before == SCAN_ESCAPE || before == SCAN_HEX;
    enum json_scan_step step = json_scan_push(&call->scan, c);

    if (step == JSON_SCAN_BAD) {
        fail(parser, c);
        return;
    }
    if (step != JSON_SCAN_AFTER) {
        if (call->field == FIELD_NAME) {
            buf_append_char(&call->text, c);
        } else if (call->field == FIELD_ARGUMENTS) {
            argument_byte(parser, c, in_string);
        }
    }
    if (step != JSON_SCAN_MORE && !end_value(parser)) {
        fail(parser, c);
    } else if (step == JSON_SCAN_AFTER && !json_scan_is_space(c)) {
        structure_byte(parser, c);
    }
}

static void key_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;
    enum json_scan_step step = json_scan_push(&call->scan, c);

    buf_append_char(&call->text, c);
    if (step == JSON_SCAN_BAD) {
        fail(parser, c);
    } else if (step == JSON_SCAN_END) {
        call->field = classify(call);
        call->step = CALL_COLON;
    }
}

/* A byte between the parts of the object, no white space. */
static void structure_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;

    if (call->step == CALL_COLON && c == ':') {
        call->step = CALL_VALUE;
    } else if (call->step == CALL_VALUE && begin_value(parser, c)) {
        value_byte(parser, c);
    } else if (call->step == CALL_NEXT && c == ',') {
        call->step = CALL_KEY;
    } else if ((call->step == CALL_NEXT || call->step == CALL_KEY_OR_END) && c == '}') {
        end_object(parser, c);
    } else if ((call->step == CALL_KEY || call->step == CALL_KEY_OR_END) && c == '"') {
        call->step = CALL_IN_KEY;
        json_scan_reset(&call->scan);
        buf_clear(&call->text);
        key_byte(parser, c);
    } else {
        fail(parser, c);
    }
}

void call_object_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;

    if (!call->is_named) {
        buf_append_char(&parser->raw, c);
    }
    if (call->step == CALL_IN_KEY) {
        key_byte(parser, c);
    } else if (call->step == CALL_IN_VALUE) {
        value_byte(parser, c);
    } else if (!json_scan_is_space(c)) {
        structure_byte(parser, c);
    }
}
