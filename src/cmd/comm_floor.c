/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/comm_floor.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
    PAGE = 4096,
    BESIDE_FLAG = CACHE_LINE - sizeof(uint64_t),
    SPINS = 1 << 14, /* then the other may want this core */
};

/* One rank's. */
struct floor_rank {
    _Alignas(PAGE) _Atomic uint64_t turn; /* how often it has come */
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

/* The other rank has come as often as this one. */
static enum status await(struct comm_floor *floor, uint32_t rank, uint64_t turn,
                         uint32_t timeout_ms, struct err *err)
{
    const struct floor_rank *other = &floor->ranks[1 - rank];
    uint64_t deadline = 0;

    for (uint32_t i = 1; atomic_load_explicit(&other->turn, memory_order_acquire) < turn; i++) {
        if (i % SPINS != 0) {
            continue;
        }
        sched_yield();
        if (deadline == 0) {
            deadline = clock_ns() + (uint64_t)timeout_ms * 1000000;
        } else if (clock_ns() >= deadline) {
            return err_set(err, STATUS_TIMEOUT, "floor: rank %u did not come within %u ms",
                           1 - rank, timeout_ms);
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
    status = await(floor, rank, turn, timeout_ms, err);
    if (status == STATUS_OK && bytes > BESIDE_FLAG) {
        for (size_t i = 0; i < bytes; i += CACHE_LINE) {
            (void)*(const volatile uint64_t *)(theirs + i);
        }
    }
    return status;
}
