/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step: publish, wait for all, compare. The fast path is one store, one load of each peer's line
 * and one comparison; everything else is here because peers may be slow, asleep, different or dead.
 *
 * Sleeping and waking. There is no sched_yield between spinning and sleeping: who yields to a busy
 * stranger waits for the end of the stranger's time slice, who sleeps is woken at once. With 4
 * ranks on 2 cores of a busy machine yielding measured 2 to 8 ms at p99, sleeping 0.1 ms, and the
 * means were 50 to 350 against 45 us; with a core for each rank they do not differ. With more ranks
 * than cores a wait hardly spins at all, which would take the core from a rank that is waited for:
 * on 2 cores a barrier of 8 ranks took 75 us without spinning and 107 with it, of 16 ranks 142 and
 * 265, of 4 the same.
 *
 * A waiter writes whom it waits for into its own word `asleep`, looks at the arrival once more,
 * then sleeps. A publisher stores its arrival and looks at the others' `asleep` later, once it has
 * seen all of them arrive (sum_tree: and has added) or before it sleeps itself, so that the fence
 * between the two does not lie in the way of the fast path. Both sides fence, so one of them sees
 * the other; the time limit of each sleep bounds what a dead publisher can cost. A rank that has
 * seen all others arrive after it wakes nobody and needs no fence: they spin first, and its arrival
 * lay there when they began to. (That they all spin for 20 us is a matter of cores, which they
 * count alike; were it not seen by then after all, the time limit would end their sleep.)
 */
#include <stdarg.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/futex.h"
#include "comm/shm_priv.h"

enum { SLEEP_NS = 1000 * 1000, MESSAGE_NS = 50 * 1000, SPINS_A_LOOK = 16 };

const char *shm_why_gone(uint32_t state)
{
    return state == SHM_LEFT ? "has left" : state == SHM_ABORTED ? "was aborted" : "has failed";
}

const char *shm_operation_name(uint32_t operation)
{
    return operation < COMM_OPERATION_COUNT ? comm_operation_name((enum comm_operation)operation)
                                            : "rubbish";
}

const char *shm_type_name(uint32_t type)
{
    return type < COMM_TYPE_COUNT ? comm_type_name((enum comm_type)type) : "rubbish";
}

static const char *reduction_name(uint32_t reduction)
{
    return reduction < COMM_REDUCTION_COUNT ? comm_reduction_name((enum comm_reduction)reduction)
                                            : "rubbish";
}

enum status shm_fail(struct shm *shm, struct err *err, enum status status, const char *format, ...)
{
    uint32_t joined = SHM_JOINED;
    char text[ERR_TEXT_BYTES / 2];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err_set(&shm->failure, status, "%s %llu on rank %u: %s",
            shm_operation_name(shm_operation_of(&shm->call)), (unsigned long long)shm->number,
            shm->comm.rank, text);
    atomic_store_explicit(&shm->has_failed, 1, memory_order_release);
    atomic_compare_exchange_strong(&shm->self->state, &joined, SHM_FAILED);
    shm_leave(shm);
    return err_set(err, status, "%s", shm->failure.text);
}

enum status shm_tell_failure(const struct shm *shm, struct err *err)
{
    return err_set(err, shm->failure.status, "%s", shm->failure.text);
}

enum status shm_fail_aborted(struct shm *shm, struct err *err)
{
    bool alone = atomic_load_explicit(&shm->comm.aborted, memory_order_relaxed) != 0;

    return shm_fail(shm, err, STATUS_CANCELLED, "the %s was aborted",
                    alone ? "communicator" : "world");
}

bool shm_is_late(struct shm *shm, uint64_t now)
{
    if (shm->deadline_ns == 0) {
        shm->deadline_ns = now + shm->comm.timeout_ns;
    }
    return now >= shm->deadline_ns;
}

static bool has_arrived(const struct shm *shm, uint32_t rank)
{
    const struct shm_arrival *arrival = &shm->region->ranks[rank].arrivals[shm->step & 1];

    return atomic_load_explicit(&arrival->step, memory_order_acquire) == shm->step;
}

static enum status fail_timeout(struct shm *shm, struct err *err)
{
    struct buf missing = {0};
    struct buf never = {0};
    uint32_t n_missing = 0;
    enum status status = STATUS_OK; /* if the last has just come */

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        if (!has_arrived(shm, r)) {
            buf_printf(&missing, "%s%u", n_missing++ > 0 ? ", " : "", r);
            if (atomic_load(&shm->region->ranks[r].state) == SHM_EMPTY) {
                buf_printf(&never, "; rank %u has never joined", r);
            }
        }
    }
    if (n_missing > 0) {
        status = shm_fail(shm, err, STATUS_TIMEOUT, "rank%s %s did not arrive within %llu ms%s",
                          n_missing == 1 ? "" : "s", buf_str(&missing),
                          (unsigned long long)(shm->comm.timeout_ns / 1000000), buf_str(&never));
    }
    buf_release(&missing);
    buf_release(&never);
    return status;
}

/* An error if a rank that has not arrived never will. */
static enum status check_peers(struct shm *shm, struct err *err)
{
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        uint32_t state = atomic_load_explicit(&shm->region->ranks[r].state, memory_order_acquire);

        if (state >= SHM_LEFT && state <= SHM_FAILED && !has_arrived(shm, r)) {
            return shm_fail(shm, err, STATUS_LINK, "rank %u %s", r, shm_why_gone(state));
        }
    }
    return STATUS_OK;
}

void shm_wake_if_asleep(struct shm *shm)
{
    bool wake = false;

    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        wake |= atomic_load_explicit(&shm->region->ranks[r].asleep, memory_order_relaxed) ==
                shm->comm.rank + 1;
    }
    if (wake) {
        futex_wake_all_shared(&shm->self->arrivals[shm->step & 1].step);
    }
}

static void sleep_on(struct shm *shm, uint32_t rank, uint64_t limit_ns)
{
    _Atomic uint32_t *word = &shm->region->ranks[rank].arrivals[shm->step & 1].step;
    uint32_t seen;

    shm_wake_if_asleep(shm);
    atomic_store_explicit(&shm->self->asleep, rank + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    seen = atomic_load_explicit(word, memory_order_relaxed);
    if (seen != shm->step) {
        futex_wait_shared(word, seen, MIN(limit_ns, SLEEP_NS));
    }
    atomic_store_explicit(&shm->self->asleep, 0, memory_order_relaxed);
}

/* The slow part of waiting for a rank; *since is when this step began to take long. */
static enum status look_around(struct shm *shm, uint32_t rank, uint64_t *since, struct err *err)
{
    enum status status = shm_check_aborted(shm, err);
    bool moved = false;
    uint64_t now;

    if (status == STATUS_OK && shm->n_messages > 0) { /* of the same group */
        status = shm_message_progress(shm, &moved, err);
    }
    if (status == STATUS_OK) {
        status = check_peers(shm, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    now = clock_ns();
    if (*since == 0) {
        *since = now;
    }
    if (shm_is_late(shm, now)) {
        return fail_timeout(shm, err);
    }
    if (now - *since >= shm->spin_ns + shm->patience_ns && !moved) {
        uint64_t limit_ns = shm->deadline_ns - now;

        sleep_on(shm, rank, shm->n_messages > 0 ? MIN(limit_ns, MESSAGE_NS) : limit_ns);
    }
    return STATUS_OK;
}

static void describe(const struct shm_call *call, struct buf *text)
{
    unsigned long long count = call->count;
    uint32_t operation = shm_operation_of(call);

    buf_append_str(text, shm_operation_name(operation));
    switch (operation) {
    case COMM_BARRIER:
        return;
    case COMM_SUM_TREE:
        buf_printf(text, " of %llu over %u leaves", count, shm_n_leaves_of(call));
        return;
    case COMM_ALL_REDUCE:
    case COMM_REDUCE:
    case COMM_REDUCE_SCATTER:
        buf_printf(text, " (%s)", reduction_name(shm_reduction_of(call)));
        break;
    default:
        break;
    }
    if (operation == COMM_ALL_TO_ALLV) {
        buf_printf(text, " of %s", shm_type_name(shm_type_of(call)));
    } else {
        buf_printf(text, " of %llu %s", count, shm_type_name(shm_type_of(call)));
    }
    if (operation == COMM_BROADCAST) {
        buf_printf(text, " from rank %u", shm_root_of(call));
    } else if (operation == COMM_REDUCE) {
        buf_printf(text, " to rank %u", shm_root_of(call));
    }
}

static bool is_same(const struct shm_call *a, const struct shm_call *b)
{
    return a->count == b->count && a->what == b->what;
}

static enum status fail_different(struct shm *shm, struct err *err)
{
    struct buf text = {0};
    enum status status;

    buf_append_str(&text, "called ");
    describe(&shm->call, &text);
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        struct shm_call theirs = *shm_call_of(shm, r);

        if (!is_same(&theirs, &shm->call)) {
            buf_printf(&text, ", but rank %u called ", r);
            describe(&theirs, &text);
        }
    }
    status = shm_fail(shm, err, STATUS_INVALID, "%s", buf_str(&text));
    buf_release(&text);
    return status;
}

enum status shm_step_await(struct shm *shm, struct err *err)
{
    uint64_t since = 0;
    bool same = true;
    bool was_first = shm->spin_ns > 0;

    shm->owes_wake = true;
    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        if (r == shm->comm.rank) {
            continue;
        }
        was_first = was_first && !has_arrived(shm, r);
        for (uint32_t spins = 1; !has_arrived(shm, r); spins++) {
            enum status status = STATUS_OK;

            cpu_relax();
            if (spins % SPINS_A_LOOK == 0) {
                status = look_around(shm, r, &since, err);
            }
            if (status != STATUS_OK) {
                return status;
            }
        }
        same = same && is_same(shm_call_of(shm, r), &shm->call);
    }
    shm->owes_wake = !was_first;
    return same ? STATUS_OK : fail_different(shm, err);
}

enum status shm_step_end(struct shm *shm, struct err *err)
{
    enum status status = shm_step_await(shm, err);

    shm_wake_sleepers(shm);
    return status;
}

enum status shm_step(struct shm *shm, struct err *err)
{
    shm_step_begin(shm);
    return shm_step_end(shm, err);
}
