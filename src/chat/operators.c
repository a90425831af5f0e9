/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic and comparison, as Python does them; integers have 64 bits and fail beyond. */
#include <math.h>

#include "chat/iter.h"
#include "chat/strings.h"

static NORETURN void fail_overflow(struct env *env)
{
    work_fail(&env->work, "integer result needs more than 64 bits");
}

static NORETURN void fail_types(struct env *env, enum arithmetic op, struct value a, struct value b)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

    if (a.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, a);
    }
    if (b.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, b);
    }
    work_fail(&env->work, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op],
              value_type_name(a), value_type_name(b));
}

static struct value int_power(struct env *env, int64_t base, int64_t exponent)
{
    int64_t result = 1;

    if (exponent < 0) {
        if (base == 0) {
            work_fail(&env->work, "0.0 cannot be raised to a negative power");
        }
        return value_float(pow((double)base, (double)exponent));
    }
    while (exponent > 0) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
            fail_overflow(env);
        }
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
            fail_overflow(env);
        }
    }
    return value_int(result);
}

/* Rounds towards minus infinity, as the remainder has the divisor's sign. */
static struct value int_divide(struct env *env, enum arithmetic op, int64_t a, int64_t b)
{
    int64_t remainder;

    if (b == 0) {
        work_fail(&env->work,
                  op == OP_MOD ? "integer modulo by zero" : "integer division or modulo by zero");
    }
    if (b == -1) {
        if (op == OP_FLOORDIV && a == INT64_MIN) {
            fail_overflow(env);
        }
        return value_int(op == OP_MOD ? 0 : -a);
    }
    remainder = a % b;
    if (remainder != 0 && (remainder < 0) != (b < 0)) {
        return value_int(op == OP_MOD ? remainder + b : a / b - 1);
    }
    return value_int(op == OP_MOD ? remainder : a / b);
}

static struct value int_arithmetic(struct env *env, enum arithmetic op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow = false;

    switch (op) {
    case OP_ADD:
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case OP_SUB:
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case OP_MUL:
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case OP_DIV:
        if (b == 0) {
            work_fail(&env->work, "division by zero");
        }
        return value_float((double)a / (double)b);
    case OP_FLOORDIV:
    case OP_MOD:
        return int_divide(env, op, a, b);
    case OP_POW:
        return int_power(env, a, b);
    }
    if (overflow) {
        fail_overflow(env);
    }
    return value_int(result);
}

static struct value float_divide(struct env *env, enum arithmetic op, double a, double b)
{
    double remainder;
    double quotient;

    if (b == 0.0) {
        work_fail(&env->work, op == OP_MOD ? "float modulo" : "float floor division by zero");
    }
    remainder = fmod(a, b);
    quotient = (a - remainder) / b;
    if (remainder != 0.0) {
        if ((b < 0) != (remainder < 0)) {
            remainder += b;
            quotient -= 1.0;
        }
    } else {
        remainder = copysign(0.0, b);
    }
    if (op == OP_MOD) {
        return value_float(remainder);
    }
    if (quotient == 0.0) {
        return value_float(copysign(0.0, a / b));
    }
    return value_float(quotient - floor(quotient) > 0.5 ? floor(quotient) + 1.0 : floor(quotient));
}

static struct value float_power(struct env *env, double a, double b)
{
    double result;

    if (a == 0.0 && b < 0.0) {
        work_fail(&env->work, "0.0 cannot be raised to a negative power");
    }
    if (a < 0.0 && isfinite(a) && isfinite(b) && floor(b) != b) {
        work_fail(&env->work, "complex numbers are not supported");
    }
    result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b)) {
        work_fail(&env->work, "(34, 'Numerical result out of range')");
    }
    return value_float(result);
}

static struct value float_arithmetic(struct env *env, enum arithmetic op, double a, double b)
{
    switch (op) {
    case OP_ADD:
        return value_float(a + b);
    case OP_SUB:
        return value_float(a - b);
    case OP_MUL:
        return value_float(a * b);
    case OP_DIV:
        if (b == 0.0) {
            work_fail(&env->work, "float division by zero");
        }
        return value_float(a / b);
    case OP_FLOORDIV:
    case OP_MOD:
        return float_divide(env, op, a, b);
    default:
        return float_power(env, a, b);
    }
}

static struct value add_strs(struct env *env, struct value a, struct value b)
{
    struct text text = {.work = &env->work};
    bool markup = a.str->markup || b.str->markup;
    struct value sum;

    if (markup) {
        a = strings_escape(env, a);
        b = strings_escape(env, b);
    }
    text_add_str(&text, a);
    text_add_str(&text, b);
    sum = text_value(&text);
    return markup ? strings_mark(env, sum) : sum;
}

static struct value add_lists(struct env *env, struct value a, struct value b)
{
    struct list *sum = list_new(&env->work, a.list->n + b.list->n);

    for (size_t i = 0; i < a.list->n; i++) {
        list_append(&env->work, sum, a.list->items[i]);
    }
    for (size_t i = 0; i < b.list->n; i++) {
        list_append(&env->work, sum, b.list->items[i]);
    }
    return a.type == VALUE_LIST ? value_list(sum) : value_tuple(sum);
}

/* A sequence n times over. */
static struct value repeat(struct env *env, struct value value, int64_t n)
{
    size_t times = n > 0 ? (size_t)n : 0;
    struct text text = {.work = &env->work};
    struct list *list;
    size_t size;

    if (value.type == VALUE_STR) {
        text_add_chars(&text, value.str->data, value.str->len, value.str->len > 0 ? times : 0);
        return text_value(&text);
    }
    if (!size_mul(value.list->n, times, &size)) {
        size = SIZE_MAX;
    }
    list = list_new(&env->work, size);
    for (size_t i = 0; i < size; i++) {
        list_append(&env->work, list, value.list->items[i % value.list->n]);
    }
    return value.type == VALUE_LIST ? value_list(list) : value_tuple(list);
}

static bool is_sequence(struct value value)
{
    return value.type == VALUE_STR || value.type == VALUE_LIST || value.type == VALUE_TUPLE;
}

struct value op_arithmetic(struct env *env, enum arithmetic op, struct value a, struct value b)
{
    int64_t i = 0;
    int64_t j = 0;

    if (value_is_number(a) && value_is_number(b)) {
        if (value_as_int(a, &i) && value_as_int(b, &j)) {
            return int_arithmetic(env, op, i, j);
        }
        return float_arithmetic(env, op, value_as_float(a), value_as_float(b));
    }
    if (op == OP_ADD && a.type == b.type && is_sequence(a)) {
        return a.type == VALUE_STR ? add_strs(env, a, b) : add_lists(env, a, b);
    }
    if (op == OP_MUL && is_sequence(a) && value_as_int(b, &j)) {
        return repeat(env, a, j);
    }
    if (op == OP_MUL && is_sequence(b) && value_as_int(a, &i)) {
        return repeat(env, b, i);
    }
    if (op == OP_MOD && a.type == VALUE_STR) {
        return op_percent(env, a.str, b);
    }
    fail_types(env, op, a, b);
}

struct value op_negate(struct env *env, struct value a, bool negative)
{
    int64_t i = 0;

    if (a.type == VALUE_FLOAT) {
        return value_float(negative ? -a.real : a.real);
    }
    if (value_as_int(a, &i)) {
        if (negative && i == INT64_MIN) {
            fail_overflow(env);
        }
        return value_int(negative ? -i : i);
    }
    if (a.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, a);
    }
    work_fail(&env->work, "bad operand type for unary %c: '%s'", negative ? '-' : '+',
              value_type_name(a));
}

static bool contains_str(struct env *env, const struct str *text, struct value item)
{
    if (item.type != VALUE_STR) {
        work_fail(&env->work, "'in <string>' requires string as left operand, not %s",
                  value_type_name(item));
    }
    return strings_find(env, text, 0, text->len, item.str) != SIZE_MAX;
}

bool op_contains(struct env *env, struct value container, struct value item)
{
    struct iter *iter;
    struct value member;

    if (container.type == VALUE_STR) {
        return contains_str(env, container.str, item);
    }
    if (container.type == VALUE_DICT) {
        return dict_get(&env->work, container.dict, item) != NULL;
    }
    if (container.type == VALUE_VIEW && container.view->kind == VIEW_KEYS) {
        return dict_get(&env->work, container.view->dict, item) != NULL;
    }
    iter = iter_try(env, container);
    if (iter == NULL) {
        work_fail(&env->work, "argument of type '%s' is not iterable", value_type_name(container));
    }
    while (iter_next(env, iter, &member)) {
        if (value_is_equal(&env->work, member, item)) {
            return true;
        }
    }
    return false;
}

bool op_compare(struct env *env, enum comparison op, struct value a, struct value b)
{
    switch (op) {
    case CMP_EQ:
        return value_is_equal(&env->work, a, b);
    case CMP_NE:
        return !value_is_equal(&env->work, a, b);
    case CMP_LT:
        return value_is_ordered(&env->work, a, "<", b);
    case CMP_LE:
        return value_is_ordered(&env->work, a, "<=", b);
    case CMP_GT:
        return value_is_ordered(&env->work, a, ">", b);
    case CMP_GE:
        return value_is_ordered(&env->work, a, ">=", b);
    case CMP_IN:
        return op_contains(env, b, a);
    default:
        return !op_contains(env, b, a);
    }
}
