/* SPDX-License-Identifier: Apache-2.0 */
/* Stable sorting by keys. */
#pragma once

#include "chat/env.h"

/* The order in which items go: indices into keys, which are compared with "<"; equal ones keep
 * their order, also if reverse. Fails if two have no order. */
const size_t *sort_by(struct env *env, const struct value *keys, size_t n, bool reverse);

/* The order of a dict's entries by their keys. */
const size_t *sort_keys(struct env *env, const struct dict *dict);
