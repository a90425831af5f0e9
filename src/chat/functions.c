/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that a template finds without being given them. */
#include <time.h>

#include "chat/iter.h"

enum { RANGE_MAX = 100000, TIME_TEXT_MAX = 4096 };

static struct value run_range(struct env *env, struct value self, const struct value *args)
{
    bool one = args[1].type == VALUE_MISSING;
    struct range *range = work_alloc(&env->work, 1, sizeof(*range));
    uint64_t span;
    uint64_t step;

    (void)self;
    range->start = one ? 0 : arg_int(env, args[0], "range() argument");
    range->stop = arg_int(env, one ? args[0] : args[1], "range() argument");
    range->step = args[2].type == VALUE_MISSING ? 1 : arg_int(env, args[2], "range() argument");
    if (range->step == 0) {
        work_fail(&env->work, "range() arg 3 must not be zero");
    }
    step = range->step > 0 ? (uint64_t)range->step : -(uint64_t)range->step;
    span = range->step > 0 ? (uint64_t)range->stop - (uint64_t)range->start
                           : (uint64_t)range->start - (uint64_t)range->stop;
    if (range->step > 0 ? range->stop > range->start : range->stop < range->start) {
        span = (span - 1) / step + 1;
        if (span > RANGE_MAX) {
            work_fail(&env->work,
                      "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                      RANGE_MAX);
        }
        range->n = (size_t)span;
    }
    return (struct value){.type = VALUE_RANGE, .range = range};
}

/* dict(mapping or pairs, **more) */
static struct dict *make_dict(struct env *env, const struct arguments *arguments)
{
    struct dict *dict = dict_new(&env->work, arguments->n_keywords);
    struct value from = arguments->n > 0 ? arguments->args[0] : value_missing();
    struct iter *iter;
    struct value pair;

    if (arguments->n > 1) {
        work_fail(&env->work, "dict expected at most 1 argument, got %zu", arguments->n);
    }
    if (from.type == VALUE_DICT) {
        for (size_t i = 0; i < from.dict->n; i++) {
            dict_set(&env->work, dict, from.dict->entries[i].key, from.dict->entries[i].value);
        }
    } else if (from.type != VALUE_MISSING) {
        iter = iter_open(env, from);
        while (iter_next(env, iter, &pair)) {
            struct list *parts = iter_list(env, pair);

            if (parts->n != 2) {
                work_fail(&env->work,
                          "dictionary update sequence element has length %zu; 2 is "
                          "required",
                          parts->n);
            }
            dict_set(&env->work, dict, parts->items[0], parts->items[1]);
        }
    }
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        dict_set(&env->work, dict, value_of_str(arguments->keywords[i].name),
                 arguments->keywords[i].value);
    }
    return dict;
}

static struct value run_dict(struct env *env, struct value self, const struct arguments *arguments)
{
    (void)self;
    return value_dict(make_dict(env, arguments));
}

static struct value run_namespace(struct env *env, struct value self,
                                  const struct arguments *arguments)
{
    struct dict *names = make_dict(env, arguments);

    (void)self;
    for (size_t i = 0; i < names->n; i++) {
        struct value key = names->entries[i].key;

        if (key.type == VALUE_STR && key.str->len > 0 && key.str->data[0] == '_') {
            work_fail(&env->work,
                      "Chat templates cannot store underscore-prefixed attributes on a "
                      "namespace, but got '%.*s'. Please rename the attribute.",
                      (int)MIN(key.str->len, (size_t)100), key.str->data);
        }
    }
    return (struct value){.type = VALUE_NAMESPACE, .names = names};
}

static struct value run_cycler(struct env *env, struct value self,
                               const struct arguments *arguments)
{
    struct cycler *cycler = work_alloc(&env->work, 1, sizeof(*cycler));
    struct list *items = list_new(&env->work, arguments->n);

    (void)self;
    if (arguments->n == 0) {
        work_fail(&env->work, "at least one item has to be provided");
    }
    for (size_t i = 0; i < arguments->n; i++) {
        list_append(&env->work, items, arguments->args[i]);
    }
    cycler->items = items;
    return (struct value){.type = VALUE_CYCLER, .cycler = cycler};
}

static struct value run_joiner(struct env *env, struct value self, const struct value *args)
{
    struct joiner *joiner = work_alloc(&env->work, 1, sizeof(*joiner));

    (void)self;
    joiner->separator = args[0].type == VALUE_MISSING ? value_text(&env->work, ", ") : args[0];
    return (struct value){.type = VALUE_JOINER, .joiner = joiner};
}

static struct value run_raise_exception(struct env *env, struct value self,
                                        const struct value *args)
{
    const struct str *message = text_of(&env->work, args[0]).str;

    (void)self;
    work_raise(&env->work, message->data, message->len);
}

/* The format with what C's strftime lacks filled in: %f is microseconds; time without a zone has
 * none. */
static const char *expand_format(struct env *env, const struct str *format, long microseconds)
{
    struct text text = {.work = &env->work};

    for (size_t i = 0; i < format->len; i++) {
        char next = i + 1 < format->len ? format->data[i + 1] : '\0';

        if (format->data[i] == '\0') {
            work_fail(&env->work, "embedded null character");
        }
        if (format->data[i] != '%' || next == '\0') {
            text_add_char(&text, format->data[i]);
            continue;
        }
        i++;
        if (next == 'f') {
            text_add_format(&text, "%06ld", microseconds);
        } else if (next != 'z' && next != 'Z') {
            text_add_char(&text, '%');
            text_add_char(&text, next);
        }
    }
    text_add_char(&text, ' '); /* so that no result is empty but a failed one; cut off again */
    text_add_char(&text, '\0');
    return text.data;
}

static struct value run_strftime_now(struct env *env, struct value self, const struct value *args)
{
    const struct str *format = arg_str(env, args[0], "strftime() argument 1");
    char text[TIME_TEXT_MAX];
    struct timespec now;
    struct tm local;
    size_t n;

    (void)self;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    n = strftime(text, sizeof(text), expand_format(env, format, now.tv_nsec / 1000), &local);
#pragma GCC diagnostic pop
    if (n == 0) {
        work_fail(&env->work, "strftime_now: the text is longer than %d bytes", TIME_TEXT_MAX);
    }
    return value_str_copy(&env->work, text, n - 1);
}

static const struct builtin functions[] = {
    {.name = "cycler", .run_any = run_cycler},
    {.name = "dict", .run_any = run_dict},
    {.name = "joiner", .run = run_joiner, .params = {"sep"}},
    {.name = "lipsum"},
    {.name = "namespace", .run_any = run_namespace},
    {.name = "raise_exception", .run = run_raise_exception, .params = {"message"}, .n_required = 1},
    {.name = "range",
     .run = run_range,
     .params = {"start", "stop", "step"},
     .n_required = 1,
     .positional = true},
    {.name = "strftime_now", .run = run_strftime_now, .params = {"format"}, .n_required = 1},
};

const struct builtin *builtin_find_function(const char *name, size_t len)
{
    return builtin_find(functions, ARRAY_LEN(functions), name, len);
}
