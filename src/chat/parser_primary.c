/* SPDX-License-Identifier: Apache-2.0 */
/* What operators work on: literals, names, subscripts, calls, filters and tests. */
#include "chat/builtin.h"
#include "chat/parser.h"
#include "chat/text.h"

static struct node *parse_list(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_LIST, parser->work->line);

    parser_expect(parser, TOKEN_LBRACKET);
    while (parser->token->type != TOKEN_RBRACKET) {
        if (node->items.n > 0) {
            parser_expect(parser, TOKEN_COMMA);
            if (parser->token->type == TOKEN_RBRACKET) {
                break;
            }
        }
        parser_append(parser, &node->items, parser_expression(parser));
    }
    parser_expect(parser, TOKEN_RBRACKET);
    return node;
}

static struct node *parse_dict(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_DICT, parser->work->line);

    parser_expect(parser, TOKEN_LBRACE);
    while (parser->token->type != TOKEN_RBRACE) {
        if (node->items.n > 0) {
            parser_expect(parser, TOKEN_COMMA);
            if (parser->token->type == TOKEN_RBRACE) {
                break;
            }
        }
        parser_append(parser, &node->items, parser_expression(parser));
        parser_expect(parser, TOKEN_COLON);
        parser_append(parser, &node->items, parser_expression(parser));
    }
    parser_expect(parser, TOKEN_RBRACE);
    return node;
}

/* Strings side by side are one. */
static struct node *parse_string(struct parser *parser)
{
    struct node *node = parser_node(parser, NODE_CONST, parser->work->line);
    struct text text = {.work = parser->work};

    while (parser->token->type == TOKEN_STRING) {
        text_add_str(&text, parser->token->value);
        parser_next(parser);
    }
    node->constant = text_value(&text);
    return node;
}

/* Tells the macros around that their body mentions one of the special names. */
static void note_special_name(struct parser *parser, uint32_t id)
{
    for (struct parser_macro *macro = parser->macro; macro != NULL; macro = macro->outer) {
        macro->node->macro.uses_caller |= id == parser->names.caller;
        macro->node->macro.uses_kwargs |= id == parser->names.kwargs;
        macro->node->macro.uses_varargs |= id == parser->names.varargs;
    }
}

static struct node *parse_name(struct parser *parser, unsigned mode)
{
    static const struct {
        const char *name;
        struct value value;
    } constants[] = {
        {"true", {.type = VALUE_BOOL, .boolean = true}},
        {"True", {.type = VALUE_BOOL, .boolean = true}},
        {"false", {.type = VALUE_BOOL}},
        {"False", {.type = VALUE_BOOL}},
        {"none", {.type = VALUE_NONE}},
        {"None", {.type = VALUE_NONE}},
    };
    int line = parser->work->line;
    struct node *node;

    for (size_t i = 0; i < ARRAY_LEN(constants); i++) {
        if (parser_skip_name(parser, constants[i].name)) {
            node = parser_node(parser, NODE_CONST, line);
            node->constant = constants[i].value;
            return node;
        }
    }
    node = parser_node(parser, NODE_NAME, line);
    node->name.text = parser_expect_name(parser);
    node->name.id = parser_intern(parser, node->name.text);
    if ((mode & PARSER_NAMESPACE) != 0 && parser_skip(parser, TOKEN_DOT)) {
        node->kind = NODE_NAMESPACE_ATTR;
        node->name.attr = parser_expect_name(parser);
    }
    if ((mode & PARSER_TARGETS) == 0) {
        note_special_name(parser, node->name.id);
    }
    return node;
}

struct node *parser_primary(struct parser *parser, unsigned mode)
{
    const struct token *token = parser->token;
    struct node *node;

    switch (token->type) {
    case TOKEN_NAME:
        return parse_name(parser, mode);
    case TOKEN_STRING:
        return parse_string(parser);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        node = parser_node(parser, NODE_CONST, token->line);
        node->constant = token->value;
        parser_next(parser);
        return node;
    case TOKEN_LPAREN:
        parser_next(parser);
        node = parser_tuple(parser, PARSER_PARENS, NULL);
        parser_expect(parser, TOKEN_RPAREN);
        return node;
    case TOKEN_LBRACKET:
        return parse_list(parser);
    case TOKEN_LBRACE:
        return parse_dict(parser);
    default:
        work_fail(parser->work, "unexpected '%s'", lexer_describe(token->type));
    }
}

static bool at_tuple_end(const struct parser *parser, const char *end_name)
{
    enum token_type type = parser->token->type;

    return type == TOKEN_VARIABLE_END || type == TOKEN_BLOCK_END || type == TOKEN_RPAREN ||
           (end_name != NULL && parser_at_name(parser, end_name));
}

static struct node *parse_tuple_item(struct parser *parser, unsigned mode)
{
    struct node *node;

    if ((mode & PARSER_NO_COND) == 0 && (mode & PARSER_TARGETS) == 0) {
        return parser_expression(parser);
    }
    work_enter(parser->work);
    node = (mode & PARSER_TARGETS) != 0 ? parser_primary(parser, mode) : parser_or(parser);
    work_leave(parser->work);
    return node;
}

struct node *parser_tuple(struct parser *parser, unsigned mode, const char *end_name)
{
    struct node *tuple = parser_node(parser, NODE_TUPLE, parser->work->line);
    bool is_tuple = false;

    while (!at_tuple_end(parser, end_name)) {
        parser_append(parser, &tuple->items, parse_tuple_item(parser, mode));
        if (!parser_skip(parser, TOKEN_COMMA)) {
            break;
        }
        is_tuple = true;
    }
    if (!is_tuple && tuple->items.n == 1) {
        return tuple->items.items[0];
    }
    if (!is_tuple && (mode & PARSER_PARENS) == 0) {
        work_fail(parser->work, "Expected an expression, got '%s'",
                  parser->token->type == TOKEN_NAME ? end_name
                                                    : lexer_describe(parser->token->type));
    }
    return tuple;
}

/* One subscript in brackets: an expression or a slice. */
static struct node *parse_subscript(struct parser *parser)
{
    int line = parser->work->line;
    struct node *parts[3] = {NULL, NULL, NULL};
    struct node *slice;

    if (parser->token->type != TOKEN_COLON) {
        parts[0] = parser_expression(parser);
        if (parser->token->type != TOKEN_COLON) {
            return parts[0];
        }
    }
    for (size_t i = 1; i < 3 && parser_skip(parser, TOKEN_COLON); i++) {
        if (parser->token->type != TOKEN_COLON && parser->token->type != TOKEN_RBRACKET &&
            parser->token->type != TOKEN_COMMA) {
            parts[i] = parser_expression(parser);
        }
    }
    slice = parser_node(parser, NODE_SLICE, line);
    slice->slice.start = parts[0];
    slice->slice.stop = parts[1];
    slice->slice.step = parts[2];
    return slice;
}

static struct node *parse_attribute(struct parser *parser, struct node *object)
{
    const struct token *token;
    struct node *node = parser_node(parser, NODE_ATTR, parser->work->line);

    parser_expect(parser, TOKEN_DOT);
    token = parser->token;
    node->member.object = object;
    if (token->type == TOKEN_NAME) {
        node->member.attr = parser_expect_name(parser);
        return node;
    }
    if (token->type != TOKEN_INTEGER) {
        work_fail(parser->work, "expected name or number");
    }
    node->kind = NODE_ITEM;
    node->member.index = parser_node(parser, NODE_CONST, token->line);
    node->member.index->constant = token->value;
    parser_next(parser);
    return node;
}

static struct node *parse_item(struct parser *parser, struct node *object)
{
    struct node *node = parser_node(parser, NODE_ITEM, parser->work->line);
    struct node_list parts = {0};

    parser_expect(parser, TOKEN_LBRACKET);
    while (parser->token->type != TOKEN_RBRACKET) {
        if (parts.n > 0) {
            parser_expect(parser, TOKEN_COMMA);
        }
        parser_append(parser, &parts, parse_subscript(parser));
    }
    parser_expect(parser, TOKEN_RBRACKET);
    node->member.object = object;
    if (parts.n == 1) {
        node->member.index = parts.items[0];
        return node;
    }
    for (size_t i = 0; i < parts.n; i++) {
        if (parts.items[i]->kind == NODE_SLICE) {
            work_fail(parser->work, "a slice inside of a tuple is not supported");
        }
    }
    node->member.index = parser_node(parser, NODE_TUPLE, node->line);
    node->member.index->items = parts;
    return node;
}

static void append_keyword(struct parser *parser, struct argument_nodes *arguments, size_t *cap)
{
    if (arguments->n_keywords == *cap) {
        struct keyword_node *keywords =
            work_alloc(parser->work, MAX(*cap * 2, (size_t)2), sizeof(*keywords));

        if (*cap > 0) {
            memcpy(keywords, arguments->keywords, *cap * sizeof(*keywords));
        }
        *cap = MAX(*cap * 2, (size_t)2);
        arguments->keywords = keywords;
    }
    arguments->keywords[arguments->n_keywords].name = parser_expect_name(parser);
    parser_expect(parser, TOKEN_ASSIGN);
    arguments->keywords[arguments->n_keywords++].value = parser_expression(parser);
}

/* What stands at the position inside the parentheses of a call. */
static void parse_argument(struct parser *parser, struct argument_nodes *arguments, size_t *cap)
{
    bool fits;

    if (parser_skip(parser, TOKEN_MUL)) {
        fits = arguments->star == NULL && arguments->star_star == NULL;
        arguments->star = parser_expression(parser);
    } else if (parser_skip(parser, TOKEN_POW)) {
        fits = arguments->star_star == NULL;
        arguments->star_star = parser_expression(parser);
    } else if (parser->token->type == TOKEN_NAME && parser->token[1].type == TOKEN_ASSIGN) {
        fits = arguments->star_star == NULL;
        append_keyword(parser, arguments, cap);
    } else {
        fits =
            arguments->star == NULL && arguments->star_star == NULL && arguments->n_keywords == 0;
        parser_append(parser, &arguments->args, parser_expression(parser));
    }
    if (!fits) {
        work_fail(parser->work, "invalid syntax for function call expression");
    }
}

static void parse_arguments(struct parser *parser, struct argument_nodes *arguments)
{
    bool first = true;
    size_t cap = 0;

    parser_expect(parser, TOKEN_LPAREN);
    while (parser->token->type != TOKEN_RPAREN) {
        if (!first) {
            parser_expect(parser, TOKEN_COMMA);
            if (parser->token->type == TOKEN_RPAREN) {
                break;
            }
        }
        first = false;
        parse_argument(parser, arguments, &cap);
    }
    parser_expect(parser, TOKEN_RPAREN);
}

struct node *parser_call(struct parser *parser, struct node *callee)
{
    struct node *node = parser_node(parser, NODE_CALL, parser->work->line);

    node->call.target = callee;
    parse_arguments(parser, &node->call.arguments);
    return node;
}

struct node *parser_postfix(struct parser *parser, struct node *node)
{
    for (;;) {
        if (parser->token->type == TOKEN_DOT) {
            node = parse_attribute(parser, node);
        } else if (parser->token->type == TOKEN_LBRACKET) {
            node = parse_item(parser, node);
        } else if (parser->token->type == TOKEN_LPAREN) {
            node = parser_call(parser, node);
        } else {
            return node;
        }
    }
}

/* The name of a filter or test; parts may be joined by dots. */
static const struct str *parse_dotted_name(struct parser *parser)
{
    struct text text = {.work = parser->work};

    text_add_str(&text, value_of_str(parser_expect_name(parser)));
    while (parser_skip(parser, TOKEN_DOT)) {
        text_add_char(&text, '.');
        text_add_str(&text, value_of_str(parser_expect_name(parser)));
    }
    return text_value(&text).str;
}

static void note_unknown(struct parser *parser, const struct node *node)
{
    if (node->call.builtin == NULL && !parser->conditional && parser->unknown == NULL) {
        parser->unknown = node;
    }
}

struct node *parser_filter(struct parser *parser, struct node *value, bool first_is_bare)
{
    while (first_is_bare || parser_skip(parser, TOKEN_PIPE)) {
        struct node *node = parser_node(parser, NODE_FILTER, parser->work->line);
        const struct str *name = parse_dotted_name(parser);

        first_is_bare = false;
        node->call.target = value;
        node->call.name = name;
        node->call.builtin = builtin_find_filter(name->data, name->len);
        note_unknown(parser, node);
        if (parser->token->type == TOKEN_LPAREN) {
            parse_arguments(parser, &node->call.arguments);
        }
        value = node;
    }
    return value;
}

/* Can a test's argument without parentheses begin here? */
static bool at_bare_argument(const struct parser *parser)
{
    switch (parser->token->type) {
    case TOKEN_NAME:
        return !parser_at_name(parser, "else") && !parser_at_name(parser, "or") &&
               !parser_at_name(parser, "and");
    case TOKEN_STRING:
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
    case TOKEN_LBRACKET:
    case TOKEN_LBRACE:
        return true;
    default:
        return false;
    }
}

struct node *parser_test(struct parser *parser, struct node *value)
{
    struct node *node = parser_node(parser, NODE_TEST, parser->work->line);
    bool negated;

    parser_next(parser); /* is */
    negated = parser_skip_name(parser, "not");
    node->call.target = value;
    node->call.name = parse_dotted_name(parser);
    node->call.builtin = builtin_find_test(node->call.name->data, node->call.name->len);
    note_unknown(parser, node);
    if (parser->token->type == TOKEN_LPAREN) {
        parse_arguments(parser, &node->call.arguments);
    } else if (at_bare_argument(parser)) {
        if (parser_at_name(parser, "is")) {
            work_fail(parser->work, "You cannot chain multiple tests with is");
        }
        parser_append(parser, &node->call.arguments.args,
                      parser_postfix(parser, parser_primary(parser, PARSER_PLAIN)));
    }
    return negated ? parser_unary_node(parser, NODE_NOT, node->line, node) : node;
}
