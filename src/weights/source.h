/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a format's parser reads from: a regular file by ranges (never mapped, never whole), or
 * bytes in memory (tests and fuzzing). Immutable once open: any thread may read.
 */
#pragma once

#include "base/err.h"

struct source {
    char *name; /* for messages: the path; owned */
    uint64_t size;
    int fd;                /* -1: memory */
    const uint8_t *memory; /* borrowed */
};

/* Errors: STATUS_NOT_FOUND, STATUS_IO (also for what is not a regular file); they name the path. */
NODISCARD enum status source_open(struct source *source, const char *path, struct err *err);

/* bytes must stay valid until source_release. */
void source_from_memory(struct source *source, const char *name, const void *bytes, size_t size);

/* Reads exactly n bytes at offset. STATUS_CORRUPT when the source ends before, STATUS_IO. */
NODISCARD enum status source_read_at(const struct source *source, uint64_t offset, size_t n,
                                     void *out, struct err *err);

/* Accepts what source_open or source_from_memory filled, once. */
void source_release(struct source *source);
