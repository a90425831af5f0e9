/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving packed weights. Files are made without a name, reserved (so that a full disk is known at
 * once), written, and only then given their names, the sums last. There is no fsync: what a crash
 * of the machine leaves unwritten does not agree with its hashes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "world/pack_cache_priv.h"

enum { NICE = 10 };

/* A copy under way; owned by its thread. */
struct save {
    struct pack_cache *cache;
    uint64_t hash;
    uint32_t n_files;
    int folder;
    int from[PACK_CACHE_MAX_RANKS + 1];
    int to[PACK_CACHE_MAX_RANKS + 1];
    uint64_t bytes[PACK_CACHE_MAX_RANKS + 1];
    int sums; /* the file of them */
};

static void close_all(struct save *save)
{
    for (uint32_t i = 0; i < save->n_files; i++) {
        if (save->from[i] >= 0) {
            close(save->from[i]);
        }
        if (save->to[i] >= 0) {
            close(save->to[i]);
        }
    }
    if (save->sums >= 0) {
        close(save->sums);
    }
    if (save->folder >= 0) {
        close(save->folder);
    }
}

/* A file without a name. The size is taken on the disk where the file system can do that; where it
 * cannot, a lack shows in writing. -1 and errno. */
static int make_file(int folder, uint64_t bytes)
{
    int fd = openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 && bytes > 0 && fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP) {
        int error = errno;

        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static bool write_all(int fd, const void *data, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(fd, (const char *)data + done, bytes - done, (off_t)(offset + done));

        if (n < 0 && errno != EINTR) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool copy_file(const struct save *save, uint32_t file, void *buffer, uint64_t *sums)
{
    for (uint64_t at = 0; at < save->bytes[file]; at += PACK_CACHE_CHUNK) {
        size_t bytes = MIN(save->bytes[file] - at, (uint64_t)PACK_CACHE_CHUNK);

        if (!pack_cache_read(save->from[file], buffer, bytes, at)) {
            return false;
        }
        *sums++ = XXH3_64bits(buffer, bytes);
        if (!write_all(save->to[file], buffer, bytes, at)) {
            return false;
        }
    }
    return true;
}

/* False and errno. */
static bool name_file(const struct save *save, uint32_t file, int fd)
{
    char name[PACK_CACHE_NAME_BYTES];
    char link[64];

    pack_cache_name(name, save->hash, file);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    unlinkat(save->folder, name, 0);
    return linkat(AT_FDCWD, link, save->folder, name, AT_SYMLINK_FOLLOW) == 0 ||
           errno == EEXIST; /* another was faster, with the same bytes */
}

static bool name_all(const struct save *save)
{
    char name[PACK_CACHE_NAME_BYTES];

    pack_cache_name(name, save->hash, PACK_CACHE_SUMS);
    unlinkat(save->folder, name, 0);
    for (uint32_t i = 0; i < save->n_files; i++) {
        if (!name_file(save, i, save->to[i])) {
            return false;
        }
    }
    return name_file(save, PACK_CACHE_SUMS, save->sums);
}

static bool open_all(struct save *save)
{
    file_make_folders(save->cache->folder);
    (void)!mkdir(save->cache->folder, 0700); /* what fails shows when it is opened */
    save->folder = pack_cache_open_folder(save->cache);
    if (save->folder < 0) {
        return false;
    }
    for (uint32_t i = 0; i < save->n_files; i++) {
        struct stat info;

        if (fstat(save->from[i], &info) != 0) {
            return false;
        }
        save->bytes[i] = (uint64_t)info.st_size;
        save->to[i] = make_file(save->folder, save->bytes[i]);
        if (save->to[i] < 0) {
            return false;
        }
    }
    save->sums = make_file(save->folder, 0);
    return save->sums >= 0;
}

static bool copy_all(struct save *save)
{
    size_t sums_bytes;
    uint64_t *at;
    uint64_t *words = pack_cache_sums(save->hash, save->bytes, save->n_files, &at, &sums_bytes);
    void *buffer = xalloc(PACK_CACHE_CHUNK);
    bool ok = true;
    int error;

    for (uint32_t i = 0; i < save->n_files && ok; i++) {
        ok = copy_file(save, i, buffer, at);
        at += div_up(save->bytes[i], PACK_CACHE_CHUNK);
    }
    pack_cache_sums_close(words, sums_bytes);
    ok = ok && write_all(save->sums, words, sums_bytes, 0);
    error = errno;
    free(buffer);
    free(words);
    errno = error;
    return ok;
}

static void *run(void *arg)
{
    struct save *save = arg;
    struct pack_cache *cache = save->cache;

    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    if (!open_all(save) || !copy_all(save) || !name_all(save)) {
        log_warn("packed weights are not kept in %s: %s", cache->folder, strerror(errno));
    } else {
        pack_cache_evict(cache, save->folder);
        log_debug("packed weights are kept as %s/%016llx", cache->folder,
                  (unsigned long long)save->hash);
    }
    close_all(save);
    free(save);
    atomic_store(&cache->done, true);
    return NULL;
}

void pack_cache_wait(struct pack_cache *cache)
{
    if (cache->has_thread) {
        pthread_join(cache->thread, NULL);
        cache->has_thread = false;
    }
}

void pack_cache_save(struct pack_cache *cache, const struct pack_cache_key *key,
                     const struct pack_cache_files *files)
{
    struct save *save;

    ENSURE_OP(key->n_ranks, <=, PACK_CACHE_MAX_RANKS);
    if (cache->has_thread && !atomic_load(&cache->done)) {
        return;
    }
    pack_cache_wait(cache);
    save = xalloc(sizeof(*save));
    *save = (struct save){.cache = cache,
                          .hash = pack_cache_hash(key),
                          .n_files = key->n_ranks + 1,
                          .folder = -1,
                          .sums = -1};
    for (uint32_t i = 0; i < save->n_files; i++) {
        save->from[i] = fcntl(i == 0 ? files->host : files->ranks[i - 1], F_DUPFD_CLOEXEC, 0);
        save->to[i] = -1;
    }
    atomic_store(&cache->done, false);
    cache->has_thread = pthread_create(&cache->thread, NULL, run, save) == 0;
    if (!cache->has_thread) {
        log_warn("packed weights are not kept in %s: no thread for it", cache->folder);
        close_all(save);
        free(save);
    }
}
