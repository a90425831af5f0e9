/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory order. The writer stores slot number 0, then the words with release, then the number with
 * release. The reader loads the number, the words with acquire, and the number again: had one of
 * the words come from a later record, its release store brings the 0 before it along, and the
 * second look at the number sees the change. No fences, which a thread sanitizer cannot follow; on
 * x86-64 all of these are plain moves.
 */
#include "rpc/ring.h"

#include "base/futex.h"
#include "rpc/ring_priv.h"

static const uint64_t MAGIC = UINT64_C(0x31676e6952507372);

size_t ring_bytes(const struct ring_shape *shape)
{
    if (shape->n_slots < 2 || shape->n_slots > 1u << 16 || shape->slot_bytes < 1 ||
        shape->slot_bytes > 1u << 24) {
        return 0;
    }
    return sizeof(struct ring_head) + ring_stride(shape) * shape->n_slots;
}

void ring_writer_init(struct ring_writer *writer, void *memory, const struct ring_shape *shape,
                      const struct ring_line *const *lines, uint32_t n_readers)
{
    struct ring_head *head = memory;

    ENSURE(ring_bytes(shape) > 0 && (uintptr_t)memory % RING_LINE_BYTES == 0);
    ENSURE_OP(n_readers, <=, RING_MAX_READERS);
    *writer = (struct ring_writer){
        .head = head, .slots = (uint8_t *)(head + 1), .shape = *shape, .n_readers = n_readers};
    for (uint32_t i = 0; i < n_readers; i++) {
        writer->lines[i] = lines[i];
    }
    head->n_slots = shape->n_slots;
    head->slot_bytes = shape->slot_bytes;
    head->epoch = shape->epoch;
    atomic_store_explicit(&head->magic, MAGIC, memory_order_release);
}

/* n bytes into the words of a slot. */
static void store_words(struct ring_slot *slot, const uint8_t *bytes, size_t n)
{
    size_t n_words = n / 8;
    uint64_t word;

    for (size_t i = 0; i < n_words; i++) {
        memcpy(&word, bytes + 8 * i, 8);
        atomic_store_explicit(&slot->words[i], word, memory_order_release);
    }
    if (n % 8 != 0) {
        word = 0;
        memcpy(&word, bytes + 8 * n_words, n % 8);
        atomic_store_explicit(&slot->words[n_words], word, memory_order_release);
    }
}

enum status ring_publish(struct ring_writer *writer, enum ring_kind kind, const void *bytes,
                         size_t n, uint64_t *ret_number, struct err *err)
{
    uint64_t number = writer->newest + 1;
    struct ring_slot *slot =
        (struct ring_slot *)(writer->slots + ring_offset(&writer->shape, number));
    bool somebody = false;

    if (n > writer->shape.slot_bytes) {
        return err_set(err, STATUS_LIMIT, "record of %zu bytes, a slot of the ring has %u", n,
                       writer->shape.slot_bytes);
    }
    atomic_store_explicit(&slot->number, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->what, (uint64_t)kind << 32 | n, memory_order_release);
    store_words(slot, bytes, n);
    atomic_store_explicit(&slot->number, number, memory_order_release);
    writer->newest = number;

    atomic_store(&writer->head->bell, (uint32_t)number);
    for (uint32_t i = 0; i < writer->n_readers; i++) {
        somebody = somebody || atomic_load(&writer->lines[i]->asleep) != 0;
    }
    if (somebody) {
        futex_wake_all_shared(&writer->head->bell);
    }
    *ret_number = number;
    return STATUS_OK;
}

enum status ring_acked(const struct ring_writer *writer, uint32_t reader, uint64_t *ret_number,
                       struct err *err)
{
    uint64_t acked = atomic_load_explicit(&writer->lines[reader]->acked, memory_order_acquire);

    if (acked > writer->newest) {
        return err_set(err, STATUS_LINK, "rank %u acknowledged record %llu of %llu", reader,
                       (unsigned long long)acked, (unsigned long long)writer->newest);
    }
    *ret_number = acked;
    return STATUS_OK;
}

struct ack_wait {
    const struct ring_writer *writer;
    uint32_t reader;
    uint64_t number;
    struct err *err;
};

static enum status is_acked(void *arg)
{
    const struct ack_wait *it = arg;
    uint64_t acked = 0;
    enum status status = ring_acked(it->writer, it->reader, &acked, it->err);

    return status == STATUS_OK && acked < it->number ? STATUS_PENDING : status;
}

/* "rank 1, rank 3 have not finished record 5". */
static enum status name_missing(const struct ring_writer *writer, uint64_t number,
                                enum status status, struct err *err)
{
    char names[ERR_TEXT_BYTES / 2];
    size_t used = 0;

    names[0] = '\0';
    for (uint32_t i = 0; i < writer->n_readers; i++) {
        if (atomic_load_explicit(&writer->lines[i]->acked, memory_order_acquire) < number &&
            used < sizeof(names)) {
            int n =
                snprintf(names + used, sizeof(names) - used, "%srank %u", used > 0 ? ", " : "", i);

            used += (size_t)MAX(n, 0);
        }
    }
    return err_set(err, status, "%s: not done with record %llu", used > 0 ? names : "a rank",
                   (unsigned long long)number);
}

enum status ring_wait_acked(struct ring_writer *writer, uint64_t number, const struct wait *wait,
                            struct err *err)
{
    for (uint32_t i = 0; i < writer->n_readers; i++) {
        struct ack_wait it = {.writer = writer, .reader = i, .number = number, .err = err};
        enum status status =
            wait_for(wait, is_acked, &it, &writer->lines[i]->bell, &writer->head->asleep);

        if (status == STATUS_TIMEOUT || status == STATUS_CANCELLED) {
            return name_missing(writer, number, status, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status ring_reader_init(struct ring_reader *reader, const void *memory,
                             const struct ring_shape *shape, struct ring_line *line,
                             struct err *err)
{
    const struct ring_head *head = memory;

    ENSURE(ring_bytes(shape) > 0 && (uintptr_t)memory % RING_LINE_BYTES == 0);
    if (atomic_load_explicit(&head->magic, memory_order_acquire) != MAGIC ||
        head->n_slots != shape->n_slots || head->slot_bytes != shape->slot_bytes) {
        return err_set(err, STATUS_CORRUPT, "there is no ring of %u slots of %u bytes",
                       shape->n_slots, shape->slot_bytes);
    }
    if (head->epoch != shape->epoch) {
        return err_set(err, STATUS_CORRUPT, "the ring is of epoch %llu, this is %llu",
                       (unsigned long long)head->epoch, (unsigned long long)shape->epoch);
    }
    *reader = (struct ring_reader){.head = head,
                                   .slots = (const uint8_t *)(head + 1),
                                   .shape = *shape,
                                   .line = line,
                                   .next = 1};
    return STATUS_OK;
}

static const struct ring_slot *slot_of(const struct ring_reader *reader)
{
    return (const struct ring_slot *)(reader->slots + ring_offset(&reader->shape, reader->next));
}

/* What the slot's number says about the record that is wanted. */
static enum status look(void *arg)
{
    const struct ring_reader *reader = arg;
    uint64_t number = atomic_load_explicit(&slot_of(reader)->number, memory_order_acquire);
    uint64_t lap = reader->shape.n_slots;

    if (number == reader->next) {
        return STATUS_OK;
    }
    if (number == 0 || number + lap == reader->next) {
        return STATUS_PENDING;
    }
    return number > reader->next && (number - reader->next) % lap == 0 ? STATUS_LINK
                                                                       : STATUS_CORRUPT;
}

/* The record's words; true if it was still there when the last one had been read. */
static bool copy(const struct ring_reader *reader, uint8_t *out, uint64_t *ret_what)
{
    const struct ring_slot *slot = slot_of(reader);
    uint64_t what = atomic_load_explicit(&slot->what, memory_order_acquire);
    size_t n = MIN((uint32_t)what, reader->shape.slot_bytes);
    uint64_t word;

    for (size_t i = 0; i < n / 8; i++) {
        word = atomic_load_explicit(&slot->words[i], memory_order_acquire);
        memcpy(out + 8 * i, &word, 8);
    }
    if (n % 8 != 0) {
        word = atomic_load_explicit(&slot->words[n / 8], memory_order_acquire);
        memcpy(out + n / 8 * 8, &word, n % 8);
    }
    *ret_what = what;
    return atomic_load_explicit(&slot->number, memory_order_acquire) == reader->next;
}

enum status ring_read(struct ring_reader *reader, const struct wait *wait, void *out,
                      struct ring_record *ret_record, struct err *err)
{
    uint64_t what = 0;
    enum status status;

    status = wait_for(wait, look, reader, &reader->head->bell, &reader->line->asleep);
    if (status == STATUS_OK && !copy(reader, out, &what)) {
        status = STATUS_LINK; /* a number only ever gives way to a later record's */
    }
    if (status == STATUS_OK && ((uint32_t)what > reader->shape.slot_bytes ||
                                what >> 32 < RING_PLAN || what >> 32 > RING_CONTROL)) {
        status = STATUS_CORRUPT;
    }
    switch ((int)status) {
    case STATUS_OK:
        *ret_record = (struct ring_record){.number = reader->next,
                                           .kind = (enum ring_kind)(what >> 32),
                                           .n_bytes = (uint32_t)what};
        reader->next++;
        return STATUS_OK;
    case STATUS_LINK:
        return err_set(err, status, "overrun: record %llu was overwritten before it was read",
                       (unsigned long long)reader->next);
    case STATUS_CORRUPT:
        return err_set(err, status, "ring: rubbish where record %llu should be",
                       (unsigned long long)reader->next);
    default:
        return err_set(err, status, "no record %llu in time", (unsigned long long)reader->next);
    }
}

bool ring_ready(struct ring_reader *reader)
{
    return look(reader) != STATUS_PENDING;
}

void ring_wait_ready(struct ring_reader *reader, const struct wait *wait)
{
    (void)!wait_for(wait, look, reader, &reader->head->bell, &reader->line->asleep);
}

void ring_ack(struct ring_reader *reader, uint64_t number)
{
    struct ring_line *line = reader->line;

    ENSURE(number < reader->next);
    atomic_store_explicit(&line->acked, number, memory_order_release);
    atomic_store(&line->bell, (uint32_t)number);
    if (atomic_load(&reader->head->asleep) != 0) {
        futex_wake_all_shared(&line->bell);
    }
}
