/* SPDX-License-Identifier: Apache-2.0 */
/* The region: making it, joining it, leaving it, watching it. */
#include <sys/random.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/mem.h"
#include "comm/shm_priv.h"

static const uint64_t MAGIC = 0x6d6d6f63206b636cu; /* "lck comm" */

enum { VERSION = 3, SPIN_NS = 20 * 1000 };

size_t comm_shm_region_bytes(uint32_t n_ranks)
{
    if (n_ranks < 1 || n_ranks > COMM_SHM_RANKS_MAX) {
        return 0;
    }
    return round_up(
        shm_channels_at(n_ranks) + (size_t)n_ranks * n_ranks * sizeof(struct shm_channel), 4096);
}

void comm_shm_region_init(void *region, uint32_t n_ranks, const struct comm_id *id)
{
    struct shm_region *r = region;

    ENSURE(n_ranks >= 1 && n_ranks <= COMM_SHM_RANKS_MAX);
    ENSURE(atomic_load(&r->magic) == 0); /* a region is never used twice */
    r->version = VERSION;
    r->n_ranks = n_ranks;
    r->id = *id;
    atomic_store(&r->magic, MAGIC);
}

static enum status check_member(const struct comm_shm_member *member, struct err *err)
{
    const struct shm_region *region = member->region;

    if (member->n_ranks < 1 || member->n_ranks > COMM_SHM_RANKS_MAX ||
        member->rank >= member->n_ranks) {
        return err_set(err, STATUS_INVALID,
                       "rank %u of %u: a shared-memory world has 1 to %d ranks", member->rank,
                       member->n_ranks, COMM_SHM_RANKS_MAX);
    }
    if (member->region_bytes < comm_shm_region_bytes(member->n_ranks)) {
        return err_set(err, STATUS_INVALID,
                       "rank %u: a region of %zu bytes is too small for %u ranks", member->rank,
                       member->region_bytes, member->n_ranks);
    }
    if (atomic_load(&region->magic) != MAGIC || region->version != VERSION) {
        return err_set(err, STATUS_LINK, "rank %u: the region is not initialised", member->rank);
    }
    if (region->n_ranks != member->n_ranks) {
        return err_set(err, STATUS_LINK, "rank %u: the region is for %u ranks, not %u",
                       member->rank, region->n_ranks, member->n_ranks);
    }
    if (memcmp(&region->id, member->id, sizeof(region->id)) != 0) {
        return err_set(err, STATUS_LINK, "rank %u: the region belongs to another world or epoch",
                       member->rank);
    }
    return STATUS_OK;
}

/* Says where it is; peers read it after the first step. */
static void introduce(struct shm *shm)
{
    ENSURE_OP(getrandom(&shm->probe, sizeof(shm->probe), 0), ==, sizeof(shm->probe));
    shm->self->pid = (uint64_t)getpid();
    shm->self->probe_at = (uintptr_t)&shm->probe;
    shm->self->probe = shm->probe;
}

enum status comm_shm_join(const struct comm_shm_member *member, struct comm **ret_comm,
                          struct err *err)
{
    enum status status = check_member(member, err);
    struct shm_region *region = member->region;
    uint32_t empty = SHM_EMPTY;
    struct shard_cut ranks;
    struct shm *shm;

    if (status != STATUS_OK) {
        return status;
    }
    if (!atomic_compare_exchange_strong(&region->ranks[member->rank].state, &empty, SHM_JOINED)) {
        return err_set(err, STATUS_LINK, "rank %u has joined this region before", member->rank);
    }
    shm = xalloc(sizeof(*shm));
    shm->comm.backend = &shm_backend;
    shm->comm.rank = member->rank;
    shm->comm.n_ranks = member->n_ranks;
    shm->comm.timeout_ns = (uint64_t)COMM_TIMEOUT_MS * 1000000;
    shm->spin_ns = member->n_ranks <= sysconf(_SC_NPROCESSORS_ONLN) ? SPIN_NS : 0;
    shm->region = region;
    shm->self = &region->ranks[member->rank];
    introduce(shm);
    ranks.n_ranks = member->n_ranks;
    for (uint32_t r = 0; r <= member->n_ranks; r++) {
        ranks.bounds[r] = r;
    }
    combine_program_init(&shm->ranks_program, member->n_ranks, &ranks);
    *ret_comm = &shm->comm;
    return STATUS_OK;
}

/* From JOINED to a state that it keeps. */
static void leave(struct shm_rank *rank, enum shm_state state)
{
    uint32_t joined = SHM_JOINED;

    atomic_compare_exchange_strong(&rank->state, &joined, state);
}

static void wake_all(struct shm_region *region)
{
    for (uint32_t r = 0; r < COMM_SHM_RANKS_MAX; r++) {
        futex_wake_all_shared(&region->ranks[r].arrivals[0].step);
        futex_wake_all_shared(&region->ranks[r].arrivals[1].step);
        atomic_fetch_add(&region->ranks[r].bell, 1);
        futex_wake_all_shared(&region->ranks[r].bell);
    }
}

void shm_abort(struct comm *comm)
{
    struct shm *shm = (struct shm *)comm;

    leave(shm->self, SHM_ABORTED);
    wake_all(shm->region);
}

void shm_destroy(struct comm **comm)
{
    struct shm *shm = (struct shm *)*comm;

    leave(shm->self, SHM_LEFT);
    combine_program_release(&shm->ranks_program);
    for (uint32_t i = 0; i < SHM_PROGRAMS; i++) {
        combine_program_release(&shm->programs[i]);
    }
    if (shm->scratch != NULL) {
        mem_unmap(shm->scratch, shm->comm.n_ranks * (size_t)SHM_SCRATCH_BYTES);
    }
    free(shm);
    *comm = NULL;
}

void comm_shm_abort(void *region)
{
    struct shm_region *r = region;

    atomic_store(&r->abort, 1);
    wake_all(r);
}

void comm_shm_progress_read(const void *region, uint32_t rank,
                            struct comm_shm_progress *ret_progress)
{
    const struct shm_region *r = region;
    uint64_t progress;
    uint32_t operation;

    ENSURE_OP(rank, <, COMM_SHM_RANKS_MAX);
    progress = atomic_load_explicit(&r->ranks[rank].progress, memory_order_relaxed);
    operation = (uint32_t)(progress >> 1) & 0x7f;
    *ret_progress = (struct comm_shm_progress){
        .joined = atomic_load(&r->ranks[rank].state) != SHM_EMPTY,
        .inside = (progress & 1) != 0,
        .number = progress >> 8,
        .name = comm_operation_name(
            operation < COMM_OPERATION_COUNT ? (enum comm_operation)operation : COMM_NONE),
    };
}
