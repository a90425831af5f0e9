/* SPDX-License-Identifier: Apache-2.0 */
/* The NFC normaliser over text that may hold any bytes. No state; any thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "tokenizer/tokenizer.h"

/* Each maximal run of valid UTF-8 in NFC, other bytes as they are. *ret_text points into text when
 * nothing changes, else into buf, which is overwritten. STATUS_NO_MEMORY. Time n log n. */
NODISCARD enum status normalize_nfc(const struct tokenizer_text *text, struct buf *buf,
                                    struct tokenizer_text *ret_text);
