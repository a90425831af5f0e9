/* SPDX-License-Identifier: Apache-2.0 */
/* str.format: replacement fields, conversions and specifications; and numbers in every notation. */
#include "chat/format.h"

#include <math.h>

#include "base/utf8.h"
#include "chat/iter.h"
#include "chat/methods.h"
#include "chat/strings.h"

enum { FLOAT_PRECISION_MAX = 1000 };

void format_add_padded(struct text *text, struct value body, size_t prefix_len,
                       const struct format_spec *spec, char default_align)
{
    const char *fill = spec->fill_len == 0 ? " " : spec->fill;
    size_t fill_len = spec->fill_len == 0 ? 1 : spec->fill_len;
    char align = spec->align != 0 ? spec->align : default_align;
    size_t n = body.str->n_codes;
    size_t pad = spec->width > (int64_t)n ? (size_t)spec->width - n : 0;
    size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;

    if (align == '=') {
        text_add(text, body.str->data, prefix_len);
        text_add_chars(text, fill, fill_len, pad);
        text_add(text, body.str->data + prefix_len, body.str->len - prefix_len);
        return;
    }
    text_add_chars(text, fill, fill_len, left);
    text_add_str(text, body);
    text_add_chars(text, fill, fill_len, pad - left);
}

/* digits with a separator every size places, counted from the right. */
static void add_grouped(struct text *text, const char *digits, size_t n, char separator,
                        size_t size)
{
    for (size_t i = 0; i < n; i++) {
        if (separator != 0 && i > 0 && (n - i) % size == 0) {
            text_add_char(text, separator);
        }
        text_add_char(text, digits[i]);
    }
}

static void add_sign(struct text *text, bool negative, const struct format_spec *spec)
{
    if (negative) {
        text_add_char(text, '-');
    } else if (spec->sign != 0) {
        text_add_char(text, spec->sign);
    }
}

void format_add_int(struct text *text, int64_t value, const struct format_spec *spec)
{
    unsigned base = spec->type == 'b'            ? 2
                    : spec->type == 'o'          ? 8
                    : (spec->type | 0x20) == 'x' ? 16
                                                 : 10;
    const char *letters = spec->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    struct text body = {.work = text->work};
    char digits[72];
    size_t n = sizeof(digits);
    size_t prefix_len;

    do {
        digits[--n] = letters[rest % base];
        rest /= base;
    } while (rest > 0);
    for (; sizeof(digits) - n < (size_t)MAX(spec->precision, 0) && n > 0;) {
        digits[--n] = '0'; /* %.5d */
    }
    add_sign(&body, value < 0, spec);
    if (spec->alternate && base != 10) {
        text_add_char(&body, '0');
        text_add_char(&body, spec->type);
    }
    prefix_len = body.len;
    add_grouped(&body, digits + n, sizeof(digits) - n, spec->group, base == 10 ? 3 : 4);
    format_add_padded(text, text_value(&body), prefix_len, spec, '>');
}

/* Without a type: the shortest that reads back, or precision digits with at least ".0". */
static void add_general(struct text *text, double value, int precision)
{
    char digits[FLOAT_PRECISION_MAX + 32];
    int exponent;
    char *point;

    if (precision < 0 || !isfinite(value)) {
        text_add_real(text, value);
        return;
    }
    precision = MAX(precision, 1);
    snprintf(digits, sizeof(digits), "%.*e", precision - 1, value);
    exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= precision - (value != 0.0)) {
        snprintf(digits, sizeof(digits), "%.*g", precision, value);
        if (strchr(digits, 'e') == NULL) { /* as many digits as asked: C would not switch yet */
            snprintf(digits, sizeof(digits), "%.*e", precision - 1, value);
        }
    } else {
        snprintf(digits, sizeof(digits), "%.*g", precision, value);
    }
    point = strchr(digits, '.');
    if (point != NULL && strchr(digits, 'e') != NULL) { /* 1.20e+01: no zeros at the end */
        char *e = strchr(digits, 'e');
        char *end = e;

        while (end[-1] == '0') {
            end--;
        }
        end -= end[-1] == '.';
        memmove(end, e, strlen(e) + 1);
    }
    text_add_c(text, digits);
    if (point == NULL && strchr(digits, 'e') == NULL) {
        text_add_c(text, ".0");
    }
}

static void add_float_digits(struct text *text, double value, const struct format_spec *spec)
{
    char digits[512 + FLOAT_PRECISION_MAX];
    int precision = spec->precision < 0 ? 6 : spec->precision;
    char format[8];

    if (precision > FLOAT_PRECISION_MAX) {
        work_fail(text->work, "precision above %d is not supported", FLOAT_PRECISION_MAX);
    }
    if (spec->type == 0) {
        add_general(text, value, spec->precision);
        return;
    }
    snprintf(format, sizeof(format), "%%%s.*%c", spec->alternate ? "#" : "",
             spec->type == '%'   ? 'f'
             : spec->type == 'n' ? 'g'
                                 : spec->type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(digits, sizeof(digits), format, precision, spec->type == '%' ? value * 100.0 : value);
#pragma GCC diagnostic pop
    text_add_c(text, digits);
    if (spec->type == '%') {
        text_add_char(text, '%');
    }
}

void format_add_float(struct text *text, double value, const struct format_spec *spec)
{
    struct text digits = {.work = text->work};
    struct text body = {.work = text->work};
    bool negative = signbit(value) && !isnan(value);
    size_t whole = 0;
    size_t prefix_len;

    add_float_digits(&digits, fabs(value), spec);
    add_sign(&body, negative, spec);
    prefix_len = body.len;
    while (whole < digits.len && digits.data[whole] >= '0' && digits.data[whole] <= '9') {
        whole++;
    }
    add_grouped(&body, digits.data, whole, spec->group, 3);
    text_add(&body, digits.data + whole, digits.len - whole);
    format_add_padded(text, text_value(&body), prefix_len, spec, '>');
}

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

/* Takes digits; -1 if there are none. */
static int64_t take_number(struct env *env, const struct str *s, size_t *at)
{
    int64_t n = -1;

    for (; *at < s->len && s->data[*at] >= '0' && s->data[*at] <= '9'; (*at)++) {
        n = MAX(n, (int64_t)0) * 10 + (s->data[*at] - '0');
        if (n > FORMAT_WIDTH_MAX) {
            work_fail(&env->work, "width or precision above %d is not supported", FORMAT_WIDTH_MAX);
        }
    }
    return n;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static struct format_spec parse_spec(struct env *env, const struct str *s)
{
    struct format_spec spec = {.precision = -1};
    size_t at = utf8_valid_prefix(s->data, s->len);
    int64_t width;

    if (at > 0 && at < s->len && is_align(s->data[at])) {
        memcpy(spec.fill, s->data, at);
        spec.fill_len = at;
        spec.align = s->data[at++];
    } else {
        at = 0;
        spec.align = s->len > 0 && is_align(s->data[0]) ? s->data[at++] : '\0';
    }
    if (at < s->len && (s->data[at] == '+' || s->data[at] == '-' || s->data[at] == ' ')) {
        spec.sign = s->data[at] == '-' ? '\0' : s->data[at];
        at++;
    }
    if (at < s->len && s->data[at] == '#') {
        spec.alternate = true;
        at++;
    }
    if (at < s->len && s->data[at] == '0') {
        spec.align = spec.align == 0 ? '=' : spec.align;
        if (spec.fill_len == 0) {
            spec.fill[spec.fill_len++] = '0';
        }
        at++;
    }
    width = take_number(env, s, &at);
    spec.width = MAX(width, (int64_t)0);
    if (at < s->len && (s->data[at] == ',' || s->data[at] == '_')) {
        spec.group = s->data[at++];
    }
    if (at < s->len && s->data[at] == '.') {
        at++;
        spec.precision = (int)take_number(env, s, &at);
        if (spec.precision < 0) {
            work_fail(&env->work, "Format specifier missing precision");
        }
    }
    if (at < s->len) {
        spec.type = s->data[at++];
    }
    if (at < s->len || (spec.group != 0 && spec.align == '=' && spec.width > 0)) {
        work_fail(&env->work, "format specifier '%.*s' is not supported",
                  (int)MIN(s->len, (size_t)100), s->data);
    }
    return spec;
}

static NORETURN void fail_type(struct env *env, char type, struct value value)
{
    work_fail(&env->work, "Unknown format code '%c' for object of type '%s'", type,
              value_type_name(value));
}

static void add_str(struct env *env, struct text *text, struct value value,
                    const struct format_spec *spec)
{
    if (spec->type != 0 && spec->type != 's') {
        fail_type(env, spec->type, value);
    }
    if (spec->sign != 0 || spec->alternate || spec->group != 0 || spec->align == '=') {
        work_fail(&env->work, "this format specifier is not allowed for strings");
    }
    if (spec->precision >= 0 && (size_t)spec->precision < value.str->n_codes) {
        value = value_substr(&env->work, value.str, 0,
                             access_offset(value.str, (size_t)spec->precision));
    }
    format_add_padded(text, value, 0, spec, '<');
}

/* format(value, spec) */
static void add_formatted(struct env *env, struct text *text, struct value value,
                          const struct str *specification)
{
    struct format_spec spec;
    int64_t i = 0;

    if (specification->len == 0) {
        text_add_str(text, value);
        return;
    }
    if (value.type != VALUE_STR && !value_is_number(value)) {
        work_fail(&env->work, "unsupported format string passed to %s.__format__",
                  value_type_name(value));
    }
    spec = parse_spec(env, specification);
    if (value.type == VALUE_STR) {
        add_str(env, text, value, &spec);
    } else if (value_as_int(value, &i) && (spec.type == 0 || strchr("bdoxXn", spec.type) != NULL)) {
        if (spec.precision >= 0) {
            work_fail(&env->work, "Precision not allowed in integer format specifier");
        }
        format_add_int(text, i, &spec);
    } else if (spec.type == 0 || strchr("eEfFgGn%", spec.type) != NULL) {
        format_add_float(text, value_as_float(value), &spec);
    } else {
        fail_type(env, spec.type, value);
    }
}

/* A call of str.format: what its fields refer to. */
struct fields {
    struct env *env;
    const struct arguments *arguments;
    size_t next;   /* of the fields without a name */
    bool numbered; /* there was a field that is nothing but a number */
};

static struct value positional(struct fields *fields, size_t index)
{
    if (index >= fields->arguments->n) {
        work_fail(&fields->env->work,
                  "Replacement index %zu out of range for positional args tuple", index);
    }
    return fields->arguments->args[index];
}

static bool is_digits(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
    }
    return len > 0 && len < 10;
}

/* Fields without a name count the arguments; fields that are only a number may not be mixed with
 * them. */
static void check_numbering(struct fields *fields, const char *field, size_t len)
{
    if (len == 0 ? fields->numbered : is_digits(field, len) && fields->next > 0) {
        work_fail(&fields->env->work,
                  "cannot switch from manual field specification to automatic field numbering");
    }
    fields->numbered |= len > 0 && is_digits(field, len);
}

/* The argument that a field begins with: a number or a name. */
static struct value first_value(struct fields *fields, const char *name, size_t len)
{
    if (is_digits(name, len)) {
        return positional(fields, (size_t)strtol(name, NULL, 10));
    }
    for (size_t i = 0; i < fields->arguments->n_keywords; i++) {
        const struct keyword *keyword = &fields->arguments->keywords[i];

        if (keyword->name->len == len && memcmp(keyword->name->data, name, len) == 0) {
            return keyword->value;
        }
    }
    work_fail(&fields->env->work, "'%.*s'", (int)MIN(len, (size_t)100), name);
}

/* NAME(.ATTR | [INDEX])* */
static struct value field_value(struct fields *fields, const char *name, size_t len)
{
    struct env *env = fields->env;
    size_t at = 0;
    struct value value;

    check_numbering(fields, name, len);
    while (at < len && name[at] != '.' && name[at] != '[') {
        at++;
    }
    value = len == 0 ? positional(fields, fields->next++) : first_value(fields, name, at);
    while (at < len) {
        bool is_attr = name[at] == '.';
        size_t start = ++at;

        while (at < len && (is_attr ? name[at] != '.' && name[at] != '[' : name[at] != ']')) {
            at++;
        }
        if (at == start || (!is_attr && at == len)) {
            work_fail(&env->work, "Empty attribute in format string");
        }
        if (is_attr) {
            value = access_attr(env, value, value_str(&env->work, name + start, at - start).str);
        } else if (is_digits(name + start, at - start)) {
            value = access_item(env, value, value_int(strtol(name + start, NULL, 10)));
        } else {
            value = access_item(env, value, value_str(&env->work, name + start, at - start));
        }
        at += !is_attr;
        if (!is_attr && at < len && name[at] != '.' && name[at] != '[') {
            work_fail(&env->work, "Only '.' or '[' may follow ']' in format field specifier");
        }
    }
    return value;
}

static void add_fields(struct fields *fields, struct text *text, const char *format, size_t len,
                       int depth);

/* The inside of one pair of braces: NAME[!CONVERSION][:SPEC] */
static void add_field(struct fields *fields, struct text *text, const char *field, size_t len,
                      int depth)
{
    struct env *env = fields->env;
    struct text spec = {.work = &env->work};
    size_t at = 0;
    struct value value;

    while (at < len && field[at] != '!' && field[at] != ':') {
        at += field[at] == '[' && memchr(field + at, ']', len - at) != NULL
                  ? (size_t)((const char *)memchr(field + at, ']', len - at) - (field + at))
                  : 1;
    }
    value = field_value(fields, field, at);
    if (at < len && field[at] == '!') {
        char conversion = at + 1 < len ? field[at + 1] : '\0';
        struct text converted = {.work = &env->work};

        if (conversion == 'r') {
            text_add_repr(&converted, value);
        } else if (conversion == 's') {
            text_add_str(&converted, value);
        } else {
            work_fail(&env->work, "Unknown conversion specifier '%c'", conversion);
        }
        value = text_value(&converted);
        at += 2;
        if (at < len && field[at] != ':') {
            work_fail(&env->work, "expected ':' after conversion specifier");
        }
    }
    if (at < len) {
        add_fields(fields, &spec, field + at + 1, len - at - 1, depth + 1);
    }
    add_formatted(env, text, value, text_value(&spec).str);
}

static void add_fields(struct fields *fields, struct text *text, const char *format, size_t len,
                       int depth)
{
    struct work *work = &fields->env->work;

    if (depth > 2) {
        work_fail(work, "Max string recursion exceeded");
    }
    for (size_t at = 0; at < len; at++) {
        char c = format[at];
        size_t start = at + 1;
        int open = 1;

        if ((c == '{' || c == '}') && at + 1 < len && format[at + 1] == c) {
            text_add_char(text, format[at++]);
            continue;
        }
        if (c == '}') {
            work_fail(work, "Single '}' encountered in format string");
        }
        if (c != '{') {
            text_add_char(text, c);
            continue;
        }
        while (++at < len) {
            open += format[at] == '{' ? 1 : format[at] == '}' ? -1 : 0;
            if (open == 0) {
                break;
            }
        }
        if (open > 0) {
            work_fail(work, "%s",
                      start == len ? "Single '{' encountered in format string"
                                   : "expected '}' before end of string");
        }
        add_field(fields, text, format + start, at - start, depth);
    }
}

struct value methods_run_format(struct env *env, struct value self,
                                const struct arguments *arguments)
{
    struct fields fields = {.env = env, .arguments = arguments};
    struct text text = {.work = &env->work};

    add_fields(&fields, &text, self.str->data, self.str->len, 0);
    return text_value(&text);
}
