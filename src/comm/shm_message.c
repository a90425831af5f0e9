/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends and receives. For each pair of ranks there is a ring of chunks in the region, written by
 * the one and emptied by the other. A chunk becomes visible by its number, written last, and says
 * what message it belongs to, so that a receive of something else is noticed; a short message is
 * its chunk's first line. Messages with the same peer in the same direction follow one another, all
 * others move side by side: whoever waits moves whatever can be moved, so that no order of calls in
 * a group can keep two ranks waiting for each other. Once the receiver has found out that it can
 * read the sender's memory (shm_direct.c), a long message, if it is not very long, is one chunk
 * that says where it lies, and its sender waits until that is taken.
 *
 * Sleeping. Who waits for several peers cannot sleep on a word of each, so it sleeps on its own
 * bell: it says that it listens, looks once more, then sleeps; who has moved something looks
 * whether the peer listens, and then changes its bell and wakes it. Both fence in between. That
 * several ranks write a bell does no harm if one of them dies: it only ends a sleep, which has a
 * time limit besides.
 */
#include "base/clock.h"
#include "base/futex.h"
#include "comm/shm_priv.h"

enum {
    SLEEP_NS = 1000 * 1000,
    SPINS_A_LOOK = 16,
    SPINS_AT_ONCE = 128,      /* some microseconds */
    READ_BYTES_END = 4 << 20, /* longer ones go in chunks, of which both ranks copy: 8 MiB take 0.8
                                 of the time; 1 MiB would take 1.1 */
    CHUNK_BYTES = sizeof(((struct shm_chunk *)NULL)->data)
};

void shm_message_add(struct shm *shm, struct shm_message *message, const struct comm_call *call)
{
    bool is_send = call->operation == COMM_SEND;
    struct shm_line *line = is_send ? &shm->sends[call->root] : &shm->receives[call->root];

    *message = (struct shm_message){
        .is_send = is_send,
        .peer = call->root,
        .type = call->data.type,
        .count = call->data.count,
        .bytes = call->data.count * comm_type_bytes(call->data.type),
        .in = call->data.in,
        .out = call->data.out,
    };
    if (line->first == NULL) {
        line->last = &line->first;
    }
    *line->last = message;
    line->last = &message->next;
    shm->n_messages++;
}

static void wake(struct shm *shm, uint32_t peer)
{
    struct shm_rank *rank = &shm->region->ranks[peer];

    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&rank->listening, memory_order_relaxed) != 0) {
        atomic_fetch_add_explicit(&rank->bell, 1, memory_order_relaxed);
        futex_wake_all_shared(&rank->bell);
    }
}

/* The first message of a line is done. */
static void end_first(struct shm *shm, struct shm_line *line)
{
    line->first = line->first->next;
    shm->n_messages--;
}

static bool has_room(struct shm_line *line, const struct shm_channel *channel)
{
    if (line->n_chunks - line->n_taken < SHM_CHUNKS) {
        return true;
    }
    line->n_taken = atomic_load_explicit(&channel->taken, memory_order_acquire);
    return line->n_chunks - line->n_taken < SHM_CHUNKS;
}

/* The newest chunk was received: the ring is empty. */
static bool is_taken(struct shm_line *line, const struct shm_channel *channel)
{
    line->n_taken = atomic_load_explicit(&channel->taken, memory_order_acquire);
    return line->n_taken == line->n_chunks;
}

static enum status fail_refused(struct shm *shm, const struct shm_message *message,
                                const struct shm_channel *channel, struct err *err)
{
    return shm_fail(shm, err, STATUS_INVALID,
                    "rank %u sends %llu %s to rank %u, which receives %llu %s", shm->comm.rank,
                    (unsigned long long)message->count, shm_type_name(message->type), message->peer,
                    (unsigned long long)channel->expected_count,
                    shm_type_name(channel->expected_type));
}

/* Sends chunks while there is room. */
static enum status send_some(struct shm *shm, uint32_t peer, bool *ret_moved, struct err *err)
{
    struct shm_channel *channel = shm_channel(shm, shm->comm.rank, peer);
    struct shm_line *line = &shm->sends[peer];
    bool moved = false;

    while (line->first != NULL && (line->first->is_shown || has_room(line, channel))) {
        struct shm_message *message = line->first;
        struct shm_chunk *chunk = &channel->chunks[line->n_chunks % SHM_CHUNKS];
        bool shows = message->done == 0 && message->bytes >= SHM_DIRECT_BYTES &&
                     message->bytes < READ_BYTES_END &&
                     atomic_load_explicit(&channel->readable, memory_order_acquire) != 0;
        size_t n = shows ? 0 : MIN(message->bytes - message->done, CHUNK_BYTES);

        if (message->is_shown) {
            if (!is_taken(line, channel)) {
                break;
            }
            shm_be_patient(shm, 0);
            end_first(shm, line);
            moved = true;
            continue;
        }
        chunk->type = message->type;
        chunk->count = message->count;
        chunk->lies_at = shows ? (uintptr_t)message->in : 0;
        if (n > 0) {
            memcpy(chunk->data, message->in + message->done, n);
        }
        atomic_store_explicit(&chunk->number, ++line->n_chunks, memory_order_release);
        message->done += n;
        message->is_shown = shows;
        if (shows) {
            shm_be_patient(shm, message->bytes);
        }
        if (message->done == message->bytes) {
            end_first(shm, line);
        }
        moved = true;
    }
    if (moved) {
        *ret_moved = true;
        wake(shm, peer);
    } else if (line->first != NULL &&
               atomic_load_explicit(&channel->refused, memory_order_acquire) != 0) {
        return fail_refused(shm, line->first, channel, err);
    }
    return STATUS_OK;
}

/* The chunk is of another message than the receive. */
static enum status fail_unexpected(struct shm *shm, const struct shm_message *message,
                                   struct shm_channel *channel, const struct shm_chunk *chunk,
                                   struct err *err)
{
    unsigned long long count = chunk->count;

    channel->expected_type = message->type;
    channel->expected_count = message->count;
    atomic_store_explicit(&channel->refused, 1, memory_order_release);
    wake(shm, message->peer);
    return shm_fail(shm, err, STATUS_INVALID,
                    "rank %u sends %llu %s to rank %u, which receives %llu %s", message->peer,
                    count, shm_type_name(chunk->type), shm->comm.rank,
                    (unsigned long long)message->count, shm_type_name(message->type));
}

/* Takes over what a chunk brings. */
static enum status take(struct shm *shm, struct shm_message *message, const struct shm_chunk *chunk,
                        struct err *err)
{
    size_t n = MIN(message->bytes - message->done, CHUNK_BYTES);

    if (chunk->lies_at != 0 && shm->reach[message->peer] > SHM_UNREACHABLE && message->done == 0) {
        message->done = message->bytes;
        return shm_read(shm, message->peer, message->out, chunk->lies_at, message->bytes, err);
    }
    if (n > 0) {
        memcpy(message->out + message->done, chunk->data, n);
    }
    message->done += n;
    return STATUS_OK;
}

/* Finds out, at the first long message, if the next ones could be read where they lie. */
static void try_reading(struct shm *shm, const struct shm_message *message,
                        struct shm_channel *channel)
{
    uint32_t peer = message->peer;

    if (message->bytes >= SHM_DIRECT_BYTES && shm->reach[peer] == SHM_UNKNOWN) {
        (void)shm_reach(shm, peer); /* it has joined: it sends */
    }
    if (shm->reach[peer] > SHM_UNREACHABLE) {
        atomic_store_explicit(&channel->readable, 1, memory_order_release);
    }
}

/* Receives the chunks that are there. */
static enum status receive_some(struct shm *shm, uint32_t peer, bool *ret_moved, struct err *err)
{
    struct shm_channel *channel = shm_channel(shm, peer, shm->comm.rank);
    struct shm_line *line = &shm->receives[peer];
    enum status status = STATUS_OK;
    bool moved = false;

    while (line->first != NULL && status == STATUS_OK) {
        struct shm_message *message = line->first;
        const struct shm_chunk *chunk = &channel->chunks[line->n_chunks % SHM_CHUNKS];

        if (atomic_load_explicit(&chunk->number, memory_order_acquire) != line->n_chunks + 1) {
            break;
        }
        if (chunk->type != message->type || chunk->count != message->count) {
            return fail_unexpected(shm, message, channel, chunk, err);
        }
        if (message->done == 0) {
            try_reading(shm, message, channel);
        }
        status = take(shm, message, chunk, err);
        atomic_store_explicit(&channel->taken, ++line->n_chunks, memory_order_release);
        if (message->done == message->bytes) {
            end_first(shm, line);
        }
        moved = true;
    }
    if (moved) {
        *ret_moved = true;
        wake(shm, peer);
    }
    return status;
}

static bool send_at_once(struct shm *shm, const struct comm_call *call, size_t bytes)
{
    struct shm_channel *channel = shm_channel(shm, shm->comm.rank, call->root);
    struct shm_line *line = &shm->sends[call->root];
    struct shm_chunk *chunk = &channel->chunks[line->n_chunks % SHM_CHUNKS];

    if (!has_room(line, channel)) {
        return false;
    }
    shm_copy_last(chunk->data, SHM_CHUNK_HEAD, call->data.in, bytes);
    chunk->type = call->data.type;
    chunk->count = call->data.count;
    chunk->lies_at = 0;
    atomic_store_explicit(&chunk->number, ++line->n_chunks, memory_order_release);
    return true;
}

/* What is not as expected is left to who can tell. */
static bool receive_at_once(struct shm *shm, const struct comm_call *call, size_t bytes)
{
    struct shm_channel *channel = shm_channel(shm, call->root, shm->comm.rank);
    struct shm_line *line = &shm->receives[call->root];
    const struct shm_chunk *chunk = &channel->chunks[line->n_chunks % SHM_CHUNKS];
    uint32_t spins = shm->spin_ns > 0 ? SPINS_AT_ONCE : 1;

    while (atomic_load_explicit(&chunk->number, memory_order_acquire) != line->n_chunks + 1) {
        if (--spins == 0) {
            return false;
        }
        cpu_relax();
    }
    if (chunk->type != call->data.type || chunk->count != call->data.count) {
        return false;
    }
    if (bytes > 0) {
        memcpy(call->data.out, chunk->data, bytes);
    }
    atomic_store_explicit(&channel->taken, ++line->n_chunks, memory_order_release);
    return true;
}

bool shm_message_at_once(struct shm *shm, const struct comm_call *call)
{
    size_t bytes = call->data.count * comm_type_bytes(call->data.type);
    bool done;

    if (shm->n_messages > 0 || bytes > CHUNK_BYTES) {
        return false;
    }
    done = call->operation == COMM_SEND ? send_at_once(shm, call, bytes)
                                        : receive_at_once(shm, call, bytes);
    if (done) {
        wake(shm, call->root);
    }
    return done;
}

enum status shm_message_progress(struct shm *shm, bool *ret_moved, struct err *err)
{
    enum status status = STATUS_OK;

    *ret_moved = false;
    for (uint32_t r = 0; r < shm->comm.n_ranks && status == STATUS_OK; r++) {
        if (shm->sends[r].first != NULL) {
            status = send_some(shm, r, ret_moved, err);
        }
        if (status == STATUS_OK && shm->receives[r].first != NULL) {
            status = receive_some(shm, r, ret_moved, err);
        }
    }
    return status;
}

/* Nothing moved: an error if a peer whose move it is will never make it. */
static enum status check_peers(struct shm *shm, struct err *err)
{
    uint32_t gone = COMM_SHM_RANKS_MAX;
    uint32_t gone_state = 0;
    enum status status;
    bool moved;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        uint32_t state = atomic_load_explicit(&shm->region->ranks[r].state, memory_order_acquire);

        if ((shm->sends[r].first != NULL || shm->receives[r].first != NULL) && state >= SHM_LEFT &&
            state <= SHM_FAILED) {
            gone = r;
            gone_state = state;
        }
    }
    if (gone == COMM_SHM_RANKS_MAX) {
        return STATUS_OK;
    }
    status = shm_message_progress(shm, &moved, err); /* what it did before it went */
    if (status != STATUS_OK || moved) {
        return status;
    }
    return shm_fail(shm, err, STATUS_LINK, "rank %u %s", gone, shm_why_gone(gone_state));
}

static enum status fail_timeout(struct shm *shm, struct err *err)
{
    unsigned long long ms = shm->comm.timeout_ns / 1000000;

    for (uint32_t r = 0; r < shm->comm.n_ranks; r++) {
        const char *never =
            atomic_load(&shm->region->ranks[r].state) == SHM_EMPTY ? "; it has never joined" : "";

        if (shm->receives[r].first != NULL) {
            return shm_fail(shm, err, STATUS_TIMEOUT, "rank %u did not send within %llu ms%s", r,
                            ms, never);
        }
        if (shm->sends[r].first != NULL) {
            return shm_fail(shm, err, STATUS_TIMEOUT, "rank %u did not receive within %llu ms%s", r,
                            ms, never);
        }
    }
    return STATUS_OK;
}

/* Sleeps until a peer moves something, unless one just has. */
static enum status listen(struct shm *shm, uint64_t limit_ns, struct err *err)
{
    uint32_t seen = atomic_load_explicit(&shm->self->bell, memory_order_relaxed);
    enum status status;
    bool moved;

    atomic_store_explicit(&shm->self->listening, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    status = shm_message_progress(shm, &moved, err);
    if (status == STATUS_OK && !moved) {
        futex_wait_shared(&shm->self->bell, seen, MIN(limit_ns, SLEEP_NS));
    }
    atomic_store_explicit(&shm->self->listening, 0, memory_order_relaxed);
    return status;
}

/* The slow part of waiting; *since is when nothing moved any more. */
static enum status look_around(struct shm *shm, uint64_t *since, struct err *err)
{
    enum status status = shm_check_aborted(shm, err);
    uint64_t now = clock_ns();

    if (status == STATUS_OK) {
        status = check_peers(shm, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (*since == 0) {
        *since = now;
    }
    if (shm_is_late(shm, now)) {
        return fail_timeout(shm, err);
    }
    if (now - *since >= shm->spin_ns + shm->patience_ns) {
        status = listen(shm, shm->deadline_ns - now, err);
    }
    return status;
}

enum status shm_message_finish(struct shm *shm, struct err *err)
{
    enum status status = STATUS_OK;
    uint64_t since = 0;
    uint32_t spins = 0;

    while (shm->n_messages > 0 && status == STATUS_OK) {
        bool moved;

        status = shm_message_progress(shm, &moved, err);
        if (moved) {
            since = 0;
        } else if (status == STATUS_OK) {
            cpu_relax();
            if (++spins % SPINS_A_LOOK == 0) {
                status = look_around(shm, &since, err);
            }
        }
    }
    return status;
}
