/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer. Always followed by a zero byte, so that data can be used as a C string
 * when it holds no zero itself. Zero-initialise; release with buf_release. Growth aborts when
 * memory is gone, so callers bound what they append from outside. One thread at a time.
 */
#pragma once

#include "base/base.h"

struct buf {
    char *data; /* NULL until the first append */
    size_t len;
    size_t cap;
};

void buf_release(struct buf *buf);
void buf_clear(struct buf *buf); /* keeps the memory */
void buf_reserve(struct buf *buf, size_t extra);
void buf_append(struct buf *buf, const void *bytes, size_t n);
void buf_append_char(struct buf *buf, char c);
void buf_append_str(struct buf *buf, const char *text);
void buf_append_code(struct buf *buf, uint32_t code); /* as UTF-8 */
void buf_printf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);

/* Data as a C string, "" when empty; valid until the next change. */
const char *buf_str(const struct buf *buf);

/* Gives the memory away (free() it) and leaves the buffer empty; never NULL. */
char *buf_detach(struct buf *buf);
