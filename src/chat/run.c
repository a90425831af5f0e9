/* SPDX-License-Identifier: Apache-2.0 */
/* Statements. */
#include "chat/iter.h"

static enum flow run_node(struct env *env, const struct node *node);

static void bind_in(struct env *env, struct scope *scope, uint32_t name, struct value value)
{
    for (size_t i = 0; i < scope->n; i++) {
        if (scope->bindings[i].name == name) {
            scope->bindings[i].value = value;
            return;
        }
    }
    if (scope->n == scope->cap) {
        size_t cap = MAX(scope->cap * 2, (size_t)4);
        struct binding *bindings = work_alloc(&env->work, cap, sizeof(*bindings));

        if (scope->n > 0) {
            memcpy(bindings, scope->bindings, scope->n * sizeof(*bindings));
        }
        scope->bindings = bindings;
        scope->cap = cap;
    }
    scope->bindings[scope->n++] = (struct binding){.name = name, .value = value};
}

void env_bind(struct env *env, uint32_t name, struct value value)
{
    bind_in(env, env->scope, name, value);
}

/* As it is before anything was set in it. */
static void reset_scope(struct env *env, struct scope *scope, const struct id_list *shadows)
{
    scope->n = 0;
    for (size_t i = 0; i < shadows->n; i++) {
        bind_in(env, scope, shadows->ids[i], value_missing());
    }
}

struct scope *env_scope_new(struct env *env, struct scope *parent, const struct id_list *shadows)
{
    struct scope *scope = work_alloc(&env->work, 1, sizeof(*scope));

    scope->parent = parent;
    if (shadows != NULL) {
        reset_scope(env, scope, shadows);
    }
    return scope;
}

static void assign_attr(struct env *env, const struct node *target, struct value value)
{
    struct node name = {.kind = NODE_NAME, .line = target->line, .name = target->name};
    struct value object = env_eval(env, &name);
    const struct str *attr = target->name.attr;

    if (object.type != VALUE_NAMESPACE) {
        work_fail(&env->work, "cannot assign attribute on non-namespace object");
    }
    if (attr->data[0] == '_') {
        work_fail(&env->work,
                  "Chat templates cannot store underscore-prefixed attributes on a namespace, but "
                  "got '%.*s'. Please rename the attribute.",
                  (int)MIN(attr->len, (size_t)100), attr->data);
    }
    dict_set(&env->work, object.names, value_of_str(attr), value);
}

static void unpack(struct env *env, const struct node_list *targets, struct value value)
{
    struct iter *iter = iter_try(env, value);
    struct value *items = work_alloc(&env->work, targets->n, sizeof(*items));
    struct value more;
    size_t n = 0;

    if (iter == NULL) {
        work_fail(&env->work, "cannot unpack non-iterable %s object", value_type_name(value));
    }
    while (n < targets->n && iter_next(env, iter, &items[n])) {
        n++;
    }
    if (n < targets->n) {
        work_fail(&env->work, "not enough values to unpack (expected %zu, got %zu)", targets->n, n);
    }
    if (iter_next(env, iter, &more)) {
        work_fail(&env->work, "too many values to unpack (expected %zu)", targets->n);
    }
    for (size_t i = 0; i < n; i++) {
        env_assign(env, targets->items[i], items[i]);
    }
}

void env_assign(struct env *env, const struct node *target, struct value value)
{
    work_enter(&env->work);
    if (target->kind == NODE_TUPLE) {
        unpack(env, &target->items, value);
    } else if (target->kind == NODE_NAMESPACE_ATTR) {
        assign_attr(env, target, value);
    } else {
        env_bind(env, target->name.id, value);
    }
    work_leave(&env->work);
}

struct value env_capture(struct env *env, const struct node_list *body,
                         const struct id_list *shadows, struct scope *parent)
{
    struct text out = {.work = &env->work};
    struct text *outer = env->out;
    struct scope *scope = env->scope;

    env->out = &out;
    env->scope = env_scope_new(env, parent, shadows);
    (void)env_run(env, body); /* the parser keeps break and continue inside */
    env->scope = scope;
    env->out = outer;
    return text_value(&out);
}

static enum flow run_if(struct env *env, const struct node *node)
{
    for (size_t i = 0; i < node->choice.n; i++) {
        if (value_is_truthy(env_eval(env, node->choice.branches[i].test))) {
            return env_run(env, &node->choice.branches[i].body);
        }
    }
    return env_run(env, &node->choice.otherwise);
}

/* What a loop's own "if" lets pass; its names live in a scope of their own. */
static bool next_passing(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct loop *loop = iter->state;
    struct value item;

    if (iter->source == NULL) {
        iter->source = iter_open(env, iter->over);
    }
    while (iter_next(env, iter->source, &item)) {
        struct scope *scope = env->scope;
        bool passes;

        env->scope = env_scope_new(env, loop->outer, NULL);
        env_assign(env, loop->node->loop.target, item);
        passes = value_is_truthy(env_eval(env, loop->node->loop.test));
        env->scope = scope;
        if (passes) {
            *ret_item = item;
            return true;
        }
    }
    return false;
}

/* All iterations. The otherwise part runs if no iteration reached the end of the body, so also if
 * each one was left by continue or break. */
static enum flow run_iterations(struct env *env, struct loop *loop)
{
    const struct node *node = loop->node;
    struct scope *outer = env->scope;
    struct scope *scope = env_scope_new(env, loop->outer, NULL);
    enum flow flow = FLOW_NEXT;
    bool completed = false;
    struct value item;

    while (flow != FLOW_BREAK && loop_next(env, loop, &item)) {
        reset_scope(env, scope, &node->loop.shadows);
        env->scope = scope;
        env_assign(env, node->loop.target, item);
        env_bind(env, env->names->loop, (struct value){.type = VALUE_LOOP, .loop = loop});
        flow = env_run(env, &node->loop.body);
        completed |= flow == FLOW_NEXT;
        env->scope = outer;
    }
    flow = FLOW_NEXT;
    if (!completed && node->loop.otherwise.n > 0) {
        env->scope = env_scope_new(env, loop->outer, &node->loop.otherwise_shadows);
        flow = env_run(env, &node->loop.otherwise);
        env->scope = outer;
    }
    return flow;
}

static enum flow run_loop(struct env *env, const struct node *node, struct scope *outer,
                          struct value iterable, int64_t depth0)
{
    struct loop *loop = work_alloc(&env->work, 1, sizeof(*loop));

    loop->node = node;
    loop->outer = outer;
    loop->index0 = -1;
    loop->length = -1;
    loop->depth0 = depth0;
    if (node->loop.test != NULL) {
        (void)iter_open(env, iterable); /* only to see that it can be walked */
        iterable = iter_value(iter_lazy(env, iterable, loop, next_passing));
    }
    loop->iterable = iterable;
    loop->iter = iter_open(env, iterable);
    return run_iterations(env, loop);
}

/* The text of all iterations of a recursive loop. */
static struct value render_recursive(struct env *env, const struct node *node, struct scope *outer,
                                     struct value iterable, int64_t depth0)
{
    struct text out = {.work = &env->work};
    struct text *before = env->out;

    env->out = &out;
    (void)run_loop(env, node, outer, iterable, depth0);
    env->out = before;
    return text_value(&out);
}

struct value env_recurse(struct env *env, const struct loop *loop, struct value iterable)
{
    if (!loop->node->loop.recursive) {
        work_fail(&env->work,
                  "The loop must have the 'recursive' marker to be called recursively.");
    }
    return render_recursive(env, loop->node, loop->outer, iterable, loop->depth0 + 1);
}

static enum flow run_for(struct env *env, const struct node *node)
{
    struct value iterable = env_eval(env, node->loop.iterable);

    if (!node->loop.recursive) {
        return run_loop(env, node, env->scope, iterable, 0);
    }
    text_add_str(env->out, render_recursive(env, node, env->scope, iterable, 0));
    return FLOW_NEXT;
}

/* A set or filter block: what it writes goes through its filters, then to the target or the output.
 */
static enum flow run_block(struct env *env, const struct node *node)
{
    struct text out = {.work = &env->work};
    struct text *outer_out = env->out;
    struct scope *outer = env->scope;
    struct value value;
    enum flow flow;

    env->out = &out;
    env->scope = env_scope_new(env, outer, &node->set.shadows);
    flow = env_run(env, &node->set.body);
    if (flow == FLOW_NEXT) {
        value = text_value(&out);
        env->block = value;
        if (node->set.filter != NULL) {
            value = env_eval(env, node->set.filter);
        }
    }
    env->scope = outer;
    env->out = outer_out;
    if (flow != FLOW_NEXT) {
        return flow;
    }
    if (node->kind == NODE_SET_BLOCK) {
        env_assign(env, node->set.target, value);
    } else {
        text_add_str(env->out, value);
    }
    return FLOW_NEXT;
}

static enum flow run_with(struct env *env, const struct node *node)
{
    struct scope *outer = env->scope;
    struct scope *scope = env_scope_new(env, outer, &node->with.shadows);
    enum flow flow;

    for (size_t i = 0; i < node->with.targets.n; i++) {
        struct value value = env_eval(env, node->with.values.items[i]);

        env->scope = scope;
        env_assign(env, node->with.targets.items[i], value);
        env->scope = outer;
    }
    env->scope = scope;
    flow = env_run(env, &node->with.body);
    env->scope = outer;
    return flow;
}

static struct value make_macro(struct env *env, const struct node *node)
{
    struct macro *macro = work_alloc(&env->work, 1, sizeof(*macro));

    macro->node = node;
    macro->closure = env->scope;
    return (struct value){.type = VALUE_MACRO, .macro = macro};
}

static enum flow run_node(struct env *env, const struct node *node)
{
    env->work.line = node->line;
    switch (node->kind) {
    case NODE_DATA:
        text_add_str(env->out, node->constant);
        break;
    case NODE_PRINT:
        text_add_str(env->out, env_eval(env, node->binary.left));
        break;
    case NODE_IF:
        return run_if(env, node);
    case NODE_FOR:
        return run_for(env, node);
    case NODE_SET:
        env_assign(env, node->set.target, env_eval(env, node->set.value));
        break;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
        return run_block(env, node);
    case NODE_WITH:
        return run_with(env, node);
    case NODE_MACRO:
        env_bind(env, node->macro.id, make_macro(env, node));
        break;
    case NODE_CALL_BLOCK:
        text_add_str(env->out, env_call_node(env, node->macro.call, make_macro(env, node)));
        break;
    case NODE_GENERATION:
        text_add_str(env->out, env_capture(env, &node->set.body, &node->set.shadows, env->scope));
        break;
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        ENSURE(!"a statement");
    }
    return FLOW_NEXT;
}

enum flow env_run(struct env *env, const struct node_list *body)
{
    for (size_t i = 0; i < body->n; i++) {
        enum flow flow;

        work_step(&env->work, 1);
        work_enter(&env->work);
        flow = run_node(env, body->items[i]);
        work_leave(&env->work);
        if (flow != FLOW_NEXT) {
            return flow;
        }
    }
    return FLOW_NEXT;
}
