/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls in XML. Their arguments become one JSON object. A value that by the tool's schema can only
 * be a string, or of which nothing is known, comes out as it comes; another one is read to its end:
 * it is taken as it stands if it is JSON of a type that is allowed, and is a string otherwise. One
 * line break at each end of a value belongs to the form.
 */
#include "chat/output_priv.h"

enum { NAME_MAX_BYTES = 256, SCHEMA_DEPTH = 8 };

enum {
    TYPE_STRING = 1,
    TYPE_NUMBER = 2,
    TYPE_BOOLEAN = 4,
    TYPE_OBJECT = 8,
    TYPE_ARRAY = 16,
    TYPE_NULL = 32,
};

static unsigned type_of_name(const json_t *name)
{
    static const struct {
        const char *name;
        unsigned type;
    } names[] = {
        {"string", TYPE_STRING},   {"number", TYPE_NUMBER}, {"integer", TYPE_NUMBER},
        {"boolean", TYPE_BOOLEAN}, {"object", TYPE_OBJECT}, {"array", TYPE_ARRAY},
        {"null", TYPE_NULL},
    };

    for (size_t i = 0; json_is_string(name) && i < ARRAY_LEN(names); i++) {
        if (strcmp(json_string_value(name), names[i].name) == 0) {
            return names[i].type;
        }
    }
    return 0;
}

static unsigned type_of_value(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return TYPE_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return TYPE_BOOLEAN;
    case JSON_OBJECT:
        return TYPE_OBJECT;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    default:
        return TYPE_NULL;
    }
}

/* The types that a schema allows; 0 if it does not say. */
static unsigned schema_types(const json_t *schema, int depth)
{
    static const char *const unions[] = {"anyOf", "oneOf", "allOf"};
    const json_t *type = json_object_get(schema, "type");
    unsigned types = type_of_name(type);
    const json_t *item;
    size_t i;

    json_array_foreach((json_t *)type, i, item)
    {
        types |= type_of_name(item);
    }
    for (size_t u = 0; types == 0 && depth < SCHEMA_DEPTH && u < ARRAY_LEN(unions); u++) {
        json_array_foreach(json_object_get(schema, unions[u]), i, item)
        {
            types |= schema_types(item, depth + 1);
        }
    }
    if (types == 0) {
        json_array_foreach(json_object_get(schema, "enum"), i, item)
        {
            types |= type_of_value(item);
        }
    }
    return types;
}

/* The properties of the tool of that name; NULL if there are none. Takes the request's form
 * {"function": {"name", "parameters"}} and the flat one, with input_schema too. */
static const json_t *find_properties(const json_t *tools, const struct buf *name)
{
    const json_t *tool;
    size_t i;

    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        const json_t *text;
        const json_t *schema;

        function = function != NULL ? function : tool;
        text = json_object_get(function, "name");
        if (!json_is_string(text) || strcmp(json_string_value(text), buf_str(name)) != 0) {
            continue;
        }
        schema = json_object_get(function, "parameters");
        if (schema == NULL) {
            schema = json_object_get(function, "input_schema");
        }
        return json_object_get(schema, "properties");
    }
    return NULL;
}

static void say(struct output_parser *parser, const char *text, size_t n)
{
    output_say(parser, OUTPUT_TOOL_ARGUMENTS, text, n);
}

static void say_text(struct output_parser *parser, const char *text)
{
    say(parser, text, strlen(text));
}

static void say_string(struct output_parser *parser, const char *text, size_t n)
{
    struct buf json = {0};

    json_write_str(&json, text, n, false);
    say(parser, json.data, json.len);
    buf_release(&json);
}

void xml_open(struct output_parser *parser)
{
    parser->mode = MODE_FUNCTION;
}

/* Without white space around. */
static void trim(struct buf *text)
{
    size_t skip = 0;

    while (skip < text->len && json_scan_is_space(text->data[skip])) {
        skip++;
    }
    while (text->len > skip && json_scan_is_space(text->data[text->len - 1])) {
        text->len--;
    }
    if (text->data != NULL) {
        text->len -= skip;
        memmove(text->data, text->data + skip, text->len);
        text->data[text->len] = '\0';
    }
}

static void begin_function(struct output_parser *parser)
{
    struct call *call = &parser->call;

    trim(&call->text);
    if (call->text.len == 0) {
        output_no_call(parser);
        return;
    }
    call->properties = find_properties(parser->options.schemas, &call->text);
    output_begin_call(parser, call->text.data, call->text.len);
    parser->mode = MODE_BODY;
}

/* Whether the parameter's name, in call->text, comes again; it is noted. */
static bool is_seen(struct call *call)
{
    size_t n = call->text.len;

    for (size_t at = 0; at < call->seen.len;) {
        size_t len;

        memcpy(&len, call->seen.data + at, sizeof(len));
        at += sizeof(len);
        if (len == n && memcmp(call->seen.data + at, buf_str(&call->text), n) == 0) {
            return true;
        }
        at += len;
    }
    buf_append(&call->seen, &n, sizeof(n));
    buf_append(&call->seen, buf_str(&call->text), n);
    return false;
}

static void begin_parameter(struct output_parser *parser)
{
    struct call *call = &parser->call;

    trim(&call->text);
    call->types = schema_types(json_object_get(call->properties, buf_str(&call->text)), 0);
    call->is_streamed = (call->types & ~(unsigned)TYPE_STRING) == 0;
    call->is_dropped = call->text.len == 0 || call->json != XML_NO_JSON || is_seen(call);
    call->at_start = true;
    call->holds_break = false;
    buf_clear(&call->value);
    parser->mode = MODE_VALUE;
    if (call->is_dropped) {
        return;
    }
    say_text(parser, call->n_params == 0 ? "{" : ", ");
    call->n_params++;
    say_string(parser, buf_str(&call->text), call->text.len);
    say(parser, ": ", 2);
    if (call->is_streamed) {
        say(parser, "\"", 1);
    }
}

void xml_name_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;
    bool is_function = parser->mode == MODE_FUNCTION;

    if (is_function) {
        buf_append_char(&parser->raw, c);
        if (c == '<' || c == '\n' || call->text.len > NAME_MAX_BYTES) {
            output_no_call(parser);
            return;
        }
    }
    if (c != '>') {
        buf_append_char(&call->text, c);
    } else if (is_function) {
        begin_function(parser);
    } else {
        begin_parameter(parser);
    }
}

/* A byte of a JSON text that scan follows; control characters in its strings are escaped. */
static enum json_scan_step say_json_byte(struct output_parser *parser, struct json_scan *scan,
                                         char c)
{
    bool in_string = scan->state == SCAN_STRING;
    char escaped[8];

    if (in_string && (unsigned char)c < 0x20) {
        snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)c);
        say(parser, escaped, 6);
    } else {
        say(parser, &c, 1);
    }
    return json_scan_push(scan, c);
}

bool xml_takes_tags(const struct output_parser *parser)
{
    return parser->mode == MODE_BODY && parser->call.json != XML_IN_JSON;
}

/* Between parameters, where there should be nothing, or an object instead of them. */
void xml_body_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;
    enum json_scan_step step;

    if (call->json == XML_NO_JSON && call->n_params == 0 && c == '{') {
        call->json = XML_IN_JSON;
        json_scan_reset(&call->scan);
    }
    if (call->json == XML_IN_JSON) {
        step = say_json_byte(parser, &call->scan, c);
        if (step != JSON_SCAN_MORE) {
            call->json = step == JSON_SCAN_END ? XML_AFTER_JSON : XML_BAD_JSON;
        }
    } else if (call->json == XML_BAD_JSON) {
        say(parser, &c, 1);
    }
}

/* A byte of a value, the breaks at its ends taken off. */
static void put(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;

    if (call->is_dropped) {
        return;
    }
    if (!call->is_streamed) {
        buf_append_char(&call->value, c);
    } else if (c == '"' || c == '\\') {
        char escaped[2] = {'\\', c};

        say(parser, escaped, 2);
    } else if (c == '\n') {
        say(parser, "\\n", 2);
    } else if ((unsigned char)c < 0x20) {
        char escaped[8];

        snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)c);
        say(parser, escaped, 6);
    } else {
        say(parser, &c, 1);
    }
}

void xml_value_byte(struct output_parser *parser, char c)
{
    struct call *call = &parser->call;
    bool at_start = call->at_start;

    call->at_start = false;
    if (at_start && c == '\n') {
        return;
    }
    if (call->holds_break) {
        put(parser, '\n');
    }
    call->holds_break = c == '\n';
    if (c != '\n') {
        put(parser, c);
    }
}

/* The type of a text that is one JSON value, 0 if it is none. */
static unsigned type_of_json(const char *text, size_t n)
{
    struct json_scan scan = {0};
    enum json_scan_step step = JSON_SCAN_MORE;
    size_t i = 0;

    while (i < n && step == JSON_SCAN_MORE) {
        step = json_scan_push(&scan, text[i++]);
    }
    if (step == JSON_SCAN_MORE && scan.open.len == 0 && json_scan_is_whole_number(&scan)) {
        step = JSON_SCAN_END;
    }
    json_scan_release(&scan);
    if (step != JSON_SCAN_END || i < n) {
        return 0;
    }
    switch (text[0]) {
    case '{':
        return TYPE_OBJECT;
    case '[':
        return TYPE_ARRAY;
    case '"':
        return TYPE_STRING;
    case 't':
    case 'f':
        return TYPE_BOOLEAN;
    case 'n':
        return TYPE_NULL;
    default:
        return TYPE_NUMBER;
    }
}

static void say_json(struct output_parser *parser, const struct buf *text)
{
    struct json_scan scan = {0};

    for (size_t i = 0; i < text->len; i++) {
        (void)say_json_byte(parser, &scan, text->data[i]);
    }
    json_scan_release(&scan);
}

static void say_typed(struct output_parser *parser)
{
    static const struct {
        const char *python;
        const char *json;
        unsigned type;
    } literals[] = {
        {"True", "true", TYPE_BOOLEAN},
        {"False", "false", TYPE_BOOLEAN},
        {"None", "null", TYPE_NULL},
    };
    struct call *call = &parser->call;
    struct buf text = {0};
    unsigned type;

    buf_append(&text, buf_str(&call->value), call->value.len);
    trim(&text);
    type = type_of_json(text.data, text.len);
    for (size_t i = 0; i < ARRAY_LEN(literals); i++) {
        if ((call->types & literals[i].type) != 0 && strcmp(text.data, literals[i].python) == 0) {
            type = literals[i].type;
            buf_clear(&text);
            buf_append_str(&text, literals[i].json);
        }
    }
    if (type != TYPE_STRING && (call->types & type) != 0) {
        say_json(parser, &text);
    } else {
        say_string(parser, buf_str(&call->value), call->value.len);
    }
    buf_release(&text);
}

static void end_parameter(struct output_parser *parser)
{
    struct call *call = &parser->call;

    parser->mode = MODE_BODY;
    if (call->is_dropped) {
        return;
    }
    if (call->is_streamed) {
        say(parser, "\"", 1);
    } else {
        say_typed(parser);
    }
}

void xml_marker(struct output_parser *parser, enum marker marker)
{
    switch (marker) {
    case MARKER_PARAMETER:
        buf_clear(&parser->call.text);
        parser->mode = MODE_PARAMETER;
        break;
    case MARKER_PARAMETER_END:
        end_parameter(parser);
        break;
    default: /* the end of the function, or of the call without it */
        if (parser->call.json == XML_NO_JSON) {
            say_text(parser, parser->call.n_params == 0 ? "{}" : "}");
        }
        output_end_call(parser, marker == MARKER_TOOL_END ? PLACE_CLOSED : PLACE_TAGGED);
        break;
    }
}

void xml_finish(struct output_parser *parser)
{
    struct call *call = &parser->call;

    if (call->holds_break) {
        put(parser, '\n');
    }
    if (!call->is_streamed && !call->is_dropped) {
        say(parser, buf_str(&call->value), call->value.len);
    }
}
