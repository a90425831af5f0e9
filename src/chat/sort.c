/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/sort.h"

/* Merges the sorted [start, middle) and [middle, end) of from into to. An item of the second half
 * goes first only if it must. */
static void merge(struct env *env, const struct value *keys, const char *op, const size_t *from,
                  size_t *to, const size_t bounds[3])
{
    size_t a = bounds[0];
    size_t b = bounds[1];

    for (size_t i = bounds[0]; i < bounds[2]; i++) {
        bool second =
            a == bounds[1] ||
            (b < bounds[2] && value_is_ordered(&env->work, keys[from[b]], op, keys[from[a]]));

        to[i] = second ? from[b++] : from[a++];
    }
}

const size_t *sort_by(struct env *env, const struct value *keys, size_t n, bool reverse)
{
    size_t *order = work_alloc(&env->work, n, sizeof(*order));
    size_t *other = work_alloc(&env->work, n, sizeof(*other));

    for (size_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (size_t width = 1; width < n; width *= 2) {
        size_t *swap = order;

        for (size_t start = 0; start < n; start += 2 * width) {
            size_t bounds[3] = {start, MIN(start + width, n), MIN(start + 2 * width, n)};

            merge(env, keys, reverse ? ">" : "<", order, other, bounds);
        }
        order = other;
        other = swap;
    }
    return order;
}

const size_t *sort_keys(struct env *env, const struct dict *dict)
{
    struct value *keys = work_alloc(&env->work, dict->n, sizeof(*keys));

    for (size_t i = 0; i < dict->n; i++) {
        keys[i] = dict->entries[i].key;
    }
    return sort_by(env, keys, dict->n, false);
}
