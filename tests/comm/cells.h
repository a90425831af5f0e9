/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs for the matrix of collectives: of every type and rank, drawn from the seed that is printed
 * with a failure. */
#pragma once

#include "world.h"

#include "base/mem.h"
#include "comm/shm_priv.h"

static const size_t cells_counts[] = {0, 1, 7, 64, 4097};

struct cells {
    uint32_t n_ranks;
    size_t count;
    size_t room; /* elements of each input: n_ranks * count */
    uint64_t seed;
    void *in[COMM_TYPE_COUNT][COMM_SHM_RANKS_MAX];
};

static inline uint64_t cells_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Bits of a float that has so many exponent bits: mostly ordinary numbers, and now and then
 * denormals, zeros of both signs, infinities and NaN. */
static inline uint64_t cells_float(uint64_t *state, unsigned exponent_at, unsigned exponent_bits)
{
    uint64_t random = cells_random(state);
    uint64_t top = ((uint64_t)1 << exponent_bits) - 1;
    uint64_t exponent = top / 2 - 3 + random % 7;
    uint64_t fraction = cells_random(state) & (((uint64_t)1 << exponent_at) - 1);

    switch (random >> 8 & 127) {
    case 0:
        exponent = top; /* NaN, most likely */
        break;
    case 1:
        exponent = top;
        fraction = 0;
        break;
    case 2:
    case 3:
        exponent = 0;
        break;
    case 4:
    case 5:
        exponent = 0;
        fraction = 0;
        break;
    case 6:
        exponent = top - 1; /* sums overflow */
        break;
    case 7:
        exponent = 1;
        break;
    default:
        break;
    }
    return (random >> 63) << (exponent_at + exponent_bits) | exponent << exponent_at | fraction;
}

static inline uint64_t cells_draw(enum comm_type type, uint64_t *state)
{
    switch (type) {
    case COMM_F32:
        return cells_float(state, 23, 8);
    case COMM_F64:
        return cells_float(state, 52, 11);
    case COMM_F16:
        return cells_float(state, 10, 5);
    case COMM_BF16:
        return cells_float(state, 7, 8);
    default:
        return cells_random(state);
    }
}

static inline void *cells_alloc(enum comm_type type, size_t n)
{
    void *memory = mem_alloc(MAX(n, 1), comm_type_bytes(type));

    assert_non_null(memory);
    return memory;
}

static inline void cells_init(struct cells *cells, uint32_t n_ranks, size_t count)
{
    uint64_t state = n_ranks * 1000003 + count;

    *cells =
        (struct cells){.n_ranks = n_ranks, .count = count, .room = n_ranks * count, .seed = state};
    for (unsigned type = 0; type < COMM_TYPE_COUNT; type++) {
        size_t bytes = comm_type_bytes((enum comm_type)type);

        for (uint32_t r = 0; r < n_ranks; r++) {
            char *in = cells_alloc((enum comm_type)type, cells->room);

            for (size_t i = 0; i < cells->room; i++) {
                uint64_t bits = cells_draw((enum comm_type)type, &state);

                memcpy(in + i * bytes, &bits, bytes);
            }
            cells->in[type][r] = in;
        }
    }
}

static inline void cells_release(struct cells *cells)
{
    for (unsigned type = 0; type < COMM_TYPE_COUNT; type++) {
        for (uint32_t r = 0; r < cells->n_ranks; r++) {
            free(cells->in[type][r]);
        }
    }
}

/* False, and says which call it was, if it did not go well. */
static inline bool cells_went_well(const struct comm *comm, const struct cells *cells,
                                   enum comm_operation operation, enum comm_type type,
                                   enum status status, const struct err *err)
{
    if (status != STATUS_OK) {
        print_error("rank %u of %u, %s of %zu %s (seed %llu): %s\n", comm->rank, comm->n_ranks,
                    comm_operation_name(operation), cells->count, comm_type_name(type),
                    (unsigned long long)cells->seed, err->text);
    }
    return status == STATUS_OK;
}

/* Calls run for all numbers of ranks and counts of the matrix, as threads. */
static inline void cells_each(void (*run)(enum world_kind kind, uint32_t n_ranks, size_t count))
{
    static const uint32_t n_ranks[] = {1, 2, 3, 5, 8, 16};

    for (size_t i = 0; i < ARRAY_LEN(n_ranks); i++) {
        for (size_t j = 0; j < ARRAY_LEN(cells_counts); j++) {
            /* sanitizers see all code paths in fewer cells */
            if (SANITIZED && (n_ranks[i] == 5 || n_ranks[i] == 8 || cells_counts[j] == 64 ||
                              (n_ranks[i] == 16 && cells_counts[j] > 64))) {
                continue;
            }
            run(WORLD_THREADS, n_ranks[i], cells_counts[j]);
        }
    }
}

/* Makes the rank one whose memory the others cannot find. */
static inline void cells_hide(struct comm *comm)
{
    ((struct shm *)comm)->self->probe++;
}
