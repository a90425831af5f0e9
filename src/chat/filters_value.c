/* SPDX-License-Identifier: Apache-2.0 */
/* Filters on single values, and the look-up of all filters. */
#include <math.h>

#include "chat/filters.h"
#include "chat/strings.h"

static struct value run_default(struct env *env, struct value self, const struct value *args)
{
    bool replace =
        self.type == VALUE_UNDEFINED || (value_is_truthy(args[1]) && !value_is_truthy(self));

    return replace ? filters_arg(args[0], value_text(&env->work, "")) : self;
}

static struct value run_attr(struct env *env, struct value self, const struct value *args)
{
    const struct str *name = arg_str(env, args[0], "attribute name");
    struct value found;

    if (self.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, self);
    }
    found = access_real_attr(env, self, name);
    return found.type != VALUE_MISSING ? found : value_undefined_member(&env->work, self, args[0]);
}

/* int(real): false if it is not a number; fails beyond 64 bits. */
static bool truncate_real(struct env *env, double real, int64_t *ret_integer)
{
    if (isnan(real) || isinf(real)) {
        return false;
    }
    if (real >= 0x1p63 || real < -0x1p63) {
        work_fail(&env->work, "integer needs more than 64 bits");
    }
    *ret_integer = (int64_t)real;
    return true;
}

static struct value run_int(struct env *env, struct value self, const struct value *args)
{
    int64_t base = arg_int(env, filters_arg(args[1], value_int(10)), "base");
    int64_t i = 0;
    double real = NAN;

    if (self.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, self);
    }
    if (self.type == VALUE_FLOAT && isinf(self.real)) {
        work_fail(&env->work, "cannot convert float infinity to integer");
    }
    if (self.type == VALUE_STR && (base == 0 || (base >= 2 && base <= 36)) &&
        strings_to_int(env, self.str, (int)base, &i)) {
        return value_int(i);
    }
    if (value_as_int(self, &i)) {
        return value_int(i);
    }
    if (self.type == VALUE_FLOAT) {
        real = self.real;
    } else if (self.type == VALUE_STR) {
        (void)strings_to_float(env, self.str, &real);
    }
    return truncate_real(env, real, &i) ? value_int(i) : filters_arg(args[0], value_int(0));
}

static struct value run_float(struct env *env, struct value self, const struct value *args)
{
    double real;

    if (self.type == VALUE_UNDEFINED) {
        value_fail_undefined(&env->work, self);
    }
    if (value_is_number(self)) {
        return value_float(value_as_float(self));
    }
    if (self.type == VALUE_STR && strings_to_float(env, self.str, &real)) {
        return value_float(real);
    }
    return filters_arg(args[0], value_float(0.0));
}

static struct value run_abs(struct env *env, struct value self, const struct value *args)
{
    int64_t i = 0;

    (void)args;
    if (self.type == VALUE_FLOAT) {
        return value_float(fabs(self.real));
    }
    if (!value_as_int(self, &i)) {
        work_fail(&env->work, "bad operand type for abs(): '%s'", value_type_name(self));
    }
    return i < 0 ? op_negate(env, value_int(i), true) : value_int(i);
}

/* Half to even on the exact value of the double, as Python's round(real, precision). */
static double round_real(struct env *env, double real, int64_t precision)
{
    char text[400];
    double power;
    double scaled;
    double rounded;

    if (!isfinite(real) || precision > 323) {
        return real;
    }
    if (precision >= 0) {
        snprintf(text, sizeof(text), "%.*f", (int)MIN(precision, (int64_t)60), real);
        return strtod(text, NULL);
    }
    if (precision < -308) {
        return copysign(0.0, real);
    }
    power = pow(10.0, (double)-precision);
    scaled = real / power;
    rounded = rint(scaled);
    if (isinf(rounded * power)) {
        work_fail(&env->work, "rounded value too large to represent");
    }
    return rounded * power;
}

/* round(whole, precision) for a negative precision: half to even. */
static int64_t round_int(struct env *env, int64_t whole, int64_t precision)
{
    int64_t unit = 1;
    int64_t rest;
    int64_t result;

    for (; precision < 0; precision++) {
        if (__builtin_mul_overflow(unit, (int64_t)10, &unit)) {
            return 0;
        }
    }
    rest = whole % unit;
    result = whole - rest;
    if (llabs(rest) > unit - llabs(rest) ||
        (llabs(rest) == unit - llabs(rest) && (result / unit) % 2 != 0)) {
        if (__builtin_add_overflow(result, whole < 0 ? -unit : unit, &result)) {
            work_fail(&env->work, "integer result needs more than 64 bits");
        }
    }
    return result;
}

static struct value run_round(struct env *env, struct value self, const struct value *args)
{
    int64_t precision = arg_int(env, filters_arg(args[0], value_int(0)), "precision");
    struct value method = filters_arg(args[1], value_text(&env->work, "common"));
    bool up = value_is_text(method, "ceil");
    int64_t i = 0;
    struct value power;
    double scaled;

    if (!up && !value_is_text(method, "common") && !value_is_text(method, "floor")) {
        work_fail(&env->work, "method must be common, ceil or floor");
    }
    if (!value_is_number(self)) {
        if (self.type == VALUE_UNDEFINED) {
            value_fail_undefined(&env->work, self);
        }
        work_fail(&env->work, "type %s doesn't define __round__ method", value_type_name(self));
    }
    if (value_is_text(method, "common")) {
        if (value_as_int(self, &i)) {
            return value_int(precision >= 0 ? i : round_int(env, i, precision));
        }
        return value_float(round_real(env, self.real, precision));
    }
    power = op_arithmetic(env, OP_POW, value_int(10), value_int(precision));
    scaled = value_as_float(op_arithmetic(env, OP_MUL, self, power));
    if (!isfinite(scaled)) {
        work_fail(&env->work, "cannot convert float infinity or NaN to integer");
    }
    return value_float((up ? ceil(scaled) : floor(scaled)) / value_as_float(power));
}

const struct builtin filters_on_values[] = {
    {.name = "abs", .run = run_abs},
    {.name = "attr", .run = run_attr, .params = {"name"}, .n_required = 1},
    {.name = "d", .run = run_default, .params = {"default_value", "boolean"}},
    {.name = "default", .run = run_default, .params = {"default_value", "boolean"}},
    {.name = "float", .run = run_float, .params = {"default"}},
    {.name = "int", .run = run_int, .params = {"default", "base"}},
    {.name = "round", .run = run_round, .params = {"precision", "method"}},
};
const size_t filters_n_on_values = ARRAY_LEN(filters_on_values);

const struct builtin *builtin_find_filter(const char *name, size_t len)
{
    const struct {
        const struct builtin *table;
        size_t n;
    } tables[] = {{filters_on_text, filters_n_on_text},
                  {filters_on_lists, filters_n_on_lists},
                  {filters_lazy, filters_n_lazy},
                  {filters_on_values, filters_n_on_values}};

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        const struct builtin *found = builtin_find(tables[i].table, tables[i].n, name, len);

        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}
