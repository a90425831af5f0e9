/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens to a tree, by jinja2's grammar. Statements are in parser.c, operators in parser_expr.c,
 * the rest of expressions in parser_primary.c.
 */
#pragma once

#include "chat/ast.h"
#include "chat/lexer.h"

/* The macro or call block whose body is being parsed, innermost first. */
struct parser_macro {
    struct node *node;
    struct parser_macro *outer;
};

struct parser {
    struct work *work; /* its line follows the current token */
    const struct token *token;
    struct names names;
    struct parser_macro *macro;
    int n_loops;                /* for loops around, also across macros */
    bool in_loop;               /* break and continue are allowed */
    bool conditional;           /* in an if: unknown filters fail only when they run */
    const struct node *unknown; /* the first unknown filter or test outside of conditions */
};

/* The whole template. Fails on bad syntax. */
struct node_list parser_run(struct parser *parser);

/* Between the files. */
struct node *parser_node(struct parser *parser, enum node_kind kind, int line);
void parser_append(struct parser *parser, struct node_list *list, struct node *node);
void parser_next(struct parser *parser);
bool parser_at_name(const struct parser *parser, const char *name);
bool parser_skip_name(struct parser *parser, const char *name);
bool parser_skip(struct parser *parser, enum token_type type);
void parser_expect(struct parser *parser, enum token_type type);
const struct str *parser_expect_name(struct parser *parser);
NORETURN void parser_fail_expected(struct parser *parser, const char *expected);
uint32_t parser_intern(struct parser *parser, const struct str *name);

enum parser_mode {
    PARSER_PLAIN = 0,
    PARSER_NO_COND = 1 << 0,   /* no inline if */
    PARSER_TARGETS = 1 << 1,   /* names and literals only */
    PARSER_NAMESPACE = 1 << 2, /* targets may be NAME.ATTR */
    PARSER_PARENS = 1 << 3,    /* in parentheses, so that an empty tuple is one */
};

struct node *parser_expression(struct parser *parser);
/* Expressions with commas between; ends also before end_name (NULL: none). */
struct node *parser_tuple(struct parser *parser, unsigned mode, const char *end_name);
struct node *parser_filter(struct parser *parser, struct node *value, bool first_is_bare);

/* An expression without an inline if. */
struct node *parser_or(struct parser *parser);
struct node *parser_primary(struct parser *parser, unsigned mode);
/* Attributes, subscripts and calls behind node. */
struct node *parser_postfix(struct parser *parser, struct node *node);
struct node *parser_call(struct parser *parser, struct node *callee);
/* "is" and what follows. */
struct node *parser_test(struct parser *parser, struct node *value);
struct node *parser_unary_node(struct parser *parser, enum node_kind kind, int line,
                               struct node *operand);
