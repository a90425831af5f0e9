/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/comm_floor.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
    PAGE = 4096,
    BESIDE_FLAG = CACHE_LINE - sizeof(uint64_t),
    SPINS = 1 << 14,  /* then the other may want this core */
    CHUNK = 16 << 10, /* of 1 to 64 KiB what was fastest where this was written */
};

/* One rank's. */
struct floor_rank {
    _Alignas(PAGE) _Atomic uint64_t turn;      /* how often it has come */
    _Alignas(PAGE / 2) _Atomic uint64_t n_put; /* chunks copied into its vector so far */
};

struct comm_floor {
    struct floor_rank ranks[COMM_FLOOR_RANKS];
    char vectors[]; /* [COMM_FLOOR_RANKS][stride] */
};

_Static_assert(sizeof(struct floor_rank) == PAGE, "nothing shares a rank's lines");

size_t comm_floor_bytes(size_t vector_bytes)
{
    return sizeof(struct comm_floor) + COMM_FLOOR_RANKS * round_up(vector_bytes, PAGE);
}

/* Whether this rank must learn what the other has. */
static bool reads(enum comm_operation operation, uint32_t rank)
{
    switch (operation) {
    case COMM_BROADCAST:
    case COMM_SEND:
        return rank == 1;
    case COMM_REDUCE:
        return rank == 0;
    default:
        return true;
    }
}

static char *vector_of(struct comm_floor *floor, uint32_t rank, size_t bytes)
{
    return floor->vectors + rank * round_up(bytes, PAGE);
}

void comm_floor_write(struct comm_floor *floor, uint32_t rank, size_t bytes)
{
    uint64_t turn = atomic_load(&floor->ranks[rank].turn);
    char *vector = vector_of(floor, rank, bytes);

    for (size_t i = 0; i < bytes; i += sizeof(turn)) {
        *(volatile uint64_t *)(vector + i) = turn + i; /* not past the caches, as memset may */
    }
}

/* A word of the other rank's counts up to n. */
static enum status await(const _Atomic uint64_t *word, uint64_t n, uint32_t other,
                         uint32_t timeout_ms, struct err *err)
{
    uint64_t deadline = 0;

    for (uint32_t i = 1; atomic_load_explicit(word, memory_order_acquire) < n; i++) {
        if (i % SPINS != 0) {
            continue;
        }
        sched_yield();
        if (deadline == 0) {
            deadline = clock_ns() + (uint64_t)timeout_ms * 1000000;
        } else if (clock_ns() >= deadline) {
            return err_set(err, STATUS_TIMEOUT, "floor: rank %u did not come within %u ms", other,
                           timeout_ms);
        }
    }
    return STATUS_OK;
}

enum status comm_floor_run(struct comm_floor *floor, enum comm_operation operation, uint32_t rank,
                           size_t bytes, uint32_t timeout_ms, struct err *err)
{
    uint64_t turn = atomic_load_explicit(&floor->ranks[rank].turn, memory_order_relaxed) + 1;
    const char *theirs = vector_of(floor, 1 - rank, bytes);
    enum status status;

    atomic_store_explicit(&floor->ranks[rank].turn, turn, memory_order_release);
    if (!reads(operation, rank)) {
        return STATUS_OK;
    }
    status = await(&floor->ranks[1 - rank].turn, turn, 1 - rank, timeout_ms, err);
    if (status == STATUS_OK && bytes > BESIDE_FLAG) {
        for (size_t i = 0; i < bytes; i += CACHE_LINE) {
            (void)*(const volatile uint64_t *)(theirs + i);
        }
    }
    return status;
}

/* Whether the operation adds what it takes to what this rank has. */
static bool adds(enum comm_operation operation)
{
    return operation == COMM_REDUCE || operation == COMM_ALL_REDUCE ||
           operation == COMM_REDUCE_SCATTER;
}

/* Whether a block stays with its rank, and is copied from in to out. */
static bool keeps(enum comm_operation operation)
{
    return operation == COMM_ALL_GATHER || operation == COMM_ALL_TO_ALL ||
           operation == COMM_ALL_TO_ALLV;
}

/* n floats. */
static void sum(float *restrict out, const float *restrict a, const float *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

/* A chunk out of the other's vector. */
static void take(bool add, const void *theirs, const void *in, void *out, size_t bytes)
{
    if (add) {
        sum(out, in, theirs, bytes / sizeof(float));
    } else {
        memcpy(out, theirs, bytes);
    }
}

enum status comm_floor_copy(struct comm_floor *floor, enum comm_operation operation, uint32_t rank,
                            struct comm_floor_memory *memory, uint32_t timeout_ms, struct err *err)
{
    struct floor_rank *mine = &floor->ranks[rank];
    const struct floor_rank *other = &floor->ranks[1 - rank];
    size_t bytes = memory->bytes;
    char *own = vector_of(floor, rank, bytes);
    const char *theirs = vector_of(floor, 1 - rank, bytes);
    size_t n = reads(operation, 1 - rank) ? div_up(bytes, CHUNK) : 0; /* chunks to put */
    size_t n_taken = reads(operation, rank) ? div_up(bytes, CHUNK) : 0;
    uint64_t before = memory->n_put[rank];
    uint64_t theirs_before = memory->n_put[1 - rank];

    for (size_t i = 0; i < MAX(n, n_taken + 1); i++) {
        size_t at = i * CHUNK;

        if (i < n) {
            memcpy(own + at, memory->in + at, MIN(CHUNK, bytes - at));
            atomic_store_explicit(&mine->n_put, before + i + 1, memory_order_release);
        }
        if (i == 0 && keeps(operation)) {
            memcpy(memory->out + bytes, memory->in + bytes, bytes);
        }
        if (i > 0 && i <= n_taken) {
            enum status status = await(&other->n_put, theirs_before + i, 1 - rank, timeout_ms, err);

            if (status != STATUS_OK) {
                return status;
            }
            at -= CHUNK;
            take(adds(operation), theirs + at, memory->in + at, memory->out + at,
                 MIN(CHUNK, bytes - at));
        }
    }
    memory->n_put[rank] += n;
    memory->n_put[1 - rank] += n_taken;
    return STATUS_OK;
}
