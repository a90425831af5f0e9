/* SPDX-License-Identifier: Apache-2.0 */
/* The reading side of status pages, which trusts nothing in them, and their text. */
#include <stdlib.h>

#include "base/clock.h"
#include "rpc/status_page_priv.h"

static const char *const phase_texts[] = {
#define PHASE(id, text) text,
#define COUNTER(id, name)
#define EVENT(id, name, a, b)
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
};

static const char *const counter_names[] = {
#define PHASE(id, text)
#define COUNTER(id, name) name,
#define EVENT(id, name, a, b)
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
};

static const struct {
    const char *name;
    const char *a;
    const char *b;
} event_names[] = {
    {"none", "a", "b"},
#define PHASE(id, text)
#define COUNTER(id, name)
#define EVENT(id, name, a, b) {name, a, b},
#include "rpc/status_page.def"
#undef PHASE
#undef COUNTER
#undef EVENT
};

const char *status_phase_text(uint32_t phase)
{
    return phase < STATUS_PHASES ? phase_texts[phase] : "unknown";
}

const char *status_counter_name(uint32_t counter)
{
    return counter < STATUS_COUNTERS ? counter_names[counter] : "unknown";
}

const char *status_event_name(uint32_t event)
{
    return event > 0 && event < STATUS_EVENTS ? event_names[event].name : "unknown";
}

static uint64_t get(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

uint64_t status_page_progress_word(const void *memory)
{
    return get(&((const struct status_page *)memory)->progress);
}

/* whole was stored just before word, whose step is its low half: the two differ by one update at
 * most. */
static struct status_progress unpack(uint64_t word, uint64_t whole)
{
    int32_t ahead = (int32_t)((uint32_t)(word >> 32) - (uint32_t)whole);

    return (struct status_progress){
        .step = whole + (uint64_t)(int64_t)ahead,
        .layer = (uint32_t)(word >> 22) & STATUS_LAYER_MAX,
        .collective = (uint32_t)(word >> 10) & STATUS_COLLECTIVE_MAX,
        .block = (uint32_t)(word >> 1) & STATUS_BLOCK_MAX,
        .waiting = (word & 1) != 0,
    };
}

struct status_progress status_page_progress_read(const void *memory)
{
    const struct status_page *page = memory;
    uint64_t whole = get(&page->step);

    return unpack(get(&page->progress), whole);
}

/* The last complete text; tried again while its writer overtakes. */
static void read_error(const struct status_page *page, char *out)
{
    char text[STATUS_PAGE_TEXT];
    uint64_t number = get(&page->n_errors);

    out[0] = '\0';
    for (int attempt = 0; attempt < 4 && number > 0; attempt++) {
        const _Atomic uint64_t *words = page->errors[number % 2];
        uint64_t now;

        for (uint32_t i = 0; i < STATUS_TEXT_WORDS; i++) {
            uint64_t word = get(&words[i]);

            memcpy(text + 8 * i, &word, 8);
        }
        now = get(&page->n_errors);
        if (now == number) {
            text[sizeof(text) - 1] = '\0';
            err_escape(text, out, STATUS_PAGE_TEXT);
            return;
        }
        number = now;
    }
}

struct numbered {
    uint64_t number;
    struct status_record record;
};

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct numbered *)a)->number;
    uint64_t y = ((const struct numbered *)b)->number;

    return (x > y) - (x < y);
}

static void read_events(const struct status_page *page, struct status_snapshot *snapshot)
{
    struct numbered found[STATUS_PAGE_EVENTS];
    uint32_t n = 0;

    for (uint32_t i = 0; i < STATUS_PAGE_EVENTS; i++) {
        const struct status_slot *slot = &page->events[i];
        uint64_t number = get(&slot->number);
        uint64_t ns = get(&slot->ns);
        uint64_t what = get(&slot->what);
        uint64_t b = get(&slot->b);

        if (number == 0 || number % STATUS_PAGE_EVENTS != i || what >> 32 == 0 ||
            what >> 32 >= STATUS_EVENTS || get(&slot->number) != number) {
            continue;
        }
        found[n++] = (struct numbered){
            .number = number,
            .record = {
                .ns = ns, .type = (enum status_event)(what >> 32), .a = (uint32_t)what, .b = b}};
    }
    qsort(found, n, sizeof(*found), by_number);
    for (uint32_t i = 0; i < n; i++) {
        snapshot->events[i] = found[i].record;
    }
    snapshot->n_events = n;
}

enum status status_page_read(const void *memory, uint32_t rank, uint64_t epoch,
                             struct status_snapshot *ret_snapshot, struct err *err)
{
    const struct status_page *page = memory;
    struct status_snapshot *it = ret_snapshot;
    uint64_t magic = get(&page->magic);
    uint64_t who = get(&page->who);
    uint64_t whole;

    if (magic == 0) {
        return err_set(err, STATUS_NOT_FOUND, "rank %u: its status page was never started", rank);
    }
    if (magic != STATUS_PAGE_MAGIC || who >> 32 != rank || get(&page->epoch) != epoch) {
        return err_set(err, STATUS_CORRUPT, "rank %u: its status page is damaged", rank);
    }
    it->rank = rank;
    it->pid = (uint32_t)who;
    it->epoch = epoch;
    it->beat_ns = get(&page->beat);
    whole = get(&page->step);
    it->word = get(&page->progress);
    it->progress = unpack(it->word, whole);
    it->phase = (uint32_t)MIN(get(&page->phase), UINT32_MAX);
    for (uint32_t i = 0; i < STATUS_COUNTERS; i++) {
        it->counters[i] = get(&page->counters[i]);
    }
    read_error(page, it->error);
    read_events(page, it);
    return STATUS_OK;
}

bool status_page_counters(const void *memory, uint32_t rank, uint64_t epoch,
                          uint64_t ret_counters[STATUS_COUNTERS])
{
    const struct status_page *page = memory;

    if (get(&page->magic) != STATUS_PAGE_MAGIC || get(&page->who) >> 32 != rank ||
        get(&page->epoch) != epoch) {
        return false;
    }
    for (uint32_t i = 0; i < STATUS_COUNTERS; i++) {
        ret_counters[i] = get(&page->counters[i]);
    }
    return true;
}

/* ---- text ---- */

void status_snapshot_place(const struct status_snapshot *snapshot, const char *verb,
                           struct buf *out)
{
    const struct status_progress *at = &snapshot->progress;

    buf_printf(out, "rank %u %s in ", snapshot->rank, verb);
    if (snapshot->phase != STATUS_PHASE_PREFILL && snapshot->phase != STATUS_PHASE_DECODE) {
        buf_printf(out, "phase %s", status_phase_text(snapshot->phase));
    } else if (at->collective == 0) {
        buf_printf(out, "layer %u, block %u of step %llu", at->layer, at->block,
                   (unsigned long long)at->step);
    } else {
        buf_printf(out, "layer %u, all-reduce %u of step %llu", at->layer, at->collective,
                   (unsigned long long)at->step);
    }
}

void status_snapshot_dump(const struct status_snapshot *snapshot, uint32_t n_events,
                          struct buf *out)
{
    uint64_t now = clock_ns();
    uint32_t n = snapshot->n_events;

    status_snapshot_place(snapshot, snapshot->progress.waiting ? "waits" : "is", out);
    buf_printf(out, "\npid %u, epoch %llu, phase %s, block %u, last sign of life %.3f s ago\n",
               snapshot->pid, (unsigned long long)snapshot->epoch,
               status_phase_text(snapshot->phase), snapshot->progress.block,
               now > snapshot->beat_ns ? (double)(now - snapshot->beat_ns) / 1e9 : 0.0);
    if (snapshot->error[0] != '\0') {
        buf_printf(out, "last error: %s\n", snapshot->error);
    }
    for (uint32_t i = 0; i < STATUS_COUNTERS; i++) {
        buf_printf(out, "%s %llu\n", counter_names[i], (unsigned long long)snapshot->counters[i]);
    }
    for (uint32_t i = n - MIN(n, n_events); i < n; i++) {
        const struct status_record *event = &snapshot->events[i];

        buf_printf(out, "%15.6f s  %s %s=%u %s=%llu\n", (double)event->ns / 1e9,
                   event_names[event->type].name, event_names[event->type].a, event->a,
                   event_names[event->type].b, (unsigned long long)event->b);
    }
}
