/* SPDX-License-Identifier: Apache-2.0 */
/* Statements. */
#include "chat/parser.h"

#include "chat/builtin.h"

static struct node_list parse_body(struct parser *parser, const char *const *ends);

struct node *parser_node(struct parser *parser, enum node_kind kind, int line)
{
    struct node *node = work_alloc(parser->work, 1, sizeof(*node));

    node->kind = kind;
    node->line = line;
    return node;
}

void parser_append(struct parser *parser, struct node_list *list, struct node *node)
{
    if (list->n == list->cap) {
        size_t cap = MAX(list->cap * 2, (size_t)2);
        struct node **items = work_alloc(parser->work, cap, sizeof(*items));

        if (list->n > 0) {
            memcpy(items, list->items, list->n * sizeof(*items));
        }
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = node;
}

void parser_next(struct parser *parser)
{
    if (parser->token->type != TOKEN_EOF) {
        parser->token++;
    }
    parser->work->line = parser->token->line;
}

bool parser_at_name(const struct parser *parser, const char *name)
{
    return parser->token->type == TOKEN_NAME && parser->token->len == strlen(name) &&
           memcmp(parser->token->text, name, parser->token->len) == 0;
}

bool parser_skip_name(struct parser *parser, const char *name)
{
    if (!parser_at_name(parser, name)) {
        return false;
    }
    parser_next(parser);
    return true;
}

bool parser_skip(struct parser *parser, enum token_type type)
{
    if (parser->token->type != type) {
        return false;
    }
    parser_next(parser);
    return true;
}

void parser_fail_expected(struct parser *parser, const char *expected)
{
    const struct token *token = parser->token;

    if (token->type == TOKEN_EOF) {
        work_fail(parser->work, "unexpected end of template, expected '%s'.", expected);
    }
    if (token->type == TOKEN_NAME) {
        work_fail(parser->work, "expected token '%s', got '%.*s'", expected,
                  (int)MIN(token->len, (size_t)100), token->text);
    }
    work_fail(parser->work, "expected token '%s', got '%s'", expected, lexer_describe(token->type));
}

void parser_expect(struct parser *parser, enum token_type type)
{
    if (!parser_skip(parser, type)) {
        parser_fail_expected(parser, lexer_describe(type));
    }
}

const struct str *parser_expect_name(struct parser *parser)
{
    const struct token *token = parser->token;

    if (token->type != TOKEN_NAME) {
        parser_fail_expected(parser, "name");
    }
    parser_next(parser);
    return value_str(parser->work, token->text, token->len).str;
}

static void expect_keyword(struct parser *parser, const char *name)
{
    if (!parser_skip_name(parser, name)) {
        parser_fail_expected(parser, name);
    }
}

uint32_t parser_intern(struct parser *parser, const struct str *name)
{
    const struct value *id = dict_get_text(parser->names.ids, name->data, name->len);
    size_t n = parser->names.ids->n;

    if (id == NULL) {
        dict_set(parser->work, parser->names.ids, value_of_str(name), value_int((int64_t)n));
        return (uint32_t)n;
    }
    return (uint32_t)id->integer;
}

/* Fails unless target may be assigned to. */
static void check_target(struct parser *parser, const struct node *target)
{
    if (target->kind == NODE_TUPLE) {
        for (size_t i = 0; i < target->items.n; i++) {
            check_target(parser, target->items.items[i]);
        }
    } else if (target->kind == NODE_NAME) {
        if (parser->n_loops > 0 && target->name.id == parser->names.loop) {
            work_fail(parser->work, "Can't assign to special loop variable in for-loop target");
        }
    } else if (target->kind != NODE_NAMESPACE_ATTR) {
        work_fail(parser->work, "can't assign to a constant or an expression");
    }
}

static struct node *parse_target(struct parser *parser, unsigned mode, const char *end_name)
{
    struct node *target = parser_tuple(parser, PARSER_TARGETS | mode, end_name);

    check_target(parser, target);
    return target;
}

/* "%}" (or ": %}"), the body up to one of the end tags, whose name is then the current token. */
static struct node_list parse_block(struct parser *parser, const char *const *ends)
{
    parser_skip(parser, TOKEN_COLON);
    parser_expect(parser, TOKEN_BLOCK_END);
    return parse_body(parser, ends);
}

/* As parse_block with one end, which is consumed. */
static struct node_list parse_block_to(struct parser *parser, const char *end)
{
    const char *const ends[] = {end, NULL};
    struct node_list body = parse_block(parser, ends);

    parser_next(parser);
    return body;
}

/* A block whose inside is a scope of its own, where unknown filters fail at once. */
static struct node_list parse_inner_block(struct parser *parser, const char *end)
{
    bool conditional = parser->conditional;
    struct node_list body;

    parser->conditional = false;
    body = parse_block_to(parser, end);
    parser->conditional = conditional;
    return body;
}

/* The filters of a block belong to its inside. */
static struct node *parse_inner_filter(struct parser *parser, bool first_is_bare)
{
    bool conditional = parser->conditional;
    struct node *filter;

    parser->conditional = false;
    filter = parser_filter(parser, NULL, first_is_bare);
    parser->conditional = conditional;
    return filter;
}

static struct node *parse_set(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_SET, line);

    node->set.target = parse_target(parser, PARSER_NAMESPACE, NULL);
    if (parser_skip(parser, TOKEN_ASSIGN)) {
        node->set.value = parser_tuple(parser, PARSER_PLAIN, NULL);
        return node;
    }
    node->kind = NODE_SET_BLOCK;
    node->set.filter = parse_inner_filter(parser, false);
    node->set.body = parse_inner_block(parser, "endset");
    return node;
}

static struct node *parse_for(struct parser *parser, int line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct node *node = parser_node(parser, NODE_FOR, line);
    bool in_loop = parser->in_loop;
    bool conditional = parser->conditional;

    parser->n_loops++;
    node->loop.target = parse_target(parser, PARSER_PLAIN, "in");
    expect_keyword(parser, "in");
    node->loop.iterable = parser_tuple(parser, PARSER_NO_COND, "recursive");
    parser->conditional = false;
    if (parser_skip_name(parser, "if")) {
        node->loop.test = parser_expression(parser);
    }
    node->loop.recursive = parser_skip_name(parser, "recursive");
    parser->in_loop = true;
    node->loop.body = parse_block(parser, ends);
    parser->in_loop = in_loop && !node->loop.recursive;
    if (parser_skip_name(parser, "else")) {
        node->loop.otherwise = parse_block_to(parser, "endfor");
    } else {
        parser_next(parser);
    }
    parser->in_loop = in_loop;
    parser->conditional = conditional;
    parser->n_loops--;
    return node;
}

static struct node *parse_if(struct parser *parser, int line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *node = parser_node(parser, NODE_IF, line);
    bool conditional = parser->conditional;
    size_t cap = 0;

    parser->conditional = true;
    do {
        if (node->choice.n == cap) {
            struct branch_node *branches =
                work_alloc(parser->work, MAX(cap * 2, (size_t)1), sizeof(*branches));

            if (cap > 0) {
                memcpy(branches, node->choice.branches, cap * sizeof(*branches));
            }
            cap = MAX(cap * 2, (size_t)1);
            node->choice.branches = branches;
        }
        node->choice.branches[node->choice.n].test = parser_tuple(parser, PARSER_NO_COND, NULL);
        node->choice.branches[node->choice.n++].body = parse_block(parser, ends);
    } while (parser_skip_name(parser, "elif"));
    if (parser_skip_name(parser, "else")) {
        node->choice.otherwise = parse_block_to(parser, "endif");
    } else {
        parser_next(parser);
    }
    parser->conditional = conditional;
    return node;
}

static struct node *parse_with(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_WITH, line);

    while (parser->token->type != TOKEN_BLOCK_END) {
        if (node->with.targets.n > 0) {
            parser_expect(parser, TOKEN_COMMA);
        }
        parser_append(parser, &node->with.targets, parse_target(parser, PARSER_PLAIN, NULL));
        parser_expect(parser, TOKEN_ASSIGN);
        parser_append(parser, &node->with.values, parser_expression(parser));
    }
    node->with.body = parse_inner_block(parser, "endwith");
    return node;
}

static void parse_signature(struct parser *parser, struct node *node)
{
    bool conditional = parser->conditional;
    size_t cap = 0;

    parser->conditional = false;
    parser_expect(parser, TOKEN_LPAREN);
    while (parser->token->type != TOKEN_RPAREN) {
        struct param_node *param;

        if (node->macro.n_params > 0) {
            parser_expect(parser, TOKEN_COMMA);
        }
        if (node->macro.n_params == cap) {
            struct param_node *params =
                work_alloc(parser->work, MAX(cap * 2, (size_t)4), sizeof(*params));

            if (cap > 0) {
                memcpy(params, node->macro.params, cap * sizeof(*params));
            }
            cap = MAX(cap * 2, (size_t)4);
            node->macro.params = params;
        }
        param = &node->macro.params[node->macro.n_params++];
        param->name = parser_expect_name(parser);
        param->id = parser_intern(parser, param->name);
        if (parser_skip(parser, TOKEN_ASSIGN)) {
            param->fallback = parser_expression(parser);
        } else if (node->macro.n_params > 1 && param[-1].fallback != NULL) {
            work_fail(parser->work, "non-default argument follows default argument");
        }
    }
    parser_expect(parser, TOKEN_RPAREN);
    parser->conditional = conditional;
}

static void parse_macro_body(struct parser *parser, struct node *node, const char *end)
{
    struct parser_macro macro = {.node = node, .outer = parser->macro};
    bool in_loop = parser->in_loop;

    parser->macro = &macro;
    parser->in_loop = false;
    node->macro.body = parse_inner_block(parser, end);
    parser->in_loop = in_loop;
    parser->macro = macro.outer;
}

static struct node *parse_macro(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_MACRO, line);

    node->macro.name = parser_expect_name(parser);
    node->macro.id = parser_intern(parser, node->macro.name);
    parse_signature(parser, node);
    parse_macro_body(parser, node, "endmacro");
    return node;
}

static struct node *parse_call_block(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_CALL_BLOCK, line);

    if (parser->token->type == TOKEN_LPAREN) {
        parse_signature(parser, node);
    }
    node->macro.call = parser_expression(parser);
    if (node->macro.call->kind != NODE_CALL) {
        work_fail(parser->work, "expected call");
    }
    parse_macro_body(parser, node, "endcall");
    return node;
}

static struct node *parse_filter_block(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_FILTER_BLOCK, line);

    node->set.filter = parse_inner_filter(parser, true);
    node->set.body = parse_inner_block(parser, "endfilter");
    return node;
}

static struct node *parse_generation(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_GENERATION, line);
    bool in_loop = parser->in_loop;

    parser->in_loop = false;
    node->set.body = parse_inner_block(parser, "endgeneration");
    parser->in_loop = in_loop;
    return node;
}

static struct node *parse_print(struct parser *parser, int line)
{
    struct node *node = parser_node(parser, NODE_PRINT, line);
    struct node *parts = parser_node(parser, NODE_CONCAT, line);

    while (parser->token->type != TOKEN_BLOCK_END) {
        if (parts->items.n > 0) {
            parser_expect(parser, TOKEN_COMMA);
        }
        parser_append(parser, &parts->items, parser_expression(parser));
    }
    node->binary.left = parts;
    return node;
}

static struct node *parse_loop_control(struct parser *parser, int line)
{
    bool is_break = parser->token[-1].len == strlen("break");

    if (!parser->in_loop) {
        work_fail(parser->work, "'%s' outside loop", is_break ? "break" : "continue");
    }
    return parser_node(parser, is_break ? NODE_BREAK : NODE_CONTINUE, line);
}

static NORETURN void fail_unknown_tag(struct parser *parser)
{
    static const char *const unsupported[] = {"include", "import",     "from", "extends",
                                              "block",   "autoescape", "do",   "trans"};
    int len = (int)MIN(parser->token->len, (size_t)100);

    for (size_t i = 0; i < ARRAY_LEN(unsupported); i++) {
        if (parser_at_name(parser, unsupported[i])) {
            work_fail(parser->work, "tag '%s' is not supported", unsupported[i]);
        }
    }
    work_fail(parser->work, "Encountered unknown tag '%.*s'.", len, parser->token->text);
}

static struct node *parse_statement(struct parser *parser)
{
    static const struct {
        const char *name;
        struct node *(*parse)(struct parser *parser, int line);
    } tags[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"macro", parse_macro},
        {"call", parse_call_block},
        {"filter", parse_filter_block},
        {"with", parse_with},
        {"generation", parse_generation},
        {"print", parse_print},
        {"break", parse_loop_control},
        {"continue", parse_loop_control},
    };
    int line = parser->work->line;

    if (parser->token->type != TOKEN_NAME) {
        work_fail(parser->work, "tag name expected");
    }
    for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
        if (parser_skip_name(parser, tags[i].name)) {
            struct node *node;

            work_enter(parser->work);
            node = tags[i].parse(parser, line);
            work_leave(parser->work);
            return node;
        }
    }
    fail_unknown_tag(parser);
}

static bool at_one_of(const struct parser *parser, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++) {
        if (parser_at_name(parser, *ends)) {
            return true;
        }
    }
    return false;
}

/* Up to one of the end tags (NULL: the end of the template), whose name is then the current token.
 */
static struct node_list parse_body(struct parser *parser, const char *const *ends)
{
    struct node_list body = {0};

    for (;;) {
        const struct token *token = parser->token;
        struct node *node;

        switch (token->type) {
        case TOKEN_DATA:
            node = parser_node(parser, NODE_DATA, token->line);
            node->constant = value_str(parser->work, token->text, token->len);
            parser_next(parser);
            break;
        case TOKEN_VARIABLE_BEGIN:
            node = parser_node(parser, NODE_PRINT, token->line);
            parser_next(parser);
            node->line = parser->work->line;
            node->binary.left = parser_tuple(parser, PARSER_PLAIN, NULL);
            parser_expect(parser, TOKEN_VARIABLE_END);
            break;
        case TOKEN_BLOCK_BEGIN:
            parser_next(parser);
            if (at_one_of(parser, ends)) {
                return body;
            }
            node = parse_statement(parser);
            parser_expect(parser, TOKEN_BLOCK_END);
            break;
        default: /* the end: the lexer gives nothing else outside of tags */
            if (ends != NULL) {
                work_fail(parser->work,
                          "Unexpected end of template. Jinja was looking for the tag '%s'.", *ends);
            }
            return body;
        }
        parser_append(parser, &body, node);
    }
}

static uint32_t intern_text(struct parser *parser, const char *text)
{
    return parser_intern(parser, value_text(parser->work, text).str);
}

struct node_list parser_run(struct parser *parser)
{
    struct node_list body;

    parser->names.ids = dict_new(parser->work, 64);
    parser->names.caller = intern_text(parser, "caller");
    parser->names.kwargs = intern_text(parser, "kwargs");
    parser->names.varargs = intern_text(parser, "varargs");
    parser->names.loop = intern_text(parser, "loop");
    parser->work->line = parser->token->line;
    body = parse_body(parser, NULL);
    if (parser->unknown != NULL) {
        const struct str *name = parser->unknown->call.name;

        parser->work->line = parser->unknown->line;
        work_fail(parser->work, "No %s named '%.*s'.",
                  parser->unknown->kind == NODE_FILTER ? "filter" : "test",
                  (int)MIN(name->len, (size_t)100), name->data);
    }
    return body;
}
