/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/arena.h"

#include "base/mem.h"

enum { ARENA_ALIGN = 16, ARENA_CHUNK_BYTES = 256 * 1024 };

struct arena_chunk {
    struct arena_chunk *next;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void *arena_alloc(struct arena *arena, size_t bytes)
{
    struct arena_chunk *chunk;
    size_t need;
    void *memory;

    if (!size_add(bytes, ARENA_ALIGN - 1, &need)) {
        return NULL;
    }
    need -= need % ARENA_ALIGN;
    if (arena->head == NULL || arena->cap - arena->used < need) {
        size_t cap = MAX(need, (size_t)ARENA_CHUNK_BYTES);
        size_t total;

        if (!size_add(cap, sizeof(*chunk), &total) || (chunk = mem_alloc(1, total)) == NULL) {
            return NULL;
        }
        chunk->next = arena->head;
        arena->head = chunk;
        arena->used = 0;
        arena->cap = cap;
    }
    memory = arena->head->data + arena->used;
    arena->used += need;
    return memory;
}

char *arena_strndup(struct arena *arena, const char *text, size_t n)
{
    size_t bytes;
    char *copy;

    if (!size_add(n, 1, &bytes) || (copy = arena_alloc(arena, bytes)) == NULL) {
        return NULL;
    }
    memcpy(copy, text, n);
    return copy;
}

void arena_release(struct arena *arena)
{
    struct arena_chunk *chunk = arena->head;

    while (chunk != NULL) {
        struct arena_chunk *next = chunk->next;

        free(chunk);
        chunk = next;
    }
    *arena = (struct arena){0};
}
