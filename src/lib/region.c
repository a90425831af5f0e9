/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

struct region {
    _Atomic uint32_t refs;
    int fd;
    void *memory;
    size_t bytes;
};

enum status region_create(uint32_t n_ranks, const struct comm_id *id, struct region **ret_region,
                          struct err *err)
{
    size_t bytes = comm_shm_region_bytes(n_ranks);
    int fd = memfd_create("lockstep-world", MFD_CLOEXEC);
    void *memory = MAP_FAILED;
    struct region *region;

    ENSURE_OP(bytes, >, 0);
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    }
    if (memory == MAP_FAILED) {
        int error = errno;

        if (fd >= 0) {
            close(fd);
        }
        return err_set(err, error == ENOMEM ? STATUS_NO_MEMORY : STATUS_IO,
                       "no memory for a communicator: %s", strerror(error));
    }
    comm_shm_region_init(memory, n_ranks, id);
    region = xalloc(sizeof(*region));
    *region = (struct region){.refs = 1, .fd = fd, .memory = memory, .bytes = bytes};
    *ret_region = region;
    return STATUS_OK;
}

struct region *region_ref(struct region *region)
{
    atomic_fetch_add(&region->refs, 1);
    return region;
}

void region_unref(struct region **region)
{
    struct region *r = *region;

    *region = NULL;
    if (r != NULL && atomic_fetch_sub(&r->refs, 1) == 1) {
        munmap(r->memory, r->bytes);
        close(r->fd);
        free(r);
    }
}

void *region_memory(const struct region *region)
{
    return region->memory;
}

size_t region_bytes(const struct region *region)
{
    return region->bytes;
}

int region_fd(const struct region *region)
{
    return region->fd;
}
