/* SPDX-License-Identifier: Apache-2.0 */
/* What may follow "is". */
#include "chat/iter.h"
#include "chat/methods.h"
#include "chat/unicode.h"

#define TEST(function, condition)                                                              \
    static struct value function(struct env *env, struct value self, const struct value *args) \
    {                                                                                          \
        (void)env;                                                                             \
        (void)args;                                                                            \
        return value_bool(condition);                                                          \
    }

TEST(run_defined, self.type != VALUE_UNDEFINED)
TEST(run_undefined, self.type == VALUE_UNDEFINED)
TEST(run_none, self.type == VALUE_NONE)
TEST(run_boolean, self.type == VALUE_BOOL)
TEST(run_true, self.type == VALUE_BOOL && self.boolean)
TEST(run_false, self.type == VALUE_BOOL && !self.boolean)
TEST(run_integer, self.type == VALUE_INT)
TEST(run_float, self.type == VALUE_FLOAT)
TEST(run_number, value_is_number(self))
TEST(run_string, self.type == VALUE_STR)
TEST(run_mapping, self.type == VALUE_DICT)
TEST(run_escaped, self.type == VALUE_STR && self.str->markup)
TEST(run_eq, op_compare(env, CMP_EQ, self, args[0]))
TEST(run_ne, op_compare(env, CMP_NE, self, args[0]))
TEST(run_lt, op_compare(env, CMP_LT, self, args[0]))
TEST(run_le, op_compare(env, CMP_LE, self, args[0]))
TEST(run_gt, op_compare(env, CMP_GT, self, args[0]))
TEST(run_ge, op_compare(env, CMP_GE, self, args[0]))
TEST(run_in, op_contains(env, args[0], self))
TEST(run_lower, methods_all_cased(text_of(&env->work, self).str, UNICODE_LOWER))
TEST(run_upper, methods_all_cased(text_of(&env->work, self).str, UNICODE_UPPER))

static struct value run_sequence(struct env *env, struct value self, const struct value *args)
{
    size_t n;

    (void)env;
    (void)args;
    return value_bool(value_length(self, &n) && self.type != VALUE_VIEW);
}

static struct value run_iterable(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return value_bool(iter_try(env, self) != NULL);
}

static struct value run_callable(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    switch (self.type) {
    case VALUE_UNDEFINED: /* calling one is what raises its error */
    case VALUE_LOOP:
    case VALUE_MACRO:
    case VALUE_METHOD:
    case VALUE_FUNCTION:
    case VALUE_JOINER:
        return value_bool(true);
    default:
        return value_bool(false);
    }
}

static struct value run_sameas(struct env *env, struct value self, const struct value *args)
{
    bool scalar = self.type == VALUE_INT || self.type == VALUE_FLOAT || self.type == VALUE_STR ||
                  self.type == VALUE_BOOL || self.type == VALUE_NONE;

    if (self.type != args[0].type) {
        return value_bool(false);
    }
    if (scalar) {
        return value_bool(value_is_equal(&env->work, self, args[0]));
    }
    return value_bool(self.integer == args[0].integer); /* the same object */
}

static bool remainder_is(struct env *env, struct value self, struct value divisor, int64_t expected)
{
    struct value remainder = op_arithmetic(env, OP_MOD, self, divisor);

    return value_is_equal(&env->work, remainder, value_int(expected));
}

static struct value run_odd(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return value_bool(remainder_is(env, self, value_int(2), 1));
}

static struct value run_even(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return value_bool(remainder_is(env, self, value_int(2), 0));
}

static struct value run_divisibleby(struct env *env, struct value self, const struct value *args)
{
    return value_bool(remainder_is(env, self, args[0], 0));
}

static struct value run_filter(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    value_require_hashable(&env->work, self);
    return value_bool(self.type == VALUE_STR &&
                      builtin_find_filter(self.str->data, self.str->len) != NULL);
}

static struct value run_test(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    value_require_hashable(&env->work, self);
    return value_bool(self.type == VALUE_STR &&
                      builtin_find_test(self.str->data, self.str->len) != NULL);
}

#define COMPARISON(spelling, function)                                           \
    {                                                                            \
        .name = spelling, .run = function, .params = {"other"}, .n_required = 1, \
        .positional = true                                                       \
    }

static const struct builtin tests[] = {
    {.name = "boolean", .run = run_boolean},
    {.name = "callable", .run = run_callable},
    {.name = "defined", .run = run_defined},
    {.name = "divisibleby", .run = run_divisibleby, .params = {"num"}, .n_required = 1},
    {.name = "escaped", .run = run_escaped},
    {.name = "even", .run = run_even},
    {.name = "false", .run = run_false},
    {.name = "filter", .run = run_filter},
    {.name = "float", .run = run_float},
    {.name = "in", .run = run_in, .params = {"seq"}, .n_required = 1},
    {.name = "integer", .run = run_integer},
    {.name = "iterable", .run = run_iterable},
    {.name = "lower", .run = run_lower},
    {.name = "mapping", .run = run_mapping},
    {.name = "none", .run = run_none},
    {.name = "number", .run = run_number},
    {.name = "odd", .run = run_odd},
    {.name = "sameas", .run = run_sameas, .params = {"other"}, .n_required = 1},
    {.name = "sequence", .run = run_sequence},
    {.name = "string", .run = run_string},
    {.name = "test", .run = run_test},
    {.name = "true", .run = run_true},
    {.name = "undefined", .run = run_undefined},
    {.name = "upper", .run = run_upper},
    COMPARISON("==", run_eq),
    COMPARISON("eq", run_eq),
    COMPARISON("equalto", run_eq),
    COMPARISON("!=", run_ne),
    COMPARISON("ne", run_ne),
    COMPARISON(">", run_gt),
    COMPARISON("gt", run_gt),
    COMPARISON("greaterthan", run_gt),
    COMPARISON(">=", run_ge),
    COMPARISON("ge", run_ge),
    COMPARISON("<", run_lt),
    COMPARISON("lt", run_lt),
    COMPARISON("lessthan", run_lt),
    COMPARISON("<=", run_le),
    COMPARISON("le", run_le),
};

const struct builtin *builtin_find_test(const char *name, size_t len)
{
    return builtin_find(tests, ARRAY_LEN(tests), name, len);
}
