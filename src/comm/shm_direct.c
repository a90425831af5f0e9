/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a peer's memory where it lies, which copies a large vector once instead of twice: of a
 * rank of the same process by its address, of another process through the kernel, if that allows
 * it. Allowed or not is tried with a random word that each rank publishes with its address, so that
 * a process that only has the same number (of another pid namespace) is not taken for the peer. A
 * collective reads directly only if all ranks can, and they have agreed on that once.
 *
 * A rank whose memory is read has published where it lies and waits in a step until everybody has
 * read it. If it dies meanwhile the kernel says so, or the readers' next step does.
 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "comm/shm_priv.h"

enum {
    READ_BYTES = 1 << 20, /* at once; then it looks whether it was aborted */
    READ_BYTES_A_NS = 16, /* of 1 MiB a core reads 24 */
    PATIENCE_MAX_NS = 200 * 1000
};

/* What a rank says of itself, in its slot, when they agree. */
struct ability {
    uint64_t reaches_all;
};

static void *place_at(const struct shm *shm, uint32_t rank)
{
    return shm_slot(shm, rank) + SHM_COUNTS_AT;
}

void shm_place_put(struct shm *shm, const void *in, const void *out)
{
    struct shm_place *place = place_at(shm, shm->comm.rank);

    *place = (struct shm_place){(uintptr_t)in, (uintptr_t)out, in == out};
}

struct shm_place shm_place_of(const struct shm *shm, uint32_t rank)
{
    return *(struct shm_place *)place_at(shm, rank);
}

/* Bytes read, or -1. */
static ssize_t read_process(uint64_t pid, void *to, uint64_t from, size_t bytes)
{
    const struct iovec local = {to, bytes};
    const struct iovec remote = {(void *)(uintptr_t)from, bytes};

    return process_vm_readv((pid_t)pid, &local, 1, &remote, 1, 0);
}

enum shm_reach shm_reach(struct shm *shm, uint32_t rank)
{
    const struct shm_rank *peer = &shm->region->ranks[rank];
    uint64_t word = 0;

    if (shm->reach[rank] != SHM_UNKNOWN) {
        return shm->reach[rank];
    }
    if (rank == shm->comm.rank) {
        shm->reach[rank] = SHM_SAME_PROCESS;
    } else if (read_process(peer->pid, &word, peer->probe_at, sizeof(word)) != sizeof(word) ||
               word != peer->probe) {
        shm->reach[rank] = SHM_UNREACHABLE;
    } else {
        shm->reach[rank] = peer->pid == (uint64_t)getpid() ? SHM_SAME_PROCESS : SHM_OTHER_PROCESS;
    }
    return shm->reach[rank];
}

enum status shm_all_reach(struct shm *shm, bool *ret_all, struct err *err)
{
    struct ability mine = {.reaches_all = 1};
    bool all = true;
    enum status status;

    if (shm->knows_all) {
        *ret_all = shm->all_reach;
        return STATUS_OK;
    }
    status = shm_step(shm, err); /* all have joined */
    for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
        mine.reaches_all &= shm_reach(shm, r) > SHM_UNREACHABLE;
    }
    if (status != STATUS_OK) {
        return status;
    }
    memcpy(place_at(shm, shm->comm.rank), &mine, sizeof(mine));
    status = shm_step(shm, err);
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        struct ability theirs;

        memcpy(&theirs, place_at(shm, r), sizeof(theirs));
        all = all && theirs.reaches_all == 1;
    }
    shm->turn++;
    shm->knows_all = true;
    shm->all_reach = all;
    *ret_all = all;
    return status;
}

/* Names who failed first, if it has said so before it went. */
static enum status fail_read(struct shm *shm, uint32_t rank, const char *why, struct err *err)
{
    uint32_t state = atomic_load_explicit(&shm->region->ranks[rank].state, memory_order_acquire);

    if (state >= SHM_LEFT && state <= SHM_FAILED) {
        return shm_fail(shm, err, STATUS_LINK, "rank %u %s", rank, shm_why_gone(state));
    }
    return shm_fail(shm, err, STATUS_LINK, "the memory of rank %u cannot be read: %s", rank, why);
}

void shm_be_patient(struct shm *shm, size_t bytes)
{
    shm->patience_ns = shm->spin_ns == 0 ? 0 : MIN(bytes / READ_BYTES_A_NS, PATIENCE_MAX_NS);
}

enum status shm_read(struct shm *shm, uint32_t rank, void *to, uint64_t from, size_t bytes,
                     struct err *err)
{
    uint64_t pid = shm->region->ranks[rank].pid;

    if (shm->reach[rank] == SHM_SAME_PROCESS) {
        if (from != (uintptr_t)to) { /* its own block may stay where it is */
            memcpy(to, (const void *)(uintptr_t)from, bytes);
        }
        return STATUS_OK;
    }
    for (size_t at = 0; at < bytes;) {
        ssize_t n = read_process(pid, (char *)to + at, from + at, MIN(READ_BYTES, bytes - at));
        enum status status;

        if (n <= 0) {
            return fail_read(shm, rank, n == 0 ? "nothing comes" : strerror(errno), err);
        }
        at += (size_t)n;
        status = shm_check_aborted(shm, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}
