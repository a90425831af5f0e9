/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parsed template: a tree in the template's arena, never changed after parsing, so that any
 * number of threads may render it at once.
 */
#pragma once

#include "chat/value.h"

enum node_kind {
    /* expressions */
    NODE_CONST,
    NODE_NAME,
    NODE_TUPLE,
    NODE_LIST,
    NODE_DICT,
    NODE_NEG,
    NODE_POS,
    NODE_NOT,
    NODE_ARITHMETIC,
    NODE_AND,
    NODE_OR,
    NODE_CONCAT,
    NODE_COMPARE,
    NODE_COND,
    NODE_ATTR,
    NODE_ITEM,
    NODE_SLICE,
    NODE_CALL,
    NODE_FILTER,
    NODE_TEST,
    /* targets of set only */
    NODE_NAMESPACE_ATTR,
    /* statements */
    NODE_DATA,
    NODE_PRINT,
    NODE_IF,
    NODE_FOR,
    NODE_SET,
    NODE_SET_BLOCK,
    NODE_WITH,
    NODE_MACRO,
    NODE_CALL_BLOCK,
    NODE_FILTER_BLOCK,
    NODE_GENERATION,
    NODE_BREAK,
    NODE_CONTINUE,
};

enum arithmetic { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW };

enum comparison { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct node_list {
    struct node **items;
    size_t n;
    size_t cap;
};

/* Ids of names. */
struct id_list {
    uint32_t *ids;
    size_t n;
};

struct keyword_node {
    const struct str *name;
    struct node *value;
};

struct argument_nodes {
    struct node_list args;
    struct keyword_node *keywords;
    size_t n_keywords;
    struct node *star;      /* *args, NULL if none */
    struct node *star_star; /* **kwargs, NULL if none */
};

struct comparison_node {
    enum comparison op;
    struct node *right;
};

struct branch_node {
    struct node *test;
    struct node_list body;
};

struct param_node {
    uint32_t id;
    const struct str *name;
    struct node *fallback; /* NULL if there is none */
};

struct node {
    enum node_kind kind;
    int line;
    union {
        struct value constant; /* NODE_DATA too */
        struct {
            uint32_t id; /* of the name among the template's */
            const struct str *text;
            const struct str *attr; /* NODE_NAMESPACE_ATTR */
        } name;
        struct node_list items; /* tuple, list, concat; dict: key, value, key, ... */
        struct {
            enum arithmetic op;
            struct node *left; /* the operand of neg, pos and not; the value to print */
            struct node *right;
        } binary;
        struct {
            struct node *left;
            struct comparison_node *right;
            size_t n;
        } compare;
        struct {
            struct node *test;
            struct node *yes;
            struct node *no; /* NULL if there is none */
        } cond;
        struct {
            struct node *object;
            const struct str *attr; /* NODE_ATTR */
            struct node *index;     /* NODE_ITEM; may be NODE_SLICE */
        } member;
        struct {
            struct node *start; /* each NULL if absent */
            struct node *stop;
            struct node *step;
        } slice;
        struct {
            struct node *target;           /* callee, or the value; NULL: the filter of a block */
            const struct builtin *builtin; /* of filter and test; NULL if there is no such */
            const struct str *name;
            struct argument_nodes arguments;
        } call;
        struct {
            struct branch_node *branches;
            size_t n;
            struct node_list otherwise;
        } choice;
        struct {
            struct node *target;
            struct node *iterable;
            struct node *test; /* NULL if there is none */
            struct node_list body;
            struct node_list otherwise;
            struct id_list shadows; /* see scoping.h; of the other parts likewise */
            struct id_list otherwise_shadows;
            bool recursive;
        } loop;
        struct {
            struct node *target;
            struct node *value;    /* NODE_SET */
            struct node *filter;   /* NODE_SET_BLOCK, NULL if none; NODE_FILTER_BLOCK */
            struct node_list body; /* the blocks' and NODE_GENERATION's */
            struct id_list shadows;
        } set;
        struct {
            struct node_list targets;
            struct node_list values;
            struct node_list body;
            struct id_list shadows;
        } with;
        struct {
            uint32_t id;
            const struct str *name; /* NULL: a call block */
            struct param_node *params;
            size_t n_params;
            struct node_list body;
            struct id_list shadows;
            struct node *call; /* NODE_CALL_BLOCK */
            bool uses_caller;
            bool uses_kwargs;
            bool uses_varargs;
        } macro;
    };
};

/* The names a template mentions; a name's id is its place. */
struct names {
    struct dict *ids; /* text to id */
    uint32_t caller;
    uint32_t kwargs;
    uint32_t varargs;
    uint32_t loop;
};
