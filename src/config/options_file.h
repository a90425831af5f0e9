/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep.conf, read from memory. One `name = value` a line; the names are the flags' without
 * their dashes, and a flag's value is true or false. An option that may be repeated may stand on
 * several lines. Blanks around name and value do not count, # at the beginning of a line or behind
 * a blank begins a comment, and a value in double quotes is taken as it stands. After a line [model
 * NAME] options hold for that model alone, and `path` says which it is.
 *
 * No I/O, no environment; any thread.
 */
#pragma once

#include "config/options.h"

enum { OPTIONS_FILE_MAX_BYTES = 1 << 20, OPTIONS_FILE_MAX_MODELS = 256 };

/* What the file says itself: in each part only what that part gives is `given`, the rest is at its
 * fallback. */
struct options_file {
    struct options general;
    struct options_model *models; /* a section without `path` has its name as path */
    uint32_t n_models;
};

/* Parses text, which has a zero byte at [size], is changed, and holds the texts of the result.
 * Takes what command accepts; what only other commands accept is passed over. The error begins with
 * "PATH:LINE: " and never shows a value that may be a secret. */
NODISCARD enum status options_file_parse(enum command command, const char *path, char *text,
                                         size_t size, struct options_file *ret_file,
                                         struct err *err);

/* Accepts the zero value. */
void options_file_release(struct options_file *file);
