/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recognises one JSON value byte by byte, without building it: so that a value can be handed on
 * while it is still being written. As RFC 8259, except that control characters may stand in
 * strings as they are (models write line breaks there; who hands the text on escapes them). Any
 * nesting depth; memory is a byte a level. Zero-initialise; one thread.
 */
#pragma once

#include "base/buf.h"

enum json_scan_step {
    JSON_SCAN_MORE,  /* the value goes on (or has not begun: whitespace before it) */
    JSON_SCAN_END,   /* the byte was the value's last */
    JSON_SCAN_AFTER, /* the value, a number, has ended before this byte, which is not its own */
    JSON_SCAN_BAD,   /* the byte cannot stand here; the scan is over */
};

enum json_scan_state {
    SCAN_VALUE,
    SCAN_VALUE_OR_CLOSE,
    SCAN_KEY,
    SCAN_KEY_OR_CLOSE,
    SCAN_COLON,
    SCAN_NEXT, /* behind an item */
    SCAN_STRING,
    SCAN_ESCAPE,
    SCAN_HEX,
    SCAN_LITERAL,
    SCAN_MINUS,
    SCAN_ZERO,
    SCAN_INTEGER,
    SCAN_POINT,
    SCAN_FRACTION,
    SCAN_E,
    SCAN_E_SIGN,
    SCAN_EXPONENT,
};

struct json_scan {
    enum json_scan_state state;
    bool in_key;         /* the string is a member's name */
    unsigned hex_left;   /* digits of \uXXXX to come */
    const char *literal; /* what is to come of true, false, null */
    struct buf open;     /* the containers around, a '{' or '[' each */
};

void json_scan_reset(struct json_scan *scan); /* for the next value; keeps the memory */
void json_scan_release(struct json_scan *scan);

enum json_scan_step json_scan_push(struct json_scan *scan, char c);

/* True if a number could end here: the only value whose end its own bytes do not tell. */
bool json_scan_is_whole_number(const struct json_scan *scan);

/* JSON's whitespace. */
bool json_scan_is_space(char c);
