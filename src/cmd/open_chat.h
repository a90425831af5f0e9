/* SPDX-License-Identifier: Apache-2.0 */
/* From a MODEL argument to its chat templates and special tokens. */
#pragma once

#include "chat/prompt.h"

/* path: a model folder (or one with only the tokenizer's files), a folder of the hub's cache, a
 * GGUF file, or a template's own file (then there are no special tokens). In a folder
 * chat_template.jinja and additional_chat_templates/ win over tokenizer_config.json.
 * STATUS_NOT_FOUND if the model has no template. Errors name the file and the field in it. */
NODISCARD enum status open_chat(const char *path, struct chat_prompt **ret_prompt, struct err *err);
