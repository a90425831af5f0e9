/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the back end shm: the steps and messages that calls are made of. */
#pragma once

#include "comm/shm_member.h"

/* Marks the communicator as failed and tells why. Returns status. */
NODISCARD enum status shm_fail(struct shm *shm, struct err *err, enum status status,
                               const char *format, ...) PRINTF_LIKE(4, 5);

/* "has left", for SHM_LEFT to SHM_FAILED. */
const char *shm_why_gone(uint32_t state);

/* Names of what peers wrote, which may be anything. */
const char *shm_operation_name(uint32_t operation);
const char *shm_type_name(uint32_t type);

/* One step of the collective under way. Begin publishes the own slot with shm->call; end returns
 * when every rank has published the same call, and wakes whoever sleeps on this rank's newest
 * arrival. Await is end without the waking, which must follow before the next step. */
static inline void shm_step_begin(struct shm *shm)
{
    struct shm_arrival *mine = &shm->self->arrivals[(shm->step + 1) & 1];
    const uint64_t *from = (const void *)&shm->call;
    volatile uint64_t *to = (volatile void *)&mine->call;

    for (size_t i = 0; i < sizeof(mine->call) / sizeof(*from); i++) {
        to[i] = from[i]; /* one by one: a wider load would wait for the stores before it */
    }
    atomic_store_explicit(&mine->step, ++shm->step, memory_order_release);
}

NODISCARD enum status shm_step_await(struct shm *shm, struct err *err);
void shm_wake_if_asleep(struct shm *shm);

static inline void shm_wake_sleepers(struct shm *shm)
{
    if (shm->owes_wake) {
        shm_wake_if_asleep(shm);
    }
}

NODISCARD enum status shm_step_end(struct shm *shm, struct err *err);
NODISCARD enum status shm_step(struct shm *shm, struct err *err);

/* Tells again why the communicator has failed. */
__attribute__((cold)) NODISCARD enum status shm_tell_failure(const struct shm *shm,
                                                             struct err *err);

/* The call fails because this communicator or the whole world was aborted. */
__attribute__((cold)) NODISCARD enum status shm_fail_aborted(struct shm *shm, struct err *err);

static inline enum status shm_check_aborted(struct shm *shm, struct err *err)
{
    if (atomic_load_explicit(&shm->comm.aborted, memory_order_relaxed) != 0 ||
        atomic_load_explicit(&shm->region->abort, memory_order_relaxed) != 0) {
        return shm_fail_aborted(shm, err);
    }
    return STATUS_OK;
}

static inline void shm_store_progress(struct shm *shm, bool inside)
{
    atomic_store_explicit(&shm->self->progress,
                          shm->number << 8 | (uint64_t)shm_operation_of(&shm->call) << 1 | inside,
                          memory_order_relaxed);
}

/* The collective under way begins, ends. */
static inline enum status shm_enter(struct shm *shm, const struct shm_call *call, struct err *err)
{
    if (shm->failure.status != STATUS_OK) {
        return shm_tell_failure(shm, err);
    }
    shm->number++;
    shm->call = *call;
    shm->deadline_ns = 0;
    shm_store_progress(shm, true);
    return shm_check_aborted(shm, err);
}

static inline void shm_leave(struct shm *shm)
{
    shm_store_progress(shm, false);
}

/* Ends the collective under way if all is well. Returns status. */
NODISCARD static inline enum status shm_finish(struct shm *shm, enum status status)
{
    if (status == STATUS_OK) {
        shm_leave(shm);
    }
    return status;
}

/* Notes when the deadline is, at its first call in a collective; true once it is over. */
bool shm_is_late(struct shm *shm, uint64_t now);

/* Messages (shm_message.c). Add hangs up one that stays where it is until it is done or the
 * communicator has failed; progress does what can be done without waiting, *ret_moved says if that
 * was anything; finish waits until all are done. */
void shm_message_add(struct shm *shm, struct shm_message *message, const struct comm_call *call);

/* The short way of a message of one chunk, if no other is under way: true if it is done, else
 * nothing has been. Inside a call. */
bool shm_message_at_once(struct shm *shm, const struct comm_call *call);
NODISCARD enum status shm_message_progress(struct shm *shm, bool *ret_moved, struct err *err);
NODISCARD enum status shm_message_finish(struct shm *shm, struct err *err);

/* Reading peers' memory without the region (shm_direct.c). */
enum { SHM_DIRECT_BYTES = 64 << 10 }; /* from here on it is worth it */

struct shm_place {
    uint64_t in;
    uint64_t out;
    uint64_t is_in_place;
};

void shm_place_put(struct shm *shm, const void *in, const void *out);
struct shm_place shm_place_of(const struct shm *shm, uint32_t rank);

/* The next wait is for ranks that read so many bytes: 0 ends it. A wait that slept at once would be
 * woken by whoever has read, who pays for that before its own call returns: of 1 MiB, which takes
 * 44 us, another 10 to 15 us. Only while there is a core for each rank, and not for a wait so long
 * that waking does not count. */
void shm_be_patient(struct shm *shm, size_t bytes);

/* Whether this rank can read the memory of one that has joined. */
enum shm_reach shm_reach(struct shm *shm, uint32_t rank);

/* Inside a collective: whether all ranks can read each other's memory, the same on all ranks. The
 * first time it takes two steps. */
NODISCARD enum status shm_all_reach(struct shm *shm, bool *ret_all, struct err *err);

/* bytes from an address of rank's to ours. The rank has said where it lies and waits meanwhile. */
NODISCARD enum status shm_read(struct shm *shm, uint32_t rank, void *to, uint64_t from,
                               size_t bytes, struct err *err);

/* The operations; each enters and leaves. */
NODISCARD enum status shm_sum_tree(struct comm *comm, const struct comm_tree *args,
                                   struct err *err);
float *shm_partial_buffer(struct comm *comm, size_t count, uint32_t n_roots,
                          size_t *ret_root_stride);
NODISCARD enum status shm_all_reduce(struct comm *comm, const struct comm_data *data,
                                     enum comm_reduction reduction, struct err *err);
NODISCARD enum status shm_reduce(struct shm *shm, const struct comm_call *args, struct err *err);
NODISCARD enum status shm_reduce_scatter(struct shm *shm, const struct comm_call *args,
                                         struct err *err);
NODISCARD enum status shm_all_gather(struct comm *comm, const struct comm_data *data,
                                     struct err *err);
NODISCARD enum status shm_broadcast(struct comm *comm, const struct comm_data *data, uint32_t root,
                                    struct err *err);
NODISCARD enum status shm_all_to_all(struct shm *shm, const struct comm_data *data,
                                     struct err *err);
NODISCARD enum status shm_all_to_allv(struct shm *shm, const struct comm_vectors *vectors,
                                      struct err *err);

void shm_abort(struct comm *comm);
void shm_destroy(struct comm **comm);

extern const struct comm_backend shm_backend;
