/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/messages and /v1/messages/count_tokens: the body. It becomes a body of chat: system and
 * messages become its messages (a tool_result one of role tool, a tool_use a call of the
 * assistant's), tools its tools, thinking a variable of the template. A last message of the
 * assistant's is continued.
 */
#include "api/messages.h"

#include <stdlib.h>
#include <string.h>

#include "api/chat.h"
#include "api/fields.h"
#include "base/mem.h"

/* Where a block stands, for errors. */
struct place {
    const char *field; /* system, messages */
    size_t message;
};

static const char *type_of(const json_t *block)
{
    return json_string_value(json_object_get(block, "type"));
}

static bool is_type(const json_t *block, const char *type)
{
    const char *text = type_of(block);

    return text != NULL && strcmp(text, type) == 0;
}

static bool refuse_block(const json_t *block, const struct place *place, struct api_error *error)
{
    const char *type = type_of(block);

    if (type == NULL) {
        return api_error_field(error, place->field, "a block of message %zu has no type",
                               place->message);
    }
    return api_error_field(error, place->field,
                           "message %zu has a block of type %.40s, which this server does not take",
                           place->message, type);
}

/* Appends the text of a text block. */
static bool add_text(struct buf *text, const json_t *block, const struct place *place,
                     struct api_error *error)
{
    const json_t *piece = json_object_get(block, "text");

    if (!is_type(block, "text")) {
        return refuse_block(block, place, error);
    }
    if (!json_is_string(piece)) {
        return api_error_field(error, place->field, "a text block of message %zu has no text",
                               place->message);
    }
    buf_append(text, "\n", text->len > 0);
    buf_append(text, json_string_value(piece), json_string_length(piece));
    return true;
}

/* Text of a string, or of an array of text blocks. */
static bool plain_text(const json_t *content, struct buf *text, const struct place *place,
                       struct api_error *error)
{
    if (json_is_string(content)) {
        buf_append(text, json_string_value(content), json_string_length(content));
        return true;
    }
    if (!json_is_array(content)) {
        return api_error_field(error, place->field, "content of message %zu is no text",
                               place->message);
    }
    for (size_t i = 0; i < json_array_size(content); i++) {
        if (!add_text(text, json_array_get(content, i), place, error)) {
            return false;
        }
    }
    return true;
}

static json_t *text_value(const struct buf *text)
{
    return json_stringn(buf_str(text), text->len);
}

static json_t *add_message(json_t *messages, const char *role, const struct buf *text)
{
    json_t *message = json_object();

    json_object_set_new(message, "role", json_string(role));
    json_object_set_new(message, "content", text_value(text));
    json_array_append_new(messages, message);
    return message;
}

/* --- Messages of the user's --- */

static bool add_result(json_t *messages, const json_t *block, const struct place *place,
                       struct api_error *error)
{
    const json_t *id = json_object_get(block, "tool_use_id");
    const json_t *content = field_get(block, "content");
    struct buf text = {0};
    bool ok =
        json_is_string(id)
            ? content == NULL || plain_text(content, &text, place, error)
            : api_error_field(error, place->field,
                              "a tool_result of message %zu has no tool_use_id", place->message);

    if (ok) {
        json_object_set(add_message(messages, "tool", &text), "tool_call_id", (json_t *)id);
    }
    buf_release(&text);
    return ok;
}

/* Text between results becomes messages of their own, in the order in which they stand. */
static bool add_user(json_t *messages, const json_t *content, const struct place *place,
                     struct api_error *error)
{
    struct buf text = {0};
    bool has_text = json_array_size(content) == 0;
    bool ok = true;

    for (size_t i = 0; i < json_array_size(content) && ok; i++) {
        const json_t *block = json_array_get(content, i);

        if (!is_type(block, "tool_result")) {
            ok = add_text(&text, block, place, error);
            has_text = true;
            continue;
        }
        if (has_text) {
            add_message(messages, "user", &text);
            buf_clear(&text);
            has_text = false;
        }
        ok = add_result(messages, block, place, error);
    }
    if (ok && has_text) {
        add_message(messages, "user", &text);
    }
    buf_release(&text);
    return ok;
}

/* --- Messages of the assistant's --- */

static bool add_use(json_t *calls, const json_t *block, const struct place *place,
                    struct api_error *error)
{
    const json_t *name = json_object_get(block, "name");
    const json_t *input = field_get(block, "input");
    json_t *function;
    json_t *call;

    if (!json_is_string(name) || !json_is_string(json_object_get(block, "id"))) {
        return api_error_field(error, place->field, "a tool_use of message %zu needs id and name",
                               place->message);
    }
    if (input != NULL && !json_is_object(input)) {
        return api_error_field(error, place->field,
                               "input of a tool_use of message %zu is no object", place->message);
    }
    function = json_object();
    json_object_set(function, "name", (json_t *)name);
    json_object_set_new(function, "arguments",
                        input == NULL ? json_object() : json_incref((json_t *)input));
    call = json_object();
    json_object_set(call, "id", json_object_get(block, "id"));
    json_object_set_new(call, "type", json_string("function"));
    json_object_set_new(call, "function", function);
    json_array_append_new(calls, call);
    return true;
}

struct assistant_parts {
    struct buf text;
    struct buf thinking;
    json_t *calls;
};

static bool add_part(struct assistant_parts *parts, const json_t *block, const struct place *place,
                     struct api_error *error)
{
    const json_t *thinking = json_object_get(block, "thinking");

    if (is_type(block, "redacted_thinking")) {
        return true;
    }
    if (is_type(block, "tool_use")) {
        return add_use(parts->calls, block, place, error);
    }
    if (!is_type(block, "thinking")) {
        return add_text(&parts->text, block, place, error);
    }
    if (!json_is_string(thinking)) {
        return api_error_field(error, place->field, "a thinking block of message %zu has no text",
                               place->message);
    }
    buf_append(&parts->thinking, json_string_value(thinking), json_string_length(thinking));
    return true;
}

static bool add_assistant(json_t *messages, const json_t *content, const struct place *place,
                          struct api_error *error)
{
    struct assistant_parts parts = {.calls = json_array()};
    bool ok = true;

    for (size_t i = 0; i < json_array_size(content) && ok; i++) {
        ok = add_part(&parts, json_array_get(content, i), place, error);
    }
    if (ok) {
        json_t *message = add_message(messages, "assistant", &parts.text);

        if (parts.thinking.len > 0) {
            json_object_set_new(message, "reasoning_content", text_value(&parts.thinking));
        }
        if (json_array_size(parts.calls) > 0) {
            json_object_set(message, "tool_calls", parts.calls);
        }
    }
    buf_release(&parts.text);
    buf_release(&parts.thinking);
    json_decref(parts.calls);
    return ok;
}

/* --- The conversation --- */

static bool add_any(json_t *messages, const json_t *message, const struct place *place,
                    struct api_error *error)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = field_get(message, "content");
    bool is_user = role != NULL && strcmp(role, "user") == 0;
    bool is_assistant = role != NULL && strcmp(role, "assistant") == 0;
    struct buf text = {0};
    bool ok;

    if (role == NULL || (!is_user && !is_assistant && strcmp(role, "system") != 0)) {
        return api_error_field(error, "messages", "role of message %zu must be user or assistant",
                               place->message);
    }
    if (content == NULL) {
        return api_error_field(error, "messages", "message %zu has no content", place->message);
    }
    if (json_is_array(content) && is_user) {
        return add_user(messages, content, place, error);
    }
    if (json_is_array(content) && is_assistant) {
        return add_assistant(messages, content, place, error);
    }
    ok = plain_text(content, &text, place, error);
    if (ok) {
        add_message(messages, role, &text);
    }
    buf_release(&text);
    return ok;
}

static bool add_system(json_t *messages, const json_t *system, struct api_error *error)
{
    const struct place place = {.field = "system"};
    struct buf text = {0};
    bool ok = system == NULL || plain_text(system, &text, &place, error);

    if (ok && text.len > 0) {
        add_message(messages, "system", &text);
    }
    buf_release(&text);
    return ok;
}

static bool translate_messages(const json_t *from, json_t *chat, struct api_error *error)
{
    json_t *messages = json_array();
    const json_t *list = NULL;
    const json_t *last;

    json_object_set_new(chat, "messages", messages);
    if (!field_array(from, "messages", &list, error) ||
        !add_system(messages, field_get(from, "system"), error)) {
        return false;
    }
    if (json_array_size(list) == 0) {
        return api_error_field(error, "messages", "must hold at least one message");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const struct place place = {.field = "messages", .message = i};

        if (!add_any(messages, json_array_get(list, i), &place, error)) {
            return false;
        }
    }
    last = json_array_get(messages, json_array_size(messages) - 1);
    if (strcmp(json_string_value(json_object_get(last, "role")), "assistant") == 0 &&
        json_object_get(last, "tool_calls") == NULL) {
        json_object_set_new(chat, "continue_final_message", json_true());
    }
    return true;
}

/* --- Tools, thinking --- */

static bool translate_tools(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *list = NULL;
    json_t *tools;

    if (!field_array(from, "tools", &list, error) || list == NULL) {
        return error->status == 0;
    }
    tools = json_array();
    json_object_set_new(chat, "tools", tools);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *tool = json_array_get(list, i);
        const json_t *description = field_get(tool, "description");
        json_t *function;
        json_t *out;

        if (type_of(tool) != NULL && !is_type(tool, "custom")) {
            return api_error_field(error, "tools", "entry %zu of type %.40s is not supported", i,
                                   type_of(tool));
        }
        if (!json_is_string(json_object_get(tool, "name")) ||
            !json_is_object(json_object_get(tool, "input_schema"))) {
            return api_error_field(error, "tools", "entry %zu needs name and input_schema", i);
        }
        function = json_object();
        json_object_set(function, "name", json_object_get(tool, "name"));
        if (json_is_string(description)) {
            json_object_set(function, "description", (json_t *)description);
        }
        json_object_set(function, "parameters", json_object_get(tool, "input_schema"));
        out = json_object();
        json_object_set_new(out, "type", json_string("function"));
        json_object_set_new(out, "function", function);
        json_array_append_new(tools, out);
    }
    return true;
}

static json_t *named_function(const json_t *name)
{
    json_t *function = json_object();
    json_t *out = json_object();

    json_object_set(function, "name", (json_t *)name);
    json_object_set_new(out, "type", json_string("function"));
    json_object_set_new(out, "function", function);
    return out;
}

static bool translate_choice(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *choice = NULL;
    bool one = false;

    if (!field_object(from, "tool_choice", &choice, error) ||
        !field_bool(choice, "disable_parallel_tool_use", &one, error)) {
        return false;
    }
    if (choice == NULL) {
        return true;
    }
    json_object_set_new(chat, "parallel_tool_calls", json_boolean(!one));
    if (is_type(choice, "auto") || is_type(choice, "none")) {
        json_object_set_new(chat, "tool_choice", json_string(type_of(choice)));
    } else if (is_type(choice, "any")) {
        json_object_set_new(chat, "tool_choice", json_string("required"));
    } else if (is_type(choice, "tool") && json_is_string(json_object_get(choice, "name"))) {
        json_object_set_new(chat, "tool_choice", named_function(json_object_get(choice, "name")));
    } else {
        return api_error_field(error, "tool_choice",
                               "type must be auto, any, none, or tool with a name");
    }
    return true;
}

static bool translate_thinking(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *thinking = NULL;
    const json_t *kwargs = NULL;
    json_t *variables;

    if (!field_object(from, "thinking", &thinking, error) ||
        !field_object(from, "chat_template_kwargs", &kwargs, error)) {
        return false;
    }
    variables = kwargs == NULL ? json_object() : json_copy((json_t *)kwargs);
    json_object_set_new(chat, "chat_template_kwargs", variables);
    if (thinking == NULL) {
        return true;
    }
    if (!is_type(thinking, "enabled") && !is_type(thinking, "disabled") &&
        !is_type(thinking, "adaptive")) {
        return api_error_field(error, "thinking", "type must be enabled, disabled or adaptive");
    }
    json_object_set_new(variables, "enable_thinking", json_boolean(!is_type(thinking, "disabled")));
    return true;
}

/* output_config.format asks for JSON of a schema. */
static bool check_output(const json_t *from, struct api_error *error)
{
    static const char *const refused[] = {"mcp_servers", "container", "output_format"};
    const json_t *config = NULL;

    if (!field_object(from, "output_config", &config, error)) {
        return false;
    }
    if (field_get(config, "format") != NULL) {
        return api_error_field(error, "output_config.format", "is not supported by this server");
    }
    return sampling_refuse(from, refused, ARRAY_LEN(refused), error);
}

bool messages_translate(const json_t *from, json_t **ret_chat, struct api_error *error)
{
    json_t *chat = json_object();

    if (!translate_messages(from, chat, error) || !translate_tools(from, chat, error) ||
        !translate_choice(from, chat, error) || !translate_thinking(from, chat, error) ||
        !check_output(from, error)) {
        json_decref(chat);
        return false;
    }
    *ret_chat = chat;
    return true;
}

/* --- The endpoints --- */

static bool make_prompt(struct generation *g, const json_t *json, struct api_error *error)
{
    struct messages_state *m = xalloc(sizeof(*m));
    struct chat_body body = {0};
    bool ok;

    g->state = m;
    ok = messages_translate(json, &m->chat, error) && chat_body_parse(&body, m->chat, error) &&
         chat_generation_prompt(g, &body);
    chat_body_release(&body);
    return ok;
}

static bool work(struct answer *answer)
{
    const json_t *json = answer->json;
    struct api_error *error = &answer->error;
    int64_t max_tokens = 0;
    bool given = false;
    struct generation *g;

    if (!generation_open(answer, &messages_format, "msg_", &g) ||
        !field_int(json, "max_tokens", 1, INT32_MAX, &max_tokens, &given, error)) {
        return false;
    }
    if (!given) {
        return api_error_field(error, "max_tokens", "is missing");
    }
    if (!sampling_parse(g, json, error) ||
        !sampling_parse_stops(g, json, "stop_sequences", error)) {
        return false;
    }
    if (g->spec.n != 1) {
        return api_error_field(error, "n", "a message has one answer");
    }
    g->spec.max_tokens = (uint32_t)max_tokens;
    return make_prompt(g, json, error) && generation_check(g, "max_tokens");
}

const struct endpoint endpoint_messages = {
    .work = work,
    .now = generation_start,
    .gone = generation_gone,
    .error_body = messages_error_body,
};

static bool count(struct answer *answer)
{
    struct generation *g;

    return generation_open_text(answer, &messages_format, &g) &&
           make_prompt(g, answer->json, &answer->error);
}

static void count_now(struct answer *answer)
{
    const struct generation *g = answer->data;
    struct buf out = {0};

    buf_printf(&out, "{\"input_tokens\":%zu}", g->prompts[0].n);
    answer_json(answer, 200, &out);
    buf_release(&out);
}

const struct endpoint endpoint_messages_count = {
    .work = count,
    .now = count_now,
    .gone = generation_gone,
    .error_body = messages_error_body,
};
