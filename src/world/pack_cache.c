/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sums file is a struct sums_head, for each file its size (the embedding's first), for each
 * file the hashes of its chunks in order, and a hash of all that. Numbers lie as in memory: the
 * build is in the key, and so is the machine's byte order.
 *
 * Files are read, not mapped, while they are checked: a sector that cannot be read is an error of
 * pread here, and would be a SIGBUS in a mapping.
 */
#include "world/pack_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "world/pack_cache_priv.h"

#define MAGIC UINT64_C(0x314b4341504b434c) /* "LCKPACK1" */

enum { MAX_THREADS = 8, MAX_SUMS_BYTES = 64 << 20 };

struct sums_head {
    uint64_t magic;
    uint64_t key;
    uint64_t n_files;
};

/* --- The key --- */

static uint64_t add(uint64_t hash, const void *data, size_t bytes)
{
    return XXH3_64bits_withSeed(data, bytes, hash);
}

static uint64_t add_stat(uint64_t hash, const struct stat *info)
{
    const int64_t stamp[] = {info->st_size, info->st_mtim.tv_sec, info->st_mtim.tv_nsec};

    return add(hash, stamp, sizeof(stamp));
}

/* The model's file, or all files of its folder in whatever order. */
static uint64_t add_model(uint64_t hash, const char *model)
{
    char *path = realpath(model, NULL);
    DIR *folder = path == NULL ? NULL : opendir(path);
    uint64_t all = 0;
    struct stat info;

    if (path == NULL) { /* random weights of a shape have no file */
        return hash;
    }
    hash = add(hash, path, strlen(path));
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) {
        hash = add_stat(hash, &info);
    }
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (fstatat(dirfd(folder), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode)) {
            all += add_stat(add(0, entry->d_name, strlen(entry->d_name)), &info);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    free(path);
    return add(hash, &all, sizeof(all));
}

/* Options that say nothing about weights only make for more sets than need be; those that change
 * from run to run are left out. */
static uint64_t add_options(uint64_t hash, const json_t *options)
{
    static const char *const names[] = {"quant", "bf16", "act", "level", "shape", "tune"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const json_t *value = json_object_get(options, names[i]);
        char *text = value == NULL
                         ? NULL
                         : json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);

        hash = add(hash, names[i], strlen(names[i]));
        if (text != NULL) {
            hash = add(hash, text, strlen(text));
        }
        free(text);
    }
    return hash;
}

uint64_t pack_cache_hash(const struct pack_cache_key *key)
{
    const json_t *model = json_object_get(key->load, "model");
    const uint64_t world[] = {key->layout, key->n_ranks};
    uint64_t hash = add(MAGIC, world, sizeof(world));

    hash = add(hash, key->build, strlen(key->build));
    hash = add_options(hash, json_object_get(key->load, "options"));
    return json_is_string(model) ? add_model(hash, json_string_value(model)) : hash;
}

void pack_cache_name(char name[PACK_CACHE_NAME_BYTES], uint64_t hash, uint32_t file)
{
    if (file == 0) {
        snprintf(name, PACK_CACHE_NAME_BYTES, "%016llx.host", (unsigned long long)hash);
    } else if (file == PACK_CACHE_SUMS) {
        snprintf(name, PACK_CACHE_NAME_BYTES, "%016llx.sums", (unsigned long long)hash);
    } else {
        snprintf(name, PACK_CACHE_NAME_BYTES, "%016llx.%u", (unsigned long long)hash, file - 1);
    }
}

/* --- The folder --- */

struct pack_cache *pack_cache_create(const char *folder)
{
    struct pack_cache *cache;

    if (folder == NULL) {
        return NULL;
    }
    cache = xalloc(sizeof(*cache));

    cache->folder = xstrdup(folder);
    return cache;
}

void pack_cache_destroy(struct pack_cache **cache)
{
    if (*cache == NULL) {
        return;
    }
    pack_cache_wait(*cache);
    free((*cache)->folder);
    free(*cache);
    *cache = NULL;
}

/* -1 and errno. Others must not be able to put files there. */
int pack_cache_open_folder(const struct pack_cache *cache)
{
    int folder = open(cache->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat info;

    if (folder >= 0 && (fstat(folder, &info) != 0 || info.st_uid != geteuid() ||
                        (info.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
        close(folder);
        errno = EPERM;
        return -1;
    }
    return folder;
}

static void remove_set(int folder, uint64_t hash)
{
    char name[PACK_CACHE_NAME_BYTES];

    pack_cache_name(name, hash, PACK_CACHE_SUMS);
    unlinkat(folder, name, 0);
    for (uint32_t i = 0; i <= PACK_CACHE_MAX_RANKS; i++) {
        pack_cache_name(name, hash, i);
        unlinkat(folder, name, 0);
    }
}

void pack_cache_discard(struct pack_cache *cache, const struct pack_cache_key *key)
{
    uint64_t hash = pack_cache_hash(key);
    int folder = pack_cache_open_folder(cache);

    if (folder >= 0) {
        log_info("the packed weights %s/%016llx were of no use and are packed anew", cache->folder,
                 (unsigned long long)hash);
        remove_set(folder, hash);
        close(folder);
    }
}

/* A set by its most recent file. */
struct set_age {
    uint64_t hash;
    struct timespec used;
};

static bool is_newer(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static int by_age(const void *a, const void *b)
{
    const struct set_age *x = a;
    const struct set_age *y = b;

    return is_newer(&x->used, &y->used) ? -1 : is_newer(&y->used, &x->used);
}

/* Enters a file; false if it is none of a set's. */
static void note_age(struct set_age *sets, size_t *n, size_t most, const char *name,
                     const struct timespec *used)
{
    unsigned long long hash;
    char *end;
    size_t i = 0;

    if (strspn(name, "0123456789abcdef") != 16 || name[16] != '.') {
        return;
    }
    hash = strtoull(name, &end, 16);
    while (i < *n && sets[i].hash != hash) {
        i++;
    }
    if (i == *n && *n < most) {
        sets[(*n)++] = (struct set_age){.hash = hash, .used = *used};
    } else if (i < *n && is_newer(used, &sets[i].used)) {
        sets[i].used = *used;
    }
}

void pack_cache_evict(const struct pack_cache *cache, int folder)
{
    struct set_age sets[64];
    DIR *entries = opendir(cache->folder);
    struct stat info;
    size_t n = 0;

    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            note_age(sets, &n, ARRAY_LEN(sets), entry->d_name, &info.st_mtim);
        }
    }
    if (entries != NULL) {
        closedir(entries);
    }
    qsort(sets, n, sizeof(*sets), by_age);
    for (size_t i = PACK_CACHE_SETS; i < n; i++) {
        log_debug("the packed weights %016llx are removed for newer ones",
                  (unsigned long long)sets[i].hash);
        remove_set(folder, sets[i].hash);
    }
}

/* --- Finding --- */

/* Files to be checked, by several threads. */
struct check {
    const uint64_t *bytes; /* [n_files] */
    const uint64_t *sums;  /* of all files' chunks, in order */
    const int *fds;
    uint32_t n_files;
    uint64_t n_chunks;
    _Atomic uint64_t next;
    _Atomic bool differs;
};

bool pack_cache_read(int fd, void *out, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (char *)out + done, bytes - done, (off_t)(offset + done));

        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool chunk_agrees(const struct check *check, uint64_t chunk, void *buffer)
{
    uint64_t at = chunk;
    uint32_t file = 0;
    size_t bytes;

    while (at >= div_up(check->bytes[file], PACK_CACHE_CHUNK)) {
        at -= div_up(check->bytes[file++], PACK_CACHE_CHUNK);
    }
    bytes = MIN(check->bytes[file] - at * PACK_CACHE_CHUNK, (uint64_t)PACK_CACHE_CHUNK);
    return pack_cache_read(check->fds[file], buffer, bytes, at * PACK_CACHE_CHUNK) &&
           XXH3_64bits(buffer, bytes) == check->sums[chunk];
}

static void *check_some(void *arg)
{
    struct check *check = arg;
    void *buffer = malloc(PACK_CACHE_CHUNK);
    uint64_t chunk;

    if (buffer == NULL) {
        atomic_store(&check->differs, true);
    }
    while (!atomic_load(&check->differs) &&
           (chunk = atomic_fetch_add(&check->next, 1)) < check->n_chunks) {
        if (!chunk_agrees(check, chunk, buffer)) {
            atomic_store(&check->differs, true);
        }
    }
    free(buffer);
    return NULL;
}

static bool check_all(struct check *check)
{
    pthread_t threads[MAX_THREADS];
    uint32_t n = 0;
    cpu_set_t cores;
    uint32_t n_cores =
        sched_getaffinity(0, sizeof(cores), &cores) == 0 ? (uint32_t)CPU_COUNT(&cores) : 1;

    while (n + 1 < MIN(n_cores, (uint32_t)MAX_THREADS) &&
           pthread_create(&threads[n], NULL, check_some, check) == 0) {
        n++;
    }
    check_some(check);
    while (n > 0) {
        pthread_join(threads[--n], NULL);
    }
    return !atomic_load(&check->differs);
}

static int open_file(int folder, uint64_t hash, uint32_t file, uint64_t *ret_bytes)
{
    char name[PACK_CACHE_NAME_BYTES];
    struct stat info;
    int fd;

    pack_cache_name(name, hash, file);
    fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
                    info.st_size <= 0)) {
        close(fd);
        return -1;
    }
    if (fd >= 0) {
        *ret_bytes = (uint64_t)info.st_size;
    }
    return fd;
}

/* The sums file whole, owned by the caller, if it agrees with itself; NULL otherwise. */
static uint64_t *read_sums(int folder, uint64_t hash, uint32_t n_files, uint64_t *ret_words)
{
    uint64_t bytes = 0;
    int fd = open_file(folder, hash, PACK_CACHE_SUMS, &bytes);
    const struct sums_head head = {.magic = MAGIC, .key = hash, .n_files = n_files};
    uint64_t n = bytes / 8;
    uint64_t *words = NULL;
    bool is_whole = fd >= 0 && bytes <= MAX_SUMS_BYTES && bytes % 8 == 0 &&
                    bytes >= sizeof(head) + 8 * (n_files + 1);

    if (is_whole) {
        words = malloc(bytes); /* as large as the file says */
        is_whole = words != NULL && pack_cache_read(fd, words, bytes, 0) &&
                   memcmp(words, &head, sizeof(head)) == 0 &&
                   words[n - 1] == XXH3_64bits(words, bytes - 8);
    }
    if (fd >= 0) {
        futimens(fd, NULL); /* used just now: the last to be removed */
        close(fd);
    }
    if (!is_whole) {
        free(words);
        return NULL;
    }
    *ret_words = n;
    return words;
}

/* All files of the sizes that the sums have. */
static bool open_files(int folder, uint64_t hash, const struct check *check, int *fds)
{
    for (uint32_t i = 0; i < check->n_files; i++) {
        uint64_t bytes = 0;

        fds[i] = open_file(folder, hash, i, &bytes);
        if (fds[i] < 0 || bytes != check->bytes[i]) {
            return false;
        }
    }
    return true;
}

static bool find_in(int folder, uint64_t hash, uint32_t n_files, int *fds, uint64_t *ret_bytes)
{
    const size_t head = sizeof(struct sums_head) / 8;
    struct check check = {.n_files = n_files, .fds = fds};
    uint64_t n_words = 0;
    uint64_t *words = read_sums(folder, hash, n_files, &n_words);
    uint64_t bytes = 0;
    bool agrees;

    if (words == NULL) {
        return false;
    }
    check.bytes = words + head;
    check.sums = words + head + n_files;
    for (uint32_t i = 0; i < n_files; i++) { /* none may make the sum wrap: it would be too long */
        check.n_chunks += MIN(div_up(check.bytes[i], PACK_CACHE_CHUNK), n_words);
        bytes += check.bytes[i];
    }
    agrees = check.n_chunks == n_words - head - n_files - 1 &&
             open_files(folder, hash, &check, fds) && check_all(&check);
    free(words);
    *ret_bytes = bytes;
    return agrees;
}

bool pack_cache_find(struct pack_cache *cache, const struct pack_cache_key *key,
                     struct pack_cache_files *ret_files)
{
    int fds[PACK_CACHE_MAX_RANKS + 1];
    uint64_t begin = clock_ns();
    uint64_t hash = pack_cache_hash(key);
    uint64_t bytes = 0;
    int folder = pack_cache_open_folder(cache);
    bool found;

    ENSURE_OP(key->n_ranks, <=, PACK_CACHE_MAX_RANKS);
    if (folder < 0) {
        return false;
    }
    for (uint32_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = -1;
    }
    found = find_in(folder, hash, key->n_ranks + 1, fds, &bytes);
    if (found) {
        log_debug("packed weights from %s/%016llx: %.1f MiB, checked in %.0f ms", cache->folder,
                  (unsigned long long)hash, (double)bytes / (1 << 20),
                  (double)(clock_ns() - begin) / 1e6);
        ret_files->host = fds[0];
        memcpy(ret_files->ranks, fds + 1, sizeof(ret_files->ranks));
    } else {
        char name[PACK_CACHE_NAME_BYTES];

        pack_cache_name(name, hash, PACK_CACHE_SUMS);
        if (faccessat(folder, name, F_OK, 0) == 0) {
            log_info("the packed weights %s/%016llx are damaged and are packed anew", cache->folder,
                     (unsigned long long)hash);
            remove_set(folder, hash);
        }
        for (uint32_t i = 0; i < ARRAY_LEN(fds); i++) {
            if (fds[i] >= 0) {
                close(fds[i]);
            }
        }
    }
    close(folder);
    return found;
}

/* --- What saving needs of the format --- */

uint64_t *pack_cache_sums(uint64_t hash, const uint64_t *bytes, uint32_t n_files,
                          uint64_t **ret_sums, size_t *ret_bytes)
{
    const struct sums_head head = {.magic = MAGIC, .key = hash, .n_files = n_files};
    uint64_t n = sizeof(head) / 8 + n_files + 1;
    uint64_t *words;

    for (uint32_t i = 0; i < n_files; i++) {
        n += div_up(bytes[i], PACK_CACHE_CHUNK);
    }
    words = xcalloc(n, sizeof(*words));
    memcpy(words, &head, sizeof(head));
    memcpy(words + sizeof(head) / 8, bytes, n_files * sizeof(*bytes));
    *ret_sums = words + sizeof(head) / 8 + n_files;
    *ret_bytes = n * sizeof(*words);
    return words;
}

void pack_cache_sums_close(uint64_t *words, size_t bytes)
{
    words[bytes / 8 - 1] = XXH3_64bits(words, bytes - 8);
}
