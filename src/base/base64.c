/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base64.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Four characters to n bytes, 0 if they are none; only the last four may be padded. */
static size_t decode_quad(const char *quad, bool last, char *out)
{
    size_t n = quad[3] != '=' ? 3 : quad[2] != '=' ? 2 : 1;
    uint32_t bits = 0;

    for (size_t i = 0; i < 4; i++) {
        const char *at = quad[i] == '\0' ? NULL : strchr(alphabet, quad[i]);

        if (i <= n ? at == NULL : quad[i] != '=') {
            return 0;
        }
        bits = bits << 6 | (i <= n ? (uint32_t)(at - alphabet) : 0);
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (char)(bits >> (16 - 8 * i));
    }
    return n == 3 || (last && (bits & (n == 2 ? 0xffu : 0xffffu)) == 0) ? n : 0;
}

enum status base64_decode(const char *text, size_t size, struct buf *bytes, struct err *err)
{
    if (size % 4 != 0) {
        return err_set(err, STATUS_INVALID, "the length is no multiple of 4");
    }
    for (size_t i = 0; i < size; i += 4) {
        char out[3];
        size_t n = decode_quad(text + i, i + 4 == size, out);

        if (n == 0) {
            return err_set(err, STATUS_INVALID, "no base64 at byte %zu", i);
        }
        buf_append(bytes, out, n);
    }
    return STATUS_OK;
}

void base64_encode(const char *bytes, size_t size, struct buf *text)
{
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = 0;
        char quad[4];

        for (size_t j = 0; j < 3; j++) {
            bits = bits << 8 | (i + j < size ? (unsigned char)bytes[i + j] : 0u);
        }
        for (size_t j = 0; j < 4; j++) {
            quad[j] = i + j > size ? '=' : alphabet[bits >> (18 - 6 * j) & 63];
        }
        buf_append(text, quad, sizeof(quad));
    }
}
