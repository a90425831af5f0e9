/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static const char index_suffix[] = ".safetensors.index.json";

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text);
    size_t m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* folder/name; free() it. */
static char *join(const char *folder, const char *name)
{
    struct buf buf = {0};

    buf_append_str(&buf, folder);
    if (buf.len > 0 && buf.data[buf.len - 1] != '/') {
        buf_append_char(&buf, '/');
    }
    buf_append_str(&buf, name);
    return buf_detach(&buf);
}

static bool is_type(const char *path, mode_t type)
{
    struct stat info;

    return stat(path, &info) == 0 && (info.st_mode & S_IFMT) == type;
}

/* The joined path if it is of that type, else NULL. */
static char *find_type(const char *folder, const char *name, mode_t type)
{
    char *path = join(folder, name);

    if (!is_type(path, type)) {
        free(path);
        return NULL;
    }
    return path;
}

/* The only entry of folder that accept() takes: NULL if there is none; STATUS_INVALID if several.
 */
static enum status only_entry(const char *folder, bool (*accept)(const char *name), char **ret_path,
                              struct err *err)
{
    enum status status = STATUS_OK;
    struct dirent *entry;
    char *found = NULL;
    DIR *dir = opendir(folder);

    if (dir == NULL) {
        return err_set(err, STATUS_IO, "%s: %s", folder, strerror(errno));
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || !accept(entry->d_name)) {
            continue;
        }
        if (found != NULL) {
            status = err_set(err, STATUS_INVALID, "%s: several candidates (%s and %s), name one",
                             folder, found, entry->d_name);
            goto out;
        }
        found = xstrdup(entry->d_name);
    }
    *ret_path = found == NULL ? NULL : join(folder, found);
out:
    closedir(dir);
    free(found);
    return status;
}

static bool is_any(const char *name)
{
    return name[0] != '\0';
}

static bool is_safetensors(const char *name)
{
    return ends_with(name, ".safetensors");
}

/* Of a split set only the first file counts. */
static bool is_gguf(const char *name)
{
    const char *of = strstr(name, "-of-");

    return ends_with(name, ".gguf") &&
           (of == NULL || of - name < 6 || strncmp(of - 6, "-00001", 6) == 0);
}

/* The revision's folder inside a hub cache folder (one that has snapshots/). */
static enum status resolve_snapshot(const char *path, char **ret_folder, struct err *err)
{
    enum status status = STATUS_OK;
    struct buf revision = {0};
    char *snapshots = join(path, "snapshots");
    char *ref = find_type(path, "refs/main", S_IFREG);
    char *folder = NULL;

    if (ref == NULL) { /* fetched by commit: there is no refs/main, and mostly one snapshot */
        status = only_entry(snapshots, is_any, &folder, err);
        goto check;
    }
    status = file_read_all(ref, 256, &revision, err);
    if (status != STATUS_OK) {
        goto out;
    }
    while (revision.len > 0 && strchr(" \r\n\t", revision.data[revision.len - 1]) != NULL) {
        revision.data[--revision.len] = '\0';
    }
    if (revision.len == 0 || strlen(buf_str(&revision)) != revision.len ||
        strchr(revision.data, '/') != NULL || !weights_path_is_inside(revision.data)) {
        status = err_set(err, STATUS_CORRUPT, "%s: not the name of a snapshot", ref);
        goto out;
    }
    folder = join(snapshots, revision.data);
check:
    if (status == STATUS_OK && (folder == NULL || !is_type(folder, S_IFDIR))) {
        status = err_set(err, STATUS_NOT_FOUND, "%s: no snapshot of its main revision", path);
    }
    if (status == STATUS_OK) {
        *ret_folder = folder;
        folder = NULL;
    }
out:
    free(folder);
    free(ref);
    free(snapshots);
    buf_release(&revision);
    return status;
}

static enum status resolve_folder(const char *path, struct weights_path *made, struct err *err)
{
    enum status status = STATUS_OK;
    char *snapshots = find_type(path, "snapshots", S_IFDIR);

    if (snapshots != NULL) {
        status = resolve_snapshot(path, &made->folder, err);
    } else {
        made->folder = xstrdup(path);
    }
    free(snapshots);
    if (status != STATUS_OK) {
        return status;
    }
    made->kind = WEIGHTS_SAFETENSORS;
    made->file = find_type(made->folder, "model.safetensors", S_IFREG);
    if (made->file == NULL) {
        made->kind = WEIGHTS_SAFETENSORS_INDEX;
        made->file = find_type(made->folder, "model.safetensors.index.json", S_IFREG);
    }
    if (made->file == NULL) {
        made->kind = WEIGHTS_SAFETENSORS;
        status = only_entry(made->folder, is_safetensors, &made->file, err);
    }
    if (made->file == NULL && status == STATUS_OK) {
        made->kind = WEIGHTS_GGUF;
        status = only_entry(made->folder, is_gguf, &made->file, err);
    }
    if (made->file == NULL) {
        made->kind = WEIGHTS_NONE;
    }
    return status;
}

/* By its name, or for a nameless blob by its first bytes. */
static enum status kind_of_file(const char *path, enum weights_kind *ret_kind, struct err *err)
{
    char magic[4] = {0};
    int fd;

    if (ends_with(path, ".gguf")) {
        *ret_kind = WEIGHTS_GGUF;
    } else if (ends_with(path, ".safetensors")) {
        *ret_kind = WEIGHTS_SAFETENSORS;
    } else if (ends_with(path, index_suffix)) {
        *ret_kind = WEIGHTS_SAFETENSORS_INDEX;
    } else {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) {
            return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
        }
        if (pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
            memcmp(magic, "GGUF", 4) == 0) {
            *ret_kind = WEIGHTS_GGUF;
        } else {
            *ret_kind = WEIGHTS_SAFETENSORS;
        }
        close(fd);
    }
    return STATUS_OK;
}

enum status weights_path_resolve(const char *path, struct weights_path *ret_path, struct err *err)
{
    struct weights_path made = {0};
    enum status status;
    const char *slash = strrchr(path, '/');
    struct stat info;

    if (stat(path, &info) != 0) {
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                       "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        status = resolve_folder(path, &made, err);
    } else if (S_ISREG(info.st_mode)) {
        status = kind_of_file(path, &made.kind, err);
        made.file = xstrdup(path);
        made.folder = slash == NULL ? xstrdup(".") : xstrndup(path, (size_t)(slash - path) + 1);
    } else {
        status = err_set(err, STATUS_IO, "%s: neither a folder nor a regular file", path);
    }
    if (status != STATUS_OK) {
        weights_path_release(&made);
        return status;
    }
    *ret_path = made;
    return STATUS_OK;
}

void weights_path_release(struct weights_path *path)
{
    free(path->folder);
    free(path->file);
    *path = (struct weights_path){0};
}

char *weights_path_find(const struct weights_path *path, const char *name)
{
    return path->kind == WEIGHTS_GGUF ? NULL : find_type(path->folder, name, S_IFREG);
}

bool weights_path_is_inside(const char *name)
{
    const char *part = name;

    if (name[0] == '\0' || name[0] == '/') {
        return false;
    }
    while (part != NULL) {
        size_t n = strcspn(part, "/");

        if (n == 2 && part[0] == '.' && part[1] == '.') {
            return false;
        }
        part = part[n] == '/' ? part + n + 1 : NULL;
    }
    return true;
}
