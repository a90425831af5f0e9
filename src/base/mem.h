/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation. xalloc and friends are for small fixed sizes and abort when memory is gone; a size
 * that a user, a file or a model determines goes through mem_alloc or mem_map, which report it. Any
 * thread.
 */
#pragma once

#include "base/base.h"

/* Never NULL (aborts). xalloc and xcalloc zero the memory. Release with free(). */
void *xalloc(size_t bytes);
void *xcalloc(size_t n, size_t bytes);
void *xrealloc(void *memory, size_t n, size_t bytes);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t n);

/* n * bytes, zeroed, NULL on overflow or when memory is gone. Release with free(). */
void *mem_alloc(size_t n, size_t bytes) NODISCARD;

/* Anonymous zeroed pages aligned to 64 bytes at least (huge pages where the kernel offers them),
 * for weights, KV and large scratch. NULL when memory is gone or bytes is 0. */
void *mem_map(size_t bytes) NODISCARD;
void mem_unmap(void *memory, size_t bytes);

/* For drills: the next allocation of at least that many bytes by mem_alloc or mem_map, whichever
 * thread asks for it, finds no memory. 0 takes that back. */
void mem_fail_next(size_t bytes);

/* Whether that allocation is still to come. */
bool mem_fail_pending(void);

/* For whoever takes memory in another way: whether this allocation is the one that is to fail. */
bool mem_fails(size_t bytes);
