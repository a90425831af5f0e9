/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/template.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "chat/env.h"
#include "chat/parser.h"
#include "chat/scoping.h"

/* Bounds. Nesting: the C stack that a level takes is some hundred bytes, and several times that
 * under a sanitizer. */
#define PARSE_MAX_BYTES  ((size_t)256 << 20)
#define PARSE_MAX_DEPTH  200
#define RENDER_MAX_BYTES ((size_t)256 << 20)
#define RENDER_MAX_STEPS ((uint64_t)20 * 1000 * 1000)
#define RENDER_MAX_DEPTH 1500

struct chat_template {
    struct work work; /* holds the tree */
    struct node_list body;
    struct id_list shadows;
    struct names names;
};

static void parse(struct chat_template *template, const char *source, size_t size)
{
    struct parser parser = {.work = &template->work};

    parser.token = lexer_run(&template->work, source, size);
    template->body = parser_run(&parser);
    template->names = parser.names;
    template->work.max_depth = RENDER_MAX_DEPTH; /* chains of operators are trees as deep as long */
    template->shadows = scoping_run(&template->work, &template->names, &template->body);
}

/* False if it failed. Nothing that changes in between is local to the function that calls setjmp.
 */
static bool try_parse(struct chat_template *template, const char *source, size_t size)
{
    if (setjmp(template->work.exit) != 0) {
        return false;
    }
    parse(template, source, size);
    return true;
}

enum status chat_template_create(const char *source, size_t size,
                                 struct chat_template **ret_template, struct err *err)
{
    struct chat_template *template;
    struct buf message = {0};

    if (size > CHAT_TEMPLATE_MAX_BYTES) {
        return err_set(err, STATUS_LIMIT, "template is larger than %zu MiB",
                       CHAT_TEMPLATE_MAX_BYTES >> 20);
    }
    if (!utf8_is_valid(source, size)) {
        return err_set(err, STATUS_INVALID, "template is not valid UTF-8");
    }
    template = xalloc(sizeof(*template));
    template->work = (struct work){.max_bytes = PARSE_MAX_BYTES,
                                   .max_steps = UINT64_MAX,
                                   .max_depth = PARSE_MAX_DEPTH,
                                   .message = &message};
    if (try_parse(template, source, size)) {
        *ret_template = template;
        return STATUS_OK;
    }
    (void)err_set(err, STATUS_INVALID, "%s", buf_str(&message));
    buf_release(&message);
    chat_template_destroy(&template);
    return STATUS_INVALID;
}

void chat_template_destroy(struct chat_template **template)
{
    if (*template != NULL) {
        work_close(&(*template)->work);
        free(*template);
        *template = NULL;
    }
}

static struct value from_json(struct work *work, const json_t *json);

static struct value from_json_object(struct work *work, const json_t *json)
{
    struct dict *dict = dict_new(work, json_object_size(json));
    const char *key;
    json_t *item;

    json_object_foreach((json_t *)json, key, item)
    {
        dict_set(work, dict, value_str_copy(work, key, strlen(key)), from_json(work, item));
    }
    return value_dict(dict);
}

static struct value from_json_array(struct work *work, const json_t *json)
{
    struct list *list = list_new(work, json_array_size(json));

    for (size_t i = 0; i < json_array_size(json); i++) {
        list_append(work, list, from_json(work, json_array_get(json, i)));
    }
    return value_list(list);
}

/* Strings are borrowed from json. */
static struct value from_json(struct work *work, const json_t *json)
{
    struct value value = value_none();

    work_enter(work);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        value = from_json_object(work, json);
        break;
    case JSON_ARRAY:
        value = from_json_array(work, json);
        break;
    case JSON_STRING:
        value = value_str(work, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        value = value_int(json_integer_value(json));
        break;
    case JSON_REAL:
        value = value_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        value = value_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    work_leave(work);
    return value;
}

/* The values of the names that the template mentions. */
static void fill_context(struct env *env, const json_t *variables)
{
    const struct dict *ids = env->names->ids;

    env->context = work_alloc(&env->work, ids->n, sizeof(*env->context));
    for (size_t i = 0; i < ids->n; i++) {
        const struct str *name = ids->entries[i].key.str;
        const json_t *given = json_object_getn(variables, name->data, name->len);
        const struct builtin *function = builtin_find_function(name->data, name->len);

        if (given != NULL) {
            env->context[i] = from_json(&env->work, given);
        } else if (function != NULL) {
            env->context[i] = (struct value){.type = VALUE_FUNCTION, .function = function};
        }
    }
}

/* The text lies in the arena of env. */
static void render(struct env *env, const struct chat_template *template, const json_t *variables,
                   struct text *text)
{
    env->work.line = 1;
    fill_context(env, variables);
    env->scope = env_scope_new(env, NULL, &template->shadows);
    env->out = text;
    (void)env_run(env, &template->body);
}

static bool try_render(struct env *env, const struct chat_template *template,
                       const json_t *variables, struct text *text)
{
    if (setjmp(env->work.exit) != 0) {
        return false;
    }
    render(env, template, variables, text);
    return true;
}

enum status chat_template_render(const struct chat_template *template, const json_t *variables,
                                 struct buf *out, struct buf *message)
{
    struct env env = {.names = &template->names};
    struct text text = {.work = &env.work};
    bool rendered;

    env.work.max_bytes = RENDER_MAX_BYTES;
    env.work.max_steps = RENDER_MAX_STEPS;
    env.work.max_depth = RENDER_MAX_DEPTH;
    env.work.message = message;
    rendered = try_render(&env, template, variables, &text);
    if (rendered) {
        buf_append(out, text.len > 0 ? text.data : "", text.len);
    }
    work_close(&env.work);
    return rendered ? STATUS_OK : STATUS_INVALID;
}
