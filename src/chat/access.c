/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, items and slices, with the sandbox's limits: names that begin with an underscore and
 * methods that would change a list or a dict are out of reach. */
#include "chat/env.h"

#include "base/utf8.h"

size_t access_offset(const struct str *str, size_t index)
{
    size_t at = 0;

    if (str->len == str->n_codes) {
        return index;
    }
    for (; index > 0; index--) {
        at += utf8_valid_prefix(str->data + at, str->len - at);
    }
    return at;
}

struct value access_char(struct env *env, const struct str *str, size_t index)
{
    size_t start = access_offset(str, index);

    work_step(&env->work, str->len == str->n_codes ? 0 : index / 16);
    return value_substr(&env->work, str, start,
                        start + utf8_valid_prefix(str->data + start, str->len - start));
}

static bool is_mutator(struct value object, const struct str *name)
{
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    const char *const *names = object.type == VALUE_DICT   ? of_dict
                               : object.type == VALUE_LIST ? of_list
                                                           : NULL;

    for (; names != NULL && *names != NULL; names++) {
        if (value_is_text(value_of_str(name), *names)) {
            return true;
        }
    }
    return false;
}

static bool is_dunder(const struct str *name)
{
    return name->len > 4 && memcmp(name->data, "__", 2) == 0 &&
           memcmp(name->data + name->len - 2, "__", 2) == 0;
}

static struct value unsafe(struct env *env, struct value object, const struct str *name)
{
    return value_undefined_hint(&env->work, "access to attribute '%.*s' of '%s' object is unsafe.",
                                (int)MIN(name->len, (size_t)100), name->data,
                                value_type_name(object));
}

static struct value cycler_attribute(struct value object, const struct str *name)
{
    if (value_is_text(value_of_str(name), "current")) {
        return object.cycler->items->items[object.cycler->at];
    }
    return value_missing();
}

struct value access_real_attr(struct env *env, struct value object, const struct str *name)
{
    const struct builtin *builtin = builtin_find_method(object, name->data, name->len);
    const struct value *named;
    struct method *method;

    if (is_mutator(object, name)) {
        return unsafe(env, object, name);
    }
    if (builtin != NULL) {
        method = work_alloc(&env->work, 1, sizeof(*method));
        method->builtin = builtin;
        method->self = object;
        return (struct value){.type = VALUE_METHOD, .method = method};
    }
    switch (object.type) {
    case VALUE_NAMESPACE:
        named = dict_get_text(object.names, name->data, name->len);
        return named == NULL ? value_missing() : *named;
    case VALUE_LOOP:
        return loop_attribute(env, object.loop, name);
    case VALUE_CYCLER:
        return cycler_attribute(object, name);
    case VALUE_TUPLE:
        if (object.list->group && value_is_text(value_of_str(name), "grouper")) {
            return object.list->items[0];
        }
        if (object.list->group && value_is_text(value_of_str(name), "list")) {
            return object.list->items[1];
        }
        return value_missing();
    case VALUE_MACRO:
        if (value_is_text(value_of_str(name), "name")) {
            return object.macro->node->macro.name == NULL
                       ? value_none()
                       : value_of_str(object.macro->node->macro.name);
        }
        return value_missing();
    default:
        return value_missing();
    }
}

struct value access_attr(struct env *env, struct value object, const struct str *name)
{
    struct value found;
    const struct value *member = NULL;

    if (object.type == VALUE_UNDEFINED && !is_dunder(name)) {
        value_fail_undefined(&env->work, object);
    }
    found = access_real_attr(env, object, name);
    if (found.type != VALUE_MISSING) {
        return found;
    }
    if (object.type == VALUE_DICT) {
        member = dict_get_text(object.dict, name->data, name->len);
    }
    if (member != NULL) {
        return *member;
    }
    if (is_dunder(name) && object.type != VALUE_NAMESPACE) {
        return unsafe(env, object, name);
    }
    return value_undefined_member(&env->work, object, value_of_str(name));
}

/* The item at a whole number, counted from the end if negative; VALUE_MISSING if out of range. */
static struct value item_at(struct env *env, struct value object, int64_t index)
{
    size_t n = 0;

    (void)value_length(object, &n);
    if (index < 0) {
        index += (int64_t)n;
    }
    if (index < 0 || index >= (int64_t)n) {
        return value_missing();
    }
    switch (object.type) {
    case VALUE_STR:
        return access_char(env, object.str, (size_t)index);
    case VALUE_RANGE:
        return value_int(object.range->start + index * object.range->step);
    default:
        return object.list->items[index];
    }
}

struct value access_item(struct env *env, struct value object, struct value index)
{
    struct value found = value_missing();
    const struct value *member;
    int64_t i = 0;

    switch (object.type) {
    case VALUE_UNDEFINED:
        value_fail_undefined(&env->work, object);
    case VALUE_DICT:
        member = value_is_hashable(index) ? dict_get(&env->work, object.dict, index) : NULL;
        found = member == NULL ? value_missing() : *member;
        break;
    case VALUE_STR:
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_RANGE:
        found = value_as_int(index, &i) ? item_at(env, object, i) : value_missing();
        break;
    default:
        break;
    }
    if (found.type == VALUE_MISSING && index.type == VALUE_STR) {
        found = access_real_attr(env, object, index.str);
        if (found.type == VALUE_MISSING && is_dunder(index.str)) {
            return unsafe(env, object, index.str);
        }
    }
    return found.type != VALUE_MISSING ? found : value_undefined_member(&env->work, object, index);
}

/* A bound of a slice: none gives fallback; negative ones count from the end; clamped to [low,
 * high]. */
static int64_t slice_bound(struct env *env, struct value bound, int64_t fallback, int64_t n,
                           int64_t low, int64_t high)
{
    int64_t i = fallback;

    if (bound.type == VALUE_NONE) {
        return fallback;
    }
    if (!value_as_int(bound, &i)) {
        work_fail(&env->work, "slice indices must be integers or None or have an __index__ method");
    }
    if (i < 0) {
        i = i < -n ? low : i + n;
    }
    return MIN(MAX(i, low), high);
}

/* Beyond any length it makes no difference how far a step goes. */
static int64_t slice_step(struct env *env, struct value bound)
{
    const int64_t far = (int64_t)1 << 40;
    int64_t step = 1;

    if (!value_as_int(bound, &step)) {
        work_fail(&env->work, "slice indices must be integers or None or have an __index__ method");
    }
    return MIN(MAX(step, -far), far);
}

static struct value slice_str(struct env *env, const struct str *str, int64_t start, int64_t step,
                              size_t n)
{
    struct text text = {.work = &env->work};

    if (step == 1) {
        size_t from = access_offset(str, (size_t)start);
        size_t to = access_offset(str, (size_t)start + n);

        work_step(&env->work, (uint64_t)str->len / 256);
        return value_substr(&env->work, str, from, to);
    }
    for (size_t i = 0; i < n; i++) {
        text_add_str(&text, access_char(env, str, (size_t)(start + (int64_t)i * step)));
    }
    return text_value(&text);
}

static struct value slice_range(struct env *env, const struct range *whole, int64_t start,
                                int64_t stop, int64_t step, size_t n)
{
    struct range *range = work_alloc(&env->work, 1, sizeof(*range));

    /* The ends of an empty range may lie anywhere: unsigned, so that they wrap without harm. */
    range->start = (int64_t)((uint64_t)whole->start + (uint64_t)start * (uint64_t)whole->step);
    range->stop = (int64_t)((uint64_t)whole->start + (uint64_t)stop * (uint64_t)whole->step);
    range->step = (int64_t)((uint64_t)whole->step * (uint64_t)step);
    range->n = n;
    return (struct value){.type = VALUE_RANGE, .range = range};
}

struct value access_slice(struct env *env, struct value object, const struct value bounds[3])
{
    int64_t step = 1;
    size_t length = 0;
    int64_t len;
    int64_t start;
    int64_t stop;
    int64_t n;
    struct list *list;

    if (object.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, object);
    }
    if (object.type != VALUE_STR && object.type != VALUE_LIST && object.type != VALUE_TUPLE &&
        object.type != VALUE_RANGE) {
        work_fail(&env->work, "'%s' object is not subscriptable by a slice",
                  value_type_name(object));
    }
    if (bounds[2].type != VALUE_NONE) {
        step = slice_step(env, bounds[2]);
    }
    if (step == 0) {
        work_fail(&env->work, "slice step cannot be zero");
    }
    (void)value_length(object, &length);
    len = (int64_t)length;
    start = slice_bound(env, bounds[0], step > 0 ? 0 : len - 1, len, step > 0 ? 0 : -1,
                        step > 0 ? len : len - 1);
    stop = slice_bound(env, bounds[1], step > 0 ? len : -1, len, step > 0 ? 0 : -1,
                       step > 0 ? len : len - 1);
    n = step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step;
    n = MAX(n, (int64_t)0);
    if (object.type == VALUE_STR) {
        return slice_str(env, object.str, start, step, (size_t)n);
    }
    if (object.type == VALUE_RANGE) {
        return slice_range(env, object.range, start, stop, step, (size_t)n);
    }
    list = list_new(&env->work, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        list_append(&env->work, list, object.list->items[start + i * step]);
    }
    return object.type == VALUE_LIST ? value_list(list) : value_tuple(list);
}

const struct str *arg_str(struct env *env, struct value value, const char *name)
{
    if (value.type != VALUE_STR) {
        if (value.type == VALUE_UNDEFINED) {
            value_fail_undefined(&env->work, value);
        }
        work_fail(&env->work, "%s must be str, not %s", name, value_type_name(value));
    }
    return value.str;
}

int64_t arg_int(struct env *env, struct value value, const char *name)
{
    int64_t i = 0;

    if (!value_as_int(value, &i)) {
        if (value.type == VALUE_UNDEFINED) {
            value_fail_undefined(&env->work, value);
        }
        work_fail(&env->work, "%s must be an integer, not '%s'", name, value_type_name(value));
    }
    return i;
}
