/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat templates: the part of Jinja that they use, rendered as Python's jinja2 does it with the
 * settings of transformers (sandboxed and immutable, trim_blocks, lstrip_blocks, loop controls,
 * generation tags, tojson without HTML escapes, raise_exception, strftime_now).
 *
 * Not here: templates that include, import or extend others, autoescaping, integers beyond 64 bits,
 * and the filters that only web pages need; each use is an error that names it and its line.
 * A template is bounded in memory, steps, nesting and output, so that a hostile one ends with an
 * error.
 *
 * A template is not changed once created: any number of threads may render it at once. Rendering
 * needs about 1 MiB of stack at the deepest nesting allowed.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "json/json.h"

#define CHAT_TEMPLATE_MAX_BYTES ((size_t)16 << 20)

struct chat_template;

/* source is borrowed for the call. Bad syntax: STATUS_INVALID, "line N: what". */
NODISCARD enum status chat_template_create(const char *source, size_t size,
                                           struct chat_template **ret_template, struct err *err);
void chat_template_destroy(struct chat_template **template);

/* Renders with the members of variables (an object; borrowed) and appends the text to out. If that
 * fails (STATUS_INVALID), out is untouched and message is set to the reason, as long as it may be:
 * what the template gave to raise_exception, word for word, otherwise "line N: what". */
NODISCARD enum status chat_template_render(const struct chat_template *template,
                                           const json_t *variables, struct buf *out,
                                           struct buf *message);
