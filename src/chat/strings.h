/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What methods, filters and operators do with strings alike. Positions are bytes on code point
 * boundaries.
 */
#pragma once

#include "chat/env.h"

/* The first (last) place of what that lies inside [start, end) of text; SIZE_MAX if there is none.
 */
size_t strings_find(struct env *env, const struct str *text, size_t start, size_t end,
                    const struct str *what);
size_t strings_rfind(struct env *env, const struct str *text, size_t start, size_t end,
                     const struct str *what);

enum strings_side { STRINGS_LEFT = 1, STRINGS_RIGHT = 2, STRINGS_BOTH = 3 };

/* Without the characters of chars (NULL: white space) at the ends. */
struct value strings_strip(struct env *env, const struct str *text, const struct str *chars,
                           enum strings_side side);

enum strings_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITAL, CASE_SWAP };

struct value strings_case(struct env *env, const struct str *text, enum strings_case to);

/* At most count replacements, all if negative. */
struct value strings_replace(struct env *env, const struct str *text, const struct str *old,
                             const struct str *new, int64_t count);

/* The lines, with their ends if keep_ends. */
struct list *strings_lines(struct env *env, const struct str *text, bool keep_ends);

/* fill (one character) around text up to width code points. */
struct value strings_pad(struct env *env, const struct str *text, int64_t width, const char *fill,
                         size_t fill_len, enum strings_side side);

/* HTML-safe form, marked as such; what is marked already stays. */
struct value strings_escape(struct env *env, struct value value);
struct value strings_mark(struct env *env, struct value text);

/* Numbers as Python's int(text, base) and float(text) read them; false if they do not. */
bool strings_to_int(struct env *env, const struct str *text, int base, int64_t *ret_integer);
bool strings_to_float(struct env *env, const struct str *text, double *ret_real);
