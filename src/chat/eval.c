/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions. */
#include "chat/env.h"

/* VALUE_MISSING if the name has no value here. */
static const struct value *find_name(const struct env *env, uint32_t id)
{
    for (const struct scope *scope = env->scope; scope != NULL; scope = scope->parent) {
        for (size_t i = 0; i < scope->n; i++) {
            if (scope->bindings[i].name == id) {
                return &scope->bindings[i].value;
            }
        }
    }
    return &env->context[id];
}

static struct value lookup(struct env *env, const struct node *node)
{
    const struct value *value = find_name(env, node->name.id);

    if (value->type == VALUE_MISSING) {
        return value_undefined_name(&env->work, value_of_str(node->name.text));
    }
    return *value;
}

static struct value eval_items(struct env *env, const struct node *node)
{
    struct list *list = list_new(&env->work, node->items.n);

    for (size_t i = 0; i < node->items.n; i++) {
        list_append(&env->work, list, env_eval(env, node->items.items[i]));
    }
    return node->kind == NODE_LIST ? value_list(list) : value_tuple(list);
}

static struct value eval_dict(struct env *env, const struct node *node)
{
    struct dict *dict = dict_new(&env->work, node->items.n / 2);

    for (size_t i = 0; i < node->items.n; i += 2) {
        struct value key = env_eval(env, node->items.items[i]);

        dict_set(&env->work, dict, key, env_eval(env, node->items.items[i + 1]));
    }
    return value_dict(dict);
}

static struct value eval_concat(struct env *env, const struct node *node)
{
    struct list *parts = list_new(&env->work, node->items.n);
    struct text text = {.work = &env->work};

    for (size_t i = 0; i < node->items.n; i++) {
        list_append(&env->work, parts, env_eval(env, node->items.items[i]));
    }
    for (size_t i = 0; i < parts->n; i++) {
        text_add_str(&text, parts->items[i]);
    }
    return text_value(&text);
}

static struct value eval_compare(struct env *env, const struct node *node)
{
    struct value left = env_eval(env, node->compare.left);

    for (size_t i = 0; i < node->compare.n; i++) {
        struct value right = env_eval(env, node->compare.right[i].right);

        if (!op_compare(env, node->compare.right[i].op, left, right)) {
            return value_bool(false);
        }
        left = right;
    }
    return value_bool(true);
}

static struct value eval_cond(struct env *env, const struct node *node)
{
    if (value_is_truthy(env_eval(env, node->cond.test))) {
        return env_eval(env, node->cond.yes);
    }
    if (node->cond.no != NULL) {
        return env_eval(env, node->cond.no);
    }
    return value_undefined_hint(&env->work,
                                "the inline if-expression on line %d evaluated to false and no "
                                "else section was defined.",
                                node->line);
}

static struct value eval_item(struct env *env, const struct node *node)
{
    struct value object = env_eval(env, node->member.object);
    const struct node *index = node->member.index;
    struct value bounds[3];

    if (index->kind != NODE_SLICE) {
        return access_item(env, object, env_eval(env, index));
    }
    bounds[0] = index->slice.start == NULL ? value_none() : env_eval(env, index->slice.start);
    bounds[1] = index->slice.stop == NULL ? value_none() : env_eval(env, index->slice.stop);
    bounds[2] = index->slice.step == NULL ? value_none() : env_eval(env, index->slice.step);
    return access_slice(env, object, bounds);
}

struct value env_call_node(struct env *env, const struct node *call, struct value caller)
{
    struct value callee = env_eval(env, call->call.target);
    struct arguments arguments;

    if (callee.type == VALUE_UNDEFINED) {
        env->work.line = call->line;
        value_fail_undefined(&env->work, callee);
    }
    arguments = env_arguments(env, &call->call.arguments, caller);
    env->work.line = call->line;
    return env_call(env, callee, &arguments);
}

/* Filters and tests. */
static struct value eval_builtin(struct env *env, const struct node *node)
{
    bool is_filter = node->kind == NODE_FILTER;
    struct value self = node->call.target == NULL ? env->block : env_eval(env, node->call.target);
    struct arguments arguments = env_arguments(env, &node->call.arguments, value_missing());

    env->work.line = node->line;
    if (node->call.builtin == NULL) {
        work_fail(&env->work, "No %s named '%.*s' found.", is_filter ? "filter" : "test",
                  (int)MIN(node->call.name->len, (size_t)100), node->call.name->data);
    }
    return builtin_call(env, node->call.builtin, is_filter ? "filter" : "test", self, &arguments);
}

static struct value eval_logic(struct env *env, const struct node *node)
{
    struct value left = env_eval(env, node->binary.left);

    if (value_is_truthy(left) != (node->kind == NODE_AND)) {
        return left;
    }
    return env_eval(env, node->binary.right);
}

static struct value eval_binary(struct env *env, const struct node *node)
{
    struct value left = env_eval(env, node->binary.left);
    struct value right = env_eval(env, node->binary.right);

    env->work.line = node->line;
    return op_arithmetic(env, node->binary.op, left, right);
}

static struct value eval(struct env *env, const struct node *node)
{
    switch (node->kind) {
    case NODE_CONST:
        return node->constant;
    case NODE_NAME:
        return lookup(env, node);
    case NODE_TUPLE:
    case NODE_LIST:
        return eval_items(env, node);
    case NODE_DICT:
        return eval_dict(env, node);
    case NODE_NEG:
    case NODE_POS:
        return op_negate(env, env_eval(env, node->binary.left), node->kind == NODE_NEG);
    case NODE_NOT:
        return value_bool(!value_is_truthy(env_eval(env, node->binary.left)));
    case NODE_ARITHMETIC:
        return eval_binary(env, node);
    case NODE_AND:
    case NODE_OR:
        return eval_logic(env, node);
    case NODE_CONCAT:
        return eval_concat(env, node);
    case NODE_COMPARE:
        return eval_compare(env, node);
    case NODE_COND:
        return eval_cond(env, node);
    case NODE_ATTR:
        return access_attr(env, env_eval(env, node->member.object), node->member.attr);
    case NODE_ITEM:
        return eval_item(env, node);
    case NODE_CALL:
        return env_call_node(env, node, value_missing());
    case NODE_FILTER:
    case NODE_TEST:
        return eval_builtin(env, node);
    default:
        ENSURE(!"an expression");
        return value_none();
    }
}

struct value env_eval(struct env *env, const struct node *node)
{
    struct value value;

    work_step(&env->work, 1);
    work_enter(&env->work);
    env->work.line = node->line;
    value = eval(env, node);
    work_leave(&env->work);
    return value;
}
