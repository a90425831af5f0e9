/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template's text as tokens, by the rules of jinja2 with trim_blocks and lstrip_blocks on and
 * keep_trailing_newline off. The tokens and their texts lie in the arena of the work.
 */
#pragma once

#include "chat/value.h"

enum token_type {
    TOKEN_EOF,
    TOKEN_DATA,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_DIV,
    TOKEN_FLOORDIV,
    TOKEN_MUL,
    TOKEN_MOD,
    TOKEN_POW,
    TOKEN_TILDE,
    TOKEN_LBRACKET,
    TOKEN_RBRACKET,
    TOKEN_LPAREN,
    TOKEN_RPAREN,
    TOKEN_LBRACE,
    TOKEN_RBRACE,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_GT,
    TOKEN_GTEQ,
    TOKEN_LT,
    TOKEN_LTEQ,
    TOKEN_ASSIGN,
    TOKEN_DOT,
    TOKEN_COLON,
    TOKEN_PIPE,
    TOKEN_COMMA,
    TOKEN_SEMICOLON,
};

struct token {
    enum token_type type;
    int line;
    const char *text; /* of names and operators, and of data */
    size_t len;
    struct value value; /* of strings and numbers */
};

/* source (valid UTF-8, copied) as an array that ends with TOKEN_EOF. Fails on bad tokens. */
const struct token *lexer_run(struct work *work, const char *source, size_t size);

/* What messages call a token; NULL for names, which are their own text. */
const char *lexer_describe(enum token_type type);
