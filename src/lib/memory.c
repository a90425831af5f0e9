/* SPDX-License-Identifier: Apache-2.0 */
/* An arena is handed out first fit, from a list of free ranges in ascending order. */
#include "lib/memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { UNIT = 64, GIVE_BACK_MIN = 64 << 10, PAGE = 4096 };

struct range {
    struct range *next;
    uint64_t at;
    uint64_t bytes;
};

struct memory {
    _Atomic uint32_t refs;
    int fd; /* -1: the heap */
    char *base;
    uint64_t bytes;
    pthread_mutex_t lock; /* of what follows */
    struct range *free;
    uint64_t touched; /* bytes from here on were never handed out: they are zero */
};

struct memory *memory_heap_create(void)
{
    struct memory *memory = xalloc(sizeof(*memory));

    memory->refs = 1;
    memory->fd = -1;
    pthread_mutex_init(&memory->lock, NULL);
    return memory;
}

struct memory *memory_arena_create(uint64_t bytes)
{
    int fd = memfd_create("lockstep-tensors", MFD_CLOEXEC);
    struct memory *memory;
    void *base;
    int error;

    bytes = bytes / PAGE * PAGE;
    if (fd < 0) {
        return NULL;
    }
    base = ftruncate(fd, (off_t)bytes) < 0
               ? MAP_FAILED
               : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) {
        error = errno;
        close(fd);
        errno = error;
        return NULL;
    }
    memory = memory_heap_create();
    memory->fd = fd;
    memory->base = base;
    memory->bytes = bytes;
    memory->free = xalloc(sizeof(*memory->free));
    memory->free->bytes = bytes;
    return memory;
}

struct memory *memory_ref(struct memory *memory)
{
    atomic_fetch_add(&memory->refs, 1);
    return memory;
}

void memory_unref(struct memory **memory)
{
    struct memory *m = *memory;

    *memory = NULL;
    if (m == NULL || atomic_fetch_sub(&m->refs, 1) != 1) {
        return;
    }
    for (struct range *range = m->free; range != NULL;) {
        struct range *next = range->next;

        free(range);
        range = next;
    }
    if (m->fd >= 0) {
        munmap(m->base, m->bytes);
        close(m->fd);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int memory_fd(const struct memory *memory)
{
    return memory->fd;
}

uint64_t memory_bytes(const struct memory *memory)
{
    return memory->bytes;
}

static bool take_from_heap(uint64_t bytes, struct memory_block *block)
{
    if (mem_fails(bytes)) {
        return false;
    }
    block->data = aligned_alloc(UNIT, bytes);
    if (block->data == NULL) {
        return false;
    }
    memset(block->data, 0, bytes);
    return true;
}

/* First fit; false if no range is large enough. */
static bool cut(struct memory *memory, uint64_t bytes, uint64_t *ret_at)
{
    for (struct range **link = &memory->free; *link != NULL; link = &(*link)->next) {
        struct range *range = *link;

        if (range->bytes >= bytes) {
            *ret_at = range->at;
            range->at += bytes;
            range->bytes -= bytes;
            if (range->bytes == 0) {
                *link = range->next;
                free(range);
            }
            return true;
        }
    }
    return false;
}

bool memory_take(struct memory *memory, uint64_t bytes, struct memory_block *ret_block)
{
    struct memory_block block = {0};
    uint64_t used;

    if (bytes > UINT64_MAX - UNIT) {
        return false;
    }
    block.bytes = bytes == 0 ? UNIT : round_up(bytes, UNIT);
    if (memory->fd < 0) {
        if (!take_from_heap(block.bytes, &block)) {
            return false;
        }
        *ret_block = block;
        return true;
    }
    pthread_mutex_lock(&memory->lock);
    if (!cut(memory, block.bytes, &block.at)) {
        pthread_mutex_unlock(&memory->lock);
        return false;
    }
    used = memory->touched > block.at ? MIN(memory->touched - block.at, block.bytes) : 0;
    memory->touched = MAX(memory->touched, block.at + block.bytes);
    pthread_mutex_unlock(&memory->lock);
    block.data = memory->base + block.at;
    memset(block.data, 0, used);
    *ret_block = block;
    return true;
}

/* Puts the range back in its place and joins it with its neighbours. */
static void put_back(struct memory *memory, uint64_t at, uint64_t bytes)
{
    struct range **link = &memory->free;
    struct range *before = NULL;
    struct range *range;

    while (*link != NULL && (*link)->at < at) {
        before = *link;
        link = &before->next;
    }
    if (before != NULL && before->at + before->bytes == at) {
        before->bytes += bytes;
        range = before;
    } else {
        range = xalloc(sizeof(*range));
        *range = (struct range){.next = *link, .at = at, .bytes = bytes};
        *link = range;
    }
    if (range->next != NULL && range->at + range->bytes == range->next->at) {
        struct range *next = range->next;

        range->bytes += next->bytes;
        range->next = next->next;
        free(next);
    }
}

void memory_give(struct memory *memory, const struct memory_block *block)
{
    if (memory->fd < 0) {
        free(block->data);
        return;
    }
    if (block->bytes >= GIVE_BACK_MIN) { /* whole pages go back to the system */
        uint64_t begin = round_up(block->at, PAGE);
        uint64_t end = (block->at + block->bytes) / PAGE * PAGE;

        if (end > begin) {
            madvise(memory->base + begin, end - begin, MADV_REMOVE);
        }
    }
    pthread_mutex_lock(&memory->lock);
    put_back(memory, block->at, block->bytes);
    pthread_mutex_unlock(&memory->lock);
}
