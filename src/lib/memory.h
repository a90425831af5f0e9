/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors of one context lie: the heap of this program for a context that is one of its
 * threads, otherwise an arena, a memfd that this program owns and both sides map. A context that is
 * restarted gets new memory; handles of the old one keep theirs by a reference until they are
 * gone, so that nothing is freed under whoever still looks at it. Any thread.
 */
#pragma once

#include "base/base.h"

struct memory;

/* One reference each. */
struct memory *memory_heap_create(void);

/* NULL: no descriptor or no address space; errno says why. */
struct memory *memory_arena_create(uint64_t bytes);

struct memory *memory_ref(struct memory *memory);
void memory_unref(struct memory **memory);

/* The arena's descriptor (lent) and size; -1 for the heap. */
int memory_fd(const struct memory *memory);
uint64_t memory_bytes(const struct memory *memory);

struct memory_block {
    void *data;     /* here; aligned to 64 */
    uint64_t at;    /* in the arena */
    uint64_t bytes; /* rounded up */
};

/* Zeroed memory, also for 0 bytes. False: there is none. */
NODISCARD bool memory_take(struct memory *memory, uint64_t bytes, struct memory_block *ret_block);
void memory_give(struct memory *memory, const struct memory_block *block);
