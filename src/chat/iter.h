/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking over values: once, lazily. Filters such as map give an iterator whose next function pulls
 * from another one; nothing is computed before it is asked for.
 */
#pragma once

#include "chat/env.h"

struct iter {
    /* False at the end, which is final. */
    bool (*next)(struct env *env, struct iter *iter, struct value *ret_item);
    struct value over;   /* what is walked, for the builtin kinds */
    size_t at;           /* position in it */
    struct iter *source; /* what a filter pulls from */
    void *state;         /* the filter's own */
    bool done;
};

/* An iterator over value; NULL if it cannot be walked (or fails, in the first form). */
struct iter *iter_open(struct env *env, struct value value);
struct iter *iter_try(struct env *env, struct value value);

/* As a value that a filter returns. */
struct value iter_value(struct iter *iter);
struct iter *iter_lazy(struct env *env, struct value source, void *state,
                       bool (*next)(struct env *env, struct iter *iter, struct value *ret_item));

bool iter_next(struct env *env, struct iter *iter, struct value *ret_item);

/* All that is left. */
struct list *iter_list(struct env *env, struct value value);
