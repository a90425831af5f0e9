/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of records in shared memory: one writer, N readers, no lock and, while spinning, no system
 * call. The leader's step ring (plans, N ranks read) and each rank's result ring (the leader reads)
 * are both this.
 *
 *   ring (written by the writer alone)          lines (one a reader, written by it alone)
 *   +--------------+-----------+-------------+  +---------------------+
 *   | head         | slot 0    | slot 1 ...  |  | acked, bell, asleep |   128 bytes each
 *   +--------------+-----------+-------------+  +---------------------+
 *
 * Record n (from 1 on) lies in slot (n - 1) % n_slots and becomes visible by its number, written
 * last. The writer never waits for a reader: one that falls behind by more than the ring finds a
 * later number in its slot, an overrun. A writer that is killed leaves a slot without a number,
 * which is no record. The words of a slot are copied one by one as atomics and the number is read
 * again afterwards, so a record that was overwritten meanwhile is never returned.
 *
 * Neither side trusts what the other wrote: shapes are agreed beforehand, lengths, numbers and
 * acknowledgements are checked. What the payload means is for its decoder (plan.h, result.h), which
 * checks a hash. Each struct below belongs to one thread; the memory is borrowed.
 */
#pragma once

#include "base/err.h"
#include "rpc/wait.h"

enum { RING_LINE_BYTES = 128, RING_MAX_READERS = 64 };

/* Agreed by both sides outside the ring. */
struct ring_shape {
    uint32_t n_slots;    /* 2 to 65,536 */
    uint32_t slot_bytes; /* longest record, 1 to 16 MiB */
    uint64_t epoch;
};

/* What a record is for. */
enum ring_kind {
    RING_PLAN = 1,    /* plan.h */
    RING_RESULT = 2,  /* result.h */
    RING_CONTROL = 3, /* empty: look at the control channel */
};

/* What a reader says; zero at first. */
struct ring_line {
    _Alignas(RING_LINE_BYTES) _Atomic uint64_t acked; /* newest record that is done with */
    _Atomic uint32_t bell;                            /* its low half; a futex of the writer */
    _Atomic uint32_t asleep;                          /* 1: waits on the ring's bell */
};

/* Bytes of a ring, a multiple of RING_LINE_BYTES; 0 if the shape is out of range. */
size_t ring_bytes(const struct ring_shape *shape);

struct ring_writer {
    struct ring_head *head;
    uint8_t *slots;
    struct ring_shape shape;
    const struct ring_line *lines[RING_MAX_READERS];
    uint32_t n_readers;
    uint64_t newest; /* number of the last record, 0 before the first */
};

/* Starts an empty ring in zeroed memory of ring_bytes, 128-byte aligned. lines may be read-only
 * mappings. Before any reader attaches. */
void ring_writer_init(struct ring_writer *writer, void *memory, const struct ring_shape *shape,
                      const struct ring_line *const *lines, uint32_t n_readers);

/* Writes the next record and wakes who sleeps. STATUS_LIMIT: longer than a slot (nothing happened;
 * it can go by the control channel). */
NODISCARD enum status ring_publish(struct ring_writer *writer, enum ring_kind kind,
                                   const void *bytes, size_t n, uint64_t *ret_number,
                                   struct err *err);

/* Newest record that a reader is done with. STATUS_LINK, naming the reader as a rank, if it claims
 * one that there is not. */
NODISCARD enum status ring_acked(const struct ring_writer *writer, uint32_t reader,
                                 uint64_t *ret_number, struct err *err);

/* Waits until every reader is done with record number. STATUS_TIMEOUT and STATUS_CANCELLED name the
 * ranks that are not, STATUS_LINK as ring_acked. */
NODISCARD enum status ring_wait_acked(struct ring_writer *writer, uint64_t number,
                                      const struct wait *wait, struct err *err);

struct ring_reader {
    const struct ring_head *head;
    const uint8_t *slots;
    struct ring_shape shape;
    struct ring_line *line;
    uint64_t next; /* number of the record to read */
};

/* A received record. */
struct ring_record {
    uint64_t number;
    enum ring_kind kind;
    uint32_t n_bytes;
};

/* Attaches to a ring, which may be a read-only mapping. STATUS_CORRUPT if it is none of this shape
 * and epoch. */
NODISCARD enum status ring_reader_init(struct ring_reader *reader, const void *memory,
                                       const struct ring_shape *shape, struct ring_line *line,
                                       struct err *err);

/* Waits for the next record and copies it to out (slot_bytes, 8-byte aligned). STATUS_TIMEOUT,
 * STATUS_CANCELLED; STATUS_LINK: overrun; STATUS_CORRUPT: no such thing was ever published. After
 * an error the reader stays where it was. */
NODISCARD enum status ring_read(struct ring_reader *reader, const struct wait *wait, void *out,
                                struct ring_record *ret_record, struct err *err);

/* True if ring_read would not wait. */
bool ring_ready(struct ring_reader *reader);

/* Waits until ring_read would not wait, as long as wait allows. */
void ring_wait_ready(struct ring_reader *reader, const struct wait *wait);

/* Says that all records up to number, which was read, are done with. */
void ring_ack(struct ring_reader *reader, uint64_t number);
