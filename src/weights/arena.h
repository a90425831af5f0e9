/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is released all at once: the names, strings and arrays of a model's catalogue, whose
 * number and sizes a file determines. Zero-initialise; release with arena_release. One thread.
 */
#pragma once

#include "base/base.h"

struct arena {
    struct arena_chunk *head;
    size_t used; /* bytes taken from the head chunk */
    size_t cap;
};

/* Zeroed, aligned to 16 bytes; NULL when memory is gone. */
void *arena_alloc(struct arena *arena, size_t bytes) NODISCARD;

/* A copy of n bytes with a zero byte behind them; NULL when memory is gone. */
char *arena_strndup(struct arena *arena, const char *text, size_t n) NODISCARD;

void arena_release(struct arena *arena);
