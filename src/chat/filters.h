/* SPDX-License-Identifier: Apache-2.0 */
/* The filters, by what they work on, and what they share. */
#pragma once

#include "chat/env.h"

extern const struct builtin filters_on_text[];
extern const size_t filters_n_on_text;
extern const struct builtin filters_on_lists[];
extern const size_t filters_n_on_lists;
extern const struct builtin filters_lazy[];
extern const size_t filters_n_lazy;
extern const struct builtin filters_on_values[];
extern const size_t filters_n_on_values;

/* The steps of an attribute such as "a.b.0" (or a number): names and numbers. none gives no step.
 */
const struct list *filters_path(struct env *env, struct value attribute);
/* The member of item at the path; fallback (VALUE_MISSING: none) in place of what is undefined. */
struct value filters_follow(struct env *env, struct value item, const struct list *path,
                            struct value fallback);

/* What an argument is: the value, or fallback if it was not passed. */
static inline struct value filters_arg(struct value arg, struct value fallback)
{
    return arg.type == VALUE_MISSING ? fallback : arg;
}

static inline struct value filters_optional(struct value arg)
{
    return filters_arg(arg, value_none());
}

/* tojson (tojson.c) */
struct value filters_run_tojson(struct env *env, struct value self, const struct value *args);
