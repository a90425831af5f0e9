/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

/* Length that the first byte announces, and the range of its second byte. 0: never a first byte. */
static size_t first_byte(unsigned char c, unsigned char *ret_low, unsigned char *ret_high)
{
    *ret_low = 0x80;
    *ret_high = 0xbf;
    if (c < 0x80) {
        return 1;
    }
    if (c >= 0xc2 && c <= 0xdf) {
        return 2;
    }
    if (c >= 0xe0 && c <= 0xef) {
        *ret_low = c == 0xe0 ? 0xa0 : 0x80;
        *ret_high = c == 0xed ? 0x9f : 0xbf;
        return 3;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        *ret_low = c == 0xf0 ? 0x90 : 0x80;
        *ret_high = c == 0xf4 ? 0x8f : 0xbf;
        return 4;
    }
    return 0;
}

/* Bytes of the sequence at text that are right so far; *ret_want is the announced length. */
static size_t matched(const char *text, size_t size, size_t *ret_want)
{
    unsigned char low;
    unsigned char high;
    size_t want = size == 0 ? 0 : first_byte((unsigned char)text[0], &low, &high);
    size_t i = want == 0 ? 0 : 1;

    *ret_want = want;
    for (; i < want && i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < low || c > high) {
            break;
        }
        low = 0x80;
        high = 0xbf;
    }
    return i;
}

size_t utf8_valid_prefix(const char *text, size_t size)
{
    size_t want;
    size_t got = matched(text, size, &want);

    return want != 0 && got == want ? want : 0;
}

bool utf8_is_valid(const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t n = (unsigned char)text[i] < 0x80 ? 1 : utf8_valid_prefix(text + i, size - i);

        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}

size_t utf8_incomplete_tail(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t want;
        size_t got = matched(text + size - back, back, &want);

        if (want > back && got == back) {
            return back;
        }
    }
    return 0;
}

size_t utf8_decode(const char *text, size_t size, uint32_t *ret_code)
{
    static const unsigned char mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t n = utf8_valid_prefix(text, size);
    uint32_t code;

    if (n == 0) {
        return 0;
    }
    code = (unsigned char)text[0] & mask[n];
    for (size_t i = 1; i < n; i++) {
        code = code << 6 | ((unsigned char)text[i] & 0x3f);
    }
    *ret_code = code;
    return n;
}

size_t utf8_encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}
