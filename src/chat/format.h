/* SPDX-License-Identifier: Apache-2.0 */
/* Python's format specifications, for str.format (format.c) and for % (percent.c). */
#pragma once

#include "chat/env.h"

enum { FORMAT_WIDTH_MAX = 1 << 20 };

struct format_spec {
    char fill[4];
    size_t fill_len; /* 0: a space */
    char align;      /* '<', '>', '^', '=', or 0 for the type's own */
    char sign;       /* '+', ' ' or 0 */
    bool alternate;  /* # */
    char group;      /* ',', '_' or 0 */
    int64_t width;
    int precision; /* -1: none */
    char type;     /* 0: none */
};

/* The digits of a number as its spec asks, with sign and padding. */
void format_add_int(struct text *text, int64_t value, const struct format_spec *spec);
void format_add_float(struct text *text, double value, const struct format_spec *spec);
/* body padded; prefix_len bytes of it (sign, 0x) stay in front when align is '='. */
void format_add_padded(struct text *text, struct value body, size_t prefix_len,
                       const struct format_spec *spec, char default_align);
