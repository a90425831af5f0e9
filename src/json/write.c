/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer. */
#include <math.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "json/json.h"

const struct json_style json_style_compact = {.indent = -1, .item_sep = ",", .key_sep = ":"};
const struct json_style json_style_python = {.indent = -1, .item_sep = ", ", .key_sep = ": "};

/* Adds one to the last digit of text ("1.23e-05"), with carries; the first digit is no 9 when it is
 * reached. */
static void next_decimal(char *text)
{
    char *c = strchr(text, 'e') - 1;

    while (c > text && (*c == '9' || *c == '.')) {
        *c = *c == '9' ? '0' : '.';
        c--;
    }
    (*c)++;
}

/* Significant decimal digits of |value| (finite, not 0) and its decimal exponent, shortest form
 * that reads back. Below a power of two doubles lie twice as dense as above it: there the nearest
 * decimal may read back as the neighbour while the one above it is right. digits has room for 18
 * bytes. Returns the number of digits. */
static int shortest_digits(double value, char *digits, int *ret_exponent)
{
    char text[40];
    int exponent;
    bool power = frexp(value, &exponent) == 0.5;
    int n = 0;

    for (int precision = 0; precision <= 16; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, value);
        if (strtod(text, NULL) == value) {
            break;
        }
        if (power && text[0] != '9') {
            next_decimal(text);
            if (strtod(text, NULL) == value) {
                break;
            }
        }
    }
    for (const char *c = text; *c != 'e'; c++) {
        if (*c >= '0' && *c <= '9') {
            digits[n++] = *c;
        }
    }
    digits[n] = '\0';
    *ret_exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    return n;
}

void json_write_real(struct buf *buf, double value)
{
    char digits[24];
    int exponent;
    int n;

    if (isnan(value)) {
        buf_append_str(buf, "nan");
        return;
    }
    if (signbit(value)) {
        buf_append_char(buf, '-');
        value = -value;
    }
    if (isinf(value)) {
        buf_append_str(buf, "inf");
        return;
    }
    if (value == 0.0) {
        buf_append_str(buf, "0.0");
        return;
    }
    n = shortest_digits(value, digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        buf_append_char(buf, digits[0]);
        if (n > 1) {
            buf_append_char(buf, '.');
            buf_append(buf, digits + 1, (size_t)n - 1);
        }
        buf_printf(buf, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        buf_append_str(buf, "0.");
        for (int i = -1; i > exponent; i--) {
            buf_append_char(buf, '0');
        }
        buf_append(buf, digits, (size_t)n);
        return;
    }
    for (int i = 0; i < MAX(n, exponent + 1); i++) {
        if (i == exponent + 1) {
            buf_append_char(buf, '.');
        }
        buf_append_char(buf, i < n ? digits[i] : '0');
    }
    if (n <= exponent + 1) {
        buf_append_str(buf, ".0");
    }
}

static void write_code_escaped(struct buf *buf, uint32_t code)
{
    if (code >= 0x10000) {
        code -= 0x10000;
        buf_printf(buf, "\\u%04x\\u%04x", 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff));
    } else {
        buf_printf(buf, "\\u%04x", code);
    }
}

void json_write_str(struct buf *buf, const char *text, size_t size, bool ascii)
{
    static const char *const short_escapes[] = {
        ['"'] = "\\\"", ['\\'] = "\\\\", ['\b'] = "\\b", ['\f'] = "\\f",
        ['\n'] = "\\n", ['\r'] = "\\r",  ['\t'] = "\\t",
    };

    buf_append_char(buf, '"');
    for (size_t i = 0; i < size;) {
        uint32_t code = 0xfffd;
        size_t n = utf8_decode(text + i, size - i, &code);

        if (n == 0) {
            n = 1;
        }
        if (code < ARRAY_LEN(short_escapes) && short_escapes[code] != NULL) {
            buf_append_str(buf, short_escapes[code]);
        } else if (code < 0x20 || (ascii && code >= 0x7f)) {
            write_code_escaped(buf, code);
        } else {
            buf_append_code(buf, code);
        }
        i += n;
    }
    buf_append_char(buf, '"');
}

static void new_line(struct buf *buf, const struct json_style *style, int depth)
{
    if (style->indent < 0) {
        return;
    }
    buf_append_char(buf, '\n');
    for (int i = 0; i < style->indent * depth; i++) {
        buf_append_char(buf, ' ');
    }
}

/* With an indent the item separator has no trailing space, as in Python (its default there is ",").
 */
static void separator(struct buf *buf, const struct json_style *style, size_t i, int depth)
{
    if (i > 0) {
        buf_append_str(buf, style->item_sep);
    }
    new_line(buf, style, depth);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_value(struct buf *buf, const json_t *value, const struct json_style *style,
                        int depth);

static void write_object(struct buf *buf, const json_t *value, const struct json_style *style,
                         int depth)
{
    size_t n = json_object_size(value);
    const char **keys = xcalloc(n, sizeof(*keys));
    const char *key;
    json_t *item;
    size_t i = 0;

    json_object_foreach((json_t *)value, key, item)
    {
        keys[i++] = key;
    }
    if (style->sort_keys) {
        qsort(keys, n, sizeof(*keys), compare_keys);
    }
    buf_append_char(buf, '{');
    for (i = 0; i < n; i++) {
        separator(buf, style, i, depth + 1);
        json_write_str(buf, keys[i], strlen(keys[i]), style->ascii);
        buf_append_str(buf, style->key_sep);
        write_value(buf, json_object_get(value, keys[i]), style, depth + 1);
    }
    if (n > 0) {
        new_line(buf, style, depth);
    }
    buf_append_char(buf, '}');
    free(keys);
}

static void write_value(struct buf *buf, const json_t *value, const struct json_style *style,
                        int depth)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(buf, value, style, depth);
        break;
    case JSON_ARRAY:
        buf_append_char(buf, '[');
        for (size_t i = 0; i < json_array_size(value); i++) {
            separator(buf, style, i, depth + 1);
            write_value(buf, json_array_get(value, i), style, depth + 1);
        }
        if (json_array_size(value) > 0) {
            new_line(buf, style, depth);
        }
        buf_append_char(buf, ']');
        break;
    case JSON_STRING:
        json_write_str(buf, json_string_value(value), json_string_length(value), style->ascii);
        break;
    case JSON_INTEGER:
        buf_printf(buf, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        json_write_real(buf, json_real_value(value));
        break;
    case JSON_TRUE:
        buf_append_str(buf, "true");
        break;
    case JSON_FALSE:
        buf_append_str(buf, "false");
        break;
    case JSON_NULL:
        buf_append_str(buf, "null");
        break;
    }
}

void json_write(struct buf *buf, const json_t *value, const struct json_style *style)
{
    write_value(buf, value, style, 0);
}
