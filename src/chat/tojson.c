/* SPDX-License-Identifier: Apache-2.0 */
/* The filter tojson as transformers sets it: Python's json.dumps without escapes for HTML. */
#include <math.h>

#include "base/utf8.h"
#include "chat/filters.h"
#include "chat/sort.h"

struct dump {
    struct env *env;
    struct text text;
    bool ascii;
    bool sort_keys;
    const struct str *indent; /* NULL: one line */
    const struct str *item_separator;
    const struct str *key_separator;
};

static void add_value(struct dump *dump, struct value value, int depth);

static void add_escape(struct text *text, uint32_t code)
{
    static const char letters[] = "\"\\\n\r\t\f\b";
    static const char names[] = "\"\\nrtfb";
    const char *letter = code == 0 || code > 0x7f ? NULL : strchr(letters, (char)code);

    if (letter != NULL) {
        text_add_char(text, '\\');
        text_add_char(text, names[letter - letters]);
    } else if (code >= 0x10000) {
        code -= 0x10000;
        text_add_format(text, "\\u%04x\\u%04x", (unsigned)(0xd800 + (code >> 10)),
                        (unsigned)(0xdc00 + (code & 0x3ff)));
    } else {
        text_add_format(text, "\\u%04x", (unsigned)code);
    }
}

static void add_string(struct dump *dump, const struct str *s)
{
    size_t plain = 0; /* where what is still to be copied begins */

    text_add_char(&dump->text, '"');
    for (size_t at = 0; at < s->len;) {
        uint32_t code = 0;
        size_t n = utf8_decode(s->data + at, s->len - at, &code);

        if (code < 0x20 || code == '"' || code == '\\' || (dump->ascii && code > '~')) {
            text_add(&dump->text, s->data + plain, at - plain);
            add_escape(&dump->text, code);
            plain = at + n;
        }
        at += n;
    }
    text_add(&dump->text, s->data + plain, s->len - plain);
    text_add_char(&dump->text, '"');
}

static void add_real(struct text *text, double real)
{
    if (isnan(real)) {
        text_add_c(text, "NaN");
    } else if (isinf(real)) {
        text_add_c(text, real < 0 ? "-Infinity" : "Infinity");
    } else {
        text_add_real(text, real);
    }
}

static void new_line(struct dump *dump, int depth)
{
    if (dump->indent != NULL) {
        text_add_char(&dump->text, '\n');
        text_add_chars(&dump->text, dump->indent->data, dump->indent->len, (size_t)depth);
    }
}

static void add_key(struct dump *dump, struct value key)
{
    struct text *text = &dump->text;

    if (key.type == VALUE_STR) {
        add_string(dump, key.str);
        return;
    }
    if (key.type != VALUE_NONE && !value_is_number(key)) {
        work_fail(text->work, "keys must be str, int, float, bool or None, not %s",
                  value_type_name(key));
    }
    text_add_char(text, '"');
    add_value(dump, key, 0);
    text_add_char(text, '"');
}

static void add_dict(struct dump *dump, const struct dict *dict, int depth)
{
    const size_t *order = dump->sort_keys ? sort_keys(dump->env, dict) : NULL;

    text_add_char(&dump->text, '{');
    for (size_t i = 0; i < dict->n; i++) {
        const struct dict_entry *entry = &dict->entries[order == NULL ? i : order[i]];

        if (i > 0) {
            text_add(&dump->text, dump->item_separator->data, dump->item_separator->len);
        }
        new_line(dump, depth + 1);
        add_key(dump, entry->key);
        text_add(&dump->text, dump->key_separator->data, dump->key_separator->len);
        add_value(dump, entry->value, depth + 1);
    }
    if (dict->n > 0) {
        new_line(dump, depth);
    }
    text_add_char(&dump->text, '}');
}

static void add_list(struct dump *dump, const struct list *list, int depth)
{
    text_add_char(&dump->text, '[');
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0) {
            text_add(&dump->text, dump->item_separator->data, dump->item_separator->len);
        }
        new_line(dump, depth + 1);
        add_value(dump, list->items[i], depth + 1);
    }
    if (list->n > 0) {
        new_line(dump, depth);
    }
    text_add_char(&dump->text, ']');
}

static void add_value(struct dump *dump, struct value value, int depth)
{
    struct text *text = &dump->text;

    work_step(text->work, 1);
    work_enter(text->work);
    switch (value.type) {
    case VALUE_NONE:
        text_add_c(text, "null");
        break;
    case VALUE_BOOL:
        text_add_c(text, value.boolean ? "true" : "false");
        break;
    case VALUE_INT:
        text_add_repr(text, value);
        break;
    case VALUE_FLOAT:
        add_real(text, value.real);
        break;
    case VALUE_STR:
        add_string(dump, value.str);
        break;
    case VALUE_LIST:
    case VALUE_TUPLE:
        add_list(dump, value.list, depth);
        break;
    case VALUE_DICT:
        add_dict(dump, value.dict, depth);
        break;
    default:
        work_fail(text->work, "Object of type %s is not JSON serializable", value_type_name(value));
    }
    work_leave(text->work);
}

/* separators: (item, key); by default ", " and ": ", without the space after items if indented. */
static void set_separators(struct dump *dump, struct value separators)
{
    struct work *work = &dump->env->work;

    dump->item_separator = value_text(work, dump->indent == NULL ? ", " : ",").str;
    dump->key_separator = value_text(work, ": ").str;
    if (separators.type == VALUE_NONE) {
        return;
    }
    if ((separators.type != VALUE_TUPLE && separators.type != VALUE_LIST) ||
        separators.list->n != 2) {
        work_fail(work, "separators must be a pair of strings");
    }
    dump->item_separator = arg_str(dump->env, separators.list->items[0], "separator");
    dump->key_separator = arg_str(dump->env, separators.list->items[1], "separator");
}

struct value filters_run_tojson(struct env *env, struct value self, const struct value *args)
{
    struct dump dump = {.env = env, .text = {.work = &env->work}};
    struct value indent = filters_optional(args[1]);
    struct text spaces = {.work = &env->work};

    dump.ascii = value_is_truthy(args[0]);
    dump.sort_keys = value_is_truthy(args[3]);
    if (indent.type == VALUE_STR) {
        dump.indent = indent.str;
    } else if (indent.type != VALUE_NONE) {
        text_add_chars(&spaces, " ", 1, (size_t)MAX(arg_int(env, indent, "indent"), (int64_t)0));
        dump.indent = text_value(&spaces).str;
    }
    set_separators(&dump, filters_optional(args[2]));
    add_value(&dump, self, 0);
    return text_value(&dump.text);
}
