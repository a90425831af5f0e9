/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of strings that change or test their shape: case, width, kinds of characters. */
#include "chat/methods.h"

#include "base/utf8.h"
#include "chat/strings.h"
#include "chat/unicode.h"

struct value methods_run_upper(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_case(env, self.str, CASE_UPPER);
}

struct value methods_run_lower(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_case(env, self.str, CASE_LOWER);
}

struct value methods_run_title(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_case(env, self.str, CASE_TITLE);
}

struct value methods_run_capitalize(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_case(env, self.str, CASE_CAPITAL);
}

struct value methods_run_swapcase(struct env *env, struct value self, const struct value *args)
{
    (void)args;
    return strings_case(env, self.str, CASE_SWAP);
}

static struct value pad(struct env *env, struct value self, const struct value *args,
                        enum strings_side side)
{
    const struct str *fill = NULL;

    if (args[1].type != VALUE_MISSING) {
        fill = arg_str(env, args[1], "fill character");
        if (fill->n_codes != 1) {
            work_fail(&env->work, "The fill character must be exactly one character long");
        }
    }
    return strings_pad(env, self.str, arg_int(env, args[0], "width"),
                       fill == NULL ? " " : fill->data, fill == NULL ? 1 : fill->len, side);
}

struct value methods_run_center(struct env *env, struct value self, const struct value *args)
{
    return pad(env, self, args, STRINGS_BOTH);
}

struct value methods_run_ljust(struct env *env, struct value self, const struct value *args)
{
    return pad(env, self, args, STRINGS_RIGHT);
}

struct value methods_run_rjust(struct env *env, struct value self, const struct value *args)
{
    return pad(env, self, args, STRINGS_LEFT);
}

struct value methods_run_zfill(struct env *env, struct value self, const struct value *args)
{
    struct text text = {.work = &env->work};
    bool sign = self.str->len > 0 && (self.str->data[0] == '-' || self.str->data[0] == '+');
    const struct str *digits = value_substr(&env->work, self.str, sign ? 1 : 0, self.str->len).str;
    int64_t width = arg_int(env, args[0], "width");

    text_add(&text, self.str->data, sign ? 1 : 0);
    text_add_str(&text, strings_pad(env, digits, width - sign, "0", 1, STRINGS_LEFT));
    return text_value(&text);
}

struct value methods_run_expandtabs(struct env *env, struct value self, const struct value *args)
{
    int64_t size = args[0].type == VALUE_MISSING ? 8 : arg_int(env, args[0], "tabsize");
    struct text text = {.work = &env->work};
    int64_t column = 0;

    for (size_t i = 0; i < self.str->len; i++) {
        char c = self.str->data[i];

        if (c == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;

            text_add_chars(&text, " ", 1, (size_t)n);
            column += n;
            continue;
        }
        text_add_char(&text, c);
        column = c == '\n' || c == '\r' ? 0 : column + (((unsigned char)c & 0xc0) != 0x80);
    }
    return text_value(&text);
}

/* All characters have one of the properties, and there is at least one. */
static struct value all_are(struct value self, unsigned properties)
{
    uint32_t code = 0;
    size_t n;

    for (size_t at = 0; at < self.str->len; at += n) {
        n = utf8_decode(self.str->data + at, self.str->len - at, &code);
        if (!unicode_has(code, properties)) {
            return value_bool(false);
        }
    }
    return value_bool(self.str->len > 0);
}

#define ALL_ARE(function, properties)                                                   \
    struct value function(struct env *env, struct value self, const struct value *args) \
    {                                                                                   \
        (void)env;                                                                      \
        (void)args;                                                                     \
        return all_are(self, properties);                                               \
    }

ALL_ARE(methods_run_isalnum, UNICODE_ALNUM)
ALL_ARE(methods_run_isalpha, UNICODE_ALPHA)
ALL_ARE(methods_run_isdecimal, UNICODE_DECIMAL)
ALL_ARE(methods_run_isdigit, UNICODE_DIGIT)
ALL_ARE(methods_run_isnumeric, UNICODE_NUMERIC)
ALL_ARE(methods_run_isspace, UNICODE_SPACE)

struct value methods_run_isprintable(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    return value_bool(self.str->len == 0 || all_are(self, UNICODE_PRINTABLE).boolean);
}

struct value methods_run_isascii(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    for (size_t i = 0; i < self.str->len; i++) {
        if ((unsigned char)self.str->data[i] >= 0x80) {
            return value_bool(false);
        }
    }
    return value_bool(true);
}

bool methods_all_cased(const struct str *text, unsigned wanted)
{
    unsigned other = UNICODE_CASED & ~wanted;
    bool found = false;
    uint32_t code = 0;
    size_t n;

    for (size_t at = 0; at < text->len; at += n) {
        n = utf8_decode(text->data + at, text->len - at, &code);
        if (unicode_has(code, other)) {
            return false;
        }
        found |= unicode_has(code, wanted);
    }
    return found;
}

struct value methods_run_islower(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    return value_bool(methods_all_cased(self.str, UNICODE_LOWER));
}

struct value methods_run_isupper(struct env *env, struct value self, const struct value *args)
{
    (void)env;
    (void)args;
    return value_bool(methods_all_cased(self.str, UNICODE_UPPER));
}

struct value methods_run_istitle(struct env *env, struct value self, const struct value *args)
{
    bool after_cased = false;
    bool found = false;
    uint32_t code = 0;
    size_t n;

    (void)env;
    (void)args;
    for (size_t at = 0; at < self.str->len; at += n) {
        n = utf8_decode(self.str->data + at, self.str->len - at, &code);
        if (unicode_has(code, UNICODE_UPPER | UNICODE_TITLE) ? after_cased
            : unicode_has(code, UNICODE_LOWER)               ? !after_cased
                                                             : false) {
            return value_bool(false);
        }
        after_cased = unicode_has(code, UNICODE_CASED);
        found |= after_cased;
    }
    return value_bool(found);
}
