/* SPDX-License-Identifier: Apache-2.0 */
/* The writing side. */
#include "rpc/status_page.h"

#include <unistd.h>

#include "base/clock.h"
#include "rpc/status_page_priv.h"

_Static_assert(sizeof(struct status_page) <= STATUS_PAGE_BYTES, "the page holds all");

static void set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

void status_page_init(struct status_writer *writer, void *memory, uint32_t rank, uint64_t epoch)
{
    struct status_page *page = memory;

    ENSURE((uintptr_t)memory % 128 == 0);
    *writer = (struct status_writer){.page = page};
    set(&page->epoch, epoch);
    set(&page->who, (uint64_t)rank << 32 | (uint32_t)getpid());
    set(&page->beat, clock_ns());
    set(&page->magic, STATUS_PAGE_MAGIC);
}

void status_page_progress(struct status_writer *writer, const struct status_progress *progress)
{
    uint64_t word = (progress->step & UINT32_MAX) << 32 |
                    (uint64_t)MIN(progress->layer, STATUS_LAYER_MAX) << 22 |
                    (uint64_t)MIN(progress->collective, STATUS_COLLECTIVE_MAX) << 10 |
                    (uint64_t)MIN(progress->block, STATUS_BLOCK_MAX) << 1 | progress->waiting;

    set(&writer->page->step, progress->step);
    set(&writer->page->progress, word);
}

void status_page_phase(struct status_writer *writer, enum status_phase phase)
{
    set(&writer->page->phase, phase);
    status_page_event(writer, STATUS_EVENT_PHASE, phase, writer->phase);
    writer->phase = phase;
}

void status_page_count(struct status_writer *writer, enum status_counter counter, uint64_t add)
{
    _Atomic uint64_t *word = &writer->page->counters[counter];

    set(word, atomic_load_explicit(word, memory_order_relaxed) + add);
}

/* The slot has number 0 while it is changed: whoever reads it then, or finds it so after a death,
 * skips it. */
void status_page_event(struct status_writer *writer, enum status_event type, uint32_t a, uint64_t b)
{
    uint64_t number = ++writer->n_events;
    struct status_slot *slot = &writer->page->events[number % STATUS_PAGE_EVENTS];

    atomic_store_explicit(&slot->number, 0, memory_order_relaxed);
    set(&slot->ns, clock_ns());
    set(&slot->what, (uint64_t)type << 32 | a);
    set(&slot->b, b);
    set(&slot->number, number);
}

void status_page_error(struct status_writer *writer, const char *text)
{
    uint64_t number = ++writer->n_errors;
    _Atomic uint64_t *words = writer->page->errors[number % 2];
    char copy[STATUS_PAGE_TEXT] = {0};

    snprintf(copy, sizeof(copy), "%s", text);
    for (uint32_t i = 0; i < STATUS_TEXT_WORDS; i++) {
        uint64_t word;

        memcpy(&word, copy + 8 * i, 8);
        set(&words[i], word);
    }
    set(&writer->page->n_errors, number);
}

void status_page_beat(struct status_writer *writer)
{
    set(&writer->page->beat, clock_ns());
}
