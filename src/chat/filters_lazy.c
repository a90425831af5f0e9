/* SPDX-License-Identifier: Apache-2.0 */
/* Filters that pull their items one by one: what they give can be walked once, has no length and is
 * always true, as Python's generators are. */
#include "chat/filters.h"

#include "chat/iter.h"
#include "chat/strings.h"

/* What map, select and their kin do to an item. */
struct step {
    struct arguments given;
    bool is_map;
    bool by_attribute; /* selectattr and rejectattr */
    bool keep;         /* of select and reject: keep what passes, or what does not */
    /* Worked out from given when the first item is asked for: */
    const struct list *path;       /* the attribute to take; NULL: the item */
    struct value fallback;         /* for what is undefined there */
    const struct builtin *builtin; /* the filter or test to call; NULL: none */
    struct arguments arguments;
};

/* The first of the arguments from off on names a filter or test; the rest is passed to it. */
static void name_builtin(struct env *env, struct step *step, size_t off)
{
    const struct str *name = text_of(&env->work, step->given.args[off]).str;

    step->builtin = step->is_map ? builtin_find_filter(name->data, name->len)
                                 : builtin_find_test(name->data, name->len);
    if (step->builtin == NULL) {
        work_fail(&env->work, "No %s named '%.*s'.", step->is_map ? "filter" : "test",
                  (int)MIN(name->len, (size_t)100), name->data);
    }
    step->arguments = step->given;
    step->arguments.args += off + 1;
    step->arguments.n -= off + 1;
}

/* map(attribute=..., default=...) */
static void prepare_attribute(struct env *env, struct step *step)
{
    for (size_t i = 0; i < step->given.n_keywords; i++) {
        struct value name = value_of_str(step->given.keywords[i].name);

        if (value_is_text(name, "attribute")) {
            step->path = filters_path(env, step->given.keywords[i].value);
        } else if (value_is_text(name, "default")) {
            step->fallback = step->given.keywords[i].value;
        } else {
            work_fail(&env->work, "Unexpected keyword argument '%.*s'",
                      (int)MIN(name.str->len, (size_t)100), name.str->data);
        }
    }
    if (step->path == NULL) {
        work_fail(&env->work, "map requires a filter argument");
    }
}

static void prepare(struct env *env, struct step *step)
{
    size_t off = step->by_attribute ? 1 : 0;

    if (step->is_map && step->given.n == 0) {
        prepare_attribute(env, step);
        return;
    }
    if (step->given.n < off) {
        work_fail(&env->work, "Missing parameter for attribute name");
    }
    if (step->by_attribute) {
        step->path = filters_path(env, step->given.args[0]);
    }
    if (step->given.n > off) {
        name_builtin(env, step, off);
    }
}

/* The next item of what is filtered. Python's filters look at whether that is true, and at their
 * arguments, when the first item is asked for. */
static bool next_source(struct env *env, struct iter *iter, struct value *ret_item)
{
    if (iter->source == NULL) {
        if (!value_is_truthy(iter->over)) {
            return false;
        }
        prepare(env, iter->state);
        iter->source = iter_open(env, iter->over);
    }
    return iter_next(env, iter->source, ret_item);
}

static bool next_mapped(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct step *step = iter->state;
    struct value item;

    if (!next_source(env, iter, &item)) {
        return false;
    }
    *ret_item = step->path != NULL
                    ? filters_follow(env, item, step->path, step->fallback)
                    : builtin_call(env, step->builtin, "filter", item, &step->arguments);
    return true;
}

static bool next_selected(struct env *env, struct iter *iter, struct value *ret_item)
{
    const struct step *step = iter->state;
    struct value item;

    while (next_source(env, iter, &item)) {
        struct value tested = item;

        if (step->path != NULL) {
            tested = filters_follow(env, item, step->path, value_missing());
        }
        if (step->builtin != NULL) {
            tested = builtin_call(env, step->builtin, "test", tested, &step->arguments);
        }
        if (value_is_truthy(tested) == step->keep) {
            *ret_item = item;
            return true;
        }
    }
    return false;
}

static struct value start(struct env *env, struct value self, const struct step *step,
                          bool (*next)(struct env *env, struct iter *iter, struct value *ret_item))
{
    struct step *state = work_alloc(&env->work, 1, sizeof(*state));

    *state = *step;
    return iter_value(iter_lazy(env, self, state, next));
}

static struct value run_map(struct env *env, struct value self, const struct arguments *arguments)
{
    struct step step = {.given = *arguments, .is_map = true};

    return start(env, self, &step, next_mapped);
}

static struct value run_select(struct env *env, struct value self,
                               const struct arguments *arguments)
{
    struct step step = {.given = *arguments, .keep = true};

    return start(env, self, &step, next_selected);
}

static struct value run_reject(struct env *env, struct value self,
                               const struct arguments *arguments)
{
    struct step step = {.given = *arguments};

    return start(env, self, &step, next_selected);
}

static struct value run_selectattr(struct env *env, struct value self,
                                   const struct arguments *arguments)
{
    struct step step = {.given = *arguments, .by_attribute = true, .keep = true};

    return start(env, self, &step, next_selected);
}

static struct value run_rejectattr(struct env *env, struct value self,
                                   const struct arguments *arguments)
{
    struct step step = {.given = *arguments, .by_attribute = true};

    return start(env, self, &step, next_selected);
}

/* State of unique. */
struct seen {
    const struct list *path;
    bool case_sensitive;
    struct dict *keys;
};

static bool next_unique(struct env *env, struct iter *iter, struct value *ret_item)
{
    struct seen *seen = iter->state;
    struct value item;

    while (iter_next(env, iter->source, &item)) {
        struct value key = filters_follow(env, item, seen->path, value_missing());

        if (!seen->case_sensitive && key.type == VALUE_STR) {
            key = strings_case(env, key.str, CASE_LOWER);
        }
        if (dict_get(&env->work, seen->keys, key) == NULL) {
            dict_set(&env->work, seen->keys, key, value_none());
            *ret_item = item;
            return true;
        }
    }
    return false;
}

static struct value run_unique(struct env *env, struct value self, const struct value *args)
{
    struct seen *seen = work_alloc(&env->work, 1, sizeof(*seen));
    struct iter *iter = iter_lazy(env, self, seen, next_unique);

    seen->case_sensitive = value_is_truthy(args[0]);
    seen->path = filters_path(env, filters_optional(args[1]));
    seen->keys = dict_new(&env->work, 0);
    iter->source = iter_open(env, self);
    return iter_value(iter);
}

static struct value run_items(struct env *env, struct value self, const struct value *args)
{
    struct view *view = work_alloc(&env->work, 1, sizeof(*view));

    (void)args;
    if (self.type == VALUE_UNDEFINED) {
        return iter_value(iter_open(env, self));
    }
    if (self.type != VALUE_DICT) {
        work_fail(&env->work, "Can only get item pairs from a mapping.");
    }
    view->kind = VIEW_ITEMS;
    view->dict = self.dict;
    return iter_value(iter_open(env, (struct value){.type = VALUE_VIEW, .view = view}));
}

static struct value lists_value(struct env *env, struct list *lists)
{
    return iter_value(iter_open(env, value_list(lists)));
}

static struct value run_batch(struct env *env, struct value self, const struct value *args)
{
    int64_t size = arg_int(env, args[0], "linecount");
    struct value fill = filters_optional(args[1]);
    struct iter *iter = iter_open(env, self);
    struct list *batches = list_new(&env->work, 0);
    struct list *batch = list_new(&env->work, 0);
    struct value item;

    while (iter_next(env, iter, &item)) {
        if ((int64_t)batch->n == size) {
            list_append(&env->work, batches, value_list(batch));
            batch = list_new(&env->work, 0);
        }
        list_append(&env->work, batch, item);
    }
    if (batch->n > 0) {
        while (fill.type != VALUE_NONE && (int64_t)batch->n < size) {
            list_append(&env->work, batch, fill);
        }
        list_append(&env->work, batches, value_list(batch));
    }
    return lists_value(env, batches);
}

static struct value run_slice(struct env *env, struct value self, const struct value *args)
{
    int64_t n_slices = arg_int(env, args[0], "slices");
    struct value fill = filters_optional(args[1]);
    struct list *items = iter_list(env, self);
    struct list *slices = list_new(&env->work, 0);
    size_t at = 0;

    if (n_slices == 0) {
        work_fail(&env->work, "integer division or modulo by zero");
    }
    for (int64_t i = 0; i < n_slices; i++) {
        bool extra = i < (int64_t)items->n % n_slices;
        size_t size = items->n / (size_t)n_slices + extra;
        struct list *slice = list_new(&env->work, size);

        work_step(&env->work, 1);
        for (size_t j = 0; j < size; j++) {
            list_append(&env->work, slice, items->items[at++]);
        }
        if (fill.type != VALUE_NONE && !extra) {
            list_append(&env->work, slice, fill);
        }
        list_append(&env->work, slices, value_list(slice));
    }
    return lists_value(env, slices);
}

const struct builtin filters_lazy[] = {
    {.name = "batch", .run = run_batch, .params = {"linecount", "fill_with"}, .n_required = 1},
    {.name = "items", .run = run_items},
    {.name = "map", .run_any = run_map},
    {.name = "reject", .run_any = run_reject},
    {.name = "rejectattr", .run_any = run_rejectattr},
    {.name = "select", .run_any = run_select},
    {.name = "selectattr", .run_any = run_selectattr},
    {.name = "slice", .run = run_slice, .params = {"slices", "fill_with"}, .n_required = 1},
    {.name = "unique", .run = run_unique, .params = {"case_sensitive", "attribute"}},
};
const size_t filters_n_lazy = ARRAY_LEN(filters_lazy);
