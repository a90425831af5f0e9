/* SPDX-License-Identifier: Apache-2.0 */
/* Files read whole or by range, with errors that name the path. Any thread. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Appends the whole regular file to buf; refused (STATUS_LIMIT) above max_bytes. Errors:
 * STATUS_NOT_FOUND (missing), STATUS_IO. */
NODISCARD enum status file_read_all(const char *path, size_t max_bytes, struct buf *buf,
                                    struct err *err);

/* Reads exactly n bytes at offset into out. STATUS_CORRUPT if the file ends before (path is only
 * for the text), STATUS_IO otherwise. */
NODISCARD enum status file_read_at(int fd, const char *path, uint64_t offset, size_t n, void *out,
                                   struct err *err);

/* Writes a small file so that others see it whole or not at all: under another name beside it,
 * which becomes path. mode as in chmod. STATUS_IO. */
NODISCARD enum status file_replace(const char *path, const void *data, size_t n, mode_t mode,
                                   struct err *err);

/* Makes each folder above path that is not there, for its owner alone. What fails shows when path
 * is opened. */
void file_make_folders(const char *path);

/* $XDG_CACHE_HOME/lockstep/NAME, by default ~/.cache/lockstep/NAME; owned by the caller. NULL if
 * neither variable is set. */
char *file_cache_path(const char *name);
