/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations of known models, for measurements without a download. */
#pragma once

#include "model/config.h"

/* "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"; false if there is no such shape. */
bool shape_find(const char *name, struct model_config *ret_config);
