/* SPDX-License-Identifier: Apache-2.0 */
#include "world/trace.h"

#include <stdlib.h>

#include "base/mem.h"
#include "json/json.h"

/* Processes and threads of the text. */
enum {
    PID_LEADER = 1,
    PID_RANKS = 2, /* rank 0's, and so on */
    TID_WORLD = 1, /* of the leader: rebuilds, */
    TID_FLIGHT,    /* and steps; two may be in flight, so they take turns on two threads */
    N_FLIGHT = 2,
    TID_STEPS = 1, /* of a rank */
    TID_LAYERS,
    TID_COLLECTIVES,
};

struct entry {
    struct trace_record record;
    uint32_t rank;
};

struct rebuild {
    uint64_t from_ns;
    uint64_t to_ns;
    uint64_t epoch;
};

struct trace {
    struct trace_config config;
    struct entry *entries;
    size_t n_entries;
    size_t cap_entries;
    struct trace_leader_step *steps;
    size_t n_steps;
    size_t cap_steps;
    struct rebuild *rebuilds;
    size_t n_rebuilds;
    size_t cap_rebuilds;
    uint64_t n_lost;
};

struct trace *trace_create(const struct trace_config *config)
{
    struct trace *trace = xalloc(sizeof(*trace));

    trace->config = *config;
    return trace;
}

void trace_destroy(struct trace **trace)
{
    if (*trace != NULL) {
        free((*trace)->entries);
        free((*trace)->steps);
        free((*trace)->rebuilds);
        free(*trace);
        *trace = NULL;
    }
}

/* Makes room for one more of bytes each; false if there are as many as are kept, or no memory: what
 * is recorded is worth less than what is served. */
static bool make_room(void **list, size_t n, size_t *cap, size_t bytes)
{
    size_t more = MIN(MAX(2 * n, (size_t)1024), (size_t)TRACE_MAX_RECORDS);
    void *grown;

    if (n < *cap) {
        return true;
    }
    if (n == TRACE_MAX_RECORDS || (grown = reallocarray(*list, more, bytes)) == NULL) {
        return false;
    }
    *list = grown;
    *cap = more;
    return true;
}

void trace_add(struct trace *trace, uint32_t rank, const struct trace_record *records, uint32_t n,
               uint64_t n_lost)
{
    trace->n_lost += n_lost;
    trace->config.n_ranks = MAX(trace->config.n_ranks, rank + 1);
    for (uint32_t i = 0; i < n; i++) {
        if (records[i].start_ns < trace->config.begin_ns) {
            continue;
        }
        if (!make_room((void **)&trace->entries, trace->n_entries, &trace->cap_entries,
                       sizeof(*trace->entries))) {
            trace->n_lost++;
            continue;
        }
        trace->entries[trace->n_entries++] = (struct entry){.record = records[i], .rank = rank};
    }
}

void trace_add_step(struct trace *trace, const struct trace_leader_step *step)
{
    if (step->issued_ns < trace->config.begin_ns) {
        return;
    }
    if (make_room((void **)&trace->steps, trace->n_steps, &trace->cap_steps,
                  sizeof(*trace->steps))) {
        trace->steps[trace->n_steps++] = *step;
    } else {
        trace->n_lost++;
    }
}

void trace_add_rebuild(struct trace *trace, uint64_t fault_ns, uint64_t ready_ns, uint64_t epoch)
{
    if (make_room((void **)&trace->rebuilds, trace->n_rebuilds, &trace->cap_rebuilds,
                  sizeof(*trace->rebuilds))) {
        trace->rebuilds[trace->n_rebuilds++] = (struct rebuild){
            .from_ns = MAX(fault_ns, trace->config.begin_ns), .to_ns = ready_ns, .epoch = epoch};
    }
}

uint64_t trace_n_lost(const struct trace *trace)
{
    return trace->n_lost;
}

/* --- Text --- */

/* Nanoseconds as microseconds, which is what the form counts in. */
static void append_us(struct buf *out, const char *key, uint64_t ns)
{
    buf_printf(out, ",\"%s\":%llu.%03u", key, (unsigned long long)(ns / 1000),
               (unsigned)(ns % 1000));
}

static void append_place(const struct trace *trace, struct buf *out, uint32_t pid, uint32_t tid,
                         uint64_t start_ns, uint64_t took_ns)
{
    buf_printf(out, ",\"ph\":\"X\",\"pid\":%u,\"tid\":%u", pid, tid);
    append_us(out, "ts", start_ns - trace->config.begin_ns);
    append_us(out, "dur", took_ns);
}

/* The whole number of a step, from its low half: it is not far from where the recording began. */
static uint64_t step_of(const struct trace *trace, uint32_t low)
{
    int32_t ahead = (int32_t)(low - (uint32_t)trace->config.next_step);

    return trace->config.next_step + (uint64_t)(int64_t)ahead;
}

static void append_record(const struct trace *trace, const struct entry *entry, struct buf *out)
{
    static const char *const whats[TRACE_WHATS] = {
        [TRACE_DECODE] = "decode",         [TRACE_PREFILL] = "prefill",
        [TRACE_SUM_TREE] = "sum_tree",     [TRACE_ALL_REDUCE] = "all_reduce",
        [TRACE_ALL_GATHER] = "all_gather", [TRACE_BROADCAST] = "broadcast",
        [TRACE_BARRIER] = "barrier",
    };
    const struct trace_record *r = &entry->record;
    unsigned long long step = step_of(trace, r->step);
    uint32_t pid = PID_RANKS + entry->rank;

    buf_append_str(out, ",\n{\"name\":");
    switch (r->kind) {
    case TRACE_STEP:
        buf_printf(out, "\"step %llu\",\"cat\":\"%s\"", step, whats[r->what]);
        append_place(trace, out, pid, TID_STEPS, r->start_ns, r->took_ns);
        buf_printf(out, ",\"args\":{\"step\":%llu,\"rows\":%u}}", step, r->layer);
        break;
    case TRACE_LAYER:
        if (r->layer >= trace->config.n_layers) {
            buf_append_str(out, "\"head\"");
        } else {
            buf_printf(out, "\"layer %u\"", r->layer);
        }
        buf_append_str(out, ",\"cat\":\"layer\"");
        append_place(trace, out, pid, TID_LAYERS, r->start_ns, r->took_ns);
        buf_printf(out, ",\"args\":{\"step\":%llu,\"layer\":%u}}", step, r->layer);
        break;
    case TRACE_COLLECTIVE:
    case TRACE_KINDS:
        buf_printf(out, "\"%s\",\"cat\":\"collective\"", whats[r->what]);
        append_place(trace, out, pid, TID_COLLECTIVES, r->start_ns, r->took_ns);
        buf_printf(out, ",\"args\":{\"step\":%llu,\"layer\":%u,\"number\":%u}}", step, r->layer,
                   r->number);
        break;
    }
}

/* The first of a list begins without a comma: it is this one. */
static void append_name(struct buf *out, const char *comma, const char *kind, uint32_t pid,
                        uint32_t tid, const char *name)
{
    buf_printf(
        out, "%s\n{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":\"%s\"}}",
        comma, kind, pid, tid, name);
}

static void append_names(const struct trace *trace, struct buf *out)
{
    static const char *const threads[] = {"steps", "layers", "collectives"};

    append_name(out, "", "process_name", PID_LEADER, 0, "leader");
    append_name(out, ",", "thread_name", PID_LEADER, TID_WORLD, "world");
    append_name(out, ",", "thread_name", PID_LEADER, TID_FLIGHT, "steps in flight");
    append_name(out, ",", "thread_name", PID_LEADER, TID_FLIGHT + 1, "steps one ahead");
    for (uint32_t r = 0; r < trace->config.n_ranks; r++) {
        char name[32];

        snprintf(name, sizeof(name), "rank %u", r);
        append_name(out, ",", "process_name", PID_RANKS + r, 0, name);
        for (uint32_t t = 0; t < ARRAY_LEN(threads); t++) {
            append_name(out, ",", "thread_name", PID_RANKS + r, TID_STEPS + t, threads[t]);
        }
        buf_printf(out,
                   ",\n{\"name\":\"process_sort_index\",\"ph\":\"M\",\"pid\":%u,\"tid\":0,\"args\":"
                   "{\"sort_index\":%u}}",
                   PID_RANKS + r, PID_RANKS + r);
    }
}

static void append_leader(const struct trace *trace, struct buf *out)
{
    for (size_t i = 0; i < trace->n_steps; i++) {
        const struct trace_leader_step *s = &trace->steps[i];
        unsigned long long number = s->number;

        buf_printf(out, ",\n{\"name\":\"step %llu\",\"cat\":\"%s\"", number,
                   s->committed ? "committed" : "void");
        append_place(trace, out, PID_LEADER, TID_FLIGHT + (uint32_t)(s->number % N_FLIGHT),
                     s->issued_ns, s->ended_ns - s->issued_ns);
        buf_printf(out, ",\"args\":{\"step\":%llu,\"rows\":%u,\"committed\":%s}}", number,
                   s->n_rows, s->committed ? "true" : "false");
    }
    for (size_t i = 0; i < trace->n_rebuilds; i++) {
        const struct rebuild *r = &trace->rebuilds[i];

        buf_append_str(out, ",\n{\"name\":\"rebuild\",\"cat\":\"world\"");
        append_place(trace, out, PID_LEADER, TID_WORLD, r->from_ns,
                     r->to_ns > r->from_ns ? r->to_ns - r->from_ns : 0);
        buf_printf(out, ",\"args\":{\"epoch\":%llu}}", (unsigned long long)r->epoch);
    }
}

static void append_string(struct buf *out, const char *text)
{
    json_t *json = json_string(text);
    char *dump = json == NULL ? NULL : json_dumps(json, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

    buf_append_str(out, dump == NULL ? "\"\"" : dump); /* NULL: not UTF-8 */
    free(dump);
    json_decref(json);
}

void trace_append_json(const struct trace *trace, const char *model, struct buf *out)
{
    buf_append_str(out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"model\":");
    append_string(out, model);
    buf_printf(out, ",\"ranks\":%u,\"layers\":%u,\"lost_records\":%llu},\n\"traceEvents\":[",
               trace->config.n_ranks, trace->config.n_layers, (unsigned long long)trace->n_lost);
    append_names(trace, out);
    append_leader(trace, out);
    for (size_t i = 0; i < trace->n_entries; i++) {
        append_record(trace, &trace->entries[i], out);
    }
    buf_append_str(out, "\n]}\n");
}
