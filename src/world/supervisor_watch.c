/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the leader sees of its ranks without asking them: that their processes end, that their
 * progress words stand still, that a fault was injected; and how all of that is told to a person.
 */
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "rpc/region.h"
#include "world/supervisor_priv.h"

enum { DUMP_EVENTS = 40 }; /* of the flight recorder, with --verbose */

/* --- Processes --- */

/* How often the kernel has killed a process for memory, since it was started. */
static uint64_t count_oom_kills(void)
{
    struct buf text = {0};
    const char *line = NULL;
    uint64_t n = 0;

    if (file_read_all("/proc/vmstat", 64 << 10, &text, NULL) == STATUS_OK) {
        line = strstr(buf_str(&text), "\noom_kill ");
    }
    if (line != NULL) {
        n = strtoull(line + strlen("\noom_kill "), NULL, 10);
    }
    buf_release(&text);
    return n;
}

static void on_died(struct supervisor *s, const struct spawner_event *event)
{
    struct world_event out = supervisor_event(s, WORLD_EV_RANK_DIED, event->rank);

    watch_injected(s);
    s->members[event->rank].pid = 0;
    out.epoch = event->epoch;
    out.signal = event->signal;
    out.exit_code = event->exit_code;
    if (event->signal == SIGKILL) {
        uint64_t kills = count_oom_kills();

        out.oom = kills > s->oom_kills; /* of this machine, not surely of this rank: it is the
                                           likeliest, by its oom_score_adj */
        s->oom_kills = kills;
    }
    supervisor_post(s, &out);
}

void watch_start(struct supervisor *s)
{
    s->oom_kills = count_oom_kills();
}

bool watch_processes(struct supervisor *s)
{
    struct spawner_event event;
    bool any = false;

    while (s->n_events < SUPERVISOR_MAX_EVENTS / 2 && spawner_next(s->spawner, &event)) {
        struct world_event out = supervisor_event(s, WORLD_EV_SPAWNED, event.rank);

        any = true;
        out.epoch = event.epoch;
        switch (event.kind) {
        case SPAWNER_SPAWNED:
            if (event.epoch == s->machine.epoch && event.rank < s->n_members) {
                s->members[event.rank].pid = event.pid;
            }
            supervisor_post(s, &out);
            break;
        case SPAWNER_SPAWN_FAILED:
            out.kind = WORLD_EV_SPAWN_FAILED;
            out.error = event.error;
            supervisor_post(s, &out);
            break;
        case SPAWNER_DIED:
            if (event.epoch == s->machine.epoch && event.rank < s->n_members) {
                on_died(s, &event);
            }
            break;
        case SPAWNER_ALL_REAPED:
            out.kind = WORLD_EV_ALL_REAPED;
            out.rank = 0;
            supervisor_post(s, &out);
            break;
        }
    }
    return any;
}

/* --- Progress --- */

static struct hang_progress progress_of(struct supervisor *s, uint32_t rank)
{
    struct status_progress at = status_page_progress_read(s->wiring.ranks[rank]);
    struct hang_progress progress = {
        .step = at.step,
        .layer = at.layer,
        .collective = at.collective,
        .block = at.block,
        .waiting = at.waiting,
        .idle = true,
    };

    /* read when it can matter: most looks find nothing that stands still for long */
    progress.stopped = s->hang.ranks[rank].still_ns > hang_threshold_ns(&s->hang) / 2 &&
                       process_is_stopped(s->members[rank].pid);
    for (uint32_t i = 0; i < s->n_steps; i++) {
        progress.idle = progress.idle && (s->steps[i].done & UINT64_C(1) << rank) != 0;
    }
    return progress;
}

bool watch_progress(struct supervisor *s, uint64_t now)
{
    struct hang_progress progress[SUPERVISOR_MAX_RANKS];
    struct hang_verdict verdict;
    struct world_event event;

    if (!s->wired || !world_computes(s->machine.state)) {
        return false;
    }
    for (uint32_t r = 0; r < s->n_members; r++) {
        progress[r] = progress_of(s, r);
    }
    if (!hang_look(&s->hang, now, progress, &verdict)) {
        return false;
    }
    event = supervisor_event(s, WORLD_EV_RANK_HUNG, verdict.rank);
    hang_text(&verdict, s->hang_text, sizeof(s->hang_text));
    watch_injected(s);
    supervisor_post(s, &event);
    return true;
}

/* --- Devices --- */

enum { DEVICE_GONE_AT = 2 };

bool watch_device(struct supervisor *s, uint32_t rank)
{
    struct world_event event = supervisor_event(s, WORLD_EV_DEVICE_GONE, rank);

    s->device_faults[rank]++;
    if (s->device_faults[rank] < DEVICE_GONE_AT) {
        return false;
    }
    s->device_faults[rank] = 0;
    s->place_gone[s->places[rank]] = true;
    supervisor_post(s, &event);
    return true;
}

/* --- Injected faults --- */

/* A rank's status page, also before the rings are there and after its death. */
static bool read_page(struct supervisor *s, uint32_t rank, struct status_snapshot *page)
{
    const void *memory = s->wired ? s->wiring.ranks[rank] : NULL;
    void *mapped = NULL;
    bool ok;

    if (s->members[rank].region_fd < 0) {
        return false;
    }
    if (memory == NULL) {
        if (region_map(s->members[rank].region_fd, STATUS_PAGE_BYTES, false, &mapped, NULL) !=
            STATUS_OK) {
            return false;
        }
        memory = mapped;
    }
    ok = status_page_read(memory, rank, s->machine.epoch, page, NULL) == STATUS_OK;
    region_unmap(mapped, STATUS_PAGE_BYTES);
    return ok;
}

bool watch_is_due(const struct supervisor *s, const struct planned_fault *fault)
{
    return !fault->fired && !fault->armed &&
           (!fault->spec.has_epoch || fault->spec.epoch == s->machine.epoch);
}

static struct planned_fault *find_fault(struct supervisor *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->n_faults; i++) {
        if (s->faults[i].id == id) {
            return &s->faults[i];
        }
    }
    return NULL;
}

/* Each that has come is told once: what breaks next in this epoch is its doing. */
static void note_fired(struct supervisor *s, const struct status_snapshot *page)
{
    for (uint32_t i = 0; i < page->n_events; i++) {
        const struct status_record *record = &page->events[i];
        struct planned_fault *fault =
            record->type == STATUS_EVENT_FAULT ? find_fault(s, record->a) : NULL;

        if (fault != NULL && !fault->fired) {
            struct world_event mark = supervisor_event(s, WORLD_EV_FAULT_MARK, page->rank);
            struct buf text = {0};

            fault->fired = true;
            fault_format(&fault->spec, &text);
            log_info("injected: %s", buf_str(&text));
            buf_release(&text);
            supervisor_post(s, &mark);
        }
    }
}

void watch_injected(struct supervisor *s)
{
    struct status_snapshot *page;
    bool any = false;

    for (uint32_t i = 0; i < s->n_faults; i++) {
        any = any || !s->faults[i].fired;
    }
    if (!any) {
        return;
    }
    page = xalloc(sizeof(*page));
    for (uint32_t r = 0; r < s->n_members; r++) {
        if (read_page(s, r, page)) {
            note_fired(s, page);
        }
    }
    free(page);
}

/* --- Reports --- */

/* Every rank's own error, for the text of a failure. */
static void append_errors(const struct supervisor *s, struct buf *text)
{
    for (uint32_t r = 0; r < s->n_members; r++) {
        if (s->members[r].err.text[0] != '\0') {
            buf_printf(text, "%srank %u: %s", text->len > 0 ? "; " : "", r, s->members[r].err.text);
        }
    }
}

static bool all_said_the_same(const struct supervisor *s)
{
    for (uint32_t r = 1; r < s->n_members; r++) {
        if (strcmp(s->members[r].err.text, s->members[0].err.text) != 0) {
            return false;
        }
    }
    return s->n_members > 0 && s->members[0].err.text[0] != '\0';
}

/* The last fault in words: the ranks' own, where they had any. */
void watch_explain(struct supervisor *s)
{
    struct buf text = {0};
    char fault[256];

    if (s->machine.fault.cause == WORLD_CAUSE_NONE) {
        return;
    }
    if (all_said_the_same(s)) {
        buf_printf(&text, "%s", s->members[0].err.text);
    } else {
        append_errors(s, &text);
    }
    if (s->machine.fault.cause == WORLD_CAUSE_HUNG) {
        buf_clear(&text);
        buf_printf(&text, "%s", s->hang_text);
    } else if (s->machine.fault.cause != WORLD_CAUSE_ERROR || text.len == 0) {
        world_fault_text(&s->machine.fault, fault, sizeof(fault));
        buf_printf(&text, text.len > 0 ? " (%s)" : "%s", fault);
    }
    snprintf(s->why, sizeof(s->why), "%s", buf_str(&text));
    buf_release(&text);
}

static void dump_pages(struct supervisor *s)
{
    struct status_snapshot *page = xalloc(sizeof(*page));
    struct buf text = {0};

    for (uint32_t r = 0; r < s->n_members; r++) {
        if (read_page(s, r, page)) {
            buf_clear(&text);
            status_snapshot_dump(page, DUMP_EVENTS, &text);
            for (const char *line = buf_str(&text); *line != '\0';) {
                int n = (int)strcspn(line, "\n");

                log_debug("%.*s", n, line);
                line += n + (line[n] == '\n');
            }
        }
    }
    buf_release(&text);
    free(page);
}

/* How long before the fault was noticed (now) this rank last gave a sign of life: it moved, it
 * wrote into its page, or the leader looked and its process had not ended. */
static uint64_t since_alive(const struct supervisor *s, const struct status_snapshot *page)
{
    uint64_t now = clock_ns();
    uint64_t alive = page->beat_ns;

    if (s->machine.fault.cause == WORLD_CAUSE_HUNG) {
        return MAX(s->hang.ranks[page->rank].still_ns, s->members[page->rank].silent_ns);
    }
    if (page->n_events > 0) {
        alive = MAX(alive, page->events[page->n_events - 1].ns);
    }
    if (s->machine.fault.cause != WORLD_CAUSE_ERROR) {
        alive = MAX(alive, s->around_ns);
    }
    return alive < now ? now - alive : 0;
}

/* Keeps which rank failed how, and where it was. */
static void keep_fault(struct supervisor *s)
{
    const struct world_fault *fault = &s->machine.fault;
    struct status_snapshot *page = xalloc(sizeof(*page));

    s->last_fault = (struct supervisor_fault){
        .kind = world_cause_word(fault->cause), .rank = fault->rank, .injected = fault->injected};
    s->detection_ns = 0;
    if (fault->rank < s->n_members && read_page(s, fault->rank, page)) {
        s->detection_ns = since_alive(s, page);
        s->last_fault.step = page->progress.step;
        s->last_fault.layer = page->progress.layer;
        s->last_fault.collective = page->progress.collective;
    }
    free(page);
}

void watch_report(struct supervisor *s, enum world_state state)
{
    switch ((int)state) {
    case WORLD_REBUILDING:
        s->fault_ns = clock_ns();
        keep_fault(s);
        watch_explain(s);
        log_warn("%s; rebuilding the world of %u", s->why, s->machine.n_ranks);
        dump_pages(s);
        break;
    case WORLD_STOPPING:
        watch_explain(s);
        if (s->machine.fault.cause != WORLD_CAUSE_NONE) {
            keep_fault(s);
        }
        break;
    case WORLD_READY:
        s->ready_ns = clock_ns();
        trace_ready(s);
        if (s->machine.n_rebuilds > 0) {
            log_info("the world is ready again: %u rank%s, epoch %llu, %.0f ms after the fault",
                     s->n_members, s->n_members == 1 ? "" : "s",
                     (unsigned long long)s->machine.epoch,
                     (double)(clock_ns() - s->fault_ns) * 1e-6);
        }
        break;
    default:
        log_debug("world: %s, epoch %llu", world_state_text(state),
                  (unsigned long long)s->machine.epoch);
        break;
    }
}
