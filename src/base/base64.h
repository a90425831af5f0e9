/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 with padding (RFC 4648, section 4). No state; any thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

/* Appends the bytes that text stands for; on failure those before the bad place. STATUS_INVALID
 * says where it is. */
NODISCARD enum status base64_decode(const char *text, size_t size, struct buf *bytes,
                                    struct err *err);

void base64_encode(const char *bytes, size_t size, struct buf *text);
