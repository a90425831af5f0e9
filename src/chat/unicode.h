/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Python knows of code points: properties and case. The tables are unicode_data.c, written by
 * unicode_data.py from Python's own answers (Unicode 14). Any thread.
 */
#pragma once

#include "base/base.h"

enum unicode_property {
    UNICODE_PRINTABLE = 1 << 0, /* repr() leaves it as it is */
    UNICODE_ALPHA = 1 << 1,
    UNICODE_DECIMAL = 1 << 2,
    UNICODE_DIGIT = 1 << 3,
    UNICODE_NUMERIC = 1 << 4,
    UNICODE_SPACE = 1 << 5,
    UNICODE_UPPER = 1 << 6,
    UNICODE_LOWER = 1 << 7,
    UNICODE_TITLE = 1 << 8,
    UNICODE_IGNORABLE = 1 << 9, /* case-ignorable: skipped around a final sigma */
    UNICODE_WORD = 1 << 10,     /* \w in a regular expression */
};

#define UNICODE_ALNUM (UNICODE_ALPHA | UNICODE_DECIMAL | UNICODE_DIGIT | UNICODE_NUMERIC)
#define UNICODE_CASED (UNICODE_UPPER | UNICODE_LOWER | UNICODE_TITLE)

enum unicode_case { UNICODE_TO_UPPER, UNICODE_TO_LOWER, UNICODE_TO_TITLE };

enum { UNICODE_CASE_CODES = 3 }; /* the longest mapping of one code point */

/* True if code has at least one of the properties. */
bool unicode_has(uint32_t code, unsigned properties);

/* The full mapping of one code point, without context; returns its length. */
size_t unicode_map(uint32_t code, enum unicode_case to, uint32_t out[UNICODE_CASE_CODES]);

/* The tables. A run is its first code point << 11 | its properties; it holds up to the next run. */
enum { UNICODE_RUN_SHIFT = 11 };

/* Code points first, first + step, ... last map to themselves plus delta. */
struct unicode_shift {
    uint32_t first;
    uint32_t last;
    int32_t delta;
    uint8_t step;
};

struct unicode_special {
    uint32_t code;
    uint32_t to[UNICODE_CASE_CODES]; /* ends with 0 if shorter */
};

extern const uint32_t unicode_runs[];
extern const size_t unicode_n_runs;
extern const struct unicode_shift *const unicode_shifts[3]; /* by unicode_case */
extern const size_t unicode_n_shifts[3];
extern const struct unicode_special *const unicode_specials[3];
extern const size_t unicode_n_specials[3];
