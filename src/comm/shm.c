/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the back end, calls one at a time and in groups. */
#include "comm/shm.h"

#include "base/mem.h"
#include "comm/shm_priv.h"

static enum status barrier(struct comm *comm, struct err *err)
{
    struct shm *shm = (struct shm *)comm;
    const struct shm_call call = {.what = shm_what(COMM_BARRIER, 0, 0, 0, 0)};
    enum status status = shm_enter(shm, &call, err);

    if (status == STATUS_OK) {
        status = shm_step(shm, err);
    }
    return shm_finish(shm, status);
}

static bool is_message(const struct comm_call *call)
{
    return call->operation == COMM_SEND || call->operation == COMM_RECV;
}

static enum status run_collective(struct shm *shm, const struct comm_call *call, struct err *err)
{
    switch (call->operation) {
    case COMM_ALL_REDUCE:
        return shm_all_reduce(&shm->comm, &call->data, call->reduction, err);
    case COMM_ALL_GATHER:
        return shm_all_gather(&shm->comm, &call->data, err);
    case COMM_BROADCAST:
        return shm_broadcast(&shm->comm, &call->data, call->root, err);
    case COMM_REDUCE_SCATTER:
        return shm_reduce_scatter(shm, call, err);
    case COMM_REDUCE:
        return shm_reduce(shm, call, err);
    case COMM_ALL_TO_ALL:
        return shm_all_to_all(shm, &call->data, err);
    case COMM_ALL_TO_ALLV:
        return shm_all_to_allv(shm, &call->vectors, err);
    default:
        return barrier(&shm->comm, err);
    }
}

static enum status enter_message(struct shm *shm, const struct comm_call *call, struct err *err)
{
    const struct shm_call published = {.count = call->data.count,
                                       .what = shm_what(call->operation, call->data.type, 0, 0, 0)};

    return shm_enter(shm, &published, err);
}

static enum status run_message(struct shm *shm, const struct comm_call *call, struct err *err)
{
    enum status status = enter_message(shm, call, err);
    struct shm_message message;

    if (status == STATUS_OK && !shm_message_at_once(shm, call)) {
        shm_message_add(shm, &message, call);
        status = shm_message_finish(shm, err);
    }
    return shm_finish(shm, status);
}

/* Waits for the messages of a group, as a call of its own. */
static enum status finish_messages(struct shm *shm, const struct comm_call *call, struct err *err)
{
    enum status status = enter_message(shm, call, err);

    if (status == STATUS_OK) {
        status = shm_message_finish(shm, err);
    }
    return shm_finish(shm, status);
}

/* A group: its messages move while its collectives wait, and are finished after them. */
static enum status run_group(struct shm *shm, const struct comm_call *calls, size_t n,
                             struct err *err)
{
    struct shm_message *messages = xcalloc(n, sizeof(*messages));
    const struct comm_call *last = NULL;
    enum status status = STATUS_OK;

    for (size_t i = 0; i < n; i++) {
        if (is_message(&calls[i])) {
            shm_message_add(shm, &messages[i], &calls[i]);
            last = &calls[i];
        }
    }
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        if (!is_message(&calls[i])) {
            status = run_collective(shm, &calls[i], err);
        }
    }
    if (status == STATUS_OK && last != NULL) {
        status = finish_messages(shm, last, err);
    }
    free(messages);
    return status;
}

static enum status run(struct comm *comm, const struct comm_call *calls, size_t n, struct err *err)
{
    struct shm *shm = (struct shm *)comm;

    if (n > 1) {
        return run_group(shm, calls, n, err);
    }
    if (is_message(calls)) {
        return run_message(shm, calls, err);
    }
    return run_collective(shm, calls, err);
}

static enum status poll_error(struct comm *comm, struct err *err)
{
    struct shm *shm = (struct shm *)comm;

    if (atomic_load_explicit(&shm->has_failed, memory_order_acquire) != 0) {
        return err_set(err, shm->failure.status, "%s", shm->failure.text);
    }
    if (atomic_load(&comm->aborted) != 0 || atomic_load(&shm->region->abort) != 0) {
        return err_set(err, STATUS_CANCELLED, "rank %u: the communicator was aborted", comm->rank);
    }
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        uint32_t state = atomic_load(&shm->region->ranks[r].state);

        if (state >= SHM_LEFT && state <= SHM_FAILED) {
            return err_set(err, STATUS_LINK, "rank %u %s", r, shm_why_gone(state));
        }
    }
    return STATUS_OK;
}

static uint64_t peers(struct comm *comm)
{
    struct shm *shm = (struct shm *)comm;
    uint64_t mask = 0;

    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        bool joined = atomic_load(&shm->region->ranks[r].state) == SHM_JOINED;

        mask |= (uint64_t)joined << r;
    }
    return mask;
}

const struct comm_backend shm_backend = {
    .name = "shm",
    .sum_tree = shm_sum_tree,
    .all_reduce = shm_all_reduce,
    .all_gather = shm_all_gather,
    .broadcast = shm_broadcast,
    .barrier = barrier,
    .partial_buffer = shm_partial_buffer,
    .abort = shm_abort,
    .destroy = shm_destroy,
    .run = run,
    .poll_error = poll_error,
    .peers = peers,
};
