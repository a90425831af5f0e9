/* SPDX-License-Identifier: Apache-2.0 */
#include "hub/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

enum { MAX_DEPTH = 8 };

static char *join(const char *folder, const char *name)
{
    struct buf buf = {0};

    buf_printf(&buf, "%s/%s", folder, name);
    return buf_detach(&buf);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

char *cache_home(void)
{
    const char *home = environment("HF_HOME");
    const char *xdg = environment("XDG_CACHE_HOME");

    if (home != NULL) {
        return xstrdup(home);
    }
    if (xdg != NULL) {
        return join(xdg, "huggingface");
    }
    home = environment("HOME");
    return home == NULL ? NULL : join(home, ".cache/huggingface");
}

enum status cache_init(struct cache *cache, const char *root, const struct hub_name *name,
                       struct err *err)
{
    const char *given = root != NULL ? root : environment("HF_HUB_CACHE");
    char *home = cache_home();
    char *folder;

    if (given == NULL && home == NULL) {
        return err_set(err, STATUS_INVALID,
                       "no folder for the hub's cache: neither HF_HUB_CACHE, HF_HOME nor HOME is "
                       "set");
    }
    folder = hub_name_folder(name);
    cache->root = given != NULL ? xstrdup(given) : join(home, "hub");
    cache->folder = join(cache->root, folder);
    cache->locks = join(cache->root, ".locks");
    free(home);
    home = cache->locks;
    cache->locks = join(home, folder);
    free(home);
    free(folder);
    return STATUS_OK;
}

void cache_release(struct cache *cache)
{
    free(cache->root);
    free(cache->folder);
    free(cache->locks);
    *cache = (struct cache){0};
}

/* Makes the folder and those above it. */
static enum status make_folders(const char *path, struct err *err)
{
    enum status status = STATUS_OK;
    char *copy = xstrdup(path);

    for (char *slash = copy; slash != NULL && status == STATUS_OK;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            status = err_set(err, STATUS_IO, "%s: %s", copy, strerror(errno));
        }
        if (slash != NULL) {
            *slash = '/';
        }
    }
    free(copy);
    return status;
}

/* The folders above the file at path. */
static enum status make_room(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = xstrndup(path, (size_t)(slash - path));
    enum status status = make_folders(folder, err);

    free(folder);
    return status;
}

enum status cache_make(const struct cache *cache, struct err *err)
{
    static const char *const names[] = {"blobs", "snapshots", "refs"};
    enum status status = make_folders(cache->locks, err);

    for (size_t i = 0; i < ARRAY_LEN(names) && status == STATUS_OK; i++) {
        char *path = join(cache->folder, names[i]);

        status = make_folders(path, err);
        free(path);
    }
    return status;
}

static char *ref_path(const struct cache *cache, const char *revision)
{
    struct buf buf = {0};

    buf_printf(&buf, "%s/refs/%s", cache->folder, revision);
    return buf_detach(&buf);
}

enum status cache_commit(const struct cache *cache, const char *revision,
                         char ret_commit[CACHE_COMMIT_BYTES], struct err *err)
{
    enum status status = STATUS_OK;
    struct buf text = {0};
    char *path;

    if (hub_is_hex(revision, CACHE_COMMIT_DIGITS)) {
        memcpy(ret_commit, revision, CACHE_COMMIT_BYTES);
        return STATUS_OK;
    }
    path = ref_path(cache, revision);
    status = file_read_all(path, 256, &text, err);
    if (status == STATUS_OK) {
        text.len = strcspn(buf_str(&text), " \r\n\t");
        buf_append(&text, "", 1);
        if (hub_is_hex(buf_str(&text), CACHE_COMMIT_DIGITS)) {
            memcpy(ret_commit, text.data, CACHE_COMMIT_BYTES);
        } else {
            status = err_set(err, STATUS_NOT_FOUND, "%s: no commit", path);
        }
    }
    buf_release(&text);
    free(path);
    return status;
}

/* Writes a small file, and the folders it lies in. */
static enum status write_whole(const char *path, const char *text, struct err *err)
{
    enum status status = make_room(path, err);

    return status == STATUS_OK ? file_replace(path, text, strlen(text), 0644, err) : status;
}

enum status cache_set_ref(const struct cache *cache, const char *revision, const char *commit,
                          struct err *err)
{
    enum status status;
    char *path;

    if (strcmp(revision, commit) == 0) {
        return STATUS_OK;
    }
    path = ref_path(cache, revision);
    status = write_whole(path, commit, err);
    free(path);
    return status;
}

char *cache_snapshot(const struct cache *cache, const char *commit)
{
    struct buf buf = {0};

    buf_printf(&buf, "%s/snapshots/%s", cache->folder, commit);
    return buf_detach(&buf);
}

char *cache_blob(const struct cache *cache, const char *hash)
{
    struct buf buf = {0};

    buf_printf(&buf, "%s/blobs/%s", cache->folder, hash);
    return buf_detach(&buf);
}

char *cache_incomplete(const struct cache *cache, const char *hash)
{
    struct buf buf = {0};

    buf_printf(&buf, "%s/blobs/%s.incomplete", cache->folder, hash);
    return buf_detach(&buf);
}

static enum status list_folder(const char *folder, const char *prefix, int depth,
                               struct hub_listing *listing, struct err *err)
{
    enum status status = STATUS_OK;
    struct dirent *entry;
    DIR *dir = opendir(folder);

    if (dir == NULL) {
        return err_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", folder,
                       strerror(errno));
    }
    while (status == STATUS_OK && (entry = readdir(dir)) != NULL) {
        char *path = join(folder, entry->d_name);
        struct buf name = {0};
        struct stat info;

        buf_printf(&name, "%s%s", prefix, entry->d_name);
        if (entry->d_name[0] == '.' || stat(path, &info) != 0 || !hub_path_is_safe(name.data)) {
            status = STATUS_OK; /* no file of a model */
        } else if (S_ISREG(info.st_mode)) {
            status = hub_listing_add(listing, name.data, NULL, (uint64_t)info.st_size, err);
        } else if (S_ISDIR(info.st_mode) && depth < MAX_DEPTH) {
            buf_append_char(&name, '/');
            status = list_folder(path, name.data, depth + 1, listing, err);
        }
        buf_release(&name);
        free(path);
    }
    closedir(dir);
    return status;
}

enum status cache_list(const char *snapshot, struct hub_listing *listing, struct err *err)
{
    return list_folder(snapshot, "", 0, listing, err);
}

enum status cache_link(const struct cache *cache, const char *commit, const char *path,
                       const char *hash, struct err *err)
{
    char *snapshot = cache_snapshot(cache, commit);
    char *link = join(snapshot, path);
    struct buf target = {0};
    struct buf name = {0};
    enum status status = make_room(link, err);

    buf_append_str(&target, "../../");
    for (const char *c = path; *c != '\0'; c++) {
        buf_append_str(&target, *c == '/' ? "../" : "");
    }
    buf_printf(&target, "blobs/%s", hash);
    buf_printf(&name, "%s.%ld.link", link, (long)getpid()); /* a leftover is only an old link */
    if (status == STATUS_OK &&
        ((unlink(name.data) != 0 && errno != ENOENT) || symlink(target.data, name.data) != 0 ||
         rename(name.data, link) != 0)) {
        status = err_set(err, STATUS_IO, "%s: %s", link, strerror(errno));
        unlink(name.data);
    }
    buf_release(&name);
    buf_release(&target);
    free(link);
    free(snapshot);
    return status;
}

enum status cache_lock(const struct cache *cache, const char *hash, int *ret_fd, struct err *err)
{
    enum status status = STATUS_OK;
    struct buf path = {0};
    struct stat held;
    struct stat there;
    int fd;

    buf_printf(&path, "%s/%s.lock", cache->locks, hash);
    fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || fstat(fd, &held) != 0) {
        status = err_set(err, STATUS_IO, "%s: %s", path.data, strerror(errno));
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK
                     ? STATUS_PENDING
                     : err_set(err, STATUS_IO, "%s: %s", path.data, strerror(errno));
    } else if (stat(path.data, &there) != 0 || there.st_ino != held.st_ino ||
               there.st_dev != held.st_dev) {
        status = STATUS_PENDING; /* its holder has removed it meanwhile: not the lock any more */
    }
    if (status == STATUS_OK) {
        *ret_fd = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    buf_release(&path);
    return status;
}

enum status cache_free_bytes(const struct cache *cache, uint64_t *ret_bytes, struct err *err)
{
    struct statvfs info;

    if (statvfs(cache->folder, &info) != 0) {
        return err_set(err, STATUS_IO, "%s: %s", cache->folder, strerror(errno));
    }
    *ret_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return STATUS_OK;
}
