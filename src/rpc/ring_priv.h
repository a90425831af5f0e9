/* SPDX-License-Identifier: Apache-2.0 */
/* How a ring lies in memory; for ring.c and the tests that damage it. */
#pragma once

#include "rpc/ring.h"

struct ring_head {
    _Alignas(RING_LINE_BYTES) _Atomic uint64_t magic;
    uint64_t epoch;
    uint32_t n_slots;
    uint32_t slot_bytes;
    _Alignas(RING_LINE_BYTES) _Atomic uint32_t bell; /* low half of the newest number; a futex */
    _Atomic uint32_t asleep;                         /* 1: the writer waits on a line's bell */
};

struct ring_slot {
    _Atomic uint64_t number; /* 0: nothing, or being written */
    _Atomic uint64_t what;   /* kind << 32 | bytes */
    _Atomic uint64_t words[];
};

static inline size_t ring_stride(const struct ring_shape *shape)
{
    return round_up(sizeof(struct ring_slot) + shape->slot_bytes, RING_LINE_BYTES);
}

/* Of the slot of record number, from the first slot. */
static inline size_t ring_offset(const struct ring_shape *shape, uint64_t number)
{
    return (size_t)((number - 1) % shape->n_slots) * ring_stride(shape);
}
