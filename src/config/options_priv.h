/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the two tables, for the parser, the help texts and their tests. Constant. */
#pragma once

#include "config/options.h"

enum option_type {
    OPTION_TYPE_GROUP, /* no option: flag is the title of those that follow; no command accepts it
                        */
    OPTION_TYPE_FLAG,
    OPTION_TYPE_INT,
    OPTION_TYPE_REAL,
    OPTION_TYPE_TEXT,
    OPTION_TYPE_LIST,
};

/* In option_info.commands, above the bits of the commands. */
#define OPTION_PER_MODEL (1u << 31)
#define OPTION_NOT_FILE  (1u << 30)
#define OPTION_NOT_ENV   (1u << 29)
#define OPTION_MARKS     (OPTION_PER_MODEL | OPTION_NOT_FILE | OPTION_NOT_ENV)
_Static_assert(COMMAND_COUNT < 29, "a command is a bit of option_info.commands");

struct option_info {
    enum option_type type;
    char letter; /* 0: none */
    const char *flag;
    uint32_t commands; /* bit i: enum command i accepts it; and OPTION_MARKS */
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

/* The nearest of several names to a given one, for "did you mean". Zero-initialise but for given.
 */
struct nearest {
    const char *given;
    const char *name; /* NULL: none is near */
    size_t distance;
};

void nearest_consider(struct nearest *nearest, const char *name);

/* Whether command takes this option. */
bool option_accepted(enum command command, const struct option_info *info);

/* The option of command with this flag ("--port") or letter ("-p"); NULL if there is none. */
const struct option_info *option_find(enum command command, const char *arg);

/* The fallbacks of options.def; nothing is given. */
void option_set_fallbacks(struct options *options);

/* Sets the option from text, which must live as long as options does; of a flag, text is true or
 * false, and NULL is true. The error names the option by name and never shows an item of a list:
 * that may be a secret. */
NODISCARD enum status option_set(struct options *options, const struct option_info *info,
                                 const char *name, const char *text, struct err *err);

bool option_given(const struct options *options, const struct option_info *info);

/* Takes from lower what is given there and not in options. A list is taken whole. */
void option_fill(struct options *options, const struct options *lower);

/* Appends what the option does and its default, as one sentence without a full stop. */
void option_describe(const struct option_info *info, struct buf *buf);

/* Appends the name of the option's environment variable. */
void option_env_name(const struct option_info *info, struct buf *buf);

/* Read if the user has no lockstep.conf of their own. */
#define OPTIONS_SYSTEM_FILE "/etc/lockstep/lockstep.conf"

extern const struct option_info option_infos[];
extern const size_t n_option_infos;
extern const struct command_info command_infos[COMMAND_COUNT];
