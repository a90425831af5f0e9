/* SPDX-License-Identifier: Apache-2.0 */
/* From a MODEL argument to its tokenizer. */
#pragma once

#include "tokenizer/tokenizer.h"

/* path: a model folder (or one with only the tokenizer's files), a folder of the hub's cache, a
 * tokenizer.json, or a GGUF file. Errors name the file and the field in it. */
NODISCARD enum status open_tokenizer(const char *path, struct tokenizer **ret_tokenizer,
                                     struct err *err);
