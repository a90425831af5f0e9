/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's life, the machine's events and actions, and the loop. */
#include "world/supervisor.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/mem.h"
#include "world/pack_cache.h"
#include "world/supervisor_priv.h"

enum {
    REFUSAL_GRACE_MS = 250, /* until the other ranks' answers to a load that one refused */
    LOOKS_PER_HANG = 10,
    AROUND_NS = 1000 * 1000,           /* between two looks, where deaths do not wake the leader, */
    AROUND_RARE_NS = 50 * 1000 * 1000, /* and where they do */
};

/* There are no descriptors yet. */
static void clear_fds(struct supervisor *s)
{
    s->leader_fd = -1;
    s->comm_fd = -1;
    s->kept.host = -1;
    for (uint32_t r = 0; r < SUPERVISOR_MAX_RANKS; r++) {
        s->members[r].channel.fd = -1;
        s->members[r].region_fd = -1;
        s->kept.weights[r] = -1;
        s->kept.kv[r] = -1;
        s->logits_fds[r] = -1;
    }
}

enum status supervisor_create(const struct supervisor_config *config,
                              struct supervisor **ret_supervisor, struct err *err)
{
    struct spawner_local_config local = {.oom_score_adj = 500};
    struct supervisor *s;
    enum status status;

    if (config->n_ranks == 0 || config->n_ranks > SUPERVISOR_MAX_RANKS) {
        return err_set(err, STATUS_INVALID, "a world has 1 to %d ranks, not %u",
                       SUPERVISOR_MAX_RANKS, config->n_ranks);
    }
    s = xalloc(sizeof(*s));
    s->config = *config;
    s->load = config->load == NULL ? NULL : json_deep_copy(config->load);
    s->cores = config->cores == NULL ? NULL : json_deep_copy(config->cores);
    s->config.load = NULL; /* of these there are copies */
    s->config.cores = NULL;
    s->config.faults = NULL;
    s->config.devices = NULL;
    for (uint32_t r = 0; r < config->n_ranks; r++) {
        snprintf(s->devices[r], sizeof(s->devices[r]), "%s",
                 config->devices == NULL ? "cpu" : config->devices[r]);
    }
    s->pack_cache = pack_cache_create(config->pack_cache);
    s->config.pack_cache = NULL;
    clear_fds(s);
    s->n_faults = MIN(config->n_faults, SUPERVISOR_MAX_FAULTS);
    for (uint32_t i = 0; i < s->n_faults; i++) {
        s->faults[i] = (struct planned_fault){.id = ++s->last_fault_id, .spec = config->faults[i]};
    }
    s->result_bytes =
        (uint32_t)round_up(config->max_rows * (sizeof(struct result_token) +
                                               PLAN_MAX_TOP * sizeof(struct result_top)) +
                               2048,
                           64);
    s->incoming = xalloc(s->result_bytes);
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        s->steps[i].record = xalloc(s->result_bytes);
    }
    world_machine_init(&s->machine, &config->world);
    watch_start(s);
    hang_init(&s->hang, config->n_ranks, config->hang_ms);
    /* with a word that is not as expected it returns at once, if the kernel knows the call */
    s->has_alarm = futex_wait_two_shared(&s->alarm, 1, &s->alarm, 1, 1);
    s->around_every_ns = s->has_alarm ? MIN((uint64_t)AROUND_RARE_NS,
                                            (uint64_t)config->hang_ms * 1000000 / LOOKS_PER_HANG)
                                      : AROUND_NS;
    local.alarm = &s->alarm;
    status = spawner_local_create(&local, &s->spawner, err);
    if (status != STATUS_OK) {
        supervisor_destroy(&s);
        return status;
    }
    *ret_supervisor = s;
    return STATUS_OK;
}

void supervisor_destroy(struct supervisor **supervisor)
{
    struct supervisor *s = *supervisor;

    if (s == NULL) {
        return;
    }
    if (s->spawner != NULL) {
        spawner_destroy(&s->spawner);
    }
    epoch_release(s);
    pack_cache_destroy(&s->pack_cache);
    kept_release(s);
    trace_destroy(&s->trace);
    world_machine_release(&s->machine);
    for (uint32_t i = 0; i < FLIGHT_MAX_STEPS; i++) {
        free(s->steps[i].record);
    }
    free(s->incoming);
    free(s->plan_record);
    json_decref(s->load);
    json_decref(s->cores);
    free(s);
    *supervisor = NULL;
}

/* --- Events and actions --- */

struct world_event supervisor_event(const struct supervisor *s, enum world_event_kind kind,
                                    uint32_t rank)
{
    return (struct world_event){.kind = kind, .epoch = s->machine.epoch, .rank = rank};
}

void supervisor_post(struct supervisor *s, const struct world_event *event)
{
    ENSURE_OP(s->n_events, <, SUPERVISOR_MAX_EVENTS);
    s->events[s->n_events++] = *event;
}

static void post_all(struct supervisor *s, enum world_event_kind kind)
{
    for (uint32_t r = 0; r < s->n_members; r++) {
        struct world_event event = supervisor_event(s, kind, r);

        supervisor_post(s, &event);
    }
}

static void send_load(struct supervisor *s, const struct world_action *action)
{
    if (s->load == NULL) {
        post_all(s, WORLD_EV_LOAD_OK);
        return;
    }
    talk_send_load(s, action->keep_weights, action->keep_kv);
}

static void send_shutdown(struct supervisor *s)
{
    s->unloading = s->load != NULL;
    talk_ask_all(s, s->unloading ? MESSAGE_UNLOAD : MESSAGE_SHUTDOWN, NULL);
}

static void carry_out(struct supervisor *s, const struct world_action *action)
{
    const struct supervisor_handlers *on = &s->config.on;

    switch (action->kind) {
    case WORLD_DO_SPAWN_ALL:
        epoch_release(s);
        epoch_spawn(s, action->n_ranks);
        break;
    case WORLD_DO_KILL_ALL:
        spawner_kill(s->spawner);
        step_drop_all(s);
        break;
    case WORLD_DO_SEND_COMM_INIT:
        epoch_connect(s);
        break;
    case WORLD_DO_SEND_SANITY:
        talk_ask_all(s, MESSAGE_SANITY, NULL);
        break;
    case WORLD_DO_SEND_LOAD:
        send_load(s, action);
        break;
    case WORLD_DO_SEND_SHUTDOWN:
        send_shutdown(s);
        break;
    case WORLD_DO_RESUME:
        if (on->resume != NULL) {
            on->resume(on->arg, action->keep_kv, action->ids, action->n_ids);
        }
        break;
    case WORLD_DO_FAIL_REQUESTS:
        watch_explain(s); /* the requests are told why; the report comes after them */
        if (on->fail != NULL) {
            on->fail(on->arg, action->all, action->ids, action->n_ids);
        }
        break;
    case WORLD_DO_UNDO_LOAD:
        epoch_release(s);
        kept_release(s);
        break;
    case WORLD_DO_REPORT:
        watch_report(s, action->state);
        if (action->state == WORLD_DOWN && on->fail != NULL) {
            on->fail(on->arg, true, NULL, 0); /* those that waited for a first load */
        }
        break;
    case WORLD_DO_DROP_CACHE:
        if (on->drop_cache != NULL) {
            on->drop_cache(on->arg);
        }
        break;
    case WORLD_DO_ARM_PROBE: /* world_machine_wake_at has its time */
    case WORLD_N_ACTIONS:
        break;
    }
}

/* One event, and all that follows from it at once. */
static void feed(struct supervisor *s, const struct world_event *event)
{
    bool was_ready = s->machine.state == WORLD_READY;
    bool was_loaded = s->machine.loaded;
    struct world_actions actions;

    world_machine_event(&s->machine, event, clock_ns(), &actions);
    for (size_t i = 0; i < actions.n; i++) {
        carry_out(s, &actions.list[i]);
    }
    if (!was_ready && !was_loaded && s->machine.state == WORLD_READY &&
        s->config.on.resume != NULL) {
        s->config.on.resume(s->config.on.arg, false, NULL, 0);
    }
}

static bool feed_all(struct supervisor *s)
{
    bool any = s->n_events > 0;

    for (uint32_t i = 0; i < s->n_events; i++) { /* feeding may add more */
        struct world_event event = s->events[i];

        feed(s, &event);
    }
    s->n_events = 0;
    return any;
}

/* A load that a rank refuses is taken back on all; before that the others may say their own. */
static bool feed_refusal(struct supervisor *s, uint64_t now)
{
    bool all = true;

    if (s->refused_ns == 0) {
        return false;
    }
    for (uint32_t r = 0; r < s->n_members; r++) {
        all = all && !s->members[r].asked;
    }
    if (!all && now < s->refused_ns + (uint64_t)REFUSAL_GRACE_MS * 1000000) {
        return false;
    }
    s->refused_ns = 0;
    supervisor_post(s, &s->refusal);
    return true;
}

void supervisor_start(struct supervisor *supervisor)
{
    kept_find(supervisor);
    feed(supervisor,
         &(struct world_event){.kind = WORLD_EV_LOAD, .n_ranks = supervisor->config.n_ranks});
}

void supervisor_stop(struct supervisor *supervisor)
{
    feed(supervisor, &(struct world_event){.kind = WORLD_EV_UNLOAD});
}

bool supervisor_is_alone(const struct supervisor *supervisor, uint64_t request)
{
    return suspects_is_alone(&supervisor->machine.flight.suspects, request);
}

void supervisor_request_ended(struct supervisor *supervisor, uint64_t request)
{
    feed(supervisor, &(struct world_event){.kind = WORLD_EV_REQUEST_ENDED, .request = request});
}

/* --- The loop --- */

/* Channels, processes, time. */
static bool look_around(struct supervisor *s, uint64_t now)
{
    bool any;

    any = talk_take(s);
    any |= feed_all(s);
    any |= watch_processes(s);
    any |= feed_all(s);
    if (now - s->looked_ns >= (uint64_t)s->config.hang_ms * 1000000 / LOOKS_PER_HANG) {
        any |= watch_progress(s, now);
        any |= talk_watch_silent(s, now - s->looked_ns);
        watch_injected(s); /* a rank that lives on writes over its records in the end */
        s->looked_ns = now;
    }
    any |= talk_watch_cut(s, now);
    any |= feed_refusal(s, now);
    if (now >= world_machine_wake_at(&s->machine)) {
        watch_injected(s);
        supervisor_post(s, &(struct world_event){.kind = WORLD_EV_TICK});
    }
    any |= feed_all(s);
    talk_pump(s);
    trace_look(s);
    s->around_ns = now;
    return any;
}

/* What has happened by now; true if anything has. While steps are in flight all that costs system
 * calls is looked at only when a process has ended, or now and then: the leader shares its core
 * with a rank. */
static bool look(struct supervisor *s)
{
    bool any = step_take(s);
    uint32_t alarm = atomic_load(&s->alarm);
    uint64_t now = clock_ns();

    any |= feed_all(s);
    if (s->n_steps == 0 || alarm != s->alarm_seen || now - s->around_ns >= s->around_every_ns) {
        s->alarm_seen = alarm;
        any |= look_around(s, now);
    }
    return any;
}

static uint64_t next_wake(const struct supervisor *s, uint64_t deadline_ns)
{
    uint64_t wake = MIN(deadline_ns, world_machine_wake_at(&s->machine));

    wake = MIN(wake, talk_wake_at(s));
    if (s->refused_ns != 0) {
        wake = MIN(wake, s->refused_ns + (uint64_t)REFUSAL_GRACE_MS * 1000000);
    }
    if (s->n_steps > 0) { /* when look() looks around again */
        wake = MIN(wake, s->around_ns + s->around_every_ns);
    } else if (talk_busy(s)) {
        uint64_t look_ns = s->looked_ns + (uint64_t)s->config.hang_ms * 1000000 / LOOKS_PER_HANG;

        wake = MIN(wake, MAX(look_ns, s->around_ns + AROUND_NS));
    }
    return wake;
}

/* Waits for any descriptor. */
static void sleep_on_all(struct supervisor *s, uint64_t deadline_ns, struct pollfd *extra,
                         uint32_t n_extra)
{
    struct pollfd fds[1 + SUPERVISOR_MAX_RANKS + 16];
    uint32_t n = 0;

    ENSURE_OP(n_extra, <=, 16);
    fds[n++] = (struct pollfd){.fd = s->spawner->event_fd, .events = POLLIN};
    for (uint32_t r = 0; r < s->n_members; r++) {
        fds[n++] = channel_poll(&s->members[r].channel);
    }
    for (uint32_t i = 0; i < n_extra; i++) {
        fds[n++] = extra[i];
    }
    channel_wait(fds, n, deadline_ns);
    for (uint32_t i = 0; i < n_extra; i++) {
        extra[i].revents = fds[n - n_extra + i].revents;
    }
}

void supervisor_turn(struct supervisor *supervisor, uint64_t deadline_ns, struct pollfd *extra,
                     uint32_t n_extra)
{
    struct supervisor *s = supervisor;
    bool on_ring = false;

    for (uint32_t i = 0; i < n_extra; i++) {
        extra[i].revents = 0;
    }
    if (look(s)) {
        deadline_ns = 0; /* only a look at the caller's descriptors */
    }
    for (uint32_t i = 0; i < s->n_steps; i++) {
        on_ring = on_ring || !s->steps[i].by_channel;
    }
    if (on_ring && deadline_ns != 0) {
        step_wait(s, next_wake(s, deadline_ns));
        deadline_ns = 0;
    }
    if (deadline_ns != 0 || (n_extra > 0 && clock_ns() - s->extra_ns >= s->around_every_ns)) {
        s->extra_ns = clock_ns();
        sleep_on_all(s, deadline_ns == 0 ? 0 : next_wake(s, deadline_ns), extra, n_extra);
    }
    look(s);
}

/* --- What is known --- */

enum world_state supervisor_state(const struct supervisor *supervisor)
{
    return supervisor->machine.state;
}

uint32_t supervisor_ranks(const struct supervisor *supervisor)
{
    return supervisor->n_members;
}

const char *supervisor_why(const struct supervisor *supervisor)
{
    return supervisor->why;
}

struct supervisor_fault supervisor_last_fault(const struct supervisor *supervisor)
{
    return supervisor->last_fault;
}

void supervisor_load_progress(const struct supervisor *supervisor, uint32_t rank,
                              uint64_t *ret_done, uint64_t *ret_total)
{
    bool there = rank < supervisor->n_members;

    *ret_done = there ? supervisor->members[rank].load_done : 0;
    *ret_total = there ? supervisor->members[rank].load_total : 0;
}

bool supervisor_refused(const struct supervisor *supervisor)
{
    const struct world_fault *fault = &supervisor->machine.fault;

    return fault->cause == WORLD_CAUSE_ERROR &&
           (fault->detail == WORLD_ERROR_USER || fault->detail == WORLD_ERROR_MEMORY);
}

uint64_t supervisor_epoch(const struct supervisor *supervisor)
{
    return supervisor->machine.epoch;
}

uint64_t supervisor_rebuilds(const struct supervisor *supervisor)
{
    return supervisor->machine.n_rebuilds;
}

uint64_t supervisor_next_step(const struct supervisor *supervisor)
{
    return world_machine_next_step(&supervisor->machine);
}

pid_t supervisor_pid(const struct supervisor *supervisor, uint32_t rank)
{
    return rank < supervisor->n_members ? supervisor->members[rank].pid : 0;
}

uint64_t supervisor_fault_ns(const struct supervisor *supervisor)
{
    return supervisor->fault_ns;
}

uint64_t supervisor_detection_ns(const struct supervisor *supervisor)
{
    return supervisor->detection_ns;
}

uint64_t supervisor_ready_ns(const struct supervisor *supervisor)
{
    return supervisor->ready_ns;
}

const json_t *supervisor_answer(const struct supervisor *supervisor, enum message_type type,
                                uint32_t rank)
{
    return rank < supervisor->n_members ? supervisor->members[rank].answers[type] : NULL;
}

const float *supervisor_logits(const struct supervisor *supervisor, uint32_t rank)
{
    return supervisor->logits[rank];
}

json_t *supervisor_describe(const struct supervisor *supervisor)
{
    const struct supervisor *s = supervisor;
    json_t *ranks = json_array();

    for (uint32_t r = 0; r < s->n_members; r++) {
        const struct channel_counters *c = &s->members[r].channel.counters;

        json_array_append_new(ranks, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "rank",
                                               (json_int_t)r, "pid", (json_int_t)s->members[r].pid,
                                               "frames_in", (json_int_t)c->frames_in, "frames_out",
                                               (json_int_t)c->frames_out, "frames_dropped_epoch",
                                               (json_int_t)c->dropped_epoch, "frames_dropped_seq",
                                               (json_int_t)c->dropped_seq));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:o}", "state",
                     world_state_text(s->machine.state), "epoch", (json_int_t)s->machine.epoch,
                     "rebuilds", (json_int_t)s->machine.n_rebuilds, "next_step",
                     (json_int_t)supervisor_next_step(s), "stale_events",
                     (json_int_t)s->machine.n_stale, "why", s->why, "ranks", ranks);
}
