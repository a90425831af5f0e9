/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a conversation to the prompt's text: which of a model's templates is taken, and what it is
 * given besides the request. As in transformers: a model may have one template or several named
 * ones, of which "tool_use" is taken when tools are given and else "default"; the special tokens
 * that are not null are variables (bos_token, eos_token, ...); tools and documents are none when
 * absent and add_generation_prompt is true.
 *
 * Filled by one thread, then immutable: any number of threads may render.
 */
#pragma once

#include "chat/template.h"

struct chat_prompt;

struct chat_prompt *chat_prompt_new(void);
void chat_prompt_destroy(struct chat_prompt **prompt);

/* Adds a template or replaces the one of that name; a model's only one is "default". One with bad
 * syntax is accepted: rendering it reports what is wrong. */
void chat_prompt_add(struct chat_prompt *prompt, const char *name, const char *text, size_t size);

/* Takes the templates of tokenizer_config.json (a string, or a list of {"name", "template"}).
 * STATUS_INVALID names the field. */
NODISCARD enum status chat_prompt_add_config(struct chat_prompt *prompt, const json_t *config,
                                             struct err *err);

/* Takes its special tokens: each *_token that is a string or {"content": string}, and the named
 * ones of extra_special_tokens. */
void chat_prompt_set_tokens(struct chat_prompt *prompt, const json_t *config);
/* One of them; text that is not UTF-8 is left out. */
void chat_prompt_set_token(struct chat_prompt *prompt, const char *name, const char *text,
                           size_t size);

bool chat_prompt_is_empty(const struct chat_prompt *prompt);

/* The text of the template that a request with or without tools takes, valid until one is added;
 * NULL and size 0 if there is none. */
const char *chat_prompt_source(const struct chat_prompt *prompt, bool has_tools, size_t *ret_size);

/* Renders request (an object: messages, tools, add_generation_prompt, other variables) and appends
 * to out. On failure (STATUS_INVALID) out is untouched and message is set as chat_template_render
 * does. */
NODISCARD enum status chat_prompt_render(const struct chat_prompt *prompt, const json_t *request,
                                         struct buf *out, struct buf *message);
