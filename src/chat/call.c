/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: what is passed, and to whom. */
#include "chat/iter.h"

static void add_star_star(struct env *env, struct value value, struct keyword *keywords, size_t *n)
{
    if (value.type != VALUE_DICT) {
        work_fail(&env->work, "argument after ** must be a mapping, not %s",
                  value_type_name(value));
    }
    for (size_t i = 0; i < value.dict->n; i++) {
        if (value.dict->entries[i].key.type != VALUE_STR) {
            work_fail(&env->work, "keywords must be strings");
        }
        keywords[(*n)++] = (struct keyword){.name = value.dict->entries[i].key.str,
                                            .value = value.dict->entries[i].value};
    }
}

static void check_repeated(struct env *env, const struct keyword *keywords, size_t n)
{
    work_step(&env->work, n * n / 8);
    for (size_t i = 1; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (keywords[i].name->len == keywords[j].name->len &&
                memcmp(keywords[i].name->data, keywords[j].name->data, keywords[i].name->len) ==
                    0) {
                work_fail(&env->work, "got multiple values for keyword argument '%.*s'",
                          (int)MIN(keywords[i].name->len, (size_t)100), keywords[i].name->data);
            }
        }
    }
}

struct arguments env_arguments(struct env *env, const struct argument_nodes *nodes,
                               struct value caller)
{
    static const struct str caller_name = {.data = "caller", .len = 6, .n_codes = 6};
    struct list *args = list_new(&env->work, nodes->args.n);
    struct value star_star = value_missing();
    struct arguments arguments = {0};
    struct keyword *keywords;
    size_t n = 0;

    for (size_t i = 0; i < nodes->args.n; i++) {
        list_append(&env->work, args, env_eval(env, nodes->args.items[i]));
    }
    if (nodes->star != NULL) {
        struct list *more = iter_list(env, env_eval(env, nodes->star));

        for (size_t i = 0; i < more->n; i++) {
            list_append(&env->work, args, more->items[i]);
        }
    }
    if (nodes->star_star != NULL) {
        star_star = env_eval(env, nodes->star_star);
    }
    keywords = work_alloc(
        &env->work, nodes->n_keywords + 1 + (star_star.type == VALUE_DICT ? star_star.dict->n : 0),
        sizeof(*keywords));
    for (size_t i = 0; i < nodes->n_keywords; i++) {
        keywords[n++] = (struct keyword){.name = nodes->keywords[i].name,
                                         .value = env_eval(env, nodes->keywords[i].value)};
    }
    if (caller.type != VALUE_MISSING) {
        keywords[n++] = (struct keyword){.name = &caller_name, .value = caller};
    }
    if (star_star.type != VALUE_MISSING) {
        add_star_star(env, star_star, keywords, &n);
    }
    check_repeated(env, keywords, n);
    arguments.args = args->items;
    arguments.n = args->n;
    arguments.keywords = keywords;
    arguments.n_keywords = n;
    return arguments;
}

/* The keyword of that name; marks it as used. VALUE_MISSING if there is none. */
static struct value take_keyword(const struct arguments *arguments, const struct str *name,
                                 bool *used)
{
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        const struct str *given = arguments->keywords[i].name;

        if (!used[i] && given->len == name->len &&
            memcmp(given->data, name->data, name->len) == 0) {
            used[i] = true;
            return arguments->keywords[i].value;
        }
    }
    return value_missing();
}

/* kwargs: what no parameter took; fails if the macro has no use for it. */
static void bind_rest(struct env *env, const struct node *macro, const struct arguments *arguments,
                      const bool *used)
{
    struct dict *kwargs = dict_new(&env->work, arguments->n_keywords);
    const char *name = macro->macro.name == NULL ? "None" : macro->macro.name->data;
    int len = macro->macro.name == NULL ? 4 : (int)MIN(macro->macro.name->len, (size_t)100);
    struct list *varargs;

    for (size_t i = 0; i < arguments->n_keywords; i++) {
        const struct str *given = arguments->keywords[i].name;

        if (used[i]) {
            continue;
        }
        if (!macro->macro.uses_kwargs) {
            work_fail(&env->work, "macro '%.*s' takes no keyword argument '%.*s'", len, name,
                      (int)MIN(given->len, (size_t)100), given->data);
        }
        dict_set(&env->work, kwargs, value_of_str(given), arguments->keywords[i].value);
    }
    if (arguments->n > macro->macro.n_params && !macro->macro.uses_varargs) {
        work_fail(&env->work, "macro '%.*s' takes not more than %zu argument(s)", len, name,
                  macro->macro.n_params);
    }
    varargs = list_new(&env->work, 0);
    for (size_t i = macro->macro.n_params; i < arguments->n; i++) {
        list_append(&env->work, varargs, arguments->args[i]);
    }
    if (macro->macro.uses_kwargs) {
        env_bind(env, env->names->kwargs, value_dict(kwargs));
    }
    if (macro->macro.uses_varargs) {
        env_bind(env, env->names->varargs, value_tuple(varargs));
    }
}

/* Binds the parameters in the current scope, defaults in order, so that one may use those before.
 */
static void bind_params(struct env *env, const struct node *macro,
                        const struct arguments *arguments)
{
    bool *used = work_alloc(&env->work, arguments->n_keywords, sizeof(*used));
    struct value *values = work_alloc(&env->work, macro->macro.n_params, sizeof(*values));
    static const struct str caller_name = {.data = "caller", .len = 6, .n_codes = 6};
    bool has_caller = false;

    for (size_t i = 0; i < macro->macro.n_params; i++) {
        values[i] = i < arguments->n ? arguments->args[i]
                                     : take_keyword(arguments, macro->macro.params[i].name, used);
        has_caller |= macro->macro.params[i].id == env->names->caller;
    }
    if (macro->macro.uses_caller && !has_caller) {
        struct value caller = take_keyword(arguments, &caller_name, used);

        env_bind(env, env->names->caller,
                 caller.type != VALUE_MISSING
                     ? caller
                     : value_undefined_hint(&env->work, "No caller defined"));
    }
    bind_rest(env, macro, arguments, used);
    for (size_t i = 0; i < macro->macro.n_params; i++) {
        const struct param_node *param = &macro->macro.params[i];

        if (values[i].type == VALUE_MISSING && param->fallback != NULL) {
            values[i] = env_eval(env, param->fallback);
        } else if (values[i].type == VALUE_MISSING) {
            values[i] =
                value_undefined_hint(&env->work, "parameter '%.*s' was not provided",
                                     (int)MIN(param->name->len, (size_t)100), param->name->data);
        }
        env_bind(env, param->id, values[i]);
    }
}

static struct value call_macro(struct env *env, const struct macro *macro,
                               const struct arguments *arguments)
{
    struct scope *scope = env->scope;
    int line = env->work.line;
    struct value text;

    work_enter(&env->work);
    env->scope = env_scope_new(env, macro->closure, NULL);
    bind_params(env, macro->node, arguments);
    text = env_capture(env, &macro->node->macro.body, &macro->node->macro.shadows, env->scope);
    env->scope = scope;
    env->work.line = line;
    work_leave(&env->work);
    return text;
}

static struct value call_joiner(struct env *env, struct joiner *joiner)
{
    if (joiner->used) {
        return joiner->separator;
    }
    joiner->used = true;
    return value_text(&env->work, "");
}

struct value env_call(struct env *env, struct value callee, const struct arguments *arguments)
{
    switch (callee.type) {
    case VALUE_MACRO:
        return call_macro(env, callee.macro, arguments);
    case VALUE_METHOD:
        return builtin_call(env, callee.method->builtin, "method", callee.method->self, arguments);
    case VALUE_FUNCTION:
        return builtin_call(env, callee.function, "function", value_none(), arguments);
    case VALUE_JOINER:
        return call_joiner(env, callee.joiner);
    case VALUE_LOOP:
        if (arguments->n == 1) {
            return env_recurse(env, callee.loop, arguments->args[0]);
        }
        work_fail(&env->work, "loop() takes exactly one argument (%zu given)", arguments->n);
    default:
        work_fail(&env->work, "'%s' object is not callable", value_type_name(callee));
    }
}

const struct builtin *builtin_find(const struct builtin *table, size_t n, const char *name,
                                   size_t len)
{
    for (size_t i = 0; i < n; i++) {
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static void bind_keyword(struct env *env, const struct builtin *builtin,
                         const struct keyword *keyword, struct value *args)
{
    for (size_t i = 0; !builtin->positional && i < BUILTIN_PARAMS_MAX; i++) {
        if (builtin->params[i] == NULL) {
            break;
        }
        if (value_is_text(value_of_str(keyword->name), builtin->params[i])) {
            if (args[i].type != VALUE_MISSING) {
                work_fail(&env->work, "%s() got multiple values for argument '%s'", builtin->name,
                          builtin->params[i]);
            }
            args[i] = keyword->value;
            return;
        }
    }
    work_fail(&env->work, "%s() got an unexpected keyword argument '%.*s'", builtin->name,
              (int)MIN(keyword->name->len, (size_t)100), keyword->name->data);
}

struct value builtin_call(struct env *env, const struct builtin *builtin, const char *what,
                          struct value self, const struct arguments *arguments)
{
    struct value args[BUILTIN_PARAMS_MAX] = {{.type = VALUE_MISSING}};
    size_t n = 0;

    if (builtin->run_any != NULL) {
        return builtin->run_any(env, self, arguments);
    }
    if (builtin->run == NULL) {
        work_fail(&env->work, "%s '%s' is not supported", what, builtin->name);
    }
    while (n < BUILTIN_PARAMS_MAX && builtin->params[n] != NULL) {
        n++;
    }
    if (arguments->n > n) {
        work_fail(&env->work, "%s() takes at most %zu arguments (%zu given)", builtin->name, n,
                  arguments->n);
    }
    for (size_t i = 0; i < arguments->n; i++) {
        args[i] = arguments->args[i];
    }
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        bind_keyword(env, builtin, &arguments->keywords[i], args);
    }
    for (int i = 0; i < builtin->n_required; i++) {
        if (args[i].type == VALUE_MISSING) {
            work_fail(&env->work, "%s() missing required argument '%s'", builtin->name,
                      builtin->params[i]);
        }
    }
    return builtin->run(env, self, args);
}
