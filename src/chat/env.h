/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rendering at work: the variables in sight, the text being written, and the functions that
 * walk the tree. Everything lies in the arena of env->work, and failures leave through it (work.h).
 * One thread; the tree is shared and not changed.
 */
#pragma once

#include "chat/ast.h"
#include "chat/builtin.h"
#include "chat/text.h"

struct binding {
    uint32_t name;
    struct value value;
};

/* Names that statements have set, or will set (VALUE_MISSING, see scoping.h); a loop's body, a
 * macro's, a block's each have their own. */
struct scope {
    struct scope *parent;
    struct binding *bindings;
    size_t n;
    size_t cap;
};

struct env {
    struct work work;
    const struct names *names;
    struct value *context; /* by name id: the variables given, else the functions of the language */
    struct scope *scope;   /* innermost */
    struct text *out;
    struct value block; /* what the filters of a block are given */
};

/* A for loop that runs; value of the name loop in its body. */
struct loop {
    const struct node *node;
    struct scope *outer; /* where the loop stands */
    struct value iterable;
    struct iter *iter;
    int64_t index0; /* -1 before the first item */
    int64_t length; /* -1 until asked for */
    int64_t depth0;
    struct value current;
    struct value before;
    struct value after;   /* looked at already; VALUE_MISSING if not */
    struct value changed; /* the last arguments of .changed(), VALUE_MISSING if none */
};

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

/* statements (run.c) */
enum flow env_run(struct env *env, const struct node_list *body);
/* The text that body writes, in a new scope inside of parent. */
struct value env_capture(struct env *env, const struct node_list *body,
                         const struct id_list *shadows, struct scope *parent);
/* loop(iterable) in the body of a recursive loop: the text of its iterations. */
struct value env_recurse(struct env *env, const struct loop *loop, struct value iterable);
/* Binds target to value, unpacking tuples. */
void env_assign(struct env *env, const struct node *target, struct value value);
void env_bind(struct env *env, uint32_t name, struct value value);
/* shadows may be NULL. */
struct scope *env_scope_new(struct env *env, struct scope *parent, const struct id_list *shadows);

/* loop objects (loop.c) */
bool loop_next(struct env *env, struct loop *loop, struct value *ret_item);
/* VALUE_MISSING if a loop has no such attribute. */
struct value loop_attribute(struct env *env, struct loop *loop, const struct str *name);

/* expressions (eval.c) */
struct value env_eval(struct env *env, const struct node *node);
struct value env_call_node(struct env *env, const struct node *call, struct value caller);

/* calls (call.c) */
struct value env_call(struct env *env, struct value callee, const struct arguments *arguments);
/* What argument nodes evaluate to; caller (VALUE_MISSING: none) is passed as a keyword. */
struct arguments env_arguments(struct env *env, const struct argument_nodes *nodes,
                               struct value caller);

/* operators (operators.c) */
struct value op_arithmetic(struct env *env, enum arithmetic op, struct value a, struct value b);
struct value op_negate(struct env *env, struct value a, bool negative);
bool op_compare(struct env *env, enum comparison op, struct value a, struct value b);
bool op_contains(struct env *env, struct value container, struct value item);
/* str % value (percent.c) */
struct value op_percent(struct env *env, const struct str *format, struct value value);

/* members (access.c) */
struct value access_attr(struct env *env, struct value object, const struct str *name);
/* What Python's getattr() finds, which a dict's keys are not; VALUE_MISSING if nothing. */
struct value access_real_attr(struct env *env, struct value object, const struct str *name);
struct value access_item(struct env *env, struct value object, struct value index);
struct value access_slice(struct env *env, struct value object, const struct value bounds[3]);
/* The character at index of n_codes. */
struct value access_char(struct env *env, const struct str *str, size_t index);
/* Byte offset of the code point at index (at most n_codes). */
size_t access_offset(const struct str *str, size_t index);

/* Fails with Python's words when value is not what an argument must be; name is the argument's. */
const struct str *arg_str(struct env *env, struct value value, const char *name);
int64_t arg_int(struct env *env, struct value value, const char *name);
