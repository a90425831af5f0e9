/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/chat/completions: the body. What is answered: chat_format.c. */
#include "api/chat.h"

#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "api/generate.h"
#include "base/mem.h"

enum {
    MAX_TOOLS = 1024,      /* they are looked up by name, one for one */
    MAX_TAIL_BYTES = 1024, /* of a template, behind the last message's text */
};

/* --- tools, tool_choice --- */

static bool check_tools(const json_t *tools, struct api_error *error)
{
    if (json_array_size(tools) > MAX_TOOLS) {
        return api_error_field(error, "tools", "%zu tools, at most %d", json_array_size(tools),
                               MAX_TOOLS);
    }
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const json_t *name = json_object_get(function, "name");

        if (!json_is_string(name) || json_string_length(name) == 0) {
            return api_error_field(
                error, "tools",
                "entry %zu is no {\"type\": \"function\", \"function\": {\"name\": "
                "...}}",
                i);
        }
    }
    return true;
}

static json_t *find_tool(const json_t *tools, const char *name)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        const char *text =
            json_string_value(json_object_get(json_object_get(tool, "function"), "name"));

        if (text != NULL && strcmp(text, name) == 0) {
            return tool;
        }
    }
    return NULL;
}

static bool parse_choice_object(struct chat_body *body, const json_t *choice,
                                struct api_error *error)
{
    const json_t *function = json_object_get(choice, "function");
    const char *name = json_string_value(json_object_get(function, "name"));

    if (name == NULL) {
        return api_error_field(error, "tool_choice", "names no function");
    }
    if (find_tool(body->tools, name) == NULL) {
        return api_error_field(error, "tool_choice", "\"%.100s\" is none of the tools", name);
    }
    body->choice = CHAT_TOOLS_NAMED;
    body->tool_name = name;
    return true;
}

static bool mode_of(struct chat_body *body, const char *mode, struct api_error *error)
{
    if (strcmp(mode, "none") == 0) {
        body->choice = CHAT_TOOLS_NONE;
        return true;
    }
    if (strcmp(mode, "auto") != 0 && strcmp(mode, "required") != 0) {
        return api_error_field(error, "tool_choice",
                               "must be none, auto, required or a function of tools");
    }
    if (json_array_size(body->tools) == 0 && strcmp(mode, "required") == 0) {
        return api_error_field(error, "tool_choice", "is \"required\", and there are no tools");
    }
    body->choice = strcmp(mode, "required") == 0 ? CHAT_TOOLS_REQUIRED : body->choice;
    return true;
}

/* {"type":"allowed_tools","allowed_tools":{"mode","tools":[...]}} */
static bool parse_allowed(struct chat_body *body, const json_t *choice, struct api_error *error)
{
    const json_t *allowed = json_object_get(choice, "allowed_tools");
    const json_t *list = json_object_get(allowed, "tools");
    const char *mode = json_string_value(json_object_get(allowed, "mode"));

    if (json_array_size(list) == 0 || json_array_size(list) > MAX_TOOLS || mode == NULL) {
        return api_error_field(error, "tool_choice", "allowed_tools needs a mode and 1 to %d tools",
                               MAX_TOOLS);
    }
    body->allowed = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *function = json_object_get(json_array_get(list, i), "function");
        const char *name = json_string_value(json_object_get(function, "name"));
        json_t *tool = name == NULL ? NULL : find_tool(body->tools, name);

        if (tool == NULL) {
            return api_error_field(error, "tool_choice", "entry %zu is none of the tools", i);
        }
        json_array_append(body->allowed, tool);
    }
    if (json_array_size(list) == 1 && strcmp(mode, "required") == 0) {
        return parse_choice_object(body, json_array_get(list, 0), error);
    }
    return mode_of(body, mode, error);
}

static bool parse_choice(struct chat_body *body, const json_t *choice, struct api_error *error)
{
    const char *text = json_string_value(choice);

    body->choice = json_array_size(body->tools) > 0 ? CHAT_TOOLS_AUTO : CHAT_TOOLS_NONE;
    if (choice == NULL) {
        return true;
    }
    if (json_is_object(choice)) {
        const char *type = json_string_value(json_object_get(choice, "type"));

        return type != NULL && strcmp(type, "allowed_tools") == 0
                   ? parse_allowed(body, choice, error)
                   : parse_choice_object(body, choice, error);
    }
    return mode_of(body, text == NULL ? "" : text, error);
}

/* --- messages --- */

/* Text of a content: a string, null, or an array of text parts, joined by line feeds. */
static bool content_text(const json_t *content, size_t message, json_t **ret_text,
                         struct api_error *error)
{
    struct buf text = {0};
    bool ok = true;

    if (content == NULL || json_is_null(content)) {
        *ret_text = json_null();
        return true;
    }
    if (json_is_string(content)) {
        *ret_text = json_incref((json_t *)content);
        return true;
    }
    if (!json_is_array(content)) {
        return api_error_field(error, "messages", "content of message %zu is no text", message);
    }
    for (size_t i = 0; i < json_array_size(content) && ok; i++) {
        const json_t *part = json_array_get(content, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *piece = json_object_get(part, "text");

        if (type != NULL && strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 &&
            strcmp(type, "output_text") != 0 && strcmp(type, "refusal") != 0) {
            ok = api_error_field(
                error, "messages",
                "message %zu has a part of type %.40s, and this model reads text only", message,
                type);
        } else if (!json_is_string(piece)) {
            ok = api_error_field(error, "messages", "part %zu of message %zu has no text", i,
                                 message);
        } else {
            buf_append(&text, i > 0 ? "\n" : "", i > 0);
            buf_append(&text, json_string_value(piece), json_string_length(piece));
        }
    }
    if (ok) {
        *ret_text = json_stringn(buf_str(&text), text.len);
    }
    buf_release(&text);
    return ok;
}

/* Calls as templates want them: arguments that are the text of an object become that object. */
static bool copy_calls(const json_t *calls, size_t message, json_t *out, struct api_error *error)
{
    json_t *copies = json_array();

    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = json_deep_copy(json_array_get(calls, i));
        json_t *function = json_object_get(call, "function");
        const json_t *arguments = json_object_get(function, "arguments");
        json_t *parsed = NULL;

        json_array_append_new(copies, call);
        if (!json_is_string(json_object_get(function, "name"))) {
            json_decref(copies);
            return api_error_field(error, "messages",
                                   "tool call %zu of message %zu names no function", i, message);
        }
        if (json_is_string(arguments) &&
            json_parse(json_string_value(arguments), json_string_length(arguments), &parsed,
                       NULL) == STATUS_OK) {
            json_object_set_new(function, "arguments", parsed);
        }
    }
    json_object_set_new(out, "tool_calls", copies);
    return true;
}

static const char *role_of(const char *role)
{
    static const char *const known[][2] = {
        {"system", "system"},       {"developer", "system"}, {"user", "user"},
        {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"},
    };

    for (size_t i = 0; role != NULL && i < ARRAY_LEN(known); i++) {
        if (strcmp(known[i][0], role) == 0) {
            return known[i][1];
        }
    }
    return NULL;
}

static bool copy_message(const json_t *from, size_t i, json_t *out, struct api_error *error)
{
    static const char *const also[] = {"name", "tool_call_id", "reasoning_content"};
    const char *role = role_of(json_string_value(json_object_get(from, "role")));
    const json_t *calls = field_get(from, "tool_calls");
    json_t *text = NULL;

    if (!json_is_object(from)) {
        return api_error_field(error, "messages", "entry %zu is no object", i);
    }
    if (role == NULL) {
        return api_error_field(
            error, "messages",
            "role of message %zu must be system, developer, user, assistant or tool", i);
    }
    if (!content_text(json_object_get(from, "content"), i, &text, error)) {
        return false;
    }
    json_object_set_new(out, "role", json_string(role));
    if (json_is_null(text) && strcmp(role, "assistant") != 0) {
        return api_error_field(error, "messages", "message %zu has no content", i);
    }
    if (json_is_null(text)) { /* templates concatenate it */
        text = json_string("");
    }
    json_object_set_new(out, "content", text);
    for (size_t j = 0; j < ARRAY_LEN(also); j++) {
        const json_t *value = field_get(from, also[j]);

        if (json_is_string(value)) {
            json_object_set(out, also[j], (json_t *)value);
        }
    }
    return json_array_size(calls) == 0 || copy_calls(calls, i, out, error);
}

static bool copy_messages(const json_t *from, json_t **ret_messages, struct api_error *error)
{
    json_t *messages = json_array();

    for (size_t i = 0; i < json_array_size(from); i++) {
        json_t *message = json_object();

        json_array_append_new(messages, message);
        if (!copy_message(json_array_get(from, i), i, message, error)) {
            json_decref(messages);
            return false;
        }
    }
    *ret_messages = messages;
    return true;
}

/* none, minimal, ...: what the words mean is the template's business, but for none. */
static bool parse_effort(struct chat_body *body, const json_t *json, struct api_error *error)
{
    static const char *const known[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};

    if (!field_text(json, "reasoning_effort", &body->effort, error) || body->effort == NULL) {
        return error->status == 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(body->effort, known[i]) == 0) {
            return true;
        }
    }
    return api_error_field(error, "reasoning_effort",
                           "must be none, minimal, low, medium, high, xhigh or max");
}

bool chat_body_parse(struct chat_body *body, const json_t *json, struct api_error *error)
{
    const json_t *messages = NULL;
    bool parallel = true;

    if (!field_array(json, "messages", &messages, error) ||
        !field_array(json, "tools", &body->tools, error) ||
        !field_object(json, "chat_template_kwargs", &body->kwargs, error) ||
        !field_bool(json, "parallel_tool_calls", &parallel, error) ||
        !field_bool(json, "continue_final_message", &body->go_on, error) ||
        !field_bool(json, "add_special_tokens", &body->add_special, error) ||
        !parse_effort(body, json, error)) {
        return false;
    }
    body->add_generation_prompt = !body->go_on;
    if (!field_bool(json, "add_generation_prompt", &body->add_generation_prompt, error) ||
        !field_text(json, "chat_template", &body->own_template, error)) {
        return false;
    }
    if (body->own_template != NULL) {
        return api_error_field(error, "chat_template", "is not taken from requests");
    }
    if (json_array_size(messages) == 0) {
        return api_error_field(error, "messages", "must hold at least one message");
    }
    body->documents = field_get(json, "documents");
    body->one_call = !parallel;
    return check_tools(body->tools, error) &&
           parse_choice(body, field_get(json, "tool_choice"), error) &&
           copy_messages(messages, &body->messages, error);
}

/* --- The prompt --- */

static json_t *template_input(const struct chat_body *body)
{
    json_t *input = json_object();
    const json_t *tools = body->allowed != NULL ? body->allowed : body->tools;
    const char *key;
    json_t *value;

    if (body->effort != NULL) {
        json_object_set_new(input, "reasoning_effort", json_string(body->effort));
        json_object_set_new(input, "enable_thinking",
                            json_boolean(strcmp(body->effort, "none") != 0));
    }
    json_object_foreach((json_t *)body->kwargs, key, value)
    {
        json_object_set(input, key, value);
    }
    json_object_set(input, "messages", body->messages);
    json_object_set_new(input, "add_generation_prompt", json_boolean(body->add_generation_prompt));
    if (body->go_on) {
        json_object_set_new(input, "continue_final_message", json_true());
    }
    if (body->choice != CHAT_TOOLS_NONE && json_array_size(tools) > 0) {
        json_object_set(input, "tools", (json_t *)tools);
    }
    if (body->documents != NULL) {
        json_object_set(input, "documents", (json_t *)body->documents);
    }
    return input;
}

/* Cuts the rendered text behind the last message's own, so that the model goes on with it. What a
 * template puts behind it is short: a search from the end over all of a long text, full of what is
 * looked for, would take quadratic time. */
static void cut_behind_last(const struct chat_body *body, struct buf *text)
{
    size_t last = json_array_size(body->messages) - 1;
    const json_t *content = json_object_get(json_array_get(body->messages, last), "content");
    size_t n = json_string_length(content);

    for (size_t tail = 0; n > 0 && tail <= MAX_TAIL_BYTES && n + tail <= text->len; tail++) {
        if (memcmp(text->data + text->len - tail - n, json_string_value(content), n) == 0) {
            text->len -= tail;
            text->data[text->len] = '\0';
            return;
        }
    }
}

bool chat_body_render(const struct chat_body *body, const struct chat_prompt *prompt,
                      struct buf *ret_text, struct api_error *error)
{
    struct buf message = {0};
    json_t *input;
    bool ok = true;

    if (prompt == NULL) {
        return api_error_set(error, 400, "no_chat_template",
                             "the model has no chat template: use /v1/completions");
    }
    input = template_input(body);
    if (chat_prompt_render(prompt, input, ret_text, &message) != STATUS_OK) {
        ok = api_error_set(error, 400, "chat_template",
                           "the chat template refuses this conversation: %s", buf_str(&message));
    } else if (body->go_on && ret_text->len > 0) {
        cut_behind_last(body, ret_text);
    }
    json_decref(input);
    buf_release(&message);
    return ok;
}

void chat_body_release(struct chat_body *body)
{
    json_decref(body->messages);
    json_decref(body->allowed);
    *body = (struct chat_body){0};
}

/* --- From the body to the request --- */

/* The tool that is forced: the one that is named, or the only one there is. NULL: any of them. */
static const char *forced_name(const struct chat_body *body)
{
    const json_t *tools = body->allowed != NULL ? body->allowed : body->tools;

    if (body->tool_name != NULL || json_array_size(tools) != 1) {
        return body->tool_name;
    }
    return json_string_value(
        json_object_get(json_object_get(json_array_get(tools, 0), "function"), "name"));
}

/* Begins the call that must come. */
static void force_call(struct generation *g, const struct chat_body *body)
{
    const char *name = forced_name(body);

    output_force_prefix(&g->spec.output, name, &g->forced);
    g->spec.must_call = true;
    g->spec.forced_object =
        name != NULL && g->forced.len > 0 && g->forced.data[g->forced.len - 1] == '{';
}

static void set_output(struct generation *g, const struct chat_body *body, const struct buf *text)
{
    bool tools = body->choice != CHAT_TOOLS_NONE;

    output_options_detect(g->text->prompt, tools, &g->spec.output);
    output_options_set_prompt(&g->spec.output, buf_str(text), text->len);
    g->spec.output.tools = tools;
    g->spec.output.schemas = body->tools;
    g->spec.output.max_calls =
        tools && (body->one_call || body->choice == CHAT_TOOLS_NAMED) ? 1 : 0;
    if (tools && (g->spec.output.forms & (OUTPUT_FORM_ARRAY | OUTPUT_FORM_BARE)) != 0) {
        g->spec.keep_special = true; /* what begins such calls is a special token */
    }
    g->spec.parse_output = tools || g->spec.output.reasoning || g->spec.output.reasoning_open;
    if (body->choice == CHAT_TOOLS_NAMED || body->choice == CHAT_TOOLS_REQUIRED) {
        force_call(g, body);
    }
}

bool chat_generation_prompt(struct generation *g, const struct chat_body *body)
{
    struct buf text = {0};
    bool ok = chat_body_render(body, g->text->prompt, &text, &g->answer->error);

    if (ok) {
        set_output(g, body, &text);
        buf_append(&text, buf_str(&g->forced), g->forced.len);
        g->prompts = xcalloc(1, sizeof(*g->prompts));
        g->spec.prompts = g->prompts;
        g->spec.n_prompts = 1;
        ok = generation_encode(g, 0, buf_str(&text), text.len, body->add_special, "messages");
    }
    buf_release(&text);
    return ok;
}

static bool parse_logprobs(struct generation *g, const json_t *body, struct api_error *error)
{
    int64_t top = 0;
    bool given = false;

    if (!field_bool(body, "logprobs", &g->spec.logprobs, error) ||
        !field_int(body, "top_logprobs", 0, 20, &top, &given, error)) {
        return false;
    }
    if (given && top > 0 && !g->spec.logprobs) {
        return api_error_field(error, "top_logprobs", "needs \"logprobs\": true");
    }
    g->spec.n_top = (uint32_t)top;
    return true;
}

bool chat_parse_response_format(const json_t *body, struct api_error *error)
{
    const json_t *format = NULL;
    const char *type = NULL;

    if (!field_object(body, "response_format", &format, error)) {
        return false;
    }
    if (format == NULL) {
        return true;
    }
    if (!field_text(format, "type", &type, error) || type == NULL) {
        return api_error_field(error, "response_format", "needs a type");
    }
    if (strcmp(type, "text") == 0) {
        return true;
    }
    return api_error_field(error, "response_format",
                           "type \"%.40s\" is not supported by this server", type);
}

/* modalities: text alone; include_reasoning. */
static bool parse_modalities(struct generation *g, const json_t *body, struct api_error *error)
{
    const json_t *list = NULL;
    bool reasoning = true;

    if (!field_array(body, "modalities", &list, error) ||
        !field_bool(body, "include_reasoning", &reasoning, error)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));

        if (name == NULL || strcmp(name, "text") != 0) {
            return api_error_field(error, "modalities", "entry %zu is not \"text\"", i);
        }
    }
    g->hide_reasoning = !reasoning;
    return true;
}

static bool parse(struct generation *g, const json_t *json, struct api_error *error)
{
    static const char *const refused[] = {"functions", "function_call", "audio", "echo",
                                          "web_search_options"};
    struct chat_body body = {0};
    bool completion = field_get(json, "max_completion_tokens") != NULL;
    const char *name = completion ? "max_completion_tokens" : "max_tokens";
    int64_t max_tokens = 0;
    bool given = false;
    bool ok = chat_body_parse(&body, json, error) && sampling_parse(g, json, error) &&
              sampling_parse_stops(g, json, "stop", error) && parse_logprobs(g, json, error) &&
              chat_parse_response_format(json, error) &&
              sampling_parse_prompt_logprobs(g, json, error) && parse_modalities(g, json, error) &&
              sampling_refuse(json, refused, ARRAY_LEN(refused), error) &&
              field_int(json, name, 1, INT32_MAX, &max_tokens, &given, error) &&
              chat_generation_prompt(g, &body);

    g->spec.max_tokens = (uint32_t)max_tokens;
    ok = ok && generation_check(g, given ? name : NULL);
    chat_body_release(&body);
    return ok;
}

static bool work(struct answer *answer)
{
    struct generation *g;

    return generation_open(answer, &chat_format, "chatcmpl-", &g) &&
           parse(g, answer->json, &answer->error);
}

const struct endpoint endpoint_chat = {
    .work = work,
    .now = generation_start,
    .gone = generation_gone,
};
