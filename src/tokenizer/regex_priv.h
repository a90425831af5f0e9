/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

/* Appends to out the PCRE2 pattern that means what size bytes of pattern mean to Oniguruma (Ruby
 * syntax, UTF-8). */
NODISCARD enum status regex_translate(const char *pattern, size_t size, struct buf *out,
                                      struct err *err);
