/* SPDX-License-Identifier: Apache-2.0 */
#include "weights/source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum status source_open(struct source *source, const char *path, struct err *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */

    if (fd < 0) {
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                       "%s: %s", path, strerror(errno));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return err_set(err, STATUS_IO, "%s: not a regular file", path);
    }
    *source = (struct source){.name = xstrdup(path), .size = (uint64_t)info.st_size, .fd = fd};
    return STATUS_OK;
}

void source_from_memory(struct source *source, const char *name, const void *bytes, size_t size)
{
    *source = (struct source){.name = xstrdup(name), .size = size, .fd = -1, .memory = bytes};
}

enum status source_read_at(const struct source *source, uint64_t offset, size_t n, void *out,
                           struct err *err)
{
    if (offset > source->size || n > source->size - offset) {
        return err_set(err, STATUS_CORRUPT, "%s: ends at byte %llu, %zu bytes at %llu are missing",
                       source->name, (unsigned long long)source->size, n,
                       (unsigned long long)offset);
    }
    if (source->fd >= 0) {
        return file_read_at(source->fd, source->name, offset, n, out, err);
    }
    if (n > 0) {
        memcpy(out, source->memory + offset, n);
    }
    return STATUS_OK;
}

void source_release(struct source *source)
{
    if (source->fd >= 0) {
        close(source->fd);
    }
    free(source->name);
    *source = (struct source){.fd = -1};
}
