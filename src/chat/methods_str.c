/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of strings that search, split and join, and the table of all. */
#include "chat/methods.h"

#include "base/utf8.h"
#include "chat/iter.h"
#include "chat/strings.h"
#include "chat/unicode.h"

static bool is_absent(struct value value)
{
    return value.type == VALUE_MISSING || value.type == VALUE_NONE;
}

static struct value strip(struct env *env, struct value self, const struct value *args,
                          enum strings_side side)
{
    const struct str *chars = is_absent(args[0]) ? NULL : arg_str(env, args[0], "strip arg");

    return strings_strip(env, self.str, chars, side);
}

static struct value run_strip(struct env *env, struct value self, const struct value *args)
{
    return strip(env, self, args, STRINGS_BOTH);
}

static struct value run_lstrip(struct env *env, struct value self, const struct value *args)
{
    return strip(env, self, args, STRINGS_LEFT);
}

static struct value run_rstrip(struct env *env, struct value self, const struct value *args)
{
    return strip(env, self, args, STRINGS_RIGHT);
}

static void append_part(struct env *env, struct list *parts, const struct str *text, size_t start,
                        size_t end)
{
    work_step(&env->work, 1);
    list_append(&env->work, parts, value_substr(&env->work, text, start, end));
}

/* The end of the run of (no) white space from at on. */
static size_t skip_run(const struct str *text, size_t at, bool space)
{
    uint32_t code = 0;
    size_t n;

    while ((n = utf8_decode(text->data + at, text->len - at, &code)) > 0 &&
           unicode_has(code, UNICODE_SPACE) == space) {
        at += n;
    }
    return at;
}

static struct list *split_space(struct env *env, const struct str *text, int64_t max)
{
    struct list *parts = list_new(&env->work, 0);
    size_t at = skip_run(text, 0, true);

    while (at < text->len) {
        size_t end = skip_run(text, at, false);

        if (max-- == 0) {
            append_part(env, parts, text, at, text->len);
            break;
        }
        append_part(env, parts, text, at, end);
        at = skip_run(text, end, true);
    }
    return parts;
}

static struct list *split_at(struct env *env, const struct str *text, const struct str *separator,
                             int64_t max)
{
    struct list *parts = list_new(&env->work, 0);
    size_t at = 0;
    size_t found;

    while (max-- != 0 && (found = strings_find(env, text, at, text->len, separator)) != SIZE_MAX) {
        append_part(env, parts, text, at, found);
        at = found + separator->len;
    }
    append_part(env, parts, text, at, text->len);
    return parts;
}

static void reverse(struct list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        struct value item = list->items[i];

        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = item;
    }
}

static struct list *rsplit_at(struct env *env, const struct str *text, const struct str *separator,
                              int64_t max)
{
    struct list *parts = list_new(&env->work, 0);
    size_t end = text->len;
    size_t found;

    while (max-- != 0 && (found = strings_rfind(env, text, 0, end, separator)) != SIZE_MAX) {
        append_part(env, parts, text, found + separator->len, end);
        end = found;
    }
    append_part(env, parts, text, 0, end);
    reverse(parts);
    return parts;
}

/* All words first; then those that are too many become the text in front. */
static struct list *rsplit_space(struct env *env, const struct str *text, int64_t max)
{
    struct list *words = split_space(env, text, -1);
    size_t n_front = max >= 0 && words->n > (size_t)max ? words->n - (size_t)max : 0;
    struct list *parts = list_new(&env->work, words->n);

    if (n_front > 0) {
        const struct str *last = words->items[n_front - 1].str;

        append_part(env, parts, text, 0, (size_t)(last->data + last->len - text->data));
    }
    for (size_t i = n_front; i < words->n; i++) {
        list_append(&env->work, parts, words->items[i]);
    }
    return parts;
}

static struct value split(struct env *env, struct value self, const struct value *args, bool right)
{
    int64_t max = args[1].type == VALUE_MISSING ? -1 : arg_int(env, args[1], "maxsplit");
    const struct str *separator;

    if (is_absent(args[0])) {
        return value_list(right ? rsplit_space(env, self.str, max)
                                : split_space(env, self.str, max));
    }
    separator = arg_str(env, args[0], "sep");
    if (separator->len == 0) {
        work_fail(&env->work, "empty separator");
    }
    return value_list(right ? rsplit_at(env, self.str, separator, max)
                            : split_at(env, self.str, separator, max));
}

static struct value run_split(struct env *env, struct value self, const struct value *args)
{
    return split(env, self, args, false);
}

static struct value run_rsplit(struct env *env, struct value self, const struct value *args)
{
    return split(env, self, args, true);
}

static struct value run_splitlines(struct env *env, struct value self, const struct value *args)
{
    return value_list(strings_lines(env, self.str, value_is_truthy(args[0])));
}

static struct value partition(struct env *env, struct value self, const struct value *args,
                              bool right)
{
    const struct str *separator = arg_str(env, args[0], "sep");
    struct list *parts = list_new(&env->work, 3);
    struct value empty = value_text(&env->work, "");
    size_t at;

    if (separator->len == 0) {
        work_fail(&env->work, "empty separator");
    }
    at = (right ? strings_rfind : strings_find)(env, self.str, 0, self.str->len, separator);
    if (at == SIZE_MAX) {
        list_append(&env->work, parts, right ? empty : self);
        list_append(&env->work, parts, empty);
        list_append(&env->work, parts, right ? self : empty);
    } else {
        append_part(env, parts, self.str, 0, at);
        list_append(&env->work, parts, args[0]);
        append_part(env, parts, self.str, at + separator->len, self.str->len);
    }
    return value_tuple(parts);
}

static struct value run_partition(struct env *env, struct value self, const struct value *args)
{
    return partition(env, self, args, false);
}

static struct value run_rpartition(struct env *env, struct value self, const struct value *args)
{
    return partition(env, self, args, true);
}

static struct value run_replace(struct env *env, struct value self, const struct value *args)
{
    return strings_replace(env, self.str, arg_str(env, args[0], "replace() argument 1"),
                           arg_str(env, args[1], "replace() argument 2"),
                           args[2].type == VALUE_MISSING ? -1 : arg_int(env, args[2], "count"));
}

/* The bytes that optional start and end arguments (code points, as in a slice) leave. False if
 * start lies behind the end. */
static bool window(struct env *env, const struct str *text, const struct value *args,
                   size_t *ret_start, size_t *ret_end)
{
    int64_t n = (int64_t)text->n_codes;
    int64_t bounds[2] = {0, n};

    for (size_t i = 0; i < 2; i++) {
        if (!is_absent(args[i])) {
            int64_t bound = arg_int(env, args[i], "slice indices");

            bounds[i] = bound < 0 ? MAX(bound + n, (int64_t)0) : bound;
        }
    }
    if (bounds[0] > n || bounds[0] > MIN(bounds[1], n)) {
        return false;
    }
    work_step(&env->work, text->len / 256);
    *ret_start = access_offset(text, (size_t)bounds[0]);
    *ret_end = access_offset(text, (size_t)MIN(bounds[1], n));
    return true;
}

/* Code point index of what, -1 if it is not there. */
static int64_t find(struct env *env, struct value self, const struct value *args, bool right)
{
    const struct str *what = arg_str(env, args[0], "argument");
    size_t start;
    size_t end;
    size_t at;

    if (!window(env, self.str, args + 1, &start, &end)) {
        return -1;
    }
    at = (right ? strings_rfind : strings_find)(env, self.str, start, end, what);
    return at == SIZE_MAX ? -1 : (int64_t)value_str(&env->work, self.str->data, at).str->n_codes;
}

static struct value run_find(struct env *env, struct value self, const struct value *args)
{
    return value_int(find(env, self, args, false));
}

static struct value run_rfind(struct env *env, struct value self, const struct value *args)
{
    return value_int(find(env, self, args, true));
}

static struct value index_of(struct env *env, struct value self, const struct value *args,
                             bool right)
{
    int64_t at = find(env, self, args, right);

    if (at < 0) {
        work_fail(&env->work, "substring not found");
    }
    return value_int(at);
}

static struct value run_index(struct env *env, struct value self, const struct value *args)
{
    return index_of(env, self, args, false);
}

static struct value run_rindex(struct env *env, struct value self, const struct value *args)
{
    return index_of(env, self, args, true);
}

static struct value run_count(struct env *env, struct value self, const struct value *args)
{
    const struct str *what = arg_str(env, args[0], "argument");
    int64_t n = 0;
    size_t start;
    size_t end;

    if (!window(env, self.str, args + 1, &start, &end)) {
        return value_int(0);
    }
    if (what->len == 0) {
        return value_int(
            (int64_t)value_str(&env->work, self.str->data + start, end - start).str->n_codes + 1);
    }
    while ((start = strings_find(env, self.str, start, end, what)) != SIZE_MAX) {
        start += what->len;
        n++;
    }
    return value_int(n);
}

static bool affix_fits(const struct str *text, size_t start, size_t end, const struct str *affix,
                       bool at_end)
{
    if (affix->len > end - start) {
        return false;
    }
    return affix->len == 0 ||
           memcmp(text->data + (at_end ? end - affix->len : start), affix->data, affix->len) == 0;
}

static struct value has_affix(struct env *env, struct value self, const struct value *args,
                              bool at_end)
{
    const char *name = at_end ? "endswith first arg" : "startswith first arg";
    size_t start;
    size_t end;

    if (!window(env, self.str, args + 1, &start, &end)) {
        return value_bool(false);
    }
    if (args[0].type != VALUE_TUPLE) {
        return value_bool(affix_fits(self.str, start, end, arg_str(env, args[0], name), at_end));
    }
    for (size_t i = 0; i < args[0].list->n; i++) {
        if (affix_fits(self.str, start, end, arg_str(env, args[0].list->items[i], name), at_end)) {
            return value_bool(true);
        }
    }
    return value_bool(false);
}

static struct value run_startswith(struct env *env, struct value self, const struct value *args)
{
    return has_affix(env, self, args, false);
}

static struct value run_endswith(struct env *env, struct value self, const struct value *args)
{
    return has_affix(env, self, args, true);
}

static struct value run_removeprefix(struct env *env, struct value self, const struct value *args)
{
    const struct str *affix = arg_str(env, args[0], "removeprefix() argument");
    bool fits = affix_fits(self.str, 0, self.str->len, affix, false);

    return value_substr(&env->work, self.str, fits ? affix->len : 0, self.str->len);
}

static struct value run_removesuffix(struct env *env, struct value self, const struct value *args)
{
    const struct str *affix = arg_str(env, args[0], "removesuffix() argument");
    bool fits = affix_fits(self.str, 0, self.str->len, affix, true);

    return value_substr(&env->work, self.str, 0, self.str->len - (fits ? affix->len : 0));
}

static struct value run_join(struct env *env, struct value self, const struct value *args)
{
    struct iter *iter = iter_open(env, args[0]);
    struct text text = {.work = &env->work};
    struct value item;

    for (size_t i = 0; iter_next(env, iter, &item); i++) {
        if (item.type != VALUE_STR) {
            work_fail(&env->work, "sequence item %zu: expected str instance, %s found", i,
                      value_type_name(item));
        }
        if (i > 0) {
            text_add_str(&text, self);
        }
        text_add_str(&text, item);
    }
    return text_value(&text);
}

const struct builtin methods_of_str[] = {
    {.name = "capitalize", .run = methods_run_capitalize},
    {.name = "casefold"},
    {.name = "center",
     .run = methods_run_center,
     .params = {"width", "fillchar"},
     .n_required = 1,
     .positional = true},
    {.name = "count",
     .run = run_count,
     .params = {"sub", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "encode"},
    {.name = "endswith",
     .run = run_endswith,
     .params = {"suffix", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "expandtabs", .run = methods_run_expandtabs, .params = {"tabsize"}},
    {.name = "find",
     .run = run_find,
     .params = {"sub", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "format", .run_any = methods_run_format},
    {.name = "format_map"},
    {.name = "index",
     .run = run_index,
     .params = {"sub", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "isalnum", .run = methods_run_isalnum},
    {.name = "isalpha", .run = methods_run_isalpha},
    {.name = "isascii", .run = methods_run_isascii},
    {.name = "isdecimal", .run = methods_run_isdecimal},
    {.name = "isdigit", .run = methods_run_isdigit},
    {.name = "isidentifier"},
    {.name = "islower", .run = methods_run_islower},
    {.name = "isnumeric", .run = methods_run_isnumeric},
    {.name = "isprintable", .run = methods_run_isprintable},
    {.name = "isspace", .run = methods_run_isspace},
    {.name = "istitle", .run = methods_run_istitle},
    {.name = "isupper", .run = methods_run_isupper},
    {.name = "join", .run = run_join, .params = {"iterable"}, .n_required = 1, .positional = true},
    {.name = "ljust",
     .run = methods_run_ljust,
     .params = {"width", "fillchar"},
     .n_required = 1,
     .positional = true},
    {.name = "lower", .run = methods_run_lower},
    {.name = "lstrip", .run = run_lstrip, .params = {"chars"}, .positional = true},
    {.name = "maketrans"},
    {.name = "partition",
     .run = run_partition,
     .params = {"sep"},
     .n_required = 1,
     .positional = true},
    {.name = "removeprefix",
     .run = run_removeprefix,
     .params = {"prefix"},
     .n_required = 1,
     .positional = true},
    {.name = "removesuffix",
     .run = run_removesuffix,
     .params = {"suffix"},
     .n_required = 1,
     .positional = true},
    {.name = "replace",
     .run = run_replace,
     .params = {"old", "new", "count"},
     .n_required = 2,
     .positional = true},
    {.name = "rfind",
     .run = run_rfind,
     .params = {"sub", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "rindex",
     .run = run_rindex,
     .params = {"sub", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "rjust",
     .run = methods_run_rjust,
     .params = {"width", "fillchar"},
     .n_required = 1,
     .positional = true},
    {.name = "rpartition",
     .run = run_rpartition,
     .params = {"sep"},
     .n_required = 1,
     .positional = true},
    {.name = "rsplit", .run = run_rsplit, .params = {"sep", "maxsplit"}},
    {.name = "rstrip", .run = run_rstrip, .params = {"chars"}, .positional = true},
    {.name = "split", .run = run_split, .params = {"sep", "maxsplit"}},
    {.name = "splitlines", .run = run_splitlines, .params = {"keepends"}},
    {.name = "startswith",
     .run = run_startswith,
     .params = {"prefix", "start", "end"},
     .n_required = 1,
     .positional = true},
    {.name = "strip", .run = run_strip, .params = {"chars"}, .positional = true},
    {.name = "swapcase", .run = methods_run_swapcase},
    {.name = "title", .run = methods_run_title},
    {.name = "translate"},
    {.name = "upper", .run = methods_run_upper},
    {.name = "zfill",
     .run = methods_run_zfill,
     .params = {"width"},
     .n_required = 1,
     .positional = true},
};
const size_t methods_n_of_str = ARRAY_LEN(methods_of_str);
