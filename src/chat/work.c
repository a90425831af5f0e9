/* SPDX-License-Identifier: Apache-2.0 */
#include "chat/work.h"

#include <stdarg.h>

#include "base/mem.h"

enum { BLOCK_BYTES = 64 * 1024, ALIGNMENT = 16 };

struct work_block {
    struct work_block *next;
    size_t size;
    size_t used;
    size_t reserved; /* keeps data aligned */
    char data[];
};

void work_close(struct work *work)
{
    while (work->blocks != NULL) {
        struct work_block *block = work->blocks;

        work->blocks = block->next;
        free(block);
    }
    work->used_bytes = 0;
}

static NORETURN void fail_memory(struct work *work)
{
    work_fail(work, "template needs more than %zu MiB of memory", work->max_bytes >> 20);
}

static void add_block(struct work *work, size_t bytes)
{
    size_t size = MAX(bytes, (size_t)BLOCK_BYTES);
    struct work_block *block;

    if (size > work->max_bytes - work->used_bytes) {
        fail_memory(work);
    }
    block = mem_alloc(1, sizeof(*block) + size);
    if (block == NULL) {
        fail_memory(work);
    }
    block->size = size;
    block->next = work->blocks;
    work->blocks = block;
    work->used_bytes += size;
}

void *work_alloc(struct work *work, size_t n, size_t bytes)
{
    struct work_block *block = work->blocks;
    size_t size;
    void *memory;

    if (!size_mul(n, bytes, &size) || size > work->max_bytes) {
        fail_memory(work);
    }
    size = round_up(MAX(size, (size_t)1), ALIGNMENT);
    if (block == NULL || size > block->size - block->used) {
        add_block(work, size);
        block = work->blocks;
    }
    memory = block->data + block->used;
    block->used += size;
    return memory;
}

char *work_grow(struct work *work, char *bytes, size_t n, size_t new_n)
{
    struct work_block *block = work->blocks;
    size_t old_size = round_up(MAX(n, (size_t)1), ALIGNMENT);
    size_t new_size = round_up(MAX(new_n, (size_t)1), ALIGNMENT);
    char *copy;

    if (bytes != NULL && bytes + old_size == block->data + block->used &&
        new_size - old_size <= block->size - block->used) {
        block->used += new_size - old_size;
        return bytes;
    }
    copy = work_alloc(work, new_n, 1);
    if (n > 0) {
        memcpy(copy, bytes, n);
    }
    return copy;
}

void work_fail(struct work *work, const char *format, ...)
{
    char text[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_clear(work->message);
    buf_printf(work->message, "line %d: %s", work->line, text);
    longjmp(work->exit, 1);
}

void work_raise(struct work *work, const char *message, size_t size)
{
    buf_clear(work->message);
    buf_append(work->message, message, size);
    longjmp(work->exit, 1);
}

void work_step(struct work *work, uint64_t n)
{
    work->steps += n;
    if (work->steps > work->max_steps) {
        work_fail(work, "template needs more than %llu steps", (unsigned long long)work->max_steps);
    }
}

void work_enter(struct work *work)
{
    if (++work->depth > work->max_depth) {
        work_fail(work, "template nests deeper than %d levels", work->max_depth);
    }
}
