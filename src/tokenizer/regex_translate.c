/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Oniguruma's dialect (doc/RE of its distribution, Ruby syntax) to PCRE2's (pcre2pattern). The
 * structure is the same; only items are looked at, one after the other, inside and outside classes:
 *
 *   \s \S      White_Space, which PCRE2's \s is not exactly
 *   \d \D      Nd
 *   \w \W      Alphabetic, marks, decimal digits, connectors; outside of classes also the
 *              superscripts and fractions of Latin-1 (by experiment)
 *   \p{Han}    a script by its own property (PCRE2 means the extensions)
 *   \uHHHH     \x{HHHH}
 *   {2,3}+     refused: repeated to the one, possessive to the other; so are isolated options,
 *              back-references, classes in classes and what else differs or is rare
 */
#include "tokenizer/regex_priv.h"

#include "base/utf8.h"

#define WORD    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN_1 "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

struct input {
    const char *text;
    size_t size;
    size_t at;
};

static char peek(const struct input *in, size_t ahead)
{
    return in->at + ahead < in->size ? in->text[in->at + ahead] : '\0';
}

static bool starts_with(const struct input *in, const char *prefix)
{
    size_t n = strlen(prefix);

    return in->size - in->at >= n && memcmp(in->text + in->at, prefix, n) == 0;
}

static enum status refuse(const struct input *in, size_t n, struct err *err)
{
    return err_set(err, STATUS_UNSUPPORTED, "\"%.*s\" at byte %zu is not supported",
                   (int)MIN(n, in->size - in->at), in->text + in->at, in->at);
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* \p{L}, \p{^Lu}, \P{Han}: the name of a general category stays, another is taken for a script. */
static enum status property(struct input *in, struct buf *out, struct err *err)
{
    static const char categories[] = " C Cc Cf Cn Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No"
                                     " P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs ";
    char padded[40];
    bool inverted = peek(in, 1) == 'P';
    size_t n = 0;

    if (peek(in, 2) != '{') {
        return refuse(in, 3, err);
    }
    in->at += 3;
    if (peek(in, 0) == '^') {
        inverted = !inverted;
        in->at++;
    }
    while (is_alpha(peek(in, n)) || peek(in, n) == '_') {
        n++;
    }
    if (n == 0 || n > sizeof(padded) - 3 || peek(in, n) != '}') {
        return err_set(err, STATUS_UNSUPPORTED, "the property at byte %zu is not supported",
                       in->at);
    }
    snprintf(padded, sizeof(padded), " %.*s ", (int)n, in->text + in->at);
    buf_printf(out, "\\%c{%s%.*s}", inverted ? 'P' : 'p',
               strstr(categories, padded) != NULL ? "" : "sc:", (int)n, in->text + in->at);
    in->at += n + 1;
    return STATUS_OK;
}

/* \xHH and \uHHHH. */
static enum status code_point(struct input *in, struct buf *out, struct err *err)
{
    size_t n = peek(in, 1) == 'x' ? 2 : 4;

    for (size_t i = 0; i < n; i++) {
        if (!is_hex(peek(in, 2 + i))) {
            return refuse(in, 2 + i + 1, err);
        }
    }
    if (n == 2 && peek(in, 2) > '7') { /* a byte of a character to Oniguruma */
        return refuse(in, 4, err);
    }
    buf_printf(out, "\\x{%.*s}", (int)n, in->text + in->at + 2);
    in->at += 2 + n;
    return STATUS_OK;
}

static enum status escape(struct input *in, bool in_class, struct buf *out, struct err *err)
{
    static const struct {
        char letter;
        const char *outside;
        const char *inside;
    } letters[] = {
        {'s', "\\p{wspace}", "\\p{wspace}"},
        {'S', "\\P{wspace}", "\\P{wspace}"},
        {'d', "\\p{Nd}", "\\p{Nd}"},
        {'D', "\\P{Nd}", "\\P{Nd}"},
        {'w', "[" WORD LATIN_1 "]", WORD},
        {'W', "[^" WORD LATIN_1 "]", NULL},
        {'t', "\\t", "\\t"},
        {'n', "\\n", "\\n"},
        {'r', "\\r", "\\r"},
        {'f', "\\f", "\\f"},
        {'v', "\\x{0b}", "\\x{0b}"},
        {'a', "\\x{07}", "\\x{07}"},
        {'e', "\\x{1b}", "\\x{1b}"},
        {'A', "\\A", NULL},
        {'z', "\\z", NULL},
        {'Z', "\\Z", NULL},
    };
    char c = peek(in, 1);

    if (c == 'p' || c == 'P') {
        return property(in, out, err);
    }
    if (c == 'x' || c == 'u') {
        return code_point(in, out, err);
    }
    for (size_t i = 0; i < ARRAY_LEN(letters); i++) {
        const char *text = in_class ? letters[i].inside : letters[i].outside;

        if (c == letters[i].letter && text != NULL) {
            buf_append_str(out, text);
            in->at += 2;
            return STATUS_OK;
        }
    }
    if (c < '!' || c > '~' || is_alpha(c) || (c >= '0' && c <= '9')) {
        return refuse(in, 2, err);
    }
    buf_append(out, in->text + in->at, 2); /* a punctuation mark for itself */
    in->at += 2;
    return STATUS_OK;
}

static enum status class(struct input *in, struct buf *out, struct err *err) {
    size_t start = in->at;

    buf_append_char(out, '['); in->at++;
    if (peek(in, 0) == '^'){buf_append_char(out, '^'); in->at++;}
if (peek(in, 0) == ']')
{ /* empty to the one, a bracket to the other */
    return refuse(in, 1, err);
}
while (in->at < in->size && peek(in, 0) != ']') {
    if (peek(in, 0) == '[' || starts_with(in, "&&")) {
        return refuse(in, 2, err);
    }
    if (peek(in, 0) == '\\') {
        enum status status = escape(in, true, out, err);

        if (status != STATUS_OK) {
            return status;
        }
    } else {
        buf_append_char(out, in->text[in->at++]);
    }
}
if (in->at >= in->size) {
    return err_set(err, STATUS_INVALID, "the class at byte %zu is not closed", start);
}
buf_append_char(out, ']');
in->at++;
return STATUS_OK;
}

/* "(" and what says which kind of group it is. */
static enum status group(struct input *in, struct buf *out, struct err *err)
{
    static const char *const kinds[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};

    if (peek(in, 1) != '?') { /* its capture is of no use */
        buf_append_str(out, "(?:");
        in->at++;
        return STATUS_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (starts_with(in, kinds[i])) {
            buf_append_str(out, kinds[i]);
            in->at += strlen(kinds[i]);
            return STATUS_OK;
        }
    }
    return refuse(in, 4, err);
}

/* {n}, {n,}, {n,m}; Oniguruma's {,m} and a bare brace are refused. */
static enum status interval(struct input *in, struct buf *out, struct err *err)
{
    size_t n = 1;
    size_t digits = 0;

    for (; peek(in, n) >= '0' && peek(in, n) <= '9'; n++) {
        digits++;
    }
    if (peek(in, n) == ',') {
        n++;
    }
    while (peek(in, n) >= '0' && peek(in, n) <= '9') {
        n++;
    }
    if (digits == 0 || peek(in, n) != '}' || peek(in, n + 1) == '+' || peek(in, n + 1) == '?') {
        return refuse(in, n + 2, err);
    }
    buf_append(out, in->text + in->at, n + 1);
    in->at += n + 1;
    return STATUS_OK;
}

enum status regex_translate(const char *pattern, size_t size, struct buf *out, struct err *err)
{
    struct input in = {pattern, size, 0};
    enum status status = STATUS_OK;

    if (!utf8_is_valid(pattern, size)) {
        return err_set(err, STATUS_INVALID, "not UTF-8");
    }
    while (in.at < size && status == STATUS_OK) {
        switch (pattern[in.at]) {
        case '\\':
            status = escape(&in, false, out, err);
            break;
        case '[':
            status = class(&in, out, err);
            break;
        case '(':
            status = group(&in, out, err);
            break;
        case '{':
            status = interval(&in, out, err);
            break;
        default:
            buf_append_char(out, pattern[in.at++]);
        }
    }
    return status;
}
