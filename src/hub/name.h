/* SPDX-License-Identifier: Apache-2.0 */
/* Names of models, and what is accepted as a path, a revision, a checksum. Pure. */
#pragma once

#include "base/err.h"

struct hub_name {
    char *repo;  /* "ORG/MODEL"; owned */
    char *file;  /* path of a GGUF file in it, or NULL; owned */
    char *quant; /* "Q4_K_M", or NULL; owned */
};

/* STATUS_INVALID if it is none; the text says what one looks like. */
NODISCARD enum status hub_name_parse(const char *text, struct hub_name *ret_name, struct err *err);
void hub_name_release(struct hub_name *name);

/* "models--ORG--MODEL"; free() it. */
char *hub_name_folder(const struct hub_name *name);

/* A relative path that stays below its folder and that a terminal can show: UTF-8 without control
 * characters, backslashes and empty, "." or ".." components, each at most 255 bytes, 1000 in all.
 */
bool hub_path_is_safe(const char *path);

/* Such a path that may stand in a URL and below refs/: letters, digits and . _ - / + only. */
bool hub_revision_is_safe(const char *revision);

/* Exactly n lower-case hexadecimal digits. */
bool hub_is_hex(const char *text, size_t n);

/* True if text ends with suffix. */
bool hub_ends_with(const char *text, const char *suffix);
