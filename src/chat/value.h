/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a template, which behave as Python's do: what they are equal to, how they compare,
 * hash and print. Values are small and passed by copy; what they point to lies in the arena of the
 * work (or of the template, for constants) and is never changed once another value may see it, but
 * for namespaces, loops, iterators, cyclers and joiners. Strings are valid UTF-8 and may hold
 * zeros. One thread at a time, except for constants, which any thread may read.
 */
#pragma once

#include "chat/work.h"

struct builtin;
struct node;
struct scope;

enum value_type {
    VALUE_MISSING, /* not a value: an absent argument or binding */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STR,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_DICT,
    VALUE_VIEW, /* dict.keys(), .values() or .items() */
    VALUE_RANGE,
    VALUE_ITER, /* can be walked once */
    VALUE_NAMESPACE,
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_METHOD, /* a builtin bound to its object */
    VALUE_FUNCTION,
    VALUE_CYCLER,
    VALUE_JOINER,
};

struct value {
    enum value_type type;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const struct str *str;
        const struct list *list; /* VALUE_TUPLE too */
        const struct dict *dict;
        const struct view *view;
        const struct range *range;
        const struct undefined *undefined;
        const struct macro *macro;
        const struct method *method;
        const struct builtin *function;
        struct dict *names; /* VALUE_NAMESPACE */
        struct iter *iter;
        struct loop *loop;
        struct cycler *cycler;
        struct joiner *joiner;
    };
};

struct str {
    const char *data; /* not zero-terminated */
    size_t len;
    size_t n_codes;
    bool markup; /* passed through escape or safe */
};

struct list {
    struct value *items;
    size_t n;
    size_t cap;
    bool group; /* of groupby: has .grouper and .list */
};

struct dict_entry {
    struct value key;
    struct value value;
};

struct dict {
    struct dict_entry *entries; /* in order of insertion */
    size_t n;
    size_t cap;
    uint32_t *slots; /* hash table of entry numbers + 1, NULL while small */
    size_t n_slots;
};

enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct view {
    enum view_kind kind;
    const struct dict *dict;
};

struct range {
    int64_t start;
    int64_t stop;
    int64_t step;
    size_t n;
};

/* Why there is no value: hint, or "OBJECT has no attribute NAME", or "NAME is undefined". */
struct undefined {
    const struct str *hint; /* NULL if none */
    struct value object;    /* VALUE_MISSING if a plain name is undefined */
    struct value name;
};

struct macro {
    const struct node *node; /* macro or call block */
    struct scope *closure;
};

struct method {
    const struct builtin *builtin;
    struct value self;
};

struct cycler {
    const struct list *items;
    size_t at;
};

struct joiner {
    struct value separator;
    bool used;
};

/* Constructors. */
static inline struct value value_none(void)
{
    return (struct value){.type = VALUE_NONE};
}

static inline struct value value_missing(void)
{
    return (struct value){.type = VALUE_MISSING};
}

static inline struct value value_bool(bool b)
{
    return (struct value){.type = VALUE_BOOL, .boolean = b};
}

static inline struct value value_int(int64_t i)
{
    return (struct value){.type = VALUE_INT, .integer = i};
}

static inline struct value value_float(double f)
{
    return (struct value){.type = VALUE_FLOAT, .real = f};
}

static inline struct value value_list(const struct list *list)
{
    return (struct value){.type = VALUE_LIST, .list = list};
}

static inline struct value value_tuple(const struct list *list)
{
    return (struct value){.type = VALUE_TUPLE, .list = list};
}

static inline struct value value_dict(const struct dict *dict)
{
    return (struct value){.type = VALUE_DICT, .dict = dict};
}

static inline struct value value_of_str(const struct str *str)
{
    return (struct value){.type = VALUE_STR, .str = str};
}

/* A string over bytes that live as long as the arena (value_str) or copied into it. */
struct value value_str(struct work *work, const char *data, size_t len);
struct value value_str_copy(struct work *work, const char *data, size_t len);
struct value value_text(struct work *work, const char *text); /* a C string that stays */
/* The bytes [start, end) of str, sharing its memory. */
struct value value_substr(struct work *work, const struct str *str, size_t start, size_t end);
struct value value_undefined_hint(struct work *work, const char *format, ...) PRINTF_LIKE(2, 3);
struct value value_undefined_name(struct work *work, struct value name);
struct value value_undefined_member(struct work *work, struct value object, struct value name);

struct list *list_new(struct work *work, size_t cap);
void list_append(struct work *work, struct list *list, struct value item);
/* A tuple of two. */
struct value value_pair(struct work *work, struct value a, struct value b);

struct dict *dict_new(struct work *work, size_t cap);
/* Adds or replaces; fails if the key cannot be hashed. */
void dict_set(struct work *work, struct dict *dict, struct value key, struct value value);
/* NULL if absent; fails if the key cannot be hashed. */
const struct value *dict_get(struct work *work, const struct dict *dict, struct value key);
const struct value *dict_get_text(const struct dict *dict, const char *text, size_t len);

/* Python's names: "str", and "dict object" as messages about attributes spell it. */
const char *value_type_name(struct value value);

bool value_is_truthy(struct value value);
bool value_is_hashable(struct value value);
void value_require_hashable(struct work *work, struct value key); /* or fails */
bool value_is_equal(struct work *work, struct value a, struct value b);
/* True for int, float and bool; *ret is then the integer of int or bool. */
bool value_is_number(struct value value);
bool value_as_int(struct value value, int64_t *ret_integer); /* int or bool */
double value_as_float(struct value number);
bool value_is_text(struct value value, const char *text);
/* a < b, a <= b, ... as op ("<", "<=", ">", ">=") says; fails if they have no order. */
bool value_is_ordered(struct work *work, struct value a, const char *op, struct value b);

/* The len() of a sized value; false if it has none. */
bool value_length(struct value value, size_t *ret_n);

/* Fails with why the value is undefined. */
NORETURN void value_fail_undefined(struct work *work, struct value undefined);
