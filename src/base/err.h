/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An error that a person will read: a status and one sentence that names the file, tensor, rank or
 * field. Filled once, at the lowest level that knows the name of the thing; callers may prefix.
 * The caller owns the struct (zero-initialised); no allocation; one thread at a time.
 */
#pragma once

#include "base/status.h"

enum { ERR_TEXT_BYTES = 1024 };

struct err {
    enum status status;
    char text[ERR_TEXT_BYTES]; /* UTF-8 or raw bytes of the input; cut at the end if longer */
};

/* Sets the error and returns status, so that one can write: return err_set(err, STATUS_X, ...).
 * err may be NULL. */
enum status err_set(struct err *err, enum status status, const char *format, ...) PRINTF_LIKE(3, 4);

/* Puts "<prefix>: " before the text that is there. err may be NULL. Returns err->status. */
enum status err_prefix(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Copies text into out (size bytes, always terminated) with control characters, DEL and invalid
 * UTF-8 escaped as \xNN, for one line on a terminal or in a log. Returns out. */
char *err_escape(const char *text, char *out, size_t size);
