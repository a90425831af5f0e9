/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of all types but strings. What a type of Python has and we do not is listed without a
 * function, so that its use is refused by name. */
#include "chat/methods.h"

#include <math.h>

#include "chat/iter.h"

static struct value make_view(struct env *env, struct value self, enum view_kind kind)
{
    struct view *view = work_alloc(&env->work, 1, sizeof(*view));

    view->kind = kind;
    view->dict = self.dict;
    return (struct value){.type = VALUE_VIEW, .view = view};
}

static struct value run_keys(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return make_view(env, self, VIEW_KEYS);
}

static struct value run_values(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return make_view(env, self, VIEW_VALUES);
}

static struct value run_items(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return make_view(env, self, VIEW_ITEMS);
}

static struct value run_get(struct env *env, struct value self, const struct value *args)
{
    const struct value *found = dict_get(&env->work, self.dict, args[0]);

    if (found != NULL) {
        return *found;
    }
    return args[1].type == VALUE_MISSING ? value_none() : args[1];
}

static struct value run_copy(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    return self; /* nothing can change either of them */
}

static const struct list *items_of(struct env *env, struct value self)
{
    return self.type == VALUE_RANGE ? iter_list(env, self) : self.list;
}

static struct value run_count(struct env *env, struct value self, const struct value *args)
{
    const struct list *items = items_of(env, self);
    int64_t n = 0;

    for (size_t i = 0; i < items->n; i++) {
        n += value_is_equal(&env->work, items->items[i], args[0]);
    }
    return value_int(n);
}

static struct value run_index(struct env *env, struct value self, const struct value *args)
{
    const struct list *items = items_of(env, self);
    int64_t n = (int64_t)items->n;
    int64_t start = args[1].type == VALUE_MISSING ? 0 : arg_int(env, args[1], "start");
    int64_t stop = args[2].type == VALUE_MISSING ? n : arg_int(env, args[2], "stop");
    struct text text = {.work = &env->work};

    start = start < 0 ? MAX(start + n, (int64_t)0) : start;
    stop = stop < 0 ? stop + n : MIN(stop, n);
    for (int64_t i = start; i < stop; i++) {
        if (value_is_equal(&env->work, items->items[i], args[0])) {
            return value_int(i);
        }
    }
    text_add_repr(&text, args[0]);
    work_fail(&env->work, "%.*s is not in %s", (int)MIN(text.len, (size_t)100), text.data,
              value_type_name(self));
}

static struct value run_is_integer(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    return value_bool(isfinite(self.real) && floor(self.real) == self.real);
}

static struct value run_cycler_next(struct env *env, struct value self, const struct value *args)
{
    struct cycler *cycler = self.cycler;
    struct value item = cycler->items->items[cycler->at];

    (void)env;
    (void)args;
    cycler->at = (cycler->at + 1) % cycler->items->n;
    return item;
}

static struct value run_cycler_reset(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    self.cycler->at = 0;
    return value_none();
}

static const struct builtin of_dict[] = {
    {.name = "keys", .run = run_keys},
    {.name = "values", .run = run_values},
    {.name = "items", .run = run_items},
    {.name = "get",
     .run = run_get,
     .params = {"key", "default"},
     .n_required = 1,
     .positional = true},
    {.name = "copy", .run = run_copy},
    {.name = "fromkeys"},
};

static const struct builtin of_list[] = {
    {.name = "count", .run = run_count, .params = {"value"}, .n_required = 1, .positional = true},
    {.name = "index",
     .run = run_index,
     .params = {"value", "start", "stop"},
     .n_required = 1,
     .positional = true},
    {.name = "copy", .run = run_copy},
};

enum { N_OF_TUPLE = 2 }; /* the first of the list's; a range has them too */

static const struct builtin of_int[] = {
    {.name = "as_integer_ratio"},
    {.name = "bit_count"},
    {.name = "bit_length"},
    {.name = "conjugate"},
    {.name = "denominator"},
    {.name = "from_bytes"},
    {.name = "imag"},
    {.name = "numerator"},
    {.name = "real"},
    {.name = "to_bytes"},
};

static const struct builtin of_float[] = {
    {.name = "is_integer", .run = run_is_integer},
    {.name = "as_integer_ratio"},
    {.name = "conjugate"},
    {.name = "fromhex"},
    {.name = "hex"},
    {.name = "imag"},
    {.name = "real"},
};

static const struct builtin of_cycler[] = {
    {.name = "next", .run = run_cycler_next},
    {.name = "reset", .run = run_cycler_reset},
};

const struct builtin *builtin_find_method(struct value object, const char *name, size_t len)
{
    switch (object.type) {
    case VALUE_STR:
        return builtin_find(methods_of_str, methods_n_of_str, name, len);
    case VALUE_DICT:
        return builtin_find(of_dict, ARRAY_LEN(of_dict), name, len);
    case VALUE_LIST:
        return builtin_find(of_list, ARRAY_LEN(of_list), name, len);
    case VALUE_TUPLE:
    case VALUE_RANGE:
        return builtin_find(of_list, N_OF_TUPLE, name, len);
    case VALUE_BOOL:
    case VALUE_INT:
        return builtin_find(of_int, ARRAY_LEN(of_int), name, len);
    case VALUE_FLOAT:
        return builtin_find(of_float, ARRAY_LEN(of_float), name, len);
    case VALUE_CYCLER:
        return builtin_find(of_cycler, ARRAY_LEN(of_cycler), name, len);
    default:
        return NULL;
    }
}
