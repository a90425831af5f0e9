/* SPDX-License-Identifier: Apache-2.0 */
/* Between lexer.c and lexer_literal.c. */
#pragma once

#include "chat/lexer.h"

enum { LEXER_OPEN_MAX = 256 }; /* brackets inside one another */

struct lexer {
    struct work *work; /* its line is the lexer's */
    const char *source;
    size_t size;
    size_t pos;
    bool line_starting; /* the last token ended with a newline */
    struct token *tokens;
    size_t n;
    size_t cap;
    char open[LEXER_OPEN_MAX]; /* the closing brackets that are due */
    size_t n_open;
};

/* The number or string at the position: fills the token and returns its end, 0 if there is none. */
size_t lexer_number(struct lexer *lexer, struct token *token);
size_t lexer_string(struct lexer *lexer, struct token *token);

/* Keeps the books on brackets; fails if c closes one that is not open. */
void lexer_balance(struct lexer *lexer, char c);
