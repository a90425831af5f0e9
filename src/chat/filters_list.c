/* SPDX-License-Identifier: Apache-2.0 */
/* Filters that take a sequence at once. */
#include "chat/filters.h"

#include "chat/iter.h"
#include "chat/sort.h"
#include "chat/strings.h"

static bool is_digits(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
    }
    return len > 0 && len < 10;
}

static void add_steps(struct env *env, struct list *path, const struct str *s, size_t start,
                      size_t end)
{
    for (size_t at = start; at <= end;) {
        const char *dot = memchr(s->data + at, '.', end - at);
        size_t stop = dot == NULL ? end : (size_t)(dot - s->data);

        list_append(&env->work, path,
                    is_digits(s->data + at, stop - at)
                        ? value_int(strtol(s->data + at, NULL, 10))
                        : value_str(&env->work, s->data + at, stop - at));
        at = stop + 1;
    }
}

const struct list *filters_path(struct env *env, struct value attribute)
{
    struct list *path = list_new(&env->work, 1);

    if (attribute.type == VALUE_STR) {
        add_steps(env, path, attribute.str, 0, attribute.str->len);
    } else if (attribute.type != VALUE_NONE) {
        list_append(&env->work, path, attribute);
    }
    return path;
}

struct value filters_follow(struct env *env, struct value item, const struct list *path,
                            struct value fallback)
{
    for (size_t i = 0; i < path->n; i++) {
        item = access_item(env, item, path->items[i]);
        if (item.type == VALUE_UNDEFINED && fallback.type != VALUE_MISSING &&
            fallback.type != VALUE_NONE) {
            item = fallback;
        }
    }
    return item;
}

static struct value ignore_case(struct env *env, struct value value)
{
    return value.type == VALUE_STR ? strings_case(env, value.str, CASE_LOWER) : value;
}

/* What an item is sorted or compared by. */
static struct value key_of(struct env *env, struct value item, const struct list *path,
                           bool case_sensitive)
{
    struct value key = filters_follow(env, item, path, value_missing());

    return case_sensitive ? key : ignore_case(env, key);
}

static struct value run_first(struct env *env, struct value self, const struct value *args)
{
    struct value item;

    (void)args;
    if (!iter_next(env, iter_open(env, self), &item)) {
        return value_undefined_hint(&env->work, "No first item, sequence was empty.");
    }
    return item;
}

static void require_reversible(struct env *env, struct value value)
{
    size_t n;

    if (!value_length(value, &n)) {
        work_fail(&env->work, "'%s' object is not reversible", value_type_name(value));
    }
}

static struct value run_last(struct env *env, struct value self, const struct value *args)
{
    struct list *items;

    (void)args;
    require_reversible(env, self);
    if (self.type == VALUE_STR && self.str->n_codes > 0) {
        return access_char(env, self.str, self.str->n_codes - 1);
    }
    items = iter_list(env, self);
    if (items->n == 0) {
        return value_undefined_hint(&env->work, "No last item, sequence was empty.");
    }
    return items->items[items->n - 1];
}

static struct value run_list(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return value_list(iter_list(env, self));
}

static struct value run_reverse(struct env *env, struct value self, const struct value *args)
{
    struct list *items = iter_list(env, self);
    struct list *reversed = list_new(&env->work, items->n);
    struct text text = {.work = &env->work};

    (void)args;
    for (size_t i = items->n; i > 0; i--) {
        if (self.type == VALUE_STR) {
            text_add_str(&text, items->items[i - 1]);
        } else {
            list_append(&env->work, reversed, items->items[i - 1]);
        }
    }
    if (self.type == VALUE_STR) {
        return text_value(&text);
    }
    if (self.type == VALUE_ITER) {
        return value_list(reversed);
    }
    return iter_value(iter_open(env, value_list(reversed)));
}

/* One key an item; "a,b" gives lists of keys. */
static struct value *sort_keys_of(struct env *env, const struct list *items, struct value attribute,
                                  bool case_sensitive)
{
    struct value *keys = work_alloc(&env->work, items->n, sizeof(*keys));
    struct list *paths = list_new(&env->work, 1);

    if (attribute.type == VALUE_STR) {
        const struct str *s = attribute.str;

        for (size_t at = 0; at <= s->len;) {
            const char *comma = memchr(s->data + at, ',', s->len - at);
            size_t stop = comma == NULL ? s->len : (size_t)(comma - s->data);
            struct list *path = list_new(&env->work, 1);

            add_steps(env, path, s, at, stop);
            list_append(&env->work, paths, value_list(path));
            at = stop + 1;
        }
    } else {
        list_append(&env->work, paths, value_list(filters_path(env, attribute)));
    }
    for (size_t i = 0; i < items->n; i++) {
        struct list *key = list_new(&env->work, paths->n);

        for (size_t j = 0; j < paths->n; j++) {
            list_append(&env->work, key,
                        key_of(env, items->items[i], paths->items[j].list, case_sensitive));
        }
        keys[i] = value_list(key);
    }
    return keys;
}

static struct value in_order(struct env *env, const struct list *items, const size_t *order)
{
    struct list *sorted = list_new(&env->work, items->n);

    for (size_t i = 0; i < items->n; i++) {
        list_append(&env->work, sorted, items->items[order[i]]);
    }
    return value_list(sorted);
}

static struct value run_sort(struct env *env, struct value self, const struct value *args)
{
    struct list *items = iter_list(env, self);
    struct value *keys =
        sort_keys_of(env, items, filters_optional(args[2]), value_is_truthy(args[1]));

    return in_order(env, items, sort_by(env, keys, items->n, value_is_truthy(args[0])));
}

static struct value run_dictsort(struct env *env, struct value self, const struct value *args)
{
    bool by_value = value_is_text(filters_optional(args[1]), "value");
    struct list *items;
    struct value *keys;

    if (self.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, self);
    }
    if (self.type != VALUE_DICT) {
        work_fail(&env->work, "'%s' object has no attribute 'items'", value_type_name(self));
    }
    if (!by_value && args[1].type != VALUE_MISSING && !value_is_text(args[1], "key")) {
        work_fail(&env->work, "You can only sort by either \"key\" or \"value\"");
    }
    items = list_new(&env->work, self.dict->n);
    keys = work_alloc(&env->work, self.dict->n, sizeof(*keys));
    for (size_t i = 0; i < self.dict->n; i++) {
        const struct dict_entry *entry = &self.dict->entries[i];

        list_append(&env->work, items, value_pair(&env->work, entry->key, entry->value));
        keys[i] = by_value ? entry->value : entry->key;
        keys[i] = value_is_truthy(args[0]) ? keys[i] : ignore_case(env, keys[i]);
    }
    return in_order(env, items, sort_by(env, keys, items->n, value_is_truthy(args[2])));
}

static struct value extreme(struct env *env, struct value self, const struct value *args,
                            const char *op)
{
    const struct list *path = filters_path(env, filters_optional(args[1]));
    bool case_sensitive = value_is_truthy(args[0]);
    struct iter *iter = iter_open(env, self);
    struct value best_key;
    struct value best;
    struct value item;

    if (!iter_next(env, iter, &best)) {
        return value_undefined_hint(&env->work, "No aggregated item, sequence was empty.");
    }
    best_key = key_of(env, best, path, case_sensitive);
    while (iter_next(env, iter, &item)) {
        struct value key = key_of(env, item, path, case_sensitive);

        if (value_is_ordered(&env->work, key, op, best_key)) {
            best = item;
            best_key = key;
        }
    }
    return best;
}

static struct value run_min(struct env *env, struct value self, const struct value *args)
{
    return extreme(env, self, args, "<");
}

static struct value run_max(struct env *env, struct value self, const struct value *args)
{
    return extreme(env, self, args, ">");
}

static struct value run_sum(struct env *env, struct value self, const struct value *args)
{
    const struct list *path = filters_path(env, filters_optional(args[0]));
    struct value sum = filters_arg(args[1], value_int(0));
    struct iter *iter = iter_open(env, self);
    struct value item;

    if (sum.type == VALUE_STR) {
        work_fail(&env->work, "sum() can't sum strings [use ''.join(seq) instead]");
    }
    while (iter_next(env, iter, &item)) {
        sum = op_arithmetic(env, OP_ADD, sum, filters_follow(env, item, path, value_missing()));
    }
    return sum;
}

static struct value group(struct env *env, struct value grouper, struct list *members)
{
    struct list *pair = list_new(&env->work, 2);

    list_append(&env->work, pair, grouper);
    list_append(&env->work, pair, value_list(members));
    pair->group = true;
    return value_tuple(pair);
}

static struct value run_groupby(struct env *env, struct value self, const struct value *args)
{
    const struct list *path = filters_path(env, args[0]);
    struct value fallback = filters_optional(args[1]);
    bool case_sensitive = value_is_truthy(args[2]);
    struct list *items = iter_list(env, self);
    struct value *keys = work_alloc(&env->work, items->n, sizeof(*keys));
    struct list *groups = list_new(&env->work, 0);
    const size_t *order;

    for (size_t i = 0; i < items->n; i++) {
        keys[i] = filters_follow(env, items->items[i], path, fallback);
        keys[i] = case_sensitive ? keys[i] : ignore_case(env, keys[i]);
    }
    order = sort_by(env, keys, items->n, false);
    for (size_t i = 0; i < items->n;) {
        struct list *members = list_new(&env->work, 1);
        struct value first = items->items[order[i]];
        struct value key = keys[order[i]];

        for (; i < items->n && value_is_equal(&env->work, keys[order[i]], key); i++) {
            list_append(&env->work, members, items->items[order[i]]);
        }
        list_append(&env->work, groups,
                    group(env, filters_follow(env, first, path, fallback), members));
    }
    return value_list(groups);
}

static struct value run_length(struct env *env, struct value self, const struct value *args)
{
    static const struct str length = {.data = "length", .len = 6, .n_codes = 6};
    size_t n;

    (void)args;
    if (self.type == VALUE_LOOP) {
        return loop_attribute(env, self.loop, &length);
    }
    if (!value_length(self, &n)) {
        work_fail(&env->work, "object of type '%s' has no len()", value_type_name(self));
    }
    return value_int((int64_t)n);
}

const struct builtin filters_on_lists[] = {
    {.name = "count", .run = run_length},
    {.name = "dictsort", .run = run_dictsort, .params = {"case_sensitive", "by", "reverse"}},
    {.name = "first", .run = run_first},
    {.name = "groupby",
     .run = run_groupby,
     .params = {"attribute", "default", "case_sensitive"},
     .n_required = 1},
    {.name = "last", .run = run_last},
    {.name = "length", .run = run_length},
    {.name = "list", .run = run_list},
    {.name = "max", .run = run_max, .params = {"case_sensitive", "attribute"}},
    {.name = "min", .run = run_min, .params = {"case_sensitive", "attribute"}},
    {.name = "random"},
    {.name = "reverse", .run = run_reverse},
    {.name = "sort", .run = run_sort, .params = {"reverse", "case_sensitive", "attribute"}},
    {.name = "sum", .run = run_sum, .params = {"attribute", "start"}},
};
const size_t filters_n_on_lists = ARRAY_LEN(filters_on_lists);
