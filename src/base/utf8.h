/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 defines it (no surrogates, no overlong forms, at most U+10FFFF). Any thread. */
#pragma once

#include "base/base.h"

/* Length in bytes (1 to 4) of the valid sequence at text, 0 if there is none within size bytes. */
size_t utf8_valid_prefix(const char *text, size_t size);

/* True if all size bytes are valid UTF-8. */
bool utf8_is_valid(const char *text, size_t size);

/* Bytes at the end of text (0 to 3) that begin a sequence which more bytes could complete. */
size_t utf8_incomplete_tail(const char *text, size_t size);

/* Decodes the valid sequence at text; returns its length, 0 (and *ret_code untouched) if invalid.
 */
size_t utf8_decode(const char *text, size_t size, uint32_t *ret_code);

/* Writes code (at most U+10FFFF, no surrogate) to out (4 bytes at least); returns the length. */
size_t utf8_encode(uint32_t code, char *out);
