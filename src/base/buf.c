/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>

#include "base/mem.h"
#include "base/utf8.h"

void buf_release(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){0};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

void buf_reserve(struct buf *buf, size_t extra)
{
    size_t want;

    ENSURE(size_add(buf->len, extra, &want) && size_add(want, 1, &want));
    if (want > buf->cap) {
        size_t cap = MAX(want, buf->cap + buf->cap / 2);

        cap = MAX(cap, 64);
        buf->data = xrealloc(buf->data, cap, 1);
        buf->cap = cap;
    }
}

void buf_append(struct buf *buf, const void *bytes, size_t n)
{
    buf_reserve(buf, n);
    if (n > 0) {
        memcpy(buf->data + buf->len, bytes, n);
    }
    buf->len += n;
    buf->data[buf->len] = '\0';
}

void buf_append_char(struct buf *buf, char c)
{
    buf_append(buf, &c, 1);
}

void buf_append_str(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_code(struct buf *buf, uint32_t code)
{
    char bytes[4];

    buf_append(buf, bytes, utf8_encode(code, bytes));
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_list again;
    int n;

    va_start(args, format);
    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ENSURE(n >= 0);
    buf_reserve(buf, (size_t)n);
    vsnprintf(buf->data + buf->len, (size_t)n + 1, format, again);
    va_end(again);
    buf->len += (size_t)n;
}

const char *buf_str(const struct buf *buf)
{
    return buf->data == NULL ? "" : buf->data;
}

char *buf_detach(struct buf *buf)
{
    char *data = buf->data == NULL ? xalloc(1) : buf->data;

    *buf = (struct buf){0};
    return data;
}
