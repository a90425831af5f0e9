/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a host: opens the world, drives it turn by turn, ends it.
 *
 *   open ─▶ start ─▶ { take mail; batch_turn; hand news to the front; publish } ─▶ stop ─▶ close
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/host_meter.h"
#include "rpc/message.h"

enum {
    PUBLISH_MS = 50, /* how old a snapshot may be while there is work, */
    IDLE_MS = 250,   /* and otherwise */
    ASK_IDLE_MS = 1000,
    TURN_MS = 500,    /* how long others wait for the end of a step */
    METER_MS = 250,   /* how often metrics of the world are read */
    CLOSE_MS = 10000, /* for ranks to end, politely or not */
};

static uint64_t in_ms(uint64_t from_ns, uint64_t ms)
{
    return from_ns + ms * 1000000;
}

/* --- News --- */

static struct host_news *news_of_turn(struct host *h)
{
    if (h->news == NULL) {
        h->news = xalloc(sizeof(*h->news));
        h->news->mail.deliver = news_deliver;
        h->news->host = h;
    }
    return h->news;
}

static struct seq_event *add_event(struct host *h, struct seq *seq, enum seq_event_kind kind)
{
    struct host_news *news = news_of_turn(h);

    if (news->n == news->cap) {
        news->cap = MAX((size_t)16, 2 * news->cap);
        news->events = xrealloc(news->events, news->cap, sizeof(*news->events));
    }
    news->events[news->n] =
        (struct news_event){.seq = seq, .event = {.kind = kind, .end_token = -1}};
    return &news->events[news->n++].event;
}

static void copy_token(struct host *h, const struct batch_token *token)
{
    struct host_news *news = h->news;
    struct news_event *e = &news->events[news->n - 1];

    e->event.token = *token;
    e->event.token.tops = NULL;
    e->top = news->n_tops;
    if (token->n_tops == 0) {
        return;
    }
    if (news->n_tops + token->n_tops > news->cap_tops) {
        news->cap_tops = 2 * (news->n_tops + token->n_tops);
        news->tops = xrealloc(news->tops, news->cap_tops, sizeof(*news->tops));
    }
    memcpy(news->tops + news->n_tops, token->tops, token->n_tops * sizeof(*news->tops));
    news->n_tops += token->n_tops;
}

static void send_news(struct host *h)
{
    struct host_news *news = h->news;

    if (news != NULL) {
        h->news = NULL;
        mailbox_put(h->config.front, &news->mail);
    }
}

/* --- Sequences --- */

/* Takes the sequence out of the list and tells the front. */
static void end_seq(struct host *h, struct seq *seq, const struct seq_event *end)
{
    struct seq_event *event = add_event(h, seq, SEQ_END);

    meter_end(seq, end);
    event->end = end->end;
    event->end_token = end->end_token;
    event->status = end->status;
    event->why = end->why == NULL ? NULL : xstrdup(end->why);
    if (seq->prev != NULL) {
        seq->prev->next = seq->next;
    } else if (h->seqs == seq) {
        h->seqs = seq->next;
    }
    if (seq->next != NULL) {
        seq->next->prev = seq->prev;
    }
    seq->next = NULL;
    seq->prev = NULL;
}

static void on_started(void *arg, uint32_t n_cached)
{
    struct seq *seq = arg;

    meter_started(seq, n_cached);
    add_event(seq->host, seq, SEQ_STARTED)->n_cached = n_cached;
}

static bool is_end(const struct seq *seq, int32_t token)
{
    for (uint32_t i = 0; i < seq->n_ends && seq->n_generated > seq->n_first; i++) {
        if (seq->ends[i] == token) {
            return true;
        }
    }
    return false;
}

static bool on_token(void *arg, const struct batch_token *token)
{
    struct seq *seq = arg;
    struct host *h = seq->host;

    meter_token(seq);
    if (is_end(seq, token->token)) {
        seq->ended_by = token->token;
        return false;
    }
    add_event(h, seq, SEQ_TOKEN);
    copy_token(h, token);
    return true;
}

static void on_prompt_token(void *arg, uint32_t position, const struct batch_token *token)
{
    struct seq *seq = arg;

    add_event(seq->host, seq, SEQ_PROMPT_TOKEN)->position = position;
    copy_token(seq->host, token);
}

static void on_end(void *arg, enum batch_end end, enum status status, const char *why)
{
    struct seq *seq = arg;
    struct seq_event event = {.kind = SEQ_END, .end = end, .status = status, .why = why};

    event.end_token = end == BATCH_STOP ? seq->ended_by : -1;
    end_seq(seq->host, seq, &event);
}

/* STATUS_OK, or why nothing is taken now. */
static enum status admission(const struct host *h, const char **ret_why)
{
    if (h->world.batch == NULL) {
        *ret_why = "the model is not loaded";
        return STATUS_LINK;
    }
    if (h->failed) {
        *ret_why = supervisor_why(h->world.supervisor);
        return STATUS_LINK;
    }
    if (atomic_load(&h->refuse)) {
        *ret_why = "the model is being unloaded";
        return STATUS_LINK;
    }
    return STATUS_OK;
}

void host_deliver_seq(struct mail *mail)
{
    struct seq *seq = (struct seq *)mail;
    struct host *h = seq->host;
    const char *why = NULL;
    struct err err = {0};
    enum status status = admission(h, &why);

    seq->request.started = on_started;
    seq->request.token = on_token;
    seq->request.prompt_token = seq->request.prompt_logprobs ? on_prompt_token : NULL;
    seq->request.end = on_end;
    seq->request.arg = seq;
    seq->request.prompt = seq->prompt;
    seq->request.bias = seq->bias;
    seq->prev = NULL;
    seq->next = h->seqs;
    if (h->seqs != NULL) {
        h->seqs->prev = seq;
    }
    h->seqs = seq;
    if (status == STATUS_OK) {
        status = batch_add(h->world.batch, &seq->request, &seq->batch_id, &err);
        why = err.text;
    }
    if (status != STATUS_OK) {
        end_seq(h, seq,
                &(struct seq_event){
                    .end = BATCH_FAILED, .end_token = -1, .status = status, .why = why});
        if (h->world.batch == NULL) {
            send_news(h); /* no turn will */
        }
    }
}

void host_cancel_seq(struct host *host, uint64_t id)
{
    for (struct seq *seq = host->seqs; seq != NULL; seq = seq->next) {
        if (seq->id == id) {
            batch_cancel(host->world.batch, seq->batch_id);
            return;
        }
    }
}

/* --- What others see --- */

static enum host_phase phase_of(struct host *h)
{
    enum world_state state = supervisor_state(h->world.supervisor);

    if (state == WORLD_READY) {
        h->was_ready = true;
        h->failed = false;
        return atomic_load(&h->stop) ? HOST_DRAINING : HOST_READY;
    }
    if (state == WORLD_FAILED) {
        h->failed = true;
    }
    if (h->failed) {
        return HOST_FAILED;
    }
    return h->was_ready ? HOST_REBUILDING : HOST_LOADING;
}

/* What the ranks' answers to load say; what was known of it before, while they are away. */
static void read_loaded(struct host *h, struct host_snapshot *s)
{
    const struct supervisor *supervisor = h->world.supervisor;
    const json_t *loaded = supervisor_answer(supervisor, MESSAGE_LOAD_OK, 0);

    s->weight_bytes = h->snapshot.weight_bytes;
    s->kv_token_bytes = h->snapshot.kv_token_bytes;
    snprintf(s->arithmetic, sizeof(s->arithmetic), "%s", h->snapshot.arithmetic);
    if (loaded == NULL) {
        return;
    }
    snprintf(s->arithmetic, sizeof(s->arithmetic), "%s", message_text(loaded, "arithmetic", ""));
    s->weight_bytes = message_uint(loaded, "host_bytes", 0);
    s->kv_token_bytes = 0;
    for (uint32_t r = 0; r < s->n_ranks; r++) {
        const json_t *rank = supervisor_answer(supervisor, MESSAGE_LOAD_OK, r);

        s->weight_bytes += rank == NULL ? 0
                                        : message_uint(rank, "weight_bytes", 0) -
                                              message_uint(rank, "host_bytes", 0);
        s->kv_token_bytes +=
            rank == NULL ? 0
                         : message_uint(rank, "kv_page_bytes", 0) / MAX(h->world.page_tokens, 1u);
    }
}

static void read_world(struct host *h, struct host_snapshot *s)
{
    const struct supervisor *supervisor = h->world.supervisor;

    s->phase = phase_of(h);
    s->epoch = supervisor_epoch(supervisor);
    s->rebuilds = supervisor_rebuilds(supervisor);
    s->n_ranks = MAX(supervisor_ranks(supervisor), 1u);
    for (uint32_t r = 0; r < s->n_ranks; r++) {
        s->pids[r] = supervisor_pid(supervisor, r);
        s->up[r] = s->pids[r] != 0 && supervisor_state(supervisor) == WORLD_READY;
        supervisor_load_progress(supervisor, r, &s->load_done[r], &s->load_total[r]);
    }
    s->fault = supervisor_last_fault(supervisor);
    s->load_start_ns = h->load_start_ns;
    s->last_step_ns = h->last_step_ns;
    s->max_context = h->world.max_context;
    s->max_running = h->world.max_running;
    snprintf(s->why, sizeof(s->why), "%s", supervisor_why(supervisor));
    read_loaded(h, s);
}

static void publish(struct host *h, uint64_t now)
{
    struct host_snapshot s = {0};
    bool metered = now >= in_ms(h->metered_ns, METER_MS);

    batch_stats(h->world.batch, &s.batch);
    if (s.batch.steps != h->last_steps) {
        h->last_steps = s.batch.steps;
        h->last_step_ns = now;
    }
    read_world(h, &s);
    if (metered) {
        h->metered_ns = now;
        meter_world(h, &s);
    }
    pthread_mutex_lock(&h->lock);
    h->snapshot = s;
    pthread_mutex_unlock(&h->lock);
    h->published_ns = now;
}

static void publish_phase(struct host *h, enum host_phase phase)
{
    pthread_mutex_lock(&h->lock);
    h->snapshot.phase = phase;
    pthread_mutex_unlock(&h->lock);
}

/* --- Turns --- */

static uint64_t steps_of(const struct host *h)
{
    struct batch_stats stats;

    batch_stats(h->world.batch, &stats);
    return stats.steps;
}

/* True if something new may be issued now: no other world wants to compute, or it is this one's
 * turn and it has not had its step yet. Nobody waits for a world that is being rebuilt, nor longer
 * than TURN_MS for one whose step does not end: it may hang, and others have their answers to give
 * meanwhile (a long step shares the cores then). */
static bool take_turn(struct host *h, uint64_t now)
{
    struct turns *turns = h->config.turns;

    if (!batch_has_work(h->world.batch) || !world_computes(supervisor_state(h->world.supervisor))) {
        turns_leave(turns, &h->turn);
        h->holds_turn = false;
        return true;
    }
    if (!turns_ask(turns, &h->turn)) {
        h->holds_turn = false;
        return false;
    }
    if (!h->holds_turn) {
        h->holds_turn = true;
        h->turn_steps = steps_of(h);
        h->turn_ends_ns = in_ms(now, TURN_MS);
    }
    if (!turns_wanted(turns)) {
        h->turn_ends_ns = in_ms(now, TURN_MS);
        return true;
    }
    if (steps_of(h) == h->turn_steps && now < h->turn_ends_ns) {
        return batch_idle(h->world.batch);
    }
    if (batch_idle(h->world.batch) || now >= h->turn_ends_ns) {
        turns_leave(turns, &h->turn);
        h->holds_turn = false;
        (void)turns_ask(turns, &h->turn); /* back into the line */
    }
    return false;
}

/* An idle world is asked now and then, so that a rank that is frozen is noticed before somebody
 * waits for it. */
static void ask_idle(struct host *h, bool busy, uint64_t now)
{
    if (busy) {
        h->asked_ns = now;
    } else if (now >= in_ms(h->asked_ns, ASK_IDLE_MS) &&
               supervisor_state(h->world.supervisor) == WORLD_READY &&
               !supervisor_asking(h->world.supervisor)) {
        h->asked_ns = now;
        supervisor_query(h->world.supervisor);
    }
}

static void turn(struct host *h)
{
    struct pollfd fds[1 + HOST_MAX_FDS];
    struct host_backend *backend = &h->config.backend;
    uint64_t now = clock_ns();
    bool busy = batch_has_work(h->world.batch);
    uint64_t deadline = in_ms(now, busy ? PUBLISH_MS : IDLE_MS);
    uint32_t n = 1;
    bool mine = take_turn(h, now);

    fds[0] = (struct pollfd){.fd = h->box.fd, .events = POLLIN};
    if (backend->poll != NULL) {
        n += backend->poll(backend->arg, fds + 1);
    }
    ask_idle(h, busy, now);
    batch_pause(h->world.batch, !mine);
    batch_turn(h->world.batch, deadline, fds, n);
    for (uint32_t i = 1; i < n; i++) {
        if (fds[i].revents != 0) {
            backend->ready(backend->arg, h->world.supervisor);
            break;
        }
    }
    mailbox_deliver(&h->box);
    send_news(h);
    now = clock_ns();
    busy = batch_has_work(h->world.batch);
    if (now >= in_ms(h->published_ns, PUBLISH_MS) || busy != h->published_busy ||
        supervisor_state(h->world.supervisor) != h->published_state) {
        h->published_state = supervisor_state(h->world.supervisor);
        h->published_busy = busy;
        publish(h, now);
    }
}

/* --- Life --- */

static void on_progress(void *arg, uint64_t bytes, uint64_t total)
{
    (void)arg; /* the snapshot reads each rank's */
    (void)bytes;
    (void)total;
}

static void post_loaded(struct host *h, enum status status, const char *why)
{
    struct host_news *news = news_of_turn(h);

    news->loaded = true;
    news->status = status;
    news->why = xstrdup(why);
    news->stopped = status != STATUS_OK;
    send_news(h);
}

/* Until the world is ready, failed, or refused for good (false). */
static bool come_up(struct host *h, struct err *err)
{
    supervisor_start(h->world.supervisor);
    while (!atomic_load(&h->stop)) {
        enum world_state state = supervisor_state(h->world.supervisor);

        if (state == WORLD_READY || state == WORLD_FAILED) {
            return true;
        }
        if (state == WORLD_DOWN) {
            err_set(err, supervisor_refused(h->world.supervisor) ? STATUS_INVALID : STATUS_LINK,
                    "%s", supervisor_why(h->world.supervisor));
            return false;
        }
        turn(h);
    }
    err_set(err, STATUS_CANCELLED, "unloaded while it was being loaded");
    return false;
}

/* The metrics' last look at this world: no count is lost, and nothing runs in it any more. */
static void meter_last(struct host *h)
{
    struct host_snapshot s = {0};

    batch_stats(h->world.batch, &s.batch);
    read_world(h, &s);
    meter_world(h, &s);
    meter_gone(h);
}

static void close_world(struct host *h)
{
    uint64_t limit = in_ms(clock_ns(), CLOSE_MS);
    struct supervisor *s = h->world.supervisor;

    publish_phase(h, HOST_STOPPING);
    turns_leave(h->config.turns, &h->turn);
    supervisor_stop(s);
    while (supervisor_state(s) != WORLD_DOWN && clock_ns() < limit) {
        supervisor_turn(s, limit, NULL, 0);
    }
    while (h->seqs != NULL) { /* the world went down without a word to them */
        batch_cancel(h->world.batch, h->seqs->batch_id);
    }
    meter_last(h);
    h->config.backend.close(h->config.backend.arg, &h->world);
    h->world = (struct host_world){0};
}

static bool is_over(struct host *h)
{
    return atomic_load(&h->stop) && (h->seqs == NULL || clock_ns() >= atomic_load(&h->stop_at_ns));
}

void *host_run(void *host)
{
    struct host *h = host;
    struct supervisor_handlers on = {.progress = on_progress};
    struct err err = {0};
    bool up;

    h->was_ready = false;
    h->failed = false;
    h->last_steps = 0;
    h->last_step_ns = 0;
    h->load_start_ns = clock_ns();
    h->metered_rebuilds = 0; /* a new world counts anew */
    h->counted_rebuilds = 0;
    h->metered = (struct batch_stats){0};
    memset(h->metered_ranks, 0, sizeof(h->metered_ranks));
    if (h->config.backend.open(h->config.backend.arg, &on, &h->world, &err) != STATUS_OK) {
        post_loaded(h, err.status, err.text);
        return NULL;
    }
    up = come_up(h, &err);
    if (up) {
        publish(h, clock_ns());
        post_loaded(h, STATUS_OK, "");
        while (!is_over(h)) {
            turn(h);
        }
    }
    close_world(h);
    if (up) { /* and the front says that it is down */
        news_of_turn(h)->stopped = true;
        send_news(h);
    } else {
        post_loaded(h, err.status, err.text);
    }
    return NULL;
}
