/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdatomic.h>
#include <sys/mman.h>

/* Global because allocation has no context to pass it in; see mem_fail_next. */
static _Atomic size_t fail_from; /* bytes; 0: nothing fails */

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

    return size_mul(n, bytes, &total) && !mem_fails(total) ? calloc(1, MAX(total, 1)) : NULL;
}

void *mem_map(size_t bytes)
{
    void *memory;

    if (bytes == 0 || mem_fails(bytes)) {
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

void mem_fail_next(size_t bytes)
{
    atomic_store(&fail_from, bytes);
}

bool mem_fail_pending(void)
{
    return atomic_load(&fail_from) != 0;
}

bool mem_fails(size_t bytes)
{
    size_t from = atomic_load_explicit(&fail_from, memory_order_relaxed);

    return from != 0 && bytes >= from && atomic_compare_exchange_strong(&fail_from, &from, 0);
}
