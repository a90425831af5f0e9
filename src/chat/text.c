/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/text.h"

#include <stdarg.h>

#include "base/utf8.h"
#include "chat/ast.h"
#include "chat/builtin.h"
#include "chat/unicode.h"
#include "json/json.h"

static void reserve(struct text *text, size_t extra)
{
    size_t cap = MAX(text->cap, (size_t)32);

    if (extra > TEXT_MAX_BYTES || text->len + extra > TEXT_MAX_BYTES) {
        work_fail(text->work, "template makes a text of more than %zu MiB", TEXT_MAX_BYTES >> 20);
    }
    if (text->len + extra <= text->cap) {
        return;
    }
    while (cap < text->len + extra) {
        cap *= 2;
    }
    text->data = work_grow(text->work, text->data, text->cap, cap);
    text->cap = cap;
}

void text_add(struct text *text, const char *bytes, size_t n)
{
    if (n > 0) {
        reserve(text, n);
        memcpy(text->data + text->len, bytes, n);
        text->len += n;
    }
}

void text_add_char(struct text *text, char c)
{
    text_add(text, &c, 1);
}

void text_add_chars(struct text *text, const char *fill, size_t fill_len, size_t n)
{
    size_t bytes;

    if (!size_mul(fill_len, n, &bytes)) {
        bytes = SIZE_MAX;
    }
    reserve(text, bytes);
    for (size_t i = 0; i < n; i++) {
        text_add(text, fill, fill_len);
    }
}

void text_add_c(struct text *text, const char *c_string)
{
    text_add(text, c_string, strlen(c_string));
}

void text_add_code(struct text *text, uint32_t code)
{
    char bytes[4];

    text_add(text, bytes, utf8_encode(code, bytes));
}

void text_add_format(struct text *text, const char *format, ...)
{
    char small[128];
    va_list args;

    va_start(args, format);
    vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    text_add_c(text, small);
}

void text_add_real(struct text *text, double real)
{
    struct buf buf = {0};
    char small[64];

    json_write_real(&buf, real);
    snprintf(small, sizeof(small), "%s", buf_str(&buf));
    buf_release(&buf);
    text_add_c(text, small);
}

struct value text_value(const struct text *text)
{
    return value_str(text->work, text->len > 0 ? text->data : "", text->len);
}

struct value text_of(struct work *work, struct value value)
{
    struct text text = {.work = work};

    if (value.type == VALUE_STR) {
        return value;
    }
    text_add_str(&text, value);
    return text_value(&text);
}

static void add_escaped(struct text *text, uint32_t code)
{
    switch (code) {
    case '\n':
        text_add_c(text, "\\n");
        break;
    case '\r':
        text_add_c(text, "\\r");
        break;
    case '\t':
        text_add_c(text, "\\t");
        break;
    default:
        text_add_format(text,
                        code < 0x100     ? "\\x%02x"
                        : code < 0x10000 ? "\\u%04x"
                                         : "\\U%08x",
                        (unsigned)code);
    }
}

static void add_quoted(struct text *text, const struct str *str)
{
    bool single = str->len > 0 && memchr(str->data, '\'', str->len) != NULL;
    bool twice = str->len > 0 && memchr(str->data, '"', str->len) != NULL;
    char quote = single && !twice ? '"' : '\'';

    text_add_char(text, quote);
    for (size_t i = 0; i < str->len;) {
        uint32_t code = 0;
        size_t n = utf8_decode(str->data + i, str->len - i, &code);

        if (code == (unsigned char)quote || code == '\\') {
            text_add_char(text, '\\');
            text_add_char(text, (char)code);
        } else if (unicode_has(code, UNICODE_PRINTABLE)) {
            text_add(text, str->data + i, n);
        } else {
            add_escaped(text, code);
        }
        i += n;
    }
    text_add_char(text, quote);
}

static void add_items(struct text *text, const struct list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0) {
            text_add_c(text, ", ");
        }
        text_add_repr(text, list->items[i]);
    }
}

static void add_dict(struct text *text, const struct dict *dict)
{
    text_add_char(text, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0) {
            text_add_c(text, ", ");
        }
        text_add_repr(text, dict->entries[i].key);
        text_add_c(text, ": ");
        text_add_repr(text, dict->entries[i].value);
    }
    text_add_char(text, '}');
}

static void add_view(struct text *text, struct value value)
{
    const struct dict *dict = value.view->dict;

    text_add_c(text, value_type_name(value));
    text_add_c(text, "([");
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0) {
            text_add_c(text, ", ");
        }
        if (value.view->kind == VIEW_ITEMS) {
            text_add_repr(text,
                          value_pair(text->work, dict->entries[i].key, dict->entries[i].value));
        } else {
            text_add_repr(text, value.view->kind == VIEW_KEYS ? dict->entries[i].key
                                                              : dict->entries[i].value);
        }
    }
    text_add_c(text, "])");
}

static void add_range(struct text *text, const struct range *range)
{
    text_add_format(text, range->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                    (long long)range->start, (long long)range->stop, (long long)range->step);
}

static void add_container(struct text *text, struct value value)
{
    work_enter(text->work);
    switch (value.type) {
    case VALUE_LIST:
        text_add_char(text, '[');
        add_items(text, value.list);
        text_add_char(text, ']');
        break;
    case VALUE_TUPLE:
        text_add_char(text, '(');
        add_items(text, value.list);
        text_add_c(text, value.list->n == 1 ? ",)" : ")");
        break;
    case VALUE_DICT:
        add_dict(text, value.dict);
        break;
    case VALUE_VIEW:
        add_view(text, value);
        break;
    default:
        text_add_c(text, "<Namespace ");
        add_dict(text, value.names);
        text_add_char(text, '>');
    }
    work_leave(text->work);
}

/* Objects whose print holds an address in Python: here it ends without one. */
static void add_object(struct text *text, struct value value)
{
    if (value.type == VALUE_MACRO) {
        const struct str *name = value.macro->node->macro.name;

        text_add_c(text, "<Macro ");
        if (name == NULL) {
            text_add_c(text, "anonymous");
        } else {
            add_quoted(text, name);
        }
        text_add_char(text, '>');
        return;
    }
    text_add_format(text, "<%s object%s%s>", value_type_name(value),
                    value.type == VALUE_FUNCTION || value.type == VALUE_METHOD ? " " : "",
                    value.type == VALUE_FUNCTION ? value.function->name
                    : value.type == VALUE_METHOD ? value.method->builtin->name
                                                 : "");
}

void text_add_repr(struct text *text, struct value value)
{
    work_step(text->work, 1);
    switch (value.type) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
        text_add_c(text, "Undefined");
        break;
    case VALUE_NONE:
        text_add_c(text, "None");
        break;
    case VALUE_BOOL:
        text_add_c(text, value.boolean ? "True" : "False");
        break;
    case VALUE_INT:
        text_add_format(text, "%lld", (long long)value.integer);
        break;
    case VALUE_FLOAT:
        text_add_real(text, value.real);
        break;
    case VALUE_STR:
        if (value.str->markup) {
            text_add_c(text, "Markup(");
        }
        add_quoted(text, value.str);
        if (value.str->markup) {
            text_add_char(text, ')');
        }
        break;
    case VALUE_RANGE:
        add_range(text, value.range);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
    case VALUE_VIEW:
    case VALUE_NAMESPACE:
        add_container(text, value);
        break;
    default:
        add_object(text, value);
    }
}

void text_add_str(struct text *text, struct value value)
{
    if (value.type == VALUE_STR) {
        text_add(text, value.str->data, value.str->len);
    } else if (value.type != VALUE_UNDEFINED && value.type != VALUE_MISSING) {
        text_add_repr(text, value);
    }
}
