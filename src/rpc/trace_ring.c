/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/trace_ring.h"

enum { TOOK_BITS = 48, SMALL_MAX = 65535 };

#define TOOK_MAX ((UINT64_C(1) << TOOK_BITS) - 1)

static void set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* The fence makes whoever sees a word of this record also see the number of those before it: that
 * is how the reader knows that it read a slot while it was written over. */
void trace_write(struct trace_writer *writer, const struct trace_record *record)
{
    struct trace_slot *slot = &writer->ring->slots[writer->n % TRACE_SLOTS];

    atomic_thread_fence(memory_order_release);
    set(&slot->start_ns, record->start_ns);
    set(&slot->took, (uint64_t)record->kind << 56 | (uint64_t)record->what << TOOK_BITS |
                         MIN(record->took_ns, TOOK_MAX));
    set(&slot->where, (uint64_t)record->step << 32 |
                          (uint64_t)MIN(record->layer, (uint32_t)SMALL_MAX) << 16 |
                          MIN(record->number, (uint32_t)SMALL_MAX));
    atomic_store_explicit(&writer->ring->n, ++writer->n, memory_order_release);
}

void trace_reader_init(struct trace_reader *reader, const struct trace_ring *ring)
{
    *reader = (struct trace_reader){.ring = ring,
                                    .next = atomic_load_explicit(&ring->n, memory_order_acquire)};
}

static bool unpack(uint64_t start_ns, uint64_t took, uint64_t where, struct trace_record *ret)
{
    uint64_t kind = took >> 56;
    uint64_t what = took >> TOOK_BITS & 0xff;

    if (kind >= TRACE_KINDS || what >= TRACE_WHATS || start_ns > UINT64_MAX - TOOK_MAX) {
        return false;
    }
    *ret = (struct trace_record){
        .start_ns = start_ns,
        .took_ns = took & TOOK_MAX,
        .kind = (enum trace_kind)kind,
        .what = (enum trace_what)what,
        .step = (uint32_t)(where >> 32),
        .layer = (uint32_t)(where >> 16) & SMALL_MAX,
        .number = (uint32_t)where & SMALL_MAX,
    };
    return true;
}

/* One record; false if it was written over, or is none. */
static bool read_slot(const struct trace_reader *reader, uint64_t number, struct trace_record *ret)
{
    const struct trace_slot *slot = &reader->ring->slots[number % TRACE_SLOTS];
    uint64_t start_ns = get(&slot->start_ns);
    uint64_t took = get(&slot->took);
    uint64_t where = get(&slot->where);

    atomic_thread_fence(memory_order_acquire);
    if (get(&reader->ring->n) - number >= TRACE_SLOTS) { /* its slot is the next one's by now */
        return false;
    }
    return unpack(start_ns, took, where, ret);
}

uint32_t trace_read(struct trace_reader *reader, struct trace_record *out, uint32_t max,
                    uint64_t *lost)
{
    uint64_t n = atomic_load_explicit(&reader->ring->n, memory_order_acquire);
    uint32_t n_out = 0;

    if (n < reader->next) { /* no rank does that: nothing of it can be told */
        reader->next = n;
        ++*lost;
    }
    if (n - reader->next >= TRACE_SLOTS) {
        *lost += n - reader->next - (TRACE_SLOTS - 1);
        reader->next = n - (TRACE_SLOTS - 1);
    }
    while (n_out < max && reader->next < n) {
        if (read_slot(reader, reader->next, &out[n_out])) {
            n_out++;
        } else {
            ++*lost;
        }
        reader->next++;
    }
    return n_out;
}
