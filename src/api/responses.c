/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/responses and /v1/responses/input_tokens: the body. It becomes a body of chat:
 * instructions and items of input its messages, flat tools nested ones. What would need a store of
 * answers is refused.
 */
#include "api/responses.h"

#include <stdlib.h>
#include <string.h>

#include "api/chat.h"
#include "api/fields.h"
#include "base/mem.h"

static const char *type_of(const json_t *object)
{
    return json_string_value(json_object_get(object, "type"));
}

static bool is_type(const json_t *object, const char *type)
{
    const char *text = type_of(object);

    return text != NULL && strcmp(text, type) == 0;
}

/* --- input --- */

/* Content, or an output: a string or parts with text, which chat reads as they are. */
static bool check_content(const json_t *content, size_t item, struct api_error *error)
{
    if (json_is_string(content)) {
        return true;
    }
    if (!json_is_array(content)) {
        return api_error_field(error, "input", "entry %zu has neither text nor parts", item);
    }
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i);
        const char *type = type_of(part);

        if (!is_type(part, "input_text") && !is_type(part, "output_text") &&
            !is_type(part, "text")) {
            return api_error_field(error, "input",
                                   "entry %zu has a part of type %.40s, and this model reads text",
                                   item, type == NULL ? "(none)" : type);
        }
        if (!json_is_string(json_object_get(part, "text"))) {
            return api_error_field(error, "input", "part %zu of entry %zu has no text", i, item);
        }
    }
    return true;
}

static bool add_message(json_t *messages, const json_t *item, size_t i, struct api_error *error)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer"};
    const char *role = json_string_value(json_object_get(item, "role"));
    json_t *message;
    bool known = false;

    for (size_t j = 0; role != NULL && j < ARRAY_LEN(roles); j++) {
        known = known || strcmp(role, roles[j]) == 0;
    }
    if (!known) {
        return api_error_field(error, "input",
                               "role of entry %zu must be user, assistant, system or developer", i);
    }
    if (!check_content(json_object_get(item, "content"), i, error)) {
        return false;
    }
    message = json_object();
    json_object_set_new(message, "role", json_string(role));
    json_object_set(message, "content", json_object_get(item, "content"));
    json_array_append_new(messages, message);
    return true;
}

/* Calls join the assistant's message that they follow. */
static bool add_call(json_t *messages, const json_t *item, size_t i, struct api_error *error)
{
    static const char *const needed[] = {"call_id", "name", "arguments"};
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    json_t *function;
    json_t *call;

    for (size_t j = 0; j < ARRAY_LEN(needed); j++) {
        if (!json_is_string(json_object_get(item, needed[j]))) {
            return api_error_field(error, "input", "entry %zu needs a text %s", i, needed[j]);
        }
    }
    if (role == NULL || strcmp(role, "assistant") != 0) {
        last = json_object();
        json_object_set_new(last, "role", json_string("assistant"));
        json_object_set_new(last, "content", json_null());
        json_array_append_new(messages, last);
    }
    if (json_object_get(last, "tool_calls") == NULL) {
        json_object_set_new(last, "tool_calls", json_array());
    }
    function = json_object();
    json_object_set(function, "name", json_object_get(item, "name"));
    json_object_set(function, "arguments", json_object_get(item, "arguments"));
    call = json_object();
    json_object_set(call, "id", json_object_get(item, "call_id"));
    json_object_set_new(call, "type", json_string("function"));
    json_object_set_new(call, "function", function);
    json_array_append_new(json_object_get(last, "tool_calls"), call);
    return true;
}

static bool add_output(json_t *messages, const json_t *item, size_t i, struct api_error *error)
{
    json_t *message;

    if (!json_is_string(json_object_get(item, "call_id"))) {
        return api_error_field(error, "input", "entry %zu needs a text call_id", i);
    }
    if (!check_content(json_object_get(item, "output"), i, error)) {
        return false;
    }
    message = json_object();
    json_object_set_new(message, "role", json_string("tool"));
    json_object_set(message, "tool_call_id", json_object_get(item, "call_id"));
    json_object_set(message, "content", json_object_get(item, "output"));
    json_array_append_new(messages, message);
    return true;
}

static bool add_item(json_t *messages, const json_t *item, size_t i, struct api_error *error)
{
    if (!json_is_object(item)) {
        return api_error_field(error, "input", "entry %zu is no object", i);
    }
    if (field_get(item, "type") == NULL || is_type(item, "message")) {
        return add_message(messages, item, i, error);
    }
    if (is_type(item, "function_call")) {
        return add_call(messages, item, i, error);
    }
    if (is_type(item, "function_call_output")) {
        return add_output(messages, item, i, error);
    }
    if (is_type(item, "reasoning")) { /* of turns that are over: templates leave it out, too */
        return true;
    }
    return api_error_field(error, "input", "entry %zu of type %.40s is not supported", i,
                           type_of(item) == NULL ? "(none)" : type_of(item));
}

static void add_plain(json_t *messages, const char *role, const json_t *text)
{
    json_t *message = json_object();

    json_object_set_new(message, "role", json_string(role));
    json_object_set(message, "content", (json_t *)text);
    json_array_append_new(messages, message);
}

static bool translate_input(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *instructions = field_get(from, "instructions");
    const json_t *input = field_get(from, "input");
    json_t *messages = json_array();

    json_object_set_new(chat, "messages", messages);
    if (instructions != NULL && !json_is_string(instructions)) {
        return api_error_field(error, "instructions", "must be a string");
    }
    if (json_string_length(instructions) > 0) {
        add_plain(messages, "system", instructions);
    }
    if (json_is_string(input)) {
        add_plain(messages, "user", input);
        return true;
    }
    if (json_array_size(input) == 0) {
        return api_error_field(error, "input", "must be a string or a list of items");
    }
    for (size_t i = 0; i < json_array_size(input); i++) {
        if (!add_item(messages, json_array_get(input, i), i, error)) {
            return false;
        }
    }
    return json_array_size(messages) > 0 ||
           api_error_field(error, "input", "holds nothing that the model reads");
}

/* --- tools --- */

/* {"type":"function","name":...} in chat's form, with what else chat's templates read. */
static json_t *nested_function(const json_t *flat)
{
    static const char *const members[] = {"name", "description", "parameters"};
    json_t *function = json_object();
    json_t *out = json_object();

    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (field_get(flat, members[i]) != NULL) {
            json_object_set(function, members[i], json_object_get(flat, members[i]));
        }
    }
    json_object_set_new(out, "type", json_string("function"));
    json_object_set_new(out, "function", function);
    return out;
}

static bool nested_list(const json_t *list, const char *field, json_t *out, struct api_error *error)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *tool = json_array_get(list, i);

        if (!is_type(tool, "function")) {
            return api_error_field(error, field, "entry %zu of type %.40s is not supported", i,
                                   type_of(tool) == NULL ? "(none)" : type_of(tool));
        }
        json_array_append_new(out, nested_function(tool));
    }
    return true;
}

static bool translate_tools(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *list = NULL;
    json_t *tools = json_array();

    json_object_set_new(chat, "tools", tools);
    return field_array(from, "tools", &list, error) && nested_list(list, "tools", tools, error);
}

static bool translate_choice(const json_t *from, json_t *chat, struct api_error *error)
{
    const json_t *choice = field_get(from, "tool_choice");
    const json_t *list = NULL;
    json_t *allowed;
    json_t *tools;
    json_t *out;

    if (choice == NULL || json_is_string(choice)) {
        json_object_set(chat, "tool_choice", (json_t *)choice);
        return true;
    }
    if (is_type(choice, "function")) {
        json_object_set_new(chat, "tool_choice", nested_function(choice));
        return true;
    }
    if (!is_type(choice, "allowed_tools") || !field_array(choice, "tools", &list, error)) {
        return api_error_field(error, "tool_choice",
                               "must be none, auto, required, a function or allowed_tools");
    }
    out = json_object();
    allowed = json_object();
    tools = json_array();
    json_object_set_new(chat, "tool_choice", out);
    json_object_set_new(out, "type", json_string("allowed_tools"));
    json_object_set_new(out, "allowed_tools", allowed);
    json_object_set(allowed, "mode", json_object_get(choice, "mode"));
    json_object_set_new(allowed, "tools", tools);
    return nested_list(list, "tool_choice", tools, error);
}

/* --- The rest --- */

static bool check_text(const json_t *from, struct api_error *error)
{
    const json_t *text = NULL;
    const json_t *format = NULL;

    if (!field_object(from, "text", &text, error) ||
        !field_object(text, "format", &format, error)) {
        return false;
    }
    if (format != NULL && !is_type(format, "text")) {
        return api_error_field(error, "text.format",
                               "type \"%.40s\" is not supported by this server",
                               type_of(format) == NULL ? "(none)" : type_of(format));
    }
    return true;
}

static bool check_truncation(const json_t *from, struct api_error *error)
{
    const char *truncation = NULL;

    if (!field_text(from, "truncation", &truncation, error)) {
        return false;
    }
    if (truncation != NULL && strcmp(truncation, "disabled") != 0) {
        return api_error_field(error, "truncation", "other than disabled is not supported");
    }
    return true;
}

static bool translate_options(const json_t *from, json_t *chat, struct api_error *error)
{
    static const char *const same[] = {"parallel_tool_calls", "chat_template_kwargs"};
    static const char *const refused[] = {"previous_response_id", "background", "conversation",
                                          "prompt"};
    const json_t *reasoning = NULL;
    const char *effort = NULL;

    if (!sampling_refuse(from, refused, ARRAY_LEN(refused), error) ||
        !field_object(from, "reasoning", &reasoning, error) ||
        !field_text(reasoning, "effort", &effort, error)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        json_object_set(chat, same[i], json_object_get(from, same[i]));
    }
    if (effort != NULL) {
        json_object_set_new(chat, "reasoning_effort", json_string(effort));
    }
    return check_text(from, error) && check_truncation(from, error);
}

bool responses_translate(const json_t *from, json_t **ret_chat, struct api_error *error)
{
    json_t *chat = json_object();

    if (!translate_input(from, chat, error) || !translate_tools(from, chat, error) ||
        !translate_choice(from, chat, error) || !translate_options(from, chat, error)) {
        json_decref(chat);
        return false;
    }
    *ret_chat = chat;
    return true;
}

/* --- The endpoints --- */

/* What chat finds wrong with messages is wrong with input. */
static bool in_our_terms(bool ok, struct api_error *error)
{
    static const char theirs[] = "messages: ";
    char text[sizeof(error->message)];

    if (ok || strcmp(error->param, "messages") != 0) {
        return ok;
    }
    snprintf(error->param, sizeof(error->param), "input");
    if (strncmp(error->message, theirs, sizeof(theirs) - 1) == 0) {
        memcpy(text, error->message, sizeof(text));
        snprintf(error->message, sizeof(error->message), "input: %s", text + sizeof(theirs) - 1);
    }
    return false;
}

static bool make_prompt(struct generation *g, const json_t *json, struct api_error *error)
{
    struct responses_state *r = xalloc(sizeof(*r));
    struct chat_body body = {0};
    bool ok;

    g->state = r;
    ok = responses_translate(json, &r->chat, error) &&
         in_our_terms(chat_body_parse(&body, r->chat, error) && chat_generation_prompt(g, &body),
                      error);
    chat_body_release(&body);
    return ok;
}

/* include: what of it we know; the rest asks for what there never is. top_logprobs. */
static bool parse_logprobs(struct generation *g, const json_t *body, struct api_error *error)
{
    static const char ours[] = "message.output_text.logprobs";
    const json_t *include = NULL;
    int64_t top = 0;

    if (!field_array(body, "include", &include, error) ||
        !field_int(body, "top_logprobs", 0, PLAN_MAX_TOP, &top, NULL, error)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(include); i++) {
        const char *what = json_string_value(json_array_get(include, i));

        g->spec.logprobs = g->spec.logprobs || (what != NULL && strcmp(what, ours) == 0);
    }
    if (top > 0 && !g->spec.logprobs) {
        return api_error_field(error, "top_logprobs", "needs \"include\": [\"%s\"]", ours);
    }
    g->spec.n_top = (uint32_t)top;
    return true;
}

static bool work(struct answer *answer)
{
    const json_t *json = answer->json;
    struct api_error *error = &answer->error;
    int64_t max_tokens = 0;
    bool given = false;
    struct generation *g;

    if (!generation_open(answer, &responses_format, "resp_", &g) ||
        !field_int(json, "max_output_tokens", 1, INT32_MAX, &max_tokens, &given, error) ||
        !sampling_parse(g, json, error) || !sampling_parse_stops(g, json, "stop", error) ||
        !parse_logprobs(g, json, error)) {
        return false;
    }
    if (g->spec.n != 1) {
        return api_error_field(error, "n", "a response has one answer");
    }
    g->spec.max_tokens = (uint32_t)max_tokens;
    if (!make_prompt(g, json, error)) {
        return false;
    }
    ((struct responses_state *)g->state)->max_tokens = (uint32_t)max_tokens;
    return generation_check(g, given ? "max_output_tokens" : NULL);
}

const struct endpoint endpoint_responses = {
    .work = work,
    .now = generation_start,
    .gone = generation_gone,
};

static bool count(struct answer *answer)
{
    struct generation *g;

    return generation_open_text(answer, &responses_format, &g) &&
           make_prompt(g, answer->json, &answer->error);
}

static void count_now(struct answer *answer)
{
    const struct generation *g = answer->data;
    struct buf out = {0};

    buf_printf(&out, "{\"object\":\"response.input_tokens\",\"input_tokens\":%zu}",
               g->prompts[0].n);
    answer_json(answer, 200, &out);
    buf_release(&out);
}

const struct endpoint endpoint_responses_count = {
    .work = count,
    .now = count_now,
    .gone = generation_gone,
};

static void stored_now(struct answer *answer)
{
    api_error_field(&answer->error, "store", "answers are not kept by this server");
    answer_failed(answer);
}

const struct endpoint endpoint_responses_stored = {
    .now = stored_now,
};
