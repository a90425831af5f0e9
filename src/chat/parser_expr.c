/* SPDX-License-Identifier: Apache-2.0 */
/* Operators. The functions call each other from the weakest to the strongest binding: cond, or,
 * and, not, compare, + -, ~, * / // %, **, unary. */
#include "chat/parser.h"

static struct node *parse_unary(struct parser *parser, bool with_filter);

static struct node *binary_node(struct parser *parser, enum node_kind kind, enum arithmetic op,
                                struct node *left, struct node *right)
{
    struct node *node = parser_node(parser, kind, left->line);

    node->binary.op = op;
    node->binary.left = left;
    node->binary.right = right;
    return node;
}

struct node *parser_unary_node(struct parser *parser, enum node_kind kind, int line,
                               struct node *operand)
{
    struct node *node = parser_node(parser, kind, line);

    node->binary.left = operand;
    return node;
}

struct node *parser_expression(struct parser *parser)
{
    const struct node *unknown = parser->unknown;
    struct node *node;

    work_enter(parser->work);
    node = parser_or(parser);
    while (parser_skip_name(parser, "if")) {
        struct node *cond = parser_node(parser, NODE_COND, node->line);
        bool conditional = parser->conditional;

        parser->unknown = unknown; /* what came before is a branch after all */
        parser->conditional = true;
        cond->cond.yes = node;
        cond->cond.test = parser_or(parser);
        if (parser_skip_name(parser, "else")) {
            cond->cond.no = parser_expression(parser);
        }
        parser->conditional = conditional;
        node = cond;
    }
    work_leave(parser->work);
    return node;
}

static struct node *parse_compare(struct parser *parser);

static struct node *parse_not(struct parser *parser)
{
    int line = parser->work->line;
    struct node *node;

    if (!parser_skip_name(parser, "not")) {
        return parse_compare(parser);
    }
    work_enter(parser->work);
    node = parser_unary_node(parser, NODE_NOT, line, parse_not(parser));
    work_leave(parser->work);
    return node;
}

static struct node *parse_and(struct parser *parser)
{
    struct node *left = parse_not(parser);

    while (parser_skip_name(parser, "and")) {
        left = binary_node(parser, NODE_AND, OP_ADD, left, parse_not(parser));
    }
    return left;
}

struct node *parser_or(struct parser *parser)
{
    struct node *left = parse_and(parser);

    while (parser_skip_name(parser, "or")) {
        left = binary_node(parser, NODE_OR, OP_ADD, left, parse_and(parser));
    }
    return left;
}

static struct node *parse_power(struct parser *parser)
{
    struct node *left = parse_unary(parser, true);

    while (parser_skip(parser, TOKEN_POW)) {
        left = binary_node(parser, NODE_ARITHMETIC, OP_POW, left, parse_unary(parser, true));
    }
    return left;
}

static struct node *parse_product(struct parser *parser)
{
    static const struct {
        enum token_type token;
        enum arithmetic op;
    } ops[] = {{TOKEN_MUL, OP_MUL},
               {TOKEN_DIV, OP_DIV},
               {TOKEN_FLOORDIV, OP_FLOORDIV},
               {TOKEN_MOD, OP_MOD}};
    struct node *left = parse_power(parser);

    for (size_t i = 0; i < ARRAY_LEN(ops);) {
        if (parser_skip(parser, ops[i].token)) {
            left = binary_node(parser, NODE_ARITHMETIC, ops[i].op, left, parse_power(parser));
            i = 0;
        } else {
            i++;
        }
    }
    return left;
}

static struct node *parse_concat(struct parser *parser)
{
    struct node *first = parse_product(parser);
    struct node *node;

    if (parser->token->type != TOKEN_TILDE) {
        return first;
    }
    node = parser_node(parser, NODE_CONCAT, first->line);
    parser_append(parser, &node->items, first);
    while (parser_skip(parser, TOKEN_TILDE)) {
        parser_append(parser, &node->items, parse_product(parser));
    }
    return node;
}

static struct node *parse_sum(struct parser *parser)
{
    struct node *left = parse_concat(parser);

    while (parser->token->type == TOKEN_ADD || parser->token->type == TOKEN_SUB) {
        enum arithmetic op = parser->token->type == TOKEN_ADD ? OP_ADD : OP_SUB;

        parser_next(parser);
        left = binary_node(parser, NODE_ARITHMETIC, op, left, parse_concat(parser));
    }
    return left;
}

/* Consumes a comparison operator. */
static bool skip_comparison(struct parser *parser, enum comparison *ret_op)
{
    static const struct {
        enum token_type token;
        enum comparison op;
    } ops[] = {{TOKEN_EQ, CMP_EQ}, {TOKEN_NE, CMP_NE},   {TOKEN_LT, CMP_LT},
               {TOKEN_GT, CMP_GT}, {TOKEN_LTEQ, CMP_LE}, {TOKEN_GTEQ, CMP_GE}};

    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (parser_skip(parser, ops[i].token)) {
            *ret_op = ops[i].op;
            return true;
        }
    }
    if (parser_skip_name(parser, "in")) {
        *ret_op = CMP_IN;
        return true;
    }
    if (parser_at_name(parser, "not") && parser->token[1].type == TOKEN_NAME &&
        parser->token[1].len == 2 && memcmp(parser->token[1].text, "in", 2) == 0) {
        parser_next(parser);
        parser_next(parser);
        *ret_op = CMP_NOT_IN;
        return true;
    }
    return false;
}

static struct node *parse_compare(struct parser *parser)
{
    struct node *left = parse_sum(parser);
    struct node *node = NULL;
    enum comparison op;
    size_t cap = 0;

    while (skip_comparison(parser, &op)) {
        if (node == NULL) {
            node = parser_node(parser, NODE_COMPARE, left->line);
            node->compare.left = left;
        }
        if (node->compare.n == cap) {
            struct comparison_node *right =
                work_alloc(parser->work, MAX(cap * 2, (size_t)1), sizeof(*right));

            if (cap > 0) {
                memcpy(right, node->compare.right, cap * sizeof(*right));
            }
            cap = MAX(cap * 2, (size_t)1);
            node->compare.right = right;
        }
        node->compare.right[node->compare.n].op = op;
        node->compare.right[node->compare.n++].right = parse_sum(parser);
    }
    return node == NULL ? left : node;
}

static struct node *parse_unary(struct parser *parser, bool with_filter)
{
    int line = parser->work->line;
    struct node *node;

    work_enter(parser->work);
    if (parser_skip(parser, TOKEN_SUB)) {
        node = parser_unary_node(parser, NODE_NEG, line, parse_unary(parser, false));
    } else if (parser_skip(parser, TOKEN_ADD)) {
        node = parser_unary_node(parser, NODE_POS, line, parse_unary(parser, false));
    } else {
        node = parser_primary(parser, PARSER_PLAIN);
    }
    node = parser_postfix(parser, node);
    while (with_filter) {
        if (parser->token->type == TOKEN_PIPE) {
            node = parser_filter(parser, node, false);
        } else if (parser_at_name(parser, "is")) {
            node = parser_test(parser, node);
        } else if (parser->token->type == TOKEN_LPAREN) {
            node = parser_call(parser, node);
        } else {
            break;
        }
    }
    work_leave(parser->work);
    return node;
}
