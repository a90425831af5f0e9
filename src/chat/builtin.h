/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the language brings along: filters, tests, methods and functions, each an entry in a table.
 */
#pragma once

#include "chat/value.h"

struct env;

enum { BUILTIN_PARAMS_MAX = 6 };

struct keyword {
    const struct str *name;
    struct value value;
};

/* What a call passes. */
struct arguments {
    const struct value *args;
    size_t n;
    const struct keyword *keywords;
    size_t n_keywords;
};

struct builtin {
    const char *name;
    /* One of these; neither: known to Python, not supported here. self is the filtered or tested
     * value, or the method's object. args are bound to params, VALUE_MISSING where not passed. */
    struct value (*run)(struct env *env, struct value self, const struct value *args);
    struct value (*run_any)(struct env *env, struct value self, const struct arguments *arguments);
    const char *params[BUILTIN_PARAMS_MAX];
    int n_required;
    bool positional; /* arguments may not be named */
};

/* By name, NULL if there is none. */
const struct builtin *builtin_find_filter(const char *name, size_t len);
const struct builtin *builtin_find_test(const char *name, size_t len);
const struct builtin *builtin_find_function(const char *name, size_t len);
/* The public attributes that Python's type of the value has, as methods. */
const struct builtin *builtin_find_method(struct value object, const char *name, size_t len);

/* Among n entries of a table. */
const struct builtin *builtin_find(const struct builtin *table, size_t n, const char *name,
                                   size_t len);

/* Calls it; what names it in messages ("filter", "test", "method", "function"). */
struct value builtin_call(struct env *env, const struct builtin *builtin, const char *what,
                          struct value self, const struct arguments *arguments);
