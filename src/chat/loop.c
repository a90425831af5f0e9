/* SPDX-License-Identifier: Apache-2.0 */
/* The loop object: one item ahead at most, and only when asked. */
#include "chat/iter.h"

bool loop_next(struct env *env, struct loop *loop, struct value *ret_item)
{
    struct value item;

    if (loop->after.type != VALUE_MISSING) {
        item = loop->after;
        loop->after = value_missing();
    } else if (!iter_next(env, loop->iter, &item)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    *ret_item = item;
    return true;
}

/* VALUE_MISSING at the end. */
static struct value peek(struct env *env, struct loop *loop)
{
    if (loop->after.type == VALUE_MISSING) {
        struct value item;

        if (iter_next(env, loop->iter, &item)) {
            loop->after = item;
        }
    }
    return loop->after;
}

static int64_t length(struct env *env, struct loop *loop)
{
    size_t n;

    if (loop->length >= 0) {
        return loop->length;
    }
    if (value_length(loop->iterable, &n)) {
        loop->length = (int64_t)n;
    } else {
        struct list *rest = iter_list(env, iter_value(loop->iter));

        loop->iter = iter_open(env, value_list(rest));
        loop->length = (int64_t)rest->n + loop->index0 + 1 + (loop->after.type != VALUE_MISSING);
    }
    return loop->length;
}

static struct value run_cycle(struct env *env, struct value self, const struct arguments *arguments)
{
    if (arguments->n == 0) {
        work_fail(&env->work, "no items for cycling given");
    }
    return arguments->args[self.loop->index0 % (int64_t)arguments->n];
}

static struct value run_changed(struct env *env, struct value self,
                                const struct arguments *arguments)
{
    struct list *now = list_new(&env->work, arguments->n);

    for (size_t i = 0; i < arguments->n; i++) {
        list_append(&env->work, now, arguments->args[i]);
    }
    if (self.loop->changed.type != VALUE_MISSING &&
        value_is_equal(&env->work, self.loop->changed, value_tuple(now))) {
        return value_bool(false);
    }
    self.loop->changed = value_tuple(now);
    return value_bool(true);
}

static const struct builtin methods[] = {
    {.name = "cycle", .run_any = run_cycle},
    {.name = "changed", .run_any = run_changed},
};

static struct value neighbour(struct env *env, struct loop *loop, bool next)
{
    struct value item = next ? peek(env, loop) : loop->before;

    if (next ? item.type == VALUE_MISSING : loop->index0 == 0) {
        return value_undefined_hint(&env->work, "there is no %s item", next ? "next" : "previous");
    }
    return item;
}

struct value loop_attribute(struct env *env, struct loop *loop, const struct str *name)
{
    struct value value = value_of_str(name);
    const struct builtin *builtin =
        builtin_find(methods, ARRAY_LEN(methods), name->data, name->len);

    if (builtin != NULL) {
        struct method *method = work_alloc(&env->work, 1, sizeof(*method));

        method->builtin = builtin;
        method->self = (struct value){.type = VALUE_LOOP, .loop = loop};
        return (struct value){.type = VALUE_METHOD, .method = method};
    }
    if (value_is_text(value, "index")) {
        return value_int(loop->index0 + 1);
    } else if (value_is_text(value, "index0")) {
        return value_int(loop->index0);
    } else if (value_is_text(value, "first")) {
        return value_bool(loop->index0 == 0);
    } else if (value_is_text(value, "last")) {
        return value_bool(peek(env, loop).type == VALUE_MISSING);
    } else if (value_is_text(value, "length")) {
        return value_int(length(env, loop));
    } else if (value_is_text(value, "revindex")) {
        return value_int(length(env, loop) - loop->index0);
    } else if (value_is_text(value, "revindex0")) {
        return value_int(length(env, loop) - loop->index0 - 1);
    } else if (value_is_text(value, "depth")) {
        return value_int(loop->depth0 + 1);
    } else if (value_is_text(value, "depth0")) {
        return value_int(loop->depth0);
    } else if (value_is_text(value, "previtem")) {
        return neighbour(env, loop, false);
    } else if (value_is_text(value, "nextitem")) {
        return neighbour(env, loop, true);
    }
    return value_missing();
}
