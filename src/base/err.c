/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>

#include "base/utf8.h"

enum status err_set(struct err *err, enum status status, const char *format, ...)
{
    va_list args;

    if (err != NULL) {
        char text[ERR_TEXT_BYTES];

        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        memcpy(err->text, text, sizeof(text)); /* the arguments may have pointed into err */
        err->status = status;
    }
    return status;
}

enum status err_prefix(struct err *err, const char *format, ...)
{
    va_list args;
    char prefix[ERR_TEXT_BYTES];
    char rest[ERR_TEXT_BYTES];
    int n;

    if (err == NULL) {
        return STATUS_INVALID;
    }
    va_start(args, format);
    n = vsnprintf(prefix, sizeof(prefix), format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(prefix) - 2) {
        return err->status;
    }
    memcpy(rest, err->text, sizeof(rest));
    snprintf(err->text, sizeof(err->text), "%s: %.*s", prefix,
             (int)(sizeof(err->text) - (size_t)n - 3), rest);
    return err->status;
}

char *err_escape(const char *text, char *out, size_t size)
{
    size_t len = strlen(text);
    size_t o = 0;

    if (size == 0) {
        return out;
    }
    for (size_t i = 0; i < len;) {
        size_t n = utf8_valid_prefix(text + i, len - i);
        unsigned char c = (unsigned char)text[i];

        if (n == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0)) {
            if (o + 5 > size) {
                break;
            }
            o += (size_t)snprintf(out + o, size - o, "\\x%02x", c);
            i += 1;
        } else {
            if (o + n + 1 > size) {
                break;
            }
            memcpy(out + o, text + i, n);
            o += n;
            i += n;
        }
    }
    out[o] = '\0';
    return out;
}
