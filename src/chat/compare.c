/* SPDX-License-Identifier: Apache-2.0 */
/* What values are equal to, how they are ordered, and their types' names. */
#include <math.h>

#include "chat/value.h"

const char *value_type_name(struct value value)
{
    static const char *const names[] = {
        [VALUE_MISSING] = "missing",
        [VALUE_UNDEFINED] = "Undefined",
        [VALUE_NONE] = "NoneType",
        [VALUE_BOOL] = "bool",
        [VALUE_INT] = "int",
        [VALUE_FLOAT] = "float",
        [VALUE_STR] = "str",
        [VALUE_LIST] = "list",
        [VALUE_TUPLE] = "tuple",
        [VALUE_DICT] = "dict",
        [VALUE_VIEW] = "dict_keys",
        [VALUE_RANGE] = "range",
        [VALUE_ITER] = "generator",
        [VALUE_NAMESPACE] = "Namespace",
        [VALUE_LOOP] = "LoopContext",
        [VALUE_MACRO] = "Macro",
        [VALUE_METHOD] = "builtin_function_or_method",
        [VALUE_FUNCTION] = "function",
        [VALUE_CYCLER] = "Cycler",
        [VALUE_JOINER] = "Joiner",
    };

    if (value.type == VALUE_VIEW && value.view->kind != VIEW_KEYS) {
        return value.view->kind == VIEW_VALUES ? "dict_values" : "dict_items";
    }
    return names[value.type];
}

bool value_is_number(struct value value)
{
    return value.type == VALUE_INT || value.type == VALUE_FLOAT || value.type == VALUE_BOOL;
}

bool value_as_int(struct value value, int64_t *ret_integer)
{
    if (value.type == VALUE_BOOL) {
        *ret_integer = value.boolean;
        return true;
    }
    if (value.type == VALUE_INT) {
        *ret_integer = value.integer;
        return true;
    }
    return false;
}

double value_as_float(struct value number)
{
    int64_t i = 0;

    return value_as_int(number, &i) ? (double)i : number.real;
}

bool value_is_text(struct value value, const char *text)
{
    return value.type == VALUE_STR && value.str->len == strlen(text) &&
           memcmp(value.str->data, text, value.str->len) == 0;
}

bool value_length(struct value value, size_t *ret_n)
{
    switch (value.type) {
    case VALUE_UNDEFINED:
        *ret_n = 0;
        return true;
    case VALUE_STR:
        *ret_n = value.str->n_codes;
        return true;
    case VALUE_LIST:
    case VALUE_TUPLE:
        *ret_n = value.list->n;
        return true;
    case VALUE_DICT:
        *ret_n = value.dict->n;
        return true;
    case VALUE_VIEW:
        *ret_n = value.view->dict->n;
        return true;
    case VALUE_RANGE:
        *ret_n = value.range->n;
        return true;
    default:
        return false;
    }
}

bool value_is_truthy(struct value value)
{
    size_t n;

    switch (value.type) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return value.boolean;
    case VALUE_INT:
        return value.integer != 0;
    case VALUE_FLOAT:
        return value.real != 0.0;
    default:
        return !value_length(value, &n) || n > 0;
    }
}

bool value_is_hashable(struct value value)
{
    if (value.type == VALUE_TUPLE) {
        for (size_t i = 0; i < value.list->n; i++) {
            if (!value_is_hashable(value.list->items[i])) {
                return false;
            }
        }
        return true;
    }
    return value.type != VALUE_LIST && value.type != VALUE_DICT &&
           !(value.type == VALUE_VIEW && value.view->kind != VIEW_VALUES);
}

/* -1, 0 or 1 for an exact comparison of an integer with a float that is a number. */
static int compare_int_float(int64_t i, double f)
{
    int64_t whole;
    double rest;

    if (f >= 0x1p63) {
        return -1;
    }
    if (f < -0x1p63) {
        return 1;
    }
    whole = (int64_t)f;
    if (i != whole) {
        return i < whole ? -1 : 1;
    }
    rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

/* Of two numbers; 2 if one is not a number. */
static int compare_numbers(struct value a, struct value b)
{
    int64_t i = 0;
    int64_t j = 0;
    bool a_is_int = value_as_int(a, &i);
    bool b_is_int = value_as_int(b, &j);

    if (a_is_int && b_is_int) {
        return i < j ? -1 : i > j;
    }
    if ((!a_is_int && isnan(a.real)) || (!b_is_int && isnan(b.real))) {
        return 2;
    }
    if (a_is_int) {
        return compare_int_float(i, b.real);
    }
    if (b_is_int) {
        return -compare_int_float(j, a.real);
    }
    return a.real < b.real ? -1 : a.real > b.real;
}

static int compare_strs(struct work *work, const struct str *a, const struct str *b)
{
    size_t n = MIN(a->len, b->len);
    int order;

    work_step(work, n / 256);
    order = n == 0 ? 0 : memcmp(a->data, b->data, n);
    if (order != 0) {
        return order < 0 ? -1 : 1;
    }
    return a->len < b->len ? -1 : a->len > b->len;
}

static bool equal_lists(struct work *work, const struct list *a, const struct list *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (!value_is_equal(work, a->items[i], b->items[i])) {
            return false;
        }
    }
    return true;
}

static bool equal_dicts(struct work *work, const struct dict *a, const struct dict *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        const struct value *other = dict_get(work, b, a->entries[i].key);

        if (other == NULL || !value_is_equal(work, a->entries[i].value, *other)) {
            return false;
        }
    }
    return true;
}

static bool equal_ranges(const struct range *a, const struct range *b)
{
    return a->n == b->n && (a->n == 0 || a->start == b->start) && (a->n <= 1 || a->step == b->step);
}

static bool equal_containers(struct work *work, struct value a, struct value b)
{
    bool equal;

    work_enter(work);
    equal = a.type == VALUE_DICT ? equal_dicts(work, a.dict, b.dict)
                                 : equal_lists(work, a.list, b.list);
    work_leave(work);
    return equal;
}

bool value_is_equal(struct work *work, struct value a, struct value b)
{
    work_step(work, 1);
    if (value_is_number(a) && value_is_number(b)) {
        return compare_numbers(a, b) == 0;
    }
    if (a.type != b.type) {
        return false;
    }
    switch (a.type) {
    case VALUE_MISSING:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return true;
    case VALUE_STR:
        return a.str->len == b.str->len && compare_strs(work, a.str, b.str) == 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_DICT:
        return equal_containers(work, a, b);
    case VALUE_RANGE:
        return equal_ranges(a.range, b.range);
    case VALUE_METHOD:
        return a.method->builtin == b.method->builtin &&
               a.method->self.type == b.method->self.type &&
               a.method->self.integer == b.method->self.integer;
    default:
        return a.integer == b.integer; /* the same object */
    }
}

/* True if order (-1, 0, 1) is what op asks for. */
static bool order_fits(int order, const char *op)
{
    if (order == 0) {
        return op[1] == '=';
    }
    return op[0] == '<' ? order == -1 : order == 1;
}

static bool lists_are_ordered(struct work *work, const struct list *a, const char *op,
                              const struct list *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        if (!value_is_equal(work, a->items[i], b->items[i])) {
            bool ordered;

            work_enter(work);
            ordered = value_is_ordered(work, a->items[i], op, b->items[i]);
            work_leave(work);
            return ordered;
        }
    }
    return order_fits(a->n < b->n ? -1 : a->n > b->n, op);
}

bool value_is_ordered(struct work *work, struct value a, const char *op, struct value b)
{
    work_step(work, 1);
    if (value_is_number(a) && value_is_number(b)) {
        int order = compare_numbers(a, b);

        return order != 2 && order_fits(order, op);
    }
    if (a.type == VALUE_STR && b.type == VALUE_STR) {
        return order_fits(compare_strs(work, a.str, b.str), op);
    }
    if (a.type == b.type && (a.type == VALUE_LIST || a.type == VALUE_TUPLE)) {
        return lists_are_ordered(work, a.list, op, b.list);
    }
    if (a.type == VALUE_UNDEFINED) {
        value_fail_undefined(work, a);
    }
    if (b.type == VALUE_UNDEFINED) {
        value_fail_undefined(work, b);
    }
    work_fail(work, "'%s' not supported between instances of '%s' and '%s'", op, value_type_name(a),
              value_type_name(b));
}
