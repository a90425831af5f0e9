/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of the program: cmd_NAME lives in cmd/NAME.c. Each gets its parsed options, writes
 * its result to standard output and everything else to standard error, and returns the exit status.
 * Commands run on the main thread, one a process.
 */
#pragma once

#include "base/err.h"
#include "config/options.h"

/* And 128 + n: ended by signal n. */
enum cmd_exit {
    CMD_OK = 0,
    CMD_FAILED = 1, /* bad input, or something that is missing */
    CMD_USAGE = 2,  /* wrong words on the command line */
    CMD_WORLD = 3,  /* the ranks could not be kept up */
};

/* Names this program to the ranks that it starts, which must be the same one. */
#define CMD_BUILD "lockstep " LOCKSTEP_VERSION

/* In debug and sanitized builds ranks compare their activations after each step. */
#ifdef LOCKSTEP_CHECKED
enum { CMD_HASH_STATE = 1 };
#else
enum { CMD_HASH_STATE = 0 };
#endif

/* One rank: what `lockstep rank` is, with the n arguments after it. No command for people. */
int cmd_rank(int n, char *const *args);

#define COMMAND(NAME, name, positional, min, max, summary, notes) \
    int cmd_##name(const struct options *options);
#include "config/commands.def"
#undef COMMAND

/* Writes "lockstep: TEXT" as one line on standard error, control characters escaped. Returns
 * CMD_FAILED, so that a command can end with: return cmd_fail(&err). */
int cmd_fail(const struct err *err);

/* Writes "lockstep: COMMAND: TEXT" likewise and returns CMD_USAGE, for options that do not go
 * together. */
int cmd_usage(const struct options *options, const char *format, ...) PRINTF_LIKE(2, 3);
