/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/prompt.h"

#include "base/mem.h"

struct named_template {
    char *name;
    struct chat_template *template; /* NULL: it could not be parsed */
    char *error;                    /* why */
    struct buf source;
};

struct chat_prompt {
    struct named_template *templates;
    size_t n;
    json_t *tokens; /* name to text */
};

struct chat_prompt *chat_prompt_new(void)
{
    struct chat_prompt *prompt = xalloc(sizeof(*prompt));

    prompt->tokens = json_object();
    ENSURE(prompt->tokens != NULL);
    return prompt;
}

static void release_template(struct named_template *named)
{
    chat_template_destroy(&named->template);
    free(named->name);
    free(named->error);
    buf_release(&named->source);
}

void chat_prompt_destroy(struct chat_prompt **prompt)
{
    if (*prompt == NULL) {
        return;
    }
    for (size_t i = 0; i < (*prompt)->n; i++) {
        release_template(&(*prompt)->templates[i]);
    }
    free((*prompt)->templates);
    json_decref((*prompt)->tokens);
    free(*prompt);
    *prompt = NULL;
}

static struct named_template *find_template(const struct chat_prompt *prompt, const char *name)
{
    for (size_t i = 0; i < prompt->n; i++) {
        if (strcmp(prompt->templates[i].name, name) == 0) {
            return &prompt->templates[i];
        }
    }
    return NULL;
}

void chat_prompt_add(struct chat_prompt *prompt, const char *name, const char *text, size_t size)
{
    struct named_template *named = find_template(prompt, name);
    struct err err = {0};

    if (named == NULL) {
        prompt->templates = xrealloc(prompt->templates, prompt->n + 1, sizeof(*prompt->templates));
        named = &prompt->templates[prompt->n++];
    } else {
        release_template(named);
    }
    *named = (struct named_template){.name = xstrdup(name)};
    buf_append(&named->source, text, size);
    if (chat_template_create(text, size, &named->template, &err) != STATUS_OK) {
        named->error = xstrdup(err.text);
    }
}

static enum status add_named(struct chat_prompt *prompt, const json_t *list, struct err *err)
{
    size_t i;
    json_t *item;

    json_array_foreach((json_t *)list, i, item)
    {
        const json_t *name = json_object_get(item, "name");
        const json_t *text = json_object_get(item, "template");

        if (!json_is_string(name) || !json_is_string(text)) {
            return err_set(err, STATUS_INVALID,
                           "chat_template[%zu]: must be {\"name\": string, \"template\": string}",
                           i);
        }
        chat_prompt_add(prompt, json_string_value(name), json_string_value(text),
                        json_string_length(text));
    }
    return STATUS_OK;
}

enum status chat_prompt_add_config(struct chat_prompt *prompt, const json_t *config,
                                   struct err *err)
{
    const json_t *templates = json_object_get(config, "chat_template");

    if (templates == NULL || json_is_null(templates)) {
        return STATUS_OK;
    }
    if (json_is_string(templates)) {
        chat_prompt_add(prompt, "default", json_string_value(templates),
                        json_string_length(templates));
        return STATUS_OK;
    }
    if (!json_is_array(templates)) {
        return err_set(err, STATUS_INVALID, "chat_template: must be a string or a list");
    }
    return add_named(prompt, templates, err);
}

void chat_prompt_set_token(struct chat_prompt *prompt, const char *name, const char *text,
                           size_t size)
{
    json_t *token = json_stringn(text, size);

    if (token != NULL) {
        ENSURE(json_object_set_new(prompt->tokens, name, token) == 0);
    }
}

/* A string, or the serialised form of an added token. */
static void set_token(struct chat_prompt *prompt, const char *name, const json_t *token)
{
    if (json_is_object(token)) {
        token = json_object_get(token, "content");
    }
    if (json_is_string(token)) {
        chat_prompt_set_token(prompt, name, json_string_value(token), json_string_length(token));
    }
}

void chat_prompt_set_tokens(struct chat_prompt *prompt, const json_t *config)
{
    const char suffix[] = "_token";
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)config, key, value)
    {
        size_t len = strlen(key);

        if (len >= sizeof(suffix) - 1 && strcmp(key + len + 1 - sizeof(suffix), suffix) == 0) {
            set_token(prompt, key, value);
        }
    }
    json_object_foreach(json_object_get(config, "extra_special_tokens"), key, value)
    {
        set_token(prompt, key, value);
    }
}

bool chat_prompt_is_empty(const struct chat_prompt *prompt)
{
    return prompt->n == 0;
}

static void set_message(struct buf *message, const char *text)
{
    buf_clear(message);
    buf_append_str(message, text);
}

/* NULL if there is none that fits. */
static const struct named_template *choose(const struct chat_prompt *prompt, bool has_tools)
{
    const struct named_template *named = has_tools ? find_template(prompt, "tool_use") : NULL;

    return named != NULL ? named : find_template(prompt, "default");
}

const char *chat_prompt_source(const struct chat_prompt *prompt, bool has_tools, size_t *ret_size)
{
    const struct named_template *named = choose(prompt, has_tools);

    *ret_size = named != NULL ? named->source.len : 0;
    return named != NULL ? buf_str(&named->source) : NULL;
}

/* The request with what it lacks; a new reference. */
static json_t *complete(const struct chat_prompt *prompt, const json_t *request)
{
    json_t *variables = json_copy((json_t *)request);

    ENSURE(variables != NULL);
    ENSURE(json_object_update_missing(variables, prompt->tokens) == 0);
    for (size_t i = 0; i < 2; i++) {
        const char *name = i == 0 ? "tools" : "documents";

        if (json_object_get(variables, name) == NULL) {
            ENSURE(json_object_set_new(variables, name, json_null()) == 0);
        }
    }
    if (json_object_get(variables, "add_generation_prompt") == NULL) {
        ENSURE(json_object_set_new(variables, "add_generation_prompt", json_true()) == 0);
    }
    return variables;
}

enum status chat_prompt_render(const struct chat_prompt *prompt, const json_t *request,
                               struct buf *out, struct buf *message)
{
    const json_t *tools = json_object_get(request, "tools");
    const struct named_template *named = choose(prompt, tools != NULL && !json_is_null(tools));
    enum status status;
    json_t *variables;

    if (!json_is_object(request)) {
        set_message(message, "the request must be an object");
        return STATUS_INVALID;
    }
    if (named == NULL) {
        set_message(message, "the model has several chat templates, and none is named default");
        return STATUS_INVALID;
    }
    if (named->template == NULL) {
        set_message(message, named->error);
        return STATUS_INVALID;
    }
    variables = complete(prompt, request);
    status = chat_template_render(named->template, variables, out, message);
    json_decref(variables);
    return status;
}
