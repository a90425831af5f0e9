/* SPDX-License-Identifier: Apache-2.0 */
/* Making values, and the containers. */
#include "chat/value.h"

#include <stdarg.h>

#include "base/utf8.h"
#include "chat/text.h"

enum { DICT_LINEAR = 8 }; /* entries up to which a dict is searched without a table */

static size_t count_codes(const char *data, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        n += ((unsigned char)data[i] & 0xc0) != 0x80;
    }
    return n;
}

struct value value_str(struct work *work, const char *data, size_t len)
{
    struct str *str = work_alloc(work, 1, sizeof(*str));

    *str = (struct str){.data = data, .len = len, .n_codes = count_codes(data, len)};
    return value_of_str(str);
}

struct value value_str_copy(struct work *work, const char *data, size_t len)
{
    char *copy = work_alloc(work, len, 1);

    memcpy(copy, data, len);
    return value_str(work, copy, len);
}

struct value value_text(struct work *work, const char *text)
{
    return value_str(work, text, strlen(text));
}

struct value value_substr(struct work *work, const struct str *str, size_t start, size_t end)
{
    if (start >= end) {
        return value_text(work, "");
    }
    if (start == 0 && end == str->len && !str->markup) {
        return value_of_str(str);
    }
    return value_str(work, str->data + start, end - start);
}

struct value value_undefined_hint(struct work *work, const char *format, ...)
{
    struct undefined *undefined = work_alloc(work, 1, sizeof(*undefined));
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    undefined->hint = value_str_copy(work, text, strlen(text)).str;
    return (struct value){.type = VALUE_UNDEFINED, .undefined = undefined};
}

struct value value_undefined_name(struct work *work, struct value name)
{
    return value_undefined_member(work, value_missing(), name);
}

struct value value_undefined_member(struct work *work, struct value object, struct value name)
{
    struct undefined *undefined = work_alloc(work, 1, sizeof(*undefined));

    undefined->object = object;
    undefined->name = name;
    return (struct value){.type = VALUE_UNDEFINED, .undefined = undefined};
}

void value_fail_undefined(struct work *work, struct value value)
{
    const struct undefined *undefined = value.undefined;
    struct text name = {.work = work};
    char object[64];

    if (undefined->hint != NULL) {
        work_fail(work, "%.*s", (int)MIN(undefined->hint->len, (size_t)1000),
                  undefined->hint->data);
    }
    text_add_repr(&name, undefined->name);
    if (undefined->object.type == VALUE_MISSING) {
        work_fail(work, "%.*s is undefined", (int)MIN(name.len, (size_t)1000), name.data);
    }
    snprintf(object, sizeof(object), "%s%s", value_type_name(undefined->object),
             undefined->object.type == VALUE_NONE ? "" : " object");
    if (undefined->object.type == VALUE_NONE) {
        snprintf(object, sizeof(object), "None");
    }
    if (undefined->name.type == VALUE_STR) {
        work_fail(work, "'%s' has no attribute %.*s", object, (int)MIN(name.len, (size_t)1000),
                  name.data);
    }
    work_fail(work, "%s has no element %.*s", object, (int)MIN(name.len, (size_t)1000), name.data);
}

struct list *list_new(struct work *work, size_t cap)
{
    struct list *list = work_alloc(work, 1, sizeof(*list));

    list->items = work_alloc(work, cap, sizeof(*list->items));
    list->cap = cap;
    return list;
}

void list_append(struct work *work, struct list *list, struct value item)
{
    if (list->n == list->cap) {
        size_t cap = MAX(list->cap * 2, (size_t)4);
        struct value *items = work_alloc(work, cap, sizeof(*items));

        if (list->n > 0) {
            memcpy(items, list->items, list->n * sizeof(*items));
        }
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = item;
}

struct value value_pair(struct work *work, struct value a, struct value b)
{
    struct list *pair = list_new(work, 2);

    list_append(work, pair, a);
    list_append(work, pair, b);
    return value_tuple(pair);
}

/* FNV-1a. */
static uint64_t hash_bytes(const void *bytes, size_t n)
{
    const unsigned char *byte = bytes;
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ byte[i]) * 0x100000001b3;
    }
    return hash;
}

/* Equal values hash alike: 1, 1.0 and True too. */
static uint64_t hash_value(struct value value)
{
    uint64_t hash = 7;

    switch (value.type) {
    case VALUE_BOOL:
        value = value_int(value.boolean);
        break;
    case VALUE_FLOAT:
        if (value.real >= -0x1p62 && value.real <= 0x1p62 &&
            (double)(int64_t)value.real == value.real) {
            value = value_int((int64_t)value.real);
        }
        break;
    case VALUE_STR:
        return hash_bytes(value.str->data, value.str->len);
    case VALUE_TUPLE:
        for (size_t i = 0; i < value.list->n; i++) {
            hash = hash * 31 + hash_value(value.list->items[i]);
        }
        return hash;
    case VALUE_NONE:
    case VALUE_UNDEFINED:
        return (uint64_t)value.type;
    default:
        break;
    }
    return hash_bytes(&value.integer, sizeof(value.integer));
}

struct dict *dict_new(struct work *work, size_t cap)
{
    struct dict *dict = work_alloc(work, 1, sizeof(*dict));

    dict->entries = work_alloc(work, cap, sizeof(*dict->entries));
    dict->cap = cap;
    return dict;
}

static void insert_slot(struct dict *dict, size_t entry)
{
    size_t at = hash_value(dict->entries[entry].key) & (dict->n_slots - 1);

    while (dict->slots[at] != 0) {
        at = (at + 1) & (dict->n_slots - 1);
    }
    dict->slots[at] = (uint32_t)entry + 1;
}

static void grow_dict(struct work *work, struct dict *dict)
{
    size_t cap = MAX(dict->cap * 2, (size_t)4);
    struct dict_entry *entries = work_alloc(work, cap, sizeof(*entries));

    if (dict->n > 0) {
        memcpy(entries, dict->entries, dict->n * sizeof(*entries));
    }
    dict->entries = entries;
    dict->cap = cap;
}

static void rebuild_slots(struct work *work, struct dict *dict)
{
    dict->n_slots = MAX(dict->n_slots * 2, (size_t)32);
    while (dict->n_slots < dict->n * 2) {
        dict->n_slots *= 2;
    }
    dict->slots = work_alloc(work, dict->n_slots, sizeof(*dict->slots));
    for (size_t i = 0; i < dict->n; i++) {
        insert_slot(dict, i);
    }
}

void value_require_hashable(struct work *work, struct value key)
{
    if (!value_is_hashable(key)) {
        work_fail(work, "unhashable type: '%s'", value_type_name(key));
    }
}

const struct value *dict_get(struct work *work, const struct dict *dict, struct value key)
{
    size_t at;

    value_require_hashable(work, key);
    if (dict->slots == NULL) {
        for (size_t i = 0; i < dict->n; i++) {
            if (value_is_equal(work, dict->entries[i].key, key)) {
                return &dict->entries[i].value;
            }
        }
        return NULL;
    }
    at = hash_value(key) & (dict->n_slots - 1);
    for (; dict->slots[at] != 0; at = (at + 1) & (dict->n_slots - 1)) {
        const struct dict_entry *entry = &dict->entries[dict->slots[at] - 1];

        if (value_is_equal(work, entry->key, key)) {
            return &entry->value;
        }
    }
    return NULL;
}

const struct value *dict_get_text(const struct dict *dict, const char *text, size_t len)
{
    size_t at;

    if (dict->slots == NULL) {
        for (size_t i = 0; i < dict->n; i++) {
            const struct dict_entry *entry = &dict->entries[i];

            if (entry->key.type == VALUE_STR && entry->key.str->len == len &&
                memcmp(entry->key.str->data, text, len) == 0) {
                return &entry->value;
            }
        }
        return NULL;
    }
    at = hash_bytes(text, len) & (dict->n_slots - 1);
    for (; dict->slots[at] != 0; at = (at + 1) & (dict->n_slots - 1)) {
        const struct dict_entry *entry = &dict->entries[dict->slots[at] - 1];

        if (entry->key.type == VALUE_STR && entry->key.str->len == len &&
            memcmp(entry->key.str->data, text, len) == 0) {
            return &entry->value;
        }
    }
    return NULL;
}

void dict_set(struct work *work, struct dict *dict, struct value key, struct value value)
{
    struct value *place = (struct value *)dict_get(work, dict, key);

    if (place != NULL) {
        *place = value;
        return;
    }
    if (dict->n == dict->cap) {
        grow_dict(work, dict);
    }
    dict->entries[dict->n++] = (struct dict_entry){.key = key, .value = value};
    if (dict->slots == NULL ? dict->n > DICT_LINEAR : dict->n * 2 > dict->n_slots) {
        rebuild_slots(work, dict);
    } else if (dict->slots != NULL) {
        insert_slot(dict, dict->n - 1);
    }
}
