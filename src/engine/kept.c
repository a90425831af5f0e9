/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Huge pages. Kernels differ in whether they give them to a memfd that is only advised to have
 * them, and a collapse afterwards copies everything. So kept_reserve touches one small page of each
 * 2 MiB block and has the kernel collapse the block before it is written, which costs no more than
 * taking the small pages one by one; where it cannot, small pages serve.
 *
 * The read-only mapping is a private one: a shared mapping of a descriptor open for writing could
 * be made writable again, and the kernel would refuse F_SEAL_WRITE. Unwritten private pages are the
 * memfd's own, huge ones included.
 */
#include "engine/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define MAGIC UINT64_C(0x314d454d4b434f4c) /* "LOCKMEM1" */

enum { VERSION = 1, PAGE_BYTES = 4096, HUGE_BYTES = KEPT_BLOCK_BYTES };

/* Behind the data. The first writer stores all but done, which has one word a writer. */
struct header {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t identity;
    uint64_t bytes;
    uint32_t rank; /* of weights and KV pages */
    uint32_t n_ranks;
    _Atomic uint32_t done[KEPT_RANKS_MAX]; /* the mark of this content, stored last */
};

/* What a writer leaves in its word: never 0, and of no other content or division into parts, so
 * that a load that begins in what a failed one left finds nothing done. */
static uint32_t mark_of(uint64_t identity, uint32_t n_ranks)
{
    uint32_t mark = (uint32_t)(identity ^ identity >> 32) + n_ranks;

    return mark == 0 ? 1 : mark;
}

static const char *const names[] = {
    [KEPT_WEIGHTS] = "the memory of the weights",
    [KEPT_EMBEDDING] = "the memory of the embedding",
    [KEPT_KV] = "the memory of the KV pages",
};

static const char *name_of(const struct kept_options *options)
{
    return names[options->kind];
}

/* The embedding has as many writers as there are ranks, all else one. */
static bool is_shared(const struct kept_options *options)
{
    return options->kind == KEPT_EMBEDDING;
}

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

static struct header *header_of(const struct kept *kept)
{
    return (struct header *)((char *)kept->memory + kept->map_bytes - PAGE_BYTES);
}

static enum status set_no_memory(const struct kept_options *options, struct err *err)
{
    return err_set(err, STATUS_NO_MEMORY, "no memory for the %.1f MiB of %s", mib(options->bytes),
                   name_of(options));
}

/* Address space for the mapping, at a multiple of HUGE_BYTES; NULL when there is none. */
static void *find_place(size_t bytes)
{
    size_t with_slack;
    char *memory;
    char *aligned;

    if (!size_add(bytes, HUGE_BYTES, &with_slack)) {
        return NULL;
    }
    memory = mmap(NULL, with_slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    aligned = memory + round_up((uintptr_t)memory, HUGE_BYTES) - (uintptr_t)memory;
    if (aligned > memory) {
        munmap(memory, (size_t)(aligned - memory));
    }
    munmap(aligned + bytes, (size_t)(memory + with_slack - (aligned + bytes)));
    return aligned;
}

/* Maps the memfd over whatever is at kept->memory. */
static enum status map_at(const struct kept *kept, bool writable, struct err *err)
{
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = writable ? MAP_SHARED : MAP_PRIVATE;

    if (mmap(kept->memory, kept->map_bytes, access, flags | MAP_FIXED, kept->options.fd, 0) ==
        MAP_FAILED) {
        return err_set(err, errno == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO,
                       "%s cannot be mapped (%.1f MiB): %s", name_of(&kept->options),
                       mib(kept->options.bytes), strerror(errno));
    }
    madvise(kept->memory, kept->map_bytes, MADV_HUGEPAGE); /* a hint */
    return STATUS_OK;
}

/* Gives the memfd its size, and zeroes where it has one writer. */
static enum status resize(const struct kept *kept, struct err *err)
{
    const struct kept_options *options = &kept->options;

    if ((!is_shared(options) && ftruncate(options->fd, 0) != 0) ||
        ftruncate(options->fd, (off_t)kept->map_bytes) != 0) {
        return err_set(err, errno == ENOMEM || errno == ENOSPC ? STATUS_NO_MEMORY : STATUS_IO,
                       "%s cannot be made %.1f MiB: %s", name_of(options), mib(options->bytes),
                       strerror(errno));
    }
    return STATUS_OK;
}

/* A kept memfd must be of the size that this rank would have made. */
static enum status check_size(const struct kept *kept, struct err *err)
{
    struct stat info;

    if (fstat(kept->options.fd, &info) != 0) {
        return err_set(err, STATUS_IO, "%s: %s", name_of(&kept->options), strerror(errno));
    }
    if (info.st_size != (off_t)kept->map_bytes) {
        return err_set(err, STATUS_INVALID, "%s: has %lld bytes, not the %zu that it should have",
                       name_of(&kept->options), (long long)info.st_size, kept->map_bytes);
    }
    return STATUS_OK;
}

static enum status check_header(const struct kept *kept, struct err *err)
{
    const struct kept_options *options = &kept->options;
    struct header *header = header_of(kept);
    bool shared = is_shared(options);
    uint32_t first = atomic_load_explicit(&header->done[0], memory_order_acquire);
    uint32_t mark = mark_of(header->identity, header->n_ranks);
    uint32_t n_writers = shared ? header->n_ranks : 1;

    if (first != mark || header->magic != MAGIC || n_writers > KEPT_RANKS_MAX) {
        return err_set(err, STATUS_CORRUPT, "%s: was never completed", name_of(options));
    }
    for (uint32_t i = 1; i < n_writers; i++) {
        if (atomic_load_explicit(&header->done[i], memory_order_acquire) != mark) {
            return err_set(err, STATUS_CORRUPT, "%s: rank %u never completed its part",
                           name_of(options), i);
        }
    }
    if (header->version != VERSION || header->kind != (uint32_t)options->kind) {
        return err_set(err, STATUS_INVALID, "%s: has layout %u.%u, not %d.%d", name_of(options),
                       header->version, header->kind, VERSION, (int)options->kind);
    }
    if (!shared && (header->rank != options->rank || header->n_ranks != options->n_ranks)) {
        return err_set(err, STATUS_INVALID, "%s: is that of rank %u of %u, not of rank %u of %u",
                       name_of(options), header->rank, header->n_ranks, options->rank,
                       options->n_ranks);
    }
    if (header->identity != options->identity || header->bytes != options->bytes) {
        return err_set(err, STATUS_INVALID,
                       "%s: holds another model's (identity %016llx, not %016llx)",
                       name_of(options), (unsigned long long)header->identity,
                       (unsigned long long)options->identity);
    }
    return STATUS_OK;
}

/* The header page is taken before it is written to, as all others. */
static enum status write_header(const struct kept *kept, struct err *err)
{
    const struct kept_options *options = &kept->options;
    uint32_t writer = is_shared(options) ? options->rank : 0;
    struct header *header = header_of(kept);
    enum status status = kept_reserve(kept, header, PAGE_BYTES, err);

    if (status != STATUS_OK) {
        return status;
    }
    if (writer == 0) {
        header->magic = MAGIC;
        header->version = VERSION;
        header->kind = (uint32_t)options->kind;
        header->identity = options->identity;
        header->bytes = options->bytes;
        header->rank = options->rank;
        header->n_ranks = options->n_ranks;
    }
    atomic_store_explicit(&header->done[writer], mark_of(options->identity, options->n_ranks),
                          memory_order_release);
    return STATUS_OK;
}

static enum status open_kept(struct kept *kept, struct err *err)
{
    enum status status = check_size(kept, err);

    if (status == STATUS_OK) {
        status = map_at(kept, kept->writable, err);
    }
    return status == STATUS_OK ? check_header(kept, err) : status;
}

static enum status open_new(struct kept *kept, struct err *err)
{
    enum status status = resize(kept, err);

    if (status == STATUS_OK) {
        status = map_at(kept, kept->writable, err);
    }
    if (status == STATUS_OK && kept->options.kind == KEPT_KV) {
        status = write_header(kept, err);
    }
    return status;
}

enum status kept_open(const struct kept_options *options, struct kept *ret_kept, struct err *err)
{
    struct kept kept = {.options = *options};
    enum status status;

    _Static_assert(sizeof(struct header) <= PAGE_BYTES, "the header is one page");
    ENSURE_OP(options->n_ranks, <=, KEPT_RANKS_MAX);
    if (options->bytes > (size_t)PTRDIFF_MAX - 2 * HUGE_BYTES ||
        (!options->keep && mem_fails(options->bytes))) {
        return set_no_memory(options, err);
    }
    kept.map_bytes = round_up(options->bytes, PAGE_BYTES) + PAGE_BYTES;
    kept.writable = !options->keep || options->kind == KEPT_KV;
    kept.memory = find_place(kept.map_bytes);
    if (kept.memory == NULL) {
        return set_no_memory(options, err);
    }
    status = options->keep ? open_kept(&kept, err) : open_new(&kept, err);
    if (status != STATUS_OK) {
        kept_close(&kept);
        return status;
    }
    *ret_kept = kept;
    return STATUS_OK;
}

/* Makes a huge page of the block at `block`, if it lies within the mapping whole and the kernel
 * can.
 */
static void take_huge(const struct kept *kept, char *block)
{
    if (block + HUGE_BYTES <= (char *)kept->memory + kept->map_bytes &&
        madvise(block, PAGE_BYTES, MADV_POPULATE_WRITE) == 0) {
        madvise(block, HUGE_BYTES, MADV_COLLAPSE);
    }
}

enum status kept_reserve(const struct kept *kept, const void *at, size_t bytes, struct err *err)
{
    char *memory = kept->memory;
    size_t begin = (size_t)((const char *)at - memory) / PAGE_BYTES * PAGE_BYTES;
    size_t end = round_up((size_t)((const char *)at - memory) + bytes, PAGE_BYTES);

    ENSURE(end <= kept->map_bytes);
    if (mem_fails(bytes)) {
        return set_no_memory(&kept->options, err);
    }
    for (size_t i = begin / HUGE_BYTES * HUGE_BYTES; i < end; i += HUGE_BYTES) {
        take_huge(kept, memory + i);
    }
    if (madvise(memory + begin, end - begin, MADV_POPULATE_WRITE) == 0) {
        return STATUS_OK;
    }
    if (errno == EINVAL) { /* an older kernel: no huge pages then, but memory */
        errno = posix_fallocate(kept->options.fd, (off_t)begin, (off_t)(end - begin));
        if (errno == 0) {
            return STATUS_OK;
        }
    }
    return set_no_memory(&kept->options, err);
}

bool kept_take_block(const struct kept *kept, size_t offset)
{
    char *block = (char *)kept->memory + offset;

    ENSURE(offset % HUGE_BYTES == 0);
    if (offset >= kept->map_bytes) {
        return false;
    }
    take_huge(kept, block);
    return madvise(block, MIN(HUGE_BYTES, kept->map_bytes - offset), MADV_POPULATE_WRITE) == 0;
}

enum status kept_finish(struct kept *kept, struct err *err)
{
    enum status status;

    if (!kept->writable || kept->options.kind == KEPT_KV) {
        return STATUS_OK;
    }
    status = write_header(kept, err);
    if (status == STATUS_OK) {
        status = map_at(kept, false, err);
    }
    if (status == STATUS_OK) {
        kept->writable = false;
    }
    return status;
}

void kept_close(struct kept *kept)
{
    if (kept->memory != NULL) {
        munmap(kept->memory, kept->map_bytes);
    }
    *kept = (struct kept){0};
}
