/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/iter.h"

#include "base/utf8.h"

static bool next_item(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct list *list = iter->over.list;

    (void)env;
    if (iter->at == list->n) {
        return false;
    }
    *ret_item = list->items[iter->at++];
    return true;
}

static bool next_char(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct str *str = iter->over.str;
    size_t n = utf8_valid_prefix(str->data + iter->at, str->len - iter->at);

    if (n == 0) {
        return false;
    }
    *ret_item = value_substr(&env->work, str, iter->at, iter->at + n);
    iter->at += n;
    return true;
}

static bool next_entry(struct env *env, struct iter *iter, struct value *ret_item)
{
    bool is_view = iter->over.type == VALUE_VIEW;
    const struct dict *dict = is_view ? iter->over.view->dict : iter->over.dict;
    enum view_kind kind = is_view ? iter->over.view->kind : VIEW_KEYS;
    const struct dict_entry *entry = dict->entries + iter->at;

    if (iter->at == dict->n) {
        return false;
    }
    iter->at++;
    *ret_item = kind == VIEW_KEYS     ? entry->key
                : kind == VIEW_VALUES ? entry->value
                                      : value_pair(&env->work, entry->key, entry->value);
    return true;
}

static bool next_number(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct range *range = iter->over.range;

    (void)env;
    if (iter->at == range->n) {
        return false;
    }
    *ret_item = value_int(range->start + (int64_t)iter->at++ * range->step);
    return true;
}

static bool next_nothing(struct env *env, struct iter *iter, struct value *ret_item)
{
    (void)env;
    (void)iter;
    (void)ret_item;
    return false;
}

/* A loop walks on over its own items. */
static bool next_of_loop(struct env *env, struct iter *iter, struct value *ret_item)
{
    struct value item;

    if (!loop_next(env, iter->over.loop, &item)) {
        return false;
    }
    *ret_item = value_pair(&env->work, item, iter->over);
    return true;
}

struct iter *iter_try(struct env *env, struct value value)
{
    bool (*next)(struct env *, struct iter *, struct value *) = NULL;
    struct iter *iter;

    switch (value.type) {
    case VALUE_ITER:
        return value.iter;
    case VALUE_LIST:
    case VALUE_TUPLE:
        next = next_item;
        break;
    case VALUE_STR:
        next = next_char;
        break;
    case VALUE_DICT:
    case VALUE_VIEW:
        next = next_entry;
        break;
    case VALUE_RANGE:
        next = next_number;
        break;
    case VALUE_UNDEFINED:
        next = next_nothing;
        break;
    case VALUE_LOOP:
        next = next_of_loop;
        break;
    default:
        return NULL;
    }
    iter = work_alloc(&env->work, 1, sizeof(*iter));
    iter->next = next;
    iter->over = value;
    return iter;
}

struct iter *iter_open(struct env *env, struct value value)
{
    struct iter *iter = iter_try(env, value);

    if (iter == NULL) {
        work_fail(&env->work, "'%s' object is not iterable", value_type_name(value));
    }
    return iter;
}

struct value iter_value(struct iter *iter)
{
    return (struct value){.type = VALUE_ITER, .iter = iter};
}

struct iter *iter_lazy(struct env *env, struct value source, void *state,
                       bool (*next)(struct env *env, struct iter *iter, struct value *ret_item))
{
    struct iter *iter = work_alloc(&env->work, 1, sizeof(*iter));

    iter->over = source;
    iter->state = state;
    iter->next = next;
    return iter;
}

bool iter_next(struct env *env, struct iter *iter, struct value *ret_item)
{
    bool more;

    work_step(&env->work, 1);
    if (iter->done) {
        return false;
    }
    work_enter(&env->work);
    more = iter->next(env, iter, ret_item);
    work_leave(&env->work);
    iter->done = !more;
    return more;
}

struct list *iter_list(struct env *env, struct value value)
{
    struct iter *iter = iter_open(env, value);
    size_t n = 0;
    struct list *list;
    struct value item;

    (void)value_length(value, &n);
    list = list_new(&env->work, n);
    while (iter_next(env, iter, &item)) {
        list_append(&env->work, list, item);
    }
    return list;
}
