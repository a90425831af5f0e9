/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/json_scan.h"

void json_scan_reset(struct json_scan *scan)
{
    struct buf open = scan->open;

    buf_clear(&open);
    *scan = (struct json_scan){.state = SCAN_VALUE, .open = open};
}

void json_scan_release(struct json_scan *scan)
{
    buf_release(&scan->open);
}

bool json_scan_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static enum json_scan_step go(struct json_scan *scan, enum json_scan_state state)
{
    scan->state = state;
    return JSON_SCAN_MORE;
}

/* A value is complete. */
static enum json_scan_step value_ended(struct json_scan *scan)
{
    scan->state = SCAN_NEXT;
    return scan->open.len == 0 ? JSON_SCAN_END : JSON_SCAN_MORE;
}

static enum json_scan_step open_container(struct json_scan *scan, char c)
{
    buf_append_char(&scan->open, c);
    return go(scan, c == '{' ? SCAN_KEY_OR_CLOSE : SCAN_VALUE_OR_CLOSE);
}

static enum json_scan_step close_container(struct json_scan *scan)
{
    scan->open.len--;
    return value_ended(scan);
}

static enum json_scan_step begin_string(struct json_scan *scan, bool in_key)
{
    scan->in_key = in_key;
    return go(scan, SCAN_STRING);
}

static enum json_scan_step begin_literal(struct json_scan *scan, const char *rest)
{
    scan->literal = rest;
    return go(scan, SCAN_LITERAL);
}

static enum json_scan_step begin_value(struct json_scan *scan, char c)
{
    switch (c) {
    case '{':
    case '[':
        return open_container(scan, c);
    case '"':
        return begin_string(scan, false);
    case 't':
        return begin_literal(scan, "rue");
    case 'f':
        return begin_literal(scan, "alse");
    case 'n':
        return begin_literal(scan, "ull");
    case '-':
        return go(scan, SCAN_MINUS);
    case '0':
        return go(scan, SCAN_ZERO);
    default:
        return is_digit(c) ? go(scan, SCAN_INTEGER) : JSON_SCAN_BAD;
    }
}

static enum json_scan_step in_string(struct json_scan *scan, char c)
{
    if (scan->state == SCAN_HEX) {
        bool is_hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');

        if (!is_hex) {
            return JSON_SCAN_BAD;
        }
        return --scan->hex_left > 0 ? JSON_SCAN_MORE : go(scan, SCAN_STRING);
    }
    if (scan->state == SCAN_ESCAPE) {
        if (c == 'u') {
            scan->hex_left = 4;
            return go(scan, SCAN_HEX);
        }
        return c != '\0' && strchr("\"\\/bfnrt", c) != NULL ? go(scan, SCAN_STRING) : JSON_SCAN_BAD;
    }
    if (c == '\\') {
        return go(scan, SCAN_ESCAPE);
    }
    if (c != '"') {
        return JSON_SCAN_MORE;
    }
    return scan->in_key ? go(scan, SCAN_COLON) : value_ended(scan);
}

static enum json_scan_step behind_item(struct json_scan *scan, char c)
{
    char open = scan->open.len == 0 ? '\0' : scan->open.data[scan->open.len - 1];

    if (json_scan_is_space(c) && open != '\0') {
        return JSON_SCAN_MORE;
    }
    if (c == ',' && open != '\0') {
        return go(scan, open == '{' ? SCAN_KEY : SCAN_VALUE);
    }
    if ((c == '}' && open == '{') || (c == ']' && open == '[')) {
        return close_container(scan);
    }
    return JSON_SCAN_BAD;
}

bool json_scan_is_whole_number(const struct json_scan *scan)
{
    return scan->state == SCAN_ZERO || scan->state == SCAN_INTEGER ||
           scan->state == SCAN_FRACTION || scan->state == SCAN_EXPONENT;
}

static enum json_scan_step in_number(struct json_scan *scan, char c)
{
    enum json_scan_state state = scan->state;

    if (is_digit(c) && state != SCAN_ZERO) {
        switch (state) {
        case SCAN_MINUS:
            return go(scan, c == '0' ? SCAN_ZERO : SCAN_INTEGER);
        case SCAN_POINT:
            return go(scan, SCAN_FRACTION);
        case SCAN_E:
        case SCAN_E_SIGN:
            return go(scan, SCAN_EXPONENT);
        default:
            return JSON_SCAN_MORE;
        }
    }
    if (state == SCAN_E && (c == '+' || c == '-')) {
        return go(scan, SCAN_E_SIGN);
    }
    if (c == '.' && (state == SCAN_ZERO || state == SCAN_INTEGER)) {
        return go(scan, SCAN_POINT);
    }
    if ((c == 'e' || c == 'E') && state != SCAN_EXPONENT && json_scan_is_whole_number(scan)) {
        return go(scan, SCAN_E);
    }
    if (!json_scan_is_whole_number(scan)) {
        return JSON_SCAN_BAD;
    }
    if (scan->open.len == 0) {
        return JSON_SCAN_AFTER;
    }
    scan->state = SCAN_NEXT;
    return behind_item(scan, c);
}

static enum json_scan_step between(struct json_scan *scan, char c)
{
    if (json_scan_is_space(c)) {
        return JSON_SCAN_MORE;
    }
    switch (scan->state) {
    case SCAN_VALUE_OR_CLOSE:
        return c == ']' ? close_container(scan) : begin_value(scan, c);
    case SCAN_KEY_OR_CLOSE:
        if (c == '}') {
            return close_container(scan);
        }
        return c == '"' ? begin_string(scan, true) : JSON_SCAN_BAD;
    case SCAN_KEY:
        return c == '"' ? begin_string(scan, true) : JSON_SCAN_BAD;
    case SCAN_COLON:
        return c == ':' ? go(scan, SCAN_VALUE) : JSON_SCAN_BAD;
    default:
        return begin_value(scan, c);
    }
}

enum json_scan_step json_scan_push(struct json_scan *scan, char c)
{
    switch (scan->state) {
    case SCAN_STRING:
    case SCAN_ESCAPE:
    case SCAN_HEX:
        return in_string(scan, c);
    case SCAN_LITERAL:
        if (c != *scan->literal) {
            return JSON_SCAN_BAD;
        }
        return *++scan->literal == '\0' ? value_ended(scan) : JSON_SCAN_MORE;
    case SCAN_NEXT:
        return behind_item(scan, c);
    case SCAN_VALUE:
    case SCAN_VALUE_OR_CLOSE:
    case SCAN_KEY:
    case SCAN_KEY_OR_CLOSE:
    case SCAN_COLON:
        return between(scan, c);
    default:
        return in_number(scan, c);
    }
}
