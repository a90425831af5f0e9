/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user asked for. commands.def and options.def hold every command and option once; this
 * header turns them into one struct, its readers (command line, environment, lockstep.conf) and the
 * texts that describe them (help, man page, docs/options.md). An option given in several places
 * holds from the first of: flag, environment, [model NAME] section, rest of the file, default. No
 * state; any thread, as long as none changes the environment.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum command {
#define COMMAND(NAME, name, positional, min, max, summary, notes) COMMAND_##NAME,
#include "config/commands.def"
#undef COMMAND
    COMMAND_COUNT
};

enum { OPTION_LIST_MAX = 16 };

/* The values of an option that may be given several times. */
struct option_list {
    const char *items[OPTION_LIST_MAX];
    uint32_t n;
};

#define OPTION_GROUP(title)
#define OPTION_FLAG(name, letter, flag, commands, help)                            bool name;
#define OPTION_LIST(name, letter, flag, commands, value, help)                     bool name;
#define OPTION_INT(name, letter, flag, commands, value, min, max, fallback, help)  bool name;
#define OPTION_REAL(name, letter, flag, commands, value, min, max, fallback, help) bool name;
#define OPTION_TEXT(name, letter, flag, commands, value, choices, fallback, help)  bool name;
/* Which options the user gave; one member for each option. */
struct options_given {
#include "config/options.def"
};
#undef OPTION_GROUP
#undef OPTION_FLAG
#undef OPTION_LIST
#undef OPTION_INT
#undef OPTION_REAL
#undef OPTION_TEXT

#define OPTION_GROUP(title)
#define OPTION_FLAG(name, letter, flag, commands, help)                            bool name;
#define OPTION_LIST(name, letter, flag, commands, value, help)                     struct option_list name;
#define OPTION_INT(name, letter, flag, commands, value, min, max, fallback, help)  int64_t name;
#define OPTION_REAL(name, letter, flag, commands, value, min, max, fallback, help) double name;
#define OPTION_TEXT(name, letter, flag, commands, value, choices, fallback, help)  const char *name;
/* One member for each option: what the user gave, or the fallback of options.def. */
struct options {
    enum command command;
    const char *path;                   /* the last positional argument, NULL if there is none */
    const char *topic;                  /* the one before it; NULL */
    const char *model_name;             /* of the section that the last argument has named; NULL */
    const struct options_model *models; /* the sections of lockstep.conf, in its order */
    uint32_t n_models;
    struct options_texts *texts; /* what options_load has read; NULL after options_parse */
    struct options_given given;
#include "config/options.def"
};
#undef OPTION_GROUP
#undef OPTION_FLAG
#undef OPTION_LIST
#undef OPTION_INT
#undef OPTION_REAL
#undef OPTION_TEXT

/* A [model NAME] section of lockstep.conf. Owned by the options that list it. */
struct options_model {
    const char *name;
    const char *path;       /* `path = ...` of the section, or else the name */
    struct options options; /* all that holds for this model; owns nothing, lists no models */
};

/* "run"; never NULL. */
const char *command_name(enum command command);

/* Finds the command; otherwise STATUS_NOT_FOUND with a text that suggests the nearest one. */
NODISCARD enum status command_find(const char *name, enum command *ret_command, struct err *err);

/* Parses the n arguments after the command's name, and nothing else. Texts are borrowed from args.
 * The error names the option and suggests the nearest one. After --help the rest is not checked. */
NODISCARD enum status options_parse(enum command command, int n, char *const *args,
                                    struct options *ret_options, struct err *err);

/* Parses the arguments likewise, and the environment and lockstep.conf. If the last argument is the
 * name or path of a [model NAME] section, that section's options hold and its path is ret->path.
 * The error names the variable, or file and line. Release with options_release; args are borrowed.
 */
NODISCARD enum status options_load(enum command command, int n, char *const *args,
                                   struct options *ret_options, struct err *err);

/* Frees what options_load has read; copies of the struct are void then. Accepts the zero value. */
void options_release(struct options *options);

/* Token ids separated by commas or spaces ("1,2,3"), at least one. *ret_ids is the caller's to
 * free(). The error names the id that is none. */
NODISCARD enum status options_parse_ids(const char *text, uint32_t **ret_ids, size_t *ret_n,
                                        struct err *err);

/* The text of `lockstep --help` and of `lockstep COMMAND --help`. */
void options_help(struct buf *buf);
void options_help_command(struct buf *buf, enum command command);

/* The man page (roff) and docs/options.md (Markdown), from the same tables. */
void options_man(struct buf *buf);
void options_markdown(struct buf *buf);
