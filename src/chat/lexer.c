/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text between tags is one state, the inside of a tag the other; comments and raw blocks are
 * consumed whole. A sign beside a tag's bracket strips ("-") or keeps ("+") the white space next to
 * it; otherwise a block or comment tag alone in front of its line loses the indentation, and the
 * newline right after it.
 */
#include "chat/lexer.h"

#include <errno.h>

#include "base/utf8.h"
#include "chat/lexer_priv.h"
#include "chat/unicode.h"

static const struct {
    const char *text;
    enum token_type type;
} operators[] = {
    {"//", TOKEN_FLOORDIV}, {"**", TOKEN_POW},      {"==", TOKEN_EQ},    {"!=", TOKEN_NE},
    {">=", TOKEN_GTEQ},     {"<=", TOKEN_LTEQ},     {"+", TOKEN_ADD},    {"-", TOKEN_SUB},
    {"/", TOKEN_DIV},       {"*", TOKEN_MUL},       {"%", TOKEN_MOD},    {"~", TOKEN_TILDE},
    {"[", TOKEN_LBRACKET},  {"]", TOKEN_RBRACKET},  {"(", TOKEN_LPAREN}, {")", TOKEN_RPAREN},
    {"{", TOKEN_LBRACE},    {"}", TOKEN_RBRACE},    {">", TOKEN_GT},     {"<", TOKEN_LT},
    {"=", TOKEN_ASSIGN},    {".", TOKEN_DOT},       {":", TOKEN_COLON},  {"|", TOKEN_PIPE},
    {",", TOKEN_COMMA},     {";", TOKEN_SEMICOLON},
};

const char *lexer_describe(enum token_type type)
{
    static const char *const names[] = {
        [TOKEN_EOF] = "end of template",
        [TOKEN_DATA] = "template data / text",
        [TOKEN_BLOCK_BEGIN] = "begin of statement block",
        [TOKEN_BLOCK_END] = "end of statement block",
        [TOKEN_VARIABLE_BEGIN] = "begin of print statement",
        [TOKEN_VARIABLE_END] = "end of print statement",
        [TOKEN_STRING] = "string",
        [TOKEN_INTEGER] = "integer",
        [TOKEN_FLOAT] = "float",
    };

    for (size_t i = 0; i < ARRAY_LEN(operators); i++) {
        if (operators[i].type == type) {
            return operators[i].text;
        }
    }
    return type < ARRAY_LEN(names) ? names[type] : NULL;
}

static void add_token(struct lexer *lexer, struct token token)
{
    if (lexer->n == lexer->cap) {
        size_t cap = MAX(lexer->cap * 2, (size_t)256);
        struct token *tokens = work_alloc(lexer->work, cap, sizeof(*tokens));

        if (lexer->n > 0) {
            memcpy(tokens, lexer->tokens, lexer->n * sizeof(*tokens));
        }
        lexer->tokens = tokens;
        lexer->cap = cap;
    }
    token.line = lexer->work->line;
    lexer->tokens[lexer->n++] = token;
}

static bool at(const struct lexer *lexer, size_t pos, const char *text)
{
    size_t n = strlen(text);

    return lexer->size - pos >= n && memcmp(lexer->source + pos, text, n) == 0;
}

/* The first position from pos on that is no white space. */
static size_t skip_space(const struct lexer *lexer, size_t pos)
{
    uint32_t code;
    size_t n;

    while (pos < lexer->size &&
           (n = utf8_decode(lexer->source + pos, lexer->size - pos, &code)) > 0 &&
           unicode_has(code, UNICODE_SPACE)) {
        pos += n;
    }
    return pos;
}

/* The end of [start, end) without the white space before end. */
static size_t strip_end(const struct lexer *lexer, size_t start, size_t end)
{
    while (end > start) {
        size_t n = 1;
        uint32_t code = 0;

        while (n < 4 && end - n > start && ((unsigned char)lexer->source[end - n] & 0xc0) == 0x80) {
            n++;
        }
        if (utf8_decode(lexer->source + end - n, n, &code) == 0 ||
            !unicode_has(code, UNICODE_SPACE)) {
            break;
        }
        end -= n;
    }
    return end;
}

/* Moves to end, counting lines. */
static void advance(struct lexer *lexer, size_t end)
{
    for (; lexer->pos < end; lexer->pos++) {
        lexer->work->line += lexer->source[lexer->pos] == '\n';
    }
}

/* The text up to tag (position of the bracket), with what the tag's sign and the options take away.
 */
static void add_data(struct lexer *lexer, size_t tag, char sign, bool is_variable)
{
    size_t start = lexer->pos;
    size_t end = tag;

    if (sign == '-') {
        end = strip_end(lexer, start, end);
    } else if (sign != '+' && !is_variable) {
        size_t line = end;

        while (line > start && lexer->source[line - 1] != '\n') {
            line--;
        }
        if ((line > start || lexer->line_starting) && strip_end(lexer, line, end) == line) {
            end = line;
        }
    }
    if (end > start) {
        add_token(
            lexer,
            (struct token){.type = TOKEN_DATA, .text = lexer->source + start, .len = end - start});
    }
    advance(lexer, tag);
}

/* '-' or '+' at pos, else 0. */
static char sign_at(const struct lexer *lexer, size_t pos)
{
    return pos < lexer->size && (lexer->source[pos] == '-' || lexer->source[pos] == '+')
               ? lexer->source[pos]
               : '\0';
}

/* After a closing bracket that ends at end: "-" takes all white space, a block's or comment's plain
 * one a newline, "+" nothing. */
static void close_tag(struct lexer *lexer, size_t end, char sign, bool trim)
{
    if (sign == '-') {
        end = skip_space(lexer, end);
    } else if (sign == '\0' && trim && at(lexer, end, "\n")) {
        end++;
    }
    advance(lexer, end);
    lexer->line_starting = end > 0 && lexer->source[end - 1] == '\n';
}

/* Is there a closing bracket ("%}" and so on) at pos, with an optional sign? *ret_end is after it.
 */
static bool closing_at(const struct lexer *lexer, size_t pos, const char *bracket, char *ret_sign,
                       size_t *ret_end)
{
    char sign = sign_at(lexer, pos);

    if (!at(lexer, pos + (sign != '\0'), bracket)) {
        return false;
    }
    *ret_sign = sign;
    *ret_end = pos + (sign != '\0') + 2;
    return true;
}

static void lex_comment(struct lexer *lexer, size_t body)
{
    int line = lexer->work->line;

    for (size_t pos = body; pos < lexer->size; pos++) {
        char sign;
        size_t end;

        if (closing_at(lexer, pos, "#}", &sign, &end)) {
            close_tag(lexer, end, sign, true);
            return;
        }
    }
    lexer->work->line = line;
    work_fail(lexer->work, "Missing end of comment tag");
}

/* If a raw tag begins at pos ("{%" [sign] raw ["-"] "%}"), the position after it and after the
 * white space that a "-" takes; otherwise 0. */
static size_t raw_begin_end(const struct lexer *lexer, size_t pos)
{
    char sign;
    size_t end;

    pos = skip_space(lexer, pos + 2 + (sign_at(lexer, pos + 2) != '\0'));
    if (!at(lexer, pos, "raw")) {
        return 0;
    }
    pos = skip_space(lexer, pos + 3);
    if (!closing_at(lexer, pos, "%}", &sign, &end) || sign == '+') {
        return 0;
    }
    return sign == '-' ? skip_space(lexer, end) : end;
}

static void lex_raw(struct lexer *lexer, size_t body)
{
    int line = lexer->work->line;

    advance(lexer, body);
    lexer->line_starting = lexer->source[body - 1] == '\n';
    for (size_t tag = body; tag < lexer->size; tag++) {
        char sign;
        size_t pos;
        size_t end;

        if (!at(lexer, tag, "{%")) {
            continue;
        }
        pos = skip_space(lexer, tag + 2 + (sign_at(lexer, tag + 2) != '\0'));
        if (at(lexer, pos, "endraw") &&
            closing_at(lexer, skip_space(lexer, pos + 6), "%}", &sign, &end)) {
            add_data(lexer, tag, sign_at(lexer, tag + 2), false);
            close_tag(lexer, end, sign, true);
            return;
        }
    }
    lexer->work->line = line;
    work_fail(lexer->work, "Missing end of raw directive");
}

static void lex_operator(struct lexer *lexer)
{
    uint32_t code = 0;
    size_t n;

    for (size_t i = 0; i < ARRAY_LEN(operators); i++) {
        if (at(lexer, lexer->pos, operators[i].text)) {
            lexer_balance(lexer, operators[i].text[0]);
            add_token(lexer, (struct token){.type = operators[i].type,
                                            .text = operators[i].text,
                                            .len = strlen(operators[i].text)});
            lexer->pos += strlen(operators[i].text);
            return;
        }
    }
    n = utf8_decode(lexer->source + lexer->pos, lexer->size - lexer->pos, &code);
    work_fail(lexer->work, "unexpected char '%.*s'", (int)n, lexer->source + lexer->pos);
}

static size_t word_end(const struct lexer *lexer, size_t pos)
{
    uint32_t code;
    size_t n;

    while (pos < lexer->size &&
           (n = utf8_decode(lexer->source + pos, lexer->size - pos, &code)) > 0 &&
           unicode_has(code, UNICODE_WORD)) {
        pos += n;
    }
    return pos;
}

/* The inside of a tag up to its closing bracket. */
static void lex_tag(struct lexer *lexer, const char *bracket, enum token_type close)
{
    lexer->n_open = 0;
    while ((lexer->pos < lexer->size)) {
        struct token token = {0};
        char sign;
        size_t end;

        if (lexer->n_open == 0 && closing_at(lexer, lexer->pos, bracket, &sign, &end) &&
            !(sign == '+' && close == TOKEN_VARIABLE_END)) {
            add_token(lexer, (struct token){.type = close});
            close_tag(lexer, end, sign, close == TOKEN_BLOCK_END);
            return;
        }
        end = skip_space(lexer, lexer->pos);
        if (end > lexer->pos) {
            advance(lexer, end);
            continue;
        }
        end = lexer_number(lexer, &token);
        if (end == 0 && (end = word_end(lexer, lexer->pos)) > lexer->pos) {
            token = (struct token){
                .type = TOKEN_NAME, .text = lexer->source + lexer->pos, .len = end - lexer->pos};
        } else if (end == lexer->pos) {
            end = lexer_string(lexer, &token);
        }
        if (end == 0) {
            lex_operator(lexer);
            continue;
        }
        add_token(lexer, token);
        advance(lexer, end);
    }
}

static void lex_all(struct lexer *lexer)
{
    while (lexer->pos < lexer->size) {
        size_t tag = lexer->pos;
        size_t raw;
        char kind;
        char sign;

        while (tag < lexer->size && !at(lexer, tag, "{%") && !at(lexer, tag, "{{") &&
               !at(lexer, tag, "{#")) {
            tag++;
        }
        if (tag == lexer->size) {
            add_data(lexer, tag, '+', true);
            return;
        }
        kind = lexer->source[tag + 1];
        sign = sign_at(lexer, tag + 2);
        add_data(lexer, tag, sign, kind == '{');
        if (kind == '#') {
            lex_comment(lexer, tag + 2 + (sign != '\0'));
        } else if (kind == '%' && (raw = raw_begin_end(lexer, tag)) > 0) {
            lex_raw(lexer, raw);
        } else {
            add_token(lexer, (struct token){.type = kind == '%' ? TOKEN_BLOCK_BEGIN
                                                                : TOKEN_VARIABLE_BEGIN});
            lexer->pos = tag + 2 + (sign != '\0');
            lex_tag(lexer, kind == '%' ? "%}" : "}}",
                    kind == '%' ? TOKEN_BLOCK_END : TOKEN_VARIABLE_END);
        }
    }
}

const struct token *lexer_run(struct work *work, const char *source, size_t size)
{
    struct lexer lexer = {.work = work, .line_starting = true};
    char *copy = work_alloc(work, size + 1, 1);

    for (size_t i = 0; i < size; i++) { /* newlines of every kind become \n */
        if (source[i] == '\r') {
            copy[lexer.size++] = '\n';
            i += i + 1 < size && source[i + 1] == '\n';
        } else {
            copy[lexer.size++] = source[i];
        }
    }
    if (lexer.size > 0 && copy[lexer.size - 1] == '\n') {
        lexer.size--;
    }
    lexer.source = copy;
    work->line = 1;
    lex_all(&lexer);
    add_token(&lexer, (struct token){.type = TOKEN_EOF});
    return lexer.tokens;
}
