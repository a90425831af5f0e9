/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which names are local to which part of a template, decided before it runs, as jinja2 does. A name
 * that a part (the whole, a loop's body, a macro, a block) sets, and that was not read there
 * before, nor by a part around it, is its own from the start: until it is set it is undefined,
 * there and in the parts inside, also if a variable of that name was passed in. A set inside of an
 * if does not count. These names are the shadows of the part.
 */
#pragma once

#include "chat/ast.h"

/* Fills the shadows of all parts of the tree and returns the whole's. */
struct id_list scoping_run(struct work *work, const struct names *names, struct node_list *body);
