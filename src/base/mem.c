/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <sys/mman.h>

static NORETURN void out_of_memory(size_t bytes)
{
    fprintf(stderr, "lockstep: out of memory (%zu bytes)\n", bytes);
    abort();
}

void *xcalloc(size_t n, size_t bytes)
{
    void *memory = calloc(MAX(n, 1), MAX(bytes, 1));

    if (memory == NULL) {
        out_of_memory(bytes);
    }
    return memory;
}

void *xalloc(size_t bytes)
{
    return xcalloc(1, bytes);
}

void *xrealloc(void *memory, size_t n, size_t bytes)
{
    void *grown = reallocarray(memory, MAX(n, 1), MAX(bytes, 1));

    if (grown == NULL) {
        out_of_memory(bytes);
    }
    return grown;
}

char *xstrndup(const char *text, size_t n)
{
    char *copy = xalloc(n + 1);

    memcpy(copy, text, n);
    return copy;
}

char *xstrdup(const char *text)
{
    return xstrndup(text, strlen(text));
}

void *mem_alloc(size_t n, size_t bytes)
{
    size_t total;

    return size_mul(n, bytes, &total) ? calloc(1, MAX(total, 1)) : NULL;
}

void *mem_map(size_t bytes)
{
    void *memory;

    if (bytes == 0) {
        return NULL;
    }
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    madvise(memory, bytes, MADV_HUGEPAGE); /* a hint: load time, not a promise */
    return memory;
}

void mem_unmap(void *memory, size_t bytes)
{
    if (memory != NULL) {
        munmap(memory, bytes);
    }
}
