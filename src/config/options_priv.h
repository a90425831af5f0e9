/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the two tables, for the parser, the help texts and their tests. Constant. */
#pragma once

#include "config/options.h"

enum option_type {
    OPTION_TYPE_FLAG,
    OPTION_TYPE_INT,
    OPTION_TYPE_REAL,
    OPTION_TYPE_TEXT,
    OPTION_TYPE_LIST,
};

/* In option_info.commands: may differ between models. */
#define OPTION_PER_MODEL (1u << 31)
_Static_assert(COMMAND_COUNT < 31, "a command is a bit of option_info.commands");

struct option_info {
    enum option_type type;
    char letter; /* 0: none */
    const char *flag;
    uint32_t commands; /* bit i: enum command i accepts it; and OPTION_PER_MODEL */
    const char *value; /* what help calls the value; NULL for a flag */
    const char *help;
    size_t offset; /* of the member in struct options */
    size_t given_offset;
    struct {
        int64_t min, max, fallback;
    } n;
    struct {
        double min, max, fallback;
    } x;
    const char *one_of; /* "a|b", NULL: any text */
    const char *text;   /* fallback of a text */
};

struct command_info {
    const char *name;
    const char *positional;
    int min_positional;
    int max_positional;
    const char *summary;
    const char *notes; /* whole lines, "" if there is nothing more to say */
};

extern const struct option_info option_infos[];
extern const size_t n_option_infos;
extern const struct command_info command_infos[COMMAND_COUNT];
