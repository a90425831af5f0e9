/* SPDX-License-Identifier: Apache-2.0 */
/* Filters that make text. */
#include "chat/filters.h"

#include "base/utf8.h"
#include "chat/iter.h"
#include "chat/strings.h"
#include "chat/unicode.h"

/* What is safe for HTML stays marked so. */
static struct value marked_as(struct env *env, struct value self, struct value text)
{
    return self.type == VALUE_STR && self.str->markup ? strings_mark(env, text) : text;
}

static struct value run_upper(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return marked_as(env, self, strings_case(env, text_of(&env->work, self).str, CASE_UPPER));
}

static struct value run_lower(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return marked_as(env, self, strings_case(env, text_of(&env->work, self).str, CASE_LOWER));
}

static struct value run_capitalize(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return marked_as(env, self, strings_case(env, text_of(&env->work, self).str, CASE_CAPITAL));
}

static bool separates_words(uint32_t code)
{
    return code == '-' || code == '(' || code == '{' || code == '[' || code == '<' ||
           unicode_has(code, UNICODE_SPACE);
}

/* Words and what lies between them alike begin with a capital and go on in small letters. */
static struct value run_title(struct env *env, struct value self, const struct value *args)
{
    const struct str *s = text_of(&env->work, self).str;
    struct text text = {.work = &env->work};
    size_t at = 0;

    (void)args;
    while (at < s->len) {
        uint32_t code = 0;
        size_t first = utf8_decode(s->data + at, s->len - at, &code);
        bool separator = separates_words(code);
        size_t end = at + first;
        size_t n;

        while ((n = utf8_decode(s->data + end, s->len - end, &code)) > 0 &&
               separates_words(code) == separator) {
            end += n;
        }
        text_add_str(
            &text, strings_case(env, value_substr(&env->work, s, at, at + first).str, CASE_UPPER));
        text_add_str(
            &text, strings_case(env, value_substr(&env->work, s, at + first, end).str, CASE_LOWER));
        at = end;
    }
    return text_value(&text);
}

static struct value run_trim(struct env *env, struct value self, const struct value *args)
{
    const struct str *chars =
        filters_optional(args[0]).type == VALUE_NONE ? NULL : arg_str(env, args[0], "strip arg");

    return marked_as(env, self,
                     strings_strip(env, text_of(&env->work, self).str, chars, STRINGS_BOTH));
}

static struct value run_string(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return text_of(&env->work, self);
}

static struct value run_safe(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_mark(env, text_of(&env->work, self));
}

static struct value run_escape(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_escape(env, self);
}

static struct value run_forceescape(struct env *env, struct value self, const struct value *args)
{
    const struct str *s = text_of(&env->work, self).str;

    (void)args;
    return strings_escape(env, value_str(&env->work, s->data, s->len));
}

static struct value run_replace(struct env *env, struct value self, const struct value *args)
{
    struct value count = filters_optional(args[2]);

    return strings_replace(env, text_of(&env->work, self).str, text_of(&env->work, args[0]).str,
                           text_of(&env->work, args[1]).str,
                           count.type == VALUE_NONE ? -1 : arg_int(env, count, "count"));
}

static struct value run_center(struct env *env, struct value self, const struct value *args)
{
    int64_t width = arg_int(env, filters_arg(args[0], value_int(80)), "width");

    return marked_as(env, self,
                     strings_pad(env, text_of(&env->work, self).str, width, " ", 1, STRINGS_BOTH));
}

static struct value run_indent(struct env *env, struct value self, const struct value *args)
{
    struct value width = filters_arg(args[0], value_int(4));
    bool first = value_is_truthy(args[1]);
    bool blank = value_is_truthy(args[2]);
    struct text indent = {.work = &env->work};
    struct text text = {.work = &env->work};
    struct list *lines;

    if (width.type == VALUE_STR) {
        text_add_str(&indent, width);
    } else {
        text_add_chars(&indent, " ", 1, (size_t)MAX(arg_int(env, width, "width"), (int64_t)0));
    }
    text_add_str(&text, value_of_str(arg_str(env, self, "value to indent")));
    text_add_char(&text, '\n');
    lines = strings_lines(env, text_value(&text).str, false);
    text = (struct text){.work = &env->work};
    for (size_t i = 0; i < lines->n; i++) {
        if (i > 0) {
            text_add_char(&text, '\n');
        }
        if (i == 0 ? first : blank || lines->items[i].str->len > 0) {
            text_add(&text, indent.data, indent.len);
        }
        text_add_str(&text, lines->items[i]);
    }
    return text_value(&text);
}

static struct value run_truncate(struct env *env, struct value self, const struct value *args)
{
    int64_t length = arg_int(env, filters_arg(args[0], value_int(255)), "length");
    struct value end = filters_arg(args[2], value_text(&env->work, "..."));
    struct value leeway = filters_optional(args[3]);
    int64_t slack = leeway.type == VALUE_NONE ? 5 : arg_int(env, leeway, "leeway");
    struct text text = {.work = &env->work};
    struct str space = {.data = " ", .len = 1, .n_codes = 1};
    const struct str *s;
    size_t n = 0;
    size_t keep;
    size_t cut;

    if (length < (int64_t)arg_str(env, end, "end")->n_codes || slack < 0) {
        work_fail(&env->work, "expected length >= %zu and leeway >= 0", end.str->n_codes);
    }
    if (!value_length(self, &n)) {
        work_fail(&env->work, "object of type '%s' has no len()", value_type_name(self));
    }
    if ((int64_t)n <= length || (int64_t)n - length <= slack) {
        return self;
    }
    s = arg_str(env, self, "value to truncate");
    keep = access_offset(s, (size_t)length - end.str->n_codes);
    if (!value_is_truthy(args[1])) {
        cut = strings_rfind(env, s, 0, keep, &space);
        keep = cut == SIZE_MAX ? keep : cut;
    }
    text_add(&text, s->data, keep);
    text_add_str(&text, end);
    return text_value(&text);
}

static struct value run_wordcount(struct env *env, struct value self, const struct value *args)
{
    const struct str *s = text_of(&env->work, self).str;
    bool in_word = false;
    int64_t n_words = 0;
    uint32_t code = 0;
    size_t n;

    (void)args;
    for (size_t at = 0; at < s->len; at += n) {
        bool is_word;

        n = utf8_decode(s->data + at, s->len - at, &code);
        is_word = unicode_has(code, UNICODE_WORD);
        n_words += is_word && !in_word;
        in_word = is_word;
    }
    return value_int(n_words);
}

static struct value run_join(struct env *env, struct value self, const struct value *args)
{
    struct value separator = filters_arg(args[0], value_text(&env->work, ""));
    struct value attribute = filters_optional(args[1]);
    const struct list *path = filters_path(env, attribute);
    struct iter *iter = iter_open(env, self);
    struct text text = {.work = &env->work};
    struct value item;

    for (size_t i = 0; iter_next(env, iter, &item); i++) {
        if (i > 0) {
            text_add_str(&text, separator);
        }
        text_add_str(&text, filters_follow(env, item, path, value_missing()));
    }
    return text_value(&text);
}

static struct value run_format(struct env *env, struct value self,
                               const struct arguments *arguments)
{
    struct dict *named = dict_new(&env->work, arguments->n_keywords);
    struct list *args = list_new(&env->work, arguments->n);

    if (arguments->n > 0 && arguments->n_keywords > 0) {
        work_fail(&env->work, "can't handle positional and keyword arguments at the same time");
    }
    for (size_t i = 0; i < arguments->n; i++) {
        list_append(&env->work, args, arguments->args[i]);
    }
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        dict_set(&env->work, named, value_of_str(arguments->keywords[i].name),
                 arguments->keywords[i].value);
    }
    return op_percent(env, text_of(&env->work, self).str,
                      named->n > 0 ? value_dict(named) : value_tuple(args));
}

/* Percent-encodes; in a query also slashes, and spaces as "+". */
static void add_quoted(struct text *text, struct value value, bool in_query)
{
    const struct str *s = text_of(text->work, value).str;

    for (size_t i = 0; i < s->len; i++) {
        char c = s->data[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c != '\0' && strchr("_.-~", c) != NULL) || (c == '/' && !in_query);

        if (plain) {
            text_add_char(text, c);
        } else if (c == ' ' && in_query) {
            text_add_char(text, '+');
        } else {
            text_add_format(text, "%%%02X", (unsigned)(unsigned char)c);
        }
    }
}

static struct value run_urlencode(struct env *env, struct value self, const struct value *args)
{
    struct text text = {.work = &env->work};
    struct iter *iter = self.type == VALUE_STR ? NULL : iter_try(env, self);
    struct value pair;

    (void)args;
    if (iter == NULL) {
        add_quoted(&text, self, false);
        return text_value(&text);
    }
    for (size_t i = 0; iter_next(env, iter, &pair); i++) {
        struct list *parts;

        if (self.type == VALUE_DICT) {
            pair = value_pair(&env->work, pair, *dict_get(&env->work, self.dict, pair));
        }
        parts = iter_list(env, pair);
        if (parts->n != 2) {
            work_fail(&env->work, "urlencode needs pairs of a key and a value");
        }
        if (i > 0) {
            text_add_char(&text, '&');
        }
        add_quoted(&text, parts->items[0], true);
        text_add_char(&text, '=');
        add_quoted(&text, parts->items[1], true);
    }
    return text_value(&text);
}

const struct builtin filters_on_text[] = {
    {.name = "capitalize", .run = run_capitalize},
    {.name = "center", .run = run_center, .params = {"width"}},
    {.name = "e", .run = run_escape},
    {.name = "escape", .run = run_escape},
    {.name = "filesizeformat"},
    {.name = "forceescape", .run = run_forceescape},
    {.name = "format", .run_any = run_format},
    {.name = "indent", .run = run_indent, .params = {"width", "first", "blank"}},
    {.name = "join", .run = run_join, .params = {"d", "attribute"}},
    {.name = "lower", .run = run_lower},
    {.name = "pprint"},
    {.name = "replace", .run = run_replace, .params = {"old", "new", "count"}, .n_required = 2},
    {.name = "safe", .run = run_safe},
    {.name = "string", .run = run_string},
    {.name = "striptags"},
    {.name = "title", .run = run_title},
    {.name = "tojson",
     .run = filters_run_tojson,
     .params = {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {.name = "trim", .run = run_trim, .params = {"chars"}},
    {.name = "truncate", .run = run_truncate, .params = {"length", "killwords", "end", "leeway"}},
    {.name = "upper", .run = run_upper},
    {.name = "urlencode", .run = run_urlencode},
    {.name = "urlize"},
    {.name = "wordcount", .run = run_wordcount},
    {.name = "wordwrap"},
    {.name = "xmlattr"},
};
const size_t filters_n_on_text = ARRAY_LEN(filters_on_text);
