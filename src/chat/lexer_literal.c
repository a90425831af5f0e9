/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, strings and brackets inside tags. */
#include "chat/lexer_priv.h"

#include <errno.h>

#include "base/utf8.h"
#include "chat/text.h"

void lexer_balance(struct lexer *lexer, char c)
{
    char due = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : '\0';

    if (due != '\0') {
        if (lexer->n_open == LEXER_OPEN_MAX) {
            work_fail(lexer->work, "more than %d nested brackets", LEXER_OPEN_MAX);
        }
        lexer->open[lexer->n_open++] = due;
    } else if (c == ')' || c == ']' || c == '}') {
        if (lexer->n_open == 0) {
            work_fail(lexer->work, "unexpected '%c'", c);
        }
        due = lexer->open[--lexer->n_open];
        if (due != c) {
            work_fail(lexer->work, "unexpected '%c', expected '%c'", c, due);
        }
    }
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

static char char_at(const struct lexer *lexer, size_t pos)
{
    return pos < lexer->size ? lexer->source[pos] : '\0';
}

/* The end of digits of base from pos on, single underscores between them; pos if there is none. */
static size_t digits_end(const struct lexer *lexer, size_t pos, int base)
{
    size_t end = pos;

    for (;;) {
        if (digit_value(char_at(lexer, end)) < base) {
            end++;
        } else if (end > pos && char_at(lexer, end) == '_' &&
                   digit_value(char_at(lexer, end + 1)) < base) {
            end++;
        } else {
            return end;
        }
    }
}

/* The end of a float at the position, 0 if there is none. */
static size_t float_end(const struct lexer *lexer)
{
    size_t whole = digits_end(lexer, lexer->pos, 10);
    size_t end = whole;
    bool is_float = false;

    if (whole == lexer->pos || (lexer->pos > 0 && lexer->source[lexer->pos - 1] == '.')) {
        return 0;
    }
    if (char_at(lexer, end) == '.' && digits_end(lexer, end + 1, 10) > end + 1) {
        end = digits_end(lexer, end + 1, 10);
        is_float = true;
    }
    if ((char_at(lexer, end) | 0x20) == 'e') {
        size_t digits = end + 1;

        digits += char_at(lexer, digits) == '+' || char_at(lexer, digits) == '-';
        if (digits_end(lexer, digits, 10) > digits) {
            return digits_end(lexer, digits, 10);
        }
    }
    return is_float ? end : 0;
}

static size_t read_float(struct lexer *lexer, size_t end, struct token *token)
{
    struct text text = {.work = lexer->work};

    for (size_t i = lexer->pos; i < end; i++) {
        if (lexer->source[i] != '_') {
            text_add_char(&text, lexer->source[i]);
        }
    }
    text_add_char(&text, '\0');
    *token = (struct token){.type = TOKEN_FLOAT, .value = value_float(strtod(text.data, NULL))};
    return end;
}

size_t lexer_number(struct lexer *lexer, struct token *token)
{
    size_t start = lexer->pos;
    size_t end = float_end(lexer);
    char kind = (char)(char_at(lexer, start + 1) | 0x20);
    int base = 10;
    int64_t n = 0;

    if (end > 0) {
        return read_float(lexer, end, token);
    }
    if (digit_value(char_at(lexer, start)) > 9) {
        return 0;
    }
    if (lexer->source[start] == '0') {
        size_t digits;

        base = kind == 'b' ? 2 : kind == 'o' ? 8 : kind == 'x' ? 16 : 1; /* 1: zeros only */
        digits = base == 1 ? start : start + 2 + (char_at(lexer, start + 2) == '_');
        end = digits_end(lexer, digits, base);
        if (end == digits) { /* 0b without digits: the number 0, then a name */
            base = 1;
            end = digits_end(lexer, start, 1);
        }
    } else {
        end = digits_end(lexer, start, 10);
    }
    for (size_t i = start + (base > 1 && base != 10 ? 2 : 0); i < end; i++) {
        if (lexer->source[i] != '_' &&
            (__builtin_mul_overflow(n, base, &n) ||
             __builtin_add_overflow(n, digit_value(lexer->source[i]), &n))) {
            work_fail(lexer->work, "integer %.*s needs more than 64 bits",
                      (int)MIN(end - start, (size_t)100), lexer->source + start);
        }
    }
    *token = (struct token){.type = TOKEN_INTEGER, .value = value_int(n)};
    return end;
}

static void add_unescaped_code(struct lexer *lexer, struct text *text, uint32_t code)
{
    if (code >= 0xd800 && code <= 0xdfff) {
        work_fail(lexer->work, "lone surrogate \\u%04x in a string", (unsigned)code);
    }
    if (code > 0x10ffff) {
        work_fail(lexer->work, "illegal Unicode character");
    }
    text_add_code(text, code);
}

/* \xHH, \uHHHH or \UHHHHHHHH whose digits begin at pos; returns the position after it. */
static size_t unescape_hex(struct lexer *lexer, struct text *text, size_t pos, size_t n)
{
    uint32_t code = 0;

    for (size_t i = 0; i < n; i++) {
        int digit = digit_value(char_at(lexer, pos + i));

        if (digit > 15) {
            work_fail(lexer->work, "truncated \\%c%.*s escape",
                      n == 2   ? 'x'
                      : n == 4 ? 'u'
                               : 'U',
                      (int)n, "XXXXXXXX");
        }
        code = code << 4 | (uint32_t)digit;
    }
    add_unescaped_code(lexer, text, code);
    return pos + n;
}

static size_t unescape_octal(struct lexer *lexer, struct text *text, size_t pos)
{
    uint32_t code = 0;

    for (size_t i = 0; i < 3 && digit_value(char_at(lexer, pos)) < 8; i++, pos++) {
        code = code << 3 | (uint32_t)digit_value(char_at(lexer, pos));
    }
    add_unescaped_code(lexer, text, code);
    return pos;
}

/* Python turns non-ASCII characters into escapes before it reads escapes, so that a backslash in
 * front of one yields the letters of its escape. */
static size_t unescape_other(struct lexer *lexer, struct text *text, size_t pos)
{
    uint32_t code = 0;
    size_t n = utf8_decode(lexer->source + pos, lexer->size - pos, &code);

    text_add_char(text, '\\');
    if (code < 0x80) {
        text_add(text, lexer->source + pos, n);
    } else {
        text_add_format(text,
                        code < 0x100     ? "x%02x"
                        : code < 0x10000 ? "u%04x"
                                         : "U%08x",
                        (unsigned)code);
    }
    return pos + n;
}

/* The escape after a backslash; returns the position after it. */
static size_t unescape(struct lexer *lexer, struct text *text, size_t pos)
{
    static const char letters[] = "\\'\"abfnrtv\n";
    static const char *const meanings[] = {"\\", "'",  "\"", "\a", "\b", "\f",
                                           "\n", "\r", "\t", "\v", ""};
    char c = lexer->source[pos];
    const char *letter = c == '\0' ? NULL : strchr(letters, c);

    if (letter != NULL) {
        text_add_c(text, meanings[letter - letters]);
        return pos + 1;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        return unescape_hex(lexer, text, pos + 1, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    }
    if (c >= '0' && c <= '7') {
        return unescape_octal(lexer, text, pos);
    }
    if (c == 'N') {
        work_fail(lexer->work, "escape \\N is not supported");
    }
    return unescape_other(lexer, text, pos);
}

size_t lexer_string(struct lexer *lexer, struct token *token)
{
    char quote = lexer->source[lexer->pos];
    size_t start = lexer->pos + 1;
    struct text text = {.work = lexer->work};
    size_t end = start;

    if (quote != '\'' && quote != '"') {
        return 0;
    }
    while (end < lexer->size && lexer->source[end] != quote) {
        end += lexer->source[end] == '\\' ? 2 : 1;
    }
    if (end >= lexer->size) {
        return 0;
    }
    for (size_t i = start; i < end;) {
        const char *backslash = memchr(lexer->source + i, '\\', end - i);
        size_t plain = backslash == NULL ? end : (size_t)(backslash - lexer->source);

        text_add(&text, lexer->source + i, plain - i);
        i = plain == end ? end : unescape(lexer, &text, plain + 1);
    }
    *token = (struct token){.type = TOKEN_STRING, .value = text_value(&text)};
    return end + 1;
}
