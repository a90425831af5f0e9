/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum status file_read_at(int fd, const char *path, uint64_t offset, size_t n, void *out,
                         struct err *err)
{
    char *to = out;

    while (n > 0) {
        ssize_t got = pread(fd, to, n, (off_t)offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
        }
        if (got == 0) {
            return err_set(err, STATUS_CORRUPT, "%s: file ends before byte %llu", path,
                           (unsigned long long)offset + n);
        }
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return STATUS_OK;
}

/* Appends what is left of fd, at most max_bytes. The size that fstat gives is only a hint: files of
 * /proc say 0 and files of /sys a page. */
static enum status read_to_end(int fd, const char *path, size_t hint, size_t max_bytes,
                               struct buf *buf, struct err *err)
{
    size_t start = buf->len;
    size_t step = MIN(hint, max_bytes);

    for (;;) {
        ssize_t got;

        buf_reserve(buf, step + 1); /* one more, to see the end in the same call */
        got = read(fd, buf->data + buf->len, step + 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got > 0) {
            buf->len += (size_t)got;
        }
        if (got <= 0 || buf->len - start > max_bytes) {
            enum status status = STATUS_OK;

            if (got != 0) {
                buf->len = start;
                status = got < 0 ? err_set(err, STATUS_IO, "%s: %s", path, strerror(errno))
                                 : err_set(err, STATUS_LIMIT, "%s: more than %zu bytes", path,
                                           max_bytes);
            }
            buf->data[buf->len] = '\0';
            return status;
        }
        step = MIN(4096, max_bytes - (buf->len - start));
    }
}

enum status file_read_all(const char *path, size_t max_bytes, struct buf *buf, struct err *err)
{
    enum status status = STATUS_OK;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return err_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", path,
                       strerror(errno));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = err_set(err, STATUS_IO, "%s: not a regular file", path);
        goto out;
    }
    if ((uint64_t)info.st_size > max_bytes) {
        status = err_set(err, STATUS_LIMIT, "%s: %lld bytes, at most %zu are read here", path,
                         (long long)info.st_size, max_bytes);
        goto out;
    }
    status = read_to_end(fd, path, (size_t)info.st_size, max_bytes, buf, err);
out:
    close(fd);
    return status;
}

enum status file_replace(const char *path, const void *data, size_t n, mode_t mode, struct err *err)
{
    enum status status = STATUS_OK;
    struct buf name = {0};
    int fd;

    buf_printf(&name, "%s.XXXXXX", path);
    fd = mkostemp(name.data, O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode) != 0 || write(fd, data, n) != (ssize_t)n ||
        rename(name.data, path) != 0) {
        status = err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0) {
            unlink(name.data);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    buf_release(&name);
    return status;
}

void file_make_folders(const char *path)
{
    char *copy = xstrdup(path);

    for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)!mkdir(copy, 0700);
        *slash = '/';
    }
    free(copy);
}

char *file_cache_path(const char *name)
{
    const char *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    struct buf path = {0};

    if (xdg != NULL && xdg[0] != '\0') {
        buf_printf(&path, "%s/lockstep/%s", xdg, name);
    } else if (home != NULL && home[0] != '\0') {
        buf_printf(&path, "%s/.cache/lockstep/%s", home, name);
    } else {
        return NULL;
    }
    return buf_detach(&path);
}
