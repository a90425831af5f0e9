/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part is read in order, without what lies in the parts inside of it; those follow when it is
 * done, as they see all of its names. The branches of an if are read each on top of what was known
 * before.
 */
#include "chat/scoping.h"

enum use {
    USE_KNOWN = 1,  /* the part refers to the name */
    USE_STORED = 2, /* it sets it */
    USE_SHADOW = 4, /* set before it was read */
};

/* What is known of the names of a part, or added to that by a branch of it. */
struct symbols {
    struct dict *uses;      /* name id to enum use */
    struct symbols *base;   /* of a branch: what it adds to */
    struct symbols *parent; /* the part around; NULL of a branch, whose base has it */
};

struct scoping {
    struct work *work;
    const struct names *names;
    struct symbols *symbols;
};

static void read_body(struct scoping *scoping, const struct node_list *body);
static void enter_parts(struct scoping *scoping, struct node_list *body);

static int64_t find_use(struct scoping *scoping, const struct symbols *symbols, uint32_t id)
{
    for (; symbols != NULL; symbols = symbols->base) {
        const struct value *use = dict_get(scoping->work, symbols->uses, value_int(id));

        if (use != NULL) {
            return use->integer;
        }
    }
    return 0;
}

static void set_use(struct scoping *scoping, struct symbols *symbols, uint32_t id, int64_t use)
{
    dict_set(scoping->work, symbols->uses, value_int(id), value_int(use));
}

static const struct symbols *parent_of(const struct symbols *symbols)
{
    while (symbols->base != NULL) {
        symbols = symbols->base;
    }
    return symbols->parent;
}

/* Does a part around refer to the name? */
static bool is_outer(struct scoping *scoping, uint32_t id)
{
    const struct symbols *outer = parent_of(scoping->symbols);

    for (; outer != NULL; outer = outer->parent) {
        if (find_use(scoping, outer, id) != 0) {
            return true;
        }
    }
    return false;
}

static void load(struct scoping *scoping, uint32_t id)
{
    if (find_use(scoping, scoping->symbols, id) == 0 && !is_outer(scoping, id)) {
        set_use(scoping, scoping->symbols, id, USE_KNOWN);
    }
}

static void store(struct scoping *scoping, uint32_t id)
{
    int64_t use = find_use(scoping, scoping->symbols, id);

    if (use == 0) {
        use = is_outer(scoping, id) ? USE_KNOWN : USE_KNOWN | USE_SHADOW;
    }
    set_use(scoping, scoping->symbols, id, use | USE_STORED);
}

static void declare(struct scoping *scoping, uint32_t id)
{
    set_use(scoping, scoping->symbols, id, USE_KNOWN | USE_STORED);
}

static void read_expression(struct scoping *scoping, const struct node *node);

static void read_list(struct scoping *scoping, const struct node_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        read_expression(scoping, list->items[i]);
    }
}

static void read_call(struct scoping *scoping, const struct node *node)
{
    const struct argument_nodes *arguments = &node->call.arguments;

    read_expression(scoping, node->call.target);
    read_list(scoping, &arguments->args);
    for (size_t i = 0; i < arguments->n_keywords; i++) {
        read_expression(scoping, arguments->keywords[i].value);
    }
    read_expression(scoping, arguments->star);
    read_expression(scoping, arguments->star_star);
}

static void read_compare(struct scoping *scoping, const struct node *node)
{
    read_expression(scoping, node->compare.left);
    for (size_t i = 0; i < node->compare.n; i++) {
        read_expression(scoping, node->compare.right[i].right);
    }
}

static void read_parts(struct scoping *scoping, const struct node *a, const struct node *b,
                       const struct node *c)
{
    read_expression(scoping, a);
    read_expression(scoping, b);
    read_expression(scoping, c);
}

static void read_any(struct scoping *scoping, const struct node *node)
{
    switch (node->kind) {
    case NODE_NAME:
        load(scoping, node->name.id);
        break;
    case NODE_TUPLE:
    case NODE_LIST:
    case NODE_DICT:
    case NODE_CONCAT:
        read_list(scoping, &node->items);
        break;
    case NODE_NEG:
    case NODE_POS:
    case NODE_NOT:
    case NODE_ARITHMETIC:
    case NODE_AND:
    case NODE_OR:
        read_parts(scoping, node->binary.left, node->binary.right, NULL);
        break;
    case NODE_COMPARE:
        read_compare(scoping, node);
        break;
    case NODE_COND:
        read_parts(scoping, node->cond.test, node->cond.yes, node->cond.no);
        break;
    case NODE_ATTR:
    case NODE_ITEM:
        read_parts(scoping, node->member.object, node->member.index, NULL);
        break;
    case NODE_SLICE:
        read_parts(scoping, node->slice.start, node->slice.stop, node->slice.step);
        break;
    case NODE_CALL:
    case NODE_FILTER:
    case NODE_TEST:
        read_call(scoping, node);
        break;
    default: /* constants */
        break;
    }
}

/* node may be NULL. */
static void read_expression(struct scoping *scoping, const struct node *node)
{
    if (node != NULL) {
        scoping->work->line = node->line;
        work_enter(scoping->work);
        read_any(scoping, node);
        work_leave(scoping->work);
    }
}

/* Calls use (store or declare) for each name of a target. */
static void read_target(struct scoping *scoping, const struct node *target,
                        void (*use)(struct scoping *scoping, uint32_t id))
{
    work_enter(scoping->work);
    if (target->kind == NODE_TUPLE) {
        for (size_t i = 0; i < target->items.n; i++) {
            read_target(scoping, target->items.items[i], use);
        }
    } else if (target->kind == NODE_NAMESPACE_ATTR) {
        load(scoping, target->name.id);
    } else {
        use(scoping, target->name.id);
    }
    work_leave(scoping->work);
}

static void begin_branch(struct scoping *scoping, struct symbols *branch)
{
    *branch = (struct symbols){.uses = dict_new(scoping->work, 0), .base = scoping->symbols};
    scoping->symbols = branch;
}

/* What a branch sets for the first time may or may not be set: it is no shadow. */
static void end_branch(struct scoping *scoping)
{
    const struct symbols *branch = scoping->symbols;

    scoping->symbols = branch->base;
    for (size_t i = 0; i < branch->uses->n; i++) {
        uint32_t id = (uint32_t)branch->uses->entries[i].key.integer;
        int64_t use = branch->uses->entries[i].value.integer;
        int64_t before = find_use(scoping, branch->base, id);

        if ((use & USE_STORED) != 0 && (before & USE_STORED) == 0) {
            use &= ~(int64_t)USE_SHADOW;
        }
        set_use(scoping, scoping->symbols, id, use);
    }
}

/* Branches do not see each other; the second test and all after it are one branch with theirs
 * inside. */
static void read_if(struct scoping *scoping, const struct node *node)
{
    struct symbols *base = scoping->symbols;
    struct symbols additions[3];
    struct symbols branch;

    read_expression(scoping, node->choice.branches[0].test);
    begin_branch(scoping, &additions[0]);
    read_body(scoping, &node->choice.branches[0].body);
    scoping->symbols = base;
    begin_branch(scoping, &additions[1]);
    for (size_t i = 1; i < node->choice.n; i++) {
        read_expression(scoping, node->choice.branches[i].test);
        begin_branch(scoping, &branch);
        read_body(scoping, &node->choice.branches[i].body);
        end_branch(scoping);
    }
    scoping->symbols = base;
    begin_branch(scoping, &additions[2]);
    read_body(scoping, &node->choice.otherwise);
    for (size_t i = 0; i < ARRAY_LEN(additions); i++) {
        scoping->symbols = &additions[i];
        end_branch(scoping);
    }
}

static void read_statement(struct scoping *scoping, const struct node *node)
{
    switch (node->kind) {
    case NODE_PRINT:
        read_expression(scoping, node->binary.left);
        break;
    case NODE_IF:
        read_if(scoping, node);
        break;
    case NODE_FOR:
        read_expression(scoping, node->loop.iterable);
        break;
    case NODE_SET:
        read_expression(scoping, node->set.value);
        read_target(scoping, node->set.target, store);
        break;
    case NODE_SET_BLOCK:
        read_target(scoping, node->set.target, store);
        break;
    case NODE_FILTER_BLOCK:
        read_expression(scoping, node->set.filter);
        break;
    case NODE_WITH:
        read_list(scoping, &node->with.values);
        break;
    case NODE_MACRO:
        store(scoping, node->macro.id);
        break;
    case NODE_CALL_BLOCK:
        read_expression(scoping, node->macro.call);
        break;
    default:
        break;
    }
}

static void read_body(struct scoping *scoping, const struct node_list *body)
{
    for (size_t i = 0; i < body->n; i++) {
        work_enter(scoping->work);
        read_statement(scoping, body->items[i]);
        work_leave(scoping->work);
    }
}

/* After the names that the part declares: reads its body, then the parts inside. */
static struct id_list finish_part(struct scoping *scoping, struct node_list *body)
{
    const struct dict *uses = scoping->symbols->uses;
    struct id_list shadows = {0};

    read_body(scoping, body);
    shadows.ids = work_alloc(scoping->work, uses->n, sizeof(*shadows.ids));
    for (size_t i = 0; i < uses->n; i++) {
        if ((uses->entries[i].value.integer & USE_SHADOW) != 0) {
            shadows.ids[shadows.n++] = (uint32_t)uses->entries[i].key.integer;
        }
    }
    enter_parts(scoping, body);
    return shadows;
}

static void begin_part(struct scoping *scoping, struct symbols *symbols)
{
    *symbols = (struct symbols){.uses = dict_new(scoping->work, 0), .parent = scoping->symbols};
    scoping->symbols = symbols;
}

static void enter_loop(struct scoping *scoping, struct node *node)
{
    struct symbols *outer = scoping->symbols;
    struct symbols symbols;

    begin_part(scoping, &symbols);
    declare(scoping, scoping->names->loop);
    read_target(scoping, node->loop.target, declare);
    node->loop.shadows = finish_part(scoping, &node->loop.body);
    scoping->symbols = outer;
    begin_part(scoping, &symbols);
    node->loop.otherwise_shadows = finish_part(scoping, &node->loop.otherwise);
    scoping->symbols = outer;
}

static void enter_macro(struct scoping *scoping, struct node *node)
{
    struct symbols *outer = scoping->symbols;
    struct symbols symbols;

    begin_part(scoping, &symbols);
    for (size_t i = 0; i < node->macro.n_params; i++) {
        declare(scoping, node->macro.params[i].id);
    }
    if (node->macro.uses_caller) {
        declare(scoping, scoping->names->caller);
    }
    if (node->macro.uses_kwargs) {
        declare(scoping, scoping->names->kwargs);
    }
    if (node->macro.uses_varargs) {
        declare(scoping, scoping->names->varargs);
    }
    for (size_t i = 0; i < node->macro.n_params; i++) {
        read_expression(scoping, node->macro.params[i].fallback);
    }
    node->macro.shadows = finish_part(scoping, &node->macro.body);
    scoping->symbols = outer;
}

static void enter_with(struct scoping *scoping, struct node *node)
{
    struct symbols *outer = scoping->symbols;
    struct symbols symbols;

    begin_part(scoping, &symbols);
    for (size_t i = 0; i < node->with.targets.n; i++) {
        read_target(scoping, node->with.targets.items[i], declare);
    }
    node->with.shadows = finish_part(scoping, &node->with.body);
    scoping->symbols = outer;
}

static void enter_block(struct scoping *scoping, struct node *node)
{
    struct symbols *outer = scoping->symbols;
    struct symbols symbols;

    begin_part(scoping, &symbols);
    node->set.shadows = finish_part(scoping, &node->set.body);
    scoping->symbols = outer;
}

static void enter_node(struct scoping *scoping, struct node *node)
{
    switch (node->kind) {
    case NODE_IF: /* no part of its own */
        for (size_t i = 0; i < node->choice.n; i++) {
            enter_parts(scoping, &node->choice.branches[i].body);
        }
        enter_parts(scoping, &node->choice.otherwise);
        break;
    case NODE_FOR:
        enter_loop(scoping, node);
        break;
    case NODE_MACRO:
    case NODE_CALL_BLOCK:
        enter_macro(scoping, node);
        break;
    case NODE_WITH:
        enter_with(scoping, node);
        break;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
    case NODE_GENERATION:
        enter_block(scoping, node);
        break;
    default:
        break;
    }
}

static void enter_parts(struct scoping *scoping, struct node_list *body)
{
    for (size_t i = 0; i < body->n; i++) {
        work_enter(scoping->work);
        enter_node(scoping, body->items[i]);
        work_leave(scoping->work);
    }
}

struct id_list scoping_run(struct work *work, const struct names *names, struct node_list *body)
{
    struct scoping scoping = {.work = work, .names = names};
    struct symbols symbols;

    begin_part(&scoping, &symbols);
    return finish_part(&scoping, body);
}
