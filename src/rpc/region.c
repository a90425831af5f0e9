/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/region.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum status region_create(const char *name, size_t bytes, int *ret_fd, struct err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        return err_set(err, STATUS_IO, "shared memory %s: %s", name, strerror(errno));
    }
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        int error = errno;

        close(fd);
        return err_set(err, STATUS_NO_MEMORY, "shared memory %s of %zu bytes: %s", name, bytes,
                       strerror(error));
    }
    *ret_fd = fd;
    return STATUS_OK;
}

enum status region_map(int fd, size_t bytes, bool writable, void **ret_memory, struct err *err)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat info;
    void *memory;

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &info) != 0) {
        return err_set(err, STATUS_CORRUPT, "descriptor %d is no shared memory of fixed size", fd);
    }
    if (info.st_size < 0 || (uint64_t)info.st_size < bytes || bytes == 0) {
        return err_set(err, STATUS_CORRUPT, "shared memory has %lld bytes where %zu are needed",
                       (long long)info.st_size, bytes);
    }
    memory = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return err_set(err, errno == EPERM ? STATUS_INVALID : STATUS_NO_MEMORY,
                       "cannot map %zu bytes of shared memory: %s", bytes, strerror(errno));
    }
    *ret_memory = memory;
    return STATUS_OK;
}

void region_unmap(void *memory, size_t bytes)
{
    if (memory != NULL) {
        munmap(memory, bytes);
    }
}

enum status region_seal(int fd, struct err *err)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0) {
        return err_set(err, STATUS_IO, "cannot seal shared memory: %s", strerror(errno));
    }
    return STATUS_OK;
}
