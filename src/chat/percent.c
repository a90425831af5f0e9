/* SPDX-License-Identifier: Apache-2.0 */
/* "format" % value, as Python's printf-style formatting does it. */
#include <math.h>

#include "base/utf8.h"
#include "chat/format.h"

struct percent {
    struct env *env;
    const struct str *format;
    size_t at;
    struct value args; /* a tuple, a mapping or a single value */
    size_t next;       /* of a tuple's, or 1 once the single value is used */
    struct text text;
};

static char peek(const struct percent *p)
{
    if (p->at >= p->format->len) {
        work_fail(&p->env->work, "incomplete format");
    }
    return p->format->data[p->at];
}

static struct value next_arg(struct percent *p)
{
    size_t n = p->args.type == VALUE_TUPLE ? p->args.list->n : 1;

    if (p->next >= n) {
        work_fail(&p->env->work, "not enough arguments for format string");
    }
    p->next++;
    return p->args.type == VALUE_TUPLE ? p->args.list->items[p->next - 1] : p->args;
}

/* (NAME) */
static struct value named_arg(struct percent *p)
{
    size_t start = ++p->at;
    int open = 1;
    struct value name;
    const struct value *found;

    while (open > 0) {
        char c = peek(p);

        open += c == '(' ? 1 : c == ')' ? -1 : 0;
        p->at++;
    }
    if (p->args.type != VALUE_DICT) {
        work_fail(&p->env->work, "format requires a mapping");
    }
    name = value_str(&p->env->work, p->format->data + start, p->at - 1 - start);
    found = dict_get(&p->env->work, p->args.dict, name);
    if (found == NULL) {
        work_fail(&p->env->work, "'%.*s'", (int)MIN(name.str->len, (size_t)100), name.str->data);
    }
    return *found;
}

/* Digits, or * for an argument; -1 if there is neither. */
static int64_t take_number(struct percent *p)
{
    int64_t n = -1;

    if (peek(p) == '*') {
        p->at++;
        n = arg_int(p->env, next_arg(p), "*");
    } else {
        while (peek(p) >= '0' && peek(p) <= '9' && n <= FORMAT_WIDTH_MAX) {
            n = MAX(n, (int64_t)0) * 10 + (p->format->data[p->at++] - '0');
        }
    }
    if (n > FORMAT_WIDTH_MAX || n < -FORMAT_WIDTH_MAX) {
        work_fail(&p->env->work, "width or precision above %d is not supported", FORMAT_WIDTH_MAX);
    }
    return n;
}

static struct format_spec take_spec(struct percent *p)
{
    struct format_spec spec = {.precision = -1};
    bool zero = false;
    int64_t precision;

    for (;; p->at++) {
        char c = peek(p);

        if (c == '-') {
            spec.align = '<';
        } else if (c == '+' || (c == ' ' && spec.sign == 0)) {
            spec.sign = c;
        } else if (c == '#') {
            spec.alternate = true;
        } else if (c == '0') {
            zero = true;
        } else if (c != ' ') {
            break;
        }
    }
    spec.width = take_number(p);
    if (spec.width < -1) {
        spec.align = '<';
        spec.width = -spec.width;
    }
    if (peek(p) == '.') {
        p->at++;
        precision = take_number(p);
        spec.precision = (int)MAX(precision, (int64_t)0);
    }
    if (zero && spec.align == 0) {
        spec.align = '=';
        spec.fill[0] = '0';
        spec.fill_len = 1;
    }
    while (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L') {
        p->at++;
    }
    spec.type = peek(p);
    p->at++;
    return spec;
}

static void add_text(struct percent *p, struct value value, struct format_spec *spec)
{
    struct text text = {.work = &p->env->work};
    const struct str *str;

    if (spec->type == 's') {
        text_add_str(&text, value);
    } else {
        text_add_repr(&text, value);
    }
    str = text_value(&text).str;
    if (spec->precision >= 0 && (size_t)spec->precision < str->n_codes) {
        str = value_substr(&p->env->work, str, 0, access_offset(str, (size_t)spec->precision)).str;
    }
    spec->align = spec->align == '<' ? '<' : '>';
    spec->fill_len = 0;
    format_add_padded(&p->text, value_of_str(str), 0, spec, '>');
}

static void add_char(struct percent *p, struct value value, struct format_spec *spec)
{
    int64_t code = 0;
    struct text text = {.work = &p->env->work};

    if (value.type == VALUE_STR && value.str->n_codes == 1) {
        text_add_str(&text, value);
    } else if (value_as_int(value, &code) && code >= 0 && code <= 0x10ffff &&
               !(code >= 0xd800 && code <= 0xdfff)) {
        text_add_code(&text, (uint32_t)code);
    } else {
        work_fail(&p->env->work, "%%c requires int or char");
    }
    spec->align = spec->align == '<' ? '<' : '>';
    spec->fill_len = 0;
    format_add_padded(&p->text, text_value(&text), 0, spec, '>');
}

static void add_int(struct percent *p, struct value value, struct format_spec *spec)
{
    int64_t i = 0;

    if (value.type == VALUE_FLOAT && strchr("diu", spec->type) != NULL &&
        fabs(value.real) < 0x1p63) {
        i = (int64_t)value.real;
    } else if (!value_as_int(value, &i)) {
        if (value.type == VALUE_UNDEFINED) {
            value_fail_undefined(&p->env->work, value);
        }
        work_fail(&p->env->work, "%%%c format: a real number is required, not %s", spec->type,
                  value_type_name(value));
    }
    if (strchr("iu", spec->type) != NULL) {
        spec->type = 'd';
    }
    if (spec->precision > 64) {
        work_fail(&p->env->work, "precision above 64 is not supported for integers");
    }
    format_add_int(&p->text, i, spec);
}

static void add_conversion(struct percent *p, struct value value, struct format_spec *spec)
{
    switch (spec->type) {
    case 's':
    case 'r':
        add_text(p, value, spec);
        break;
    case 'c':
        add_char(p, value, spec);
        break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        add_int(p, value, spec);
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!value_is_number(value)) {
            if (value.type == VALUE_UNDEFINED) {
                value_fail_undefined(&p->env->work, value);
            }
            work_fail(&p->env->work, "must be real number, not %s", value_type_name(value));
        }
        format_add_float(&p->text, value_as_float(value), spec);
        break;
    default:
        work_fail(&p->env->work, "unsupported format character '%c' (0x%02x)", spec->type,
                  (unsigned char)spec->type);
    }
}

struct value op_percent(struct env *env, const struct str *format, struct value value)
{
    struct percent p = {.env = env, .format = format, .args = value, .text = {.work = &env->work}};
    bool unused_is_fine = value.type == VALUE_DICT || value.type == VALUE_LIST ||
                          value.type == VALUE_RANGE || value.type == VALUE_UNDEFINED;

    while (p.at < format->len) {
        struct format_spec spec;
        struct value arg = value_missing();

        if (format->data[p.at] != '%') {
            text_add_char(&p.text, format->data[p.at++]);
            continue;
        }
        p.at++;
        if (peek(&p) == '(') {
            arg = named_arg(&p);
        }
        spec = take_spec(&p);
        if (spec.type == '%') {
            text_add_char(&p.text, '%');
            continue;
        }
        add_conversion(&p, arg.type == VALUE_MISSING ? next_arg(&p) : arg, &spec);
    }
    if (!unused_is_fine && p.next < (value.type == VALUE_TUPLE ? value.list->n : 1)) {
        work_fail(&env->work, "not all arguments converted during string formatting");
    }
    return text_value(&p.text);
}
