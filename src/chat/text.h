/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text being built in the arena of a work, and how values print. Start with {.work = work}; there
 * is nothing to release. Bounded: a text longer than TEXT_MAX_BYTES fails.
 */
#pragma once

#include "chat/value.h"

#define TEXT_MAX_BYTES ((size_t)128 << 20)

struct text {
    struct work *work;
    char *data;
    size_t len;
    size_t cap;
};

void text_add(struct text *text, const char *bytes, size_t n);
void text_add_char(struct text *text, char c);
void text_add_chars(struct text *text, const char *fill, size_t fill_len, size_t n);
void text_add_c(struct text *text, const char *c_string);
void text_add_code(struct text *text, uint32_t code);
void text_add_format(struct text *text, const char *format, ...) PRINTF_LIKE(2, 3);
void text_add_real(struct text *text, double real);        /* as repr() */
void text_add_str(struct text *text, struct value value);  /* as str() */
void text_add_repr(struct text *text, struct value value); /* as repr() */

/* The text as a string value; the text may grow on. */
struct value text_value(const struct text *text);

/* str(value): the value itself if it is a string. */
struct value text_of(struct work *work, struct value value);
