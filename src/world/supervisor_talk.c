/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages. A request goes to every rank, because all of them leave the step ring to look
 * at their channel; each answers once, and what it says becomes an event of the machine. A rank
 * that owes an answer is asked nothing else, and no rank is waited for here: limits are the
 * machine's.
 */
#include "base/clock.h"
#include "base/log.h"
#include "world/supervisor_priv.h"

enum {
    TAKE_AT_ONCE = 16,   /* messages of one rank in a turn */
    DEATH_GRACE_MS = 50, /* from the end of a channel to that of its process */
};

bool talk_busy(const struct supervisor *s)
{
    for (uint32_t r = 0; r < s->n_members; r++) {
        if (s->members[r].asked) {
            return true;
        }
    }
    return false;
}

/* A rank that cannot be talked to any more. If it has died, its death comes in a moment, says more,
 * and may leave the KV pages trusted; so it is waited for. */
static void link_fault(struct supervisor *s, uint32_t rank, const struct err *err)
{
    if (s->members[rank].cut_ns == 0) {
        s->members[rank].cut_ns = clock_ns();
        s->members[rank].cut = *err;
    }
}

bool talk_watch_cut(struct supervisor *s, uint64_t now)
{
    bool any = false;

    for (uint32_t r = 0; r < s->n_members; r++) {
        struct member *member = &s->members[r];

        if (member->cut_ns != 0 && member->pid != 0 &&
            now >= member->cut_ns + (uint64_t)DEATH_GRACE_MS * 1000000) {
            struct world_event event = supervisor_event(s, WORLD_EV_RANK_ERROR, r);

            member->err = member->cut;
            member->cut_ns = UINT64_MAX; /* once */
            event.error = WORLD_ERROR_LINK;
            watch_injected(s);
            supervisor_post(s, &event);
            any = true;
        }
    }
    return any;
}

bool talk_watch_silent(struct supervisor *s, uint64_t passed_ns)
{
    uint64_t most = (uint64_t)s->config.hang_ms * 1000000 / HANG_LOOKS; /* as hang.h counts */

    for (uint32_t r = 0; r < s->n_members; r++) {
        struct member *member = &s->members[r];
        struct world_event event = supervisor_event(s, WORLD_EV_RANK_HUNG, r);

        if (!member->asked || s->n_steps > 0 || !world_computes(s->machine.state)) {
            member->silent_ns = 0;
            continue;
        }
        member->silent_ns += MIN(passed_ns, most);
        if (member->silent_ns < hang_threshold_ns(&s->hang)) {
            continue;
        }
        snprintf(s->hang_text, sizeof(s->hang_text), "rank %u did not answer %s for %llu ms", r,
                 message_name(member->channel.asked),
                 (unsigned long long)(member->silent_ns / 1000000));
        watch_injected(s);
        supervisor_post(s, &event);
        return true;
    }
    return false;
}

uint64_t talk_wake_at(const struct supervisor *s)
{
    uint64_t wake = UINT64_MAX;

    for (uint32_t r = 0; r < s->n_members; r++) {
        uint64_t cut = s->members[r].cut_ns;

        if (cut != 0 && cut != UINT64_MAX && s->members[r].pid != 0) {
            wake = MIN(wake, cut + (uint64_t)DEATH_GRACE_MS * 1000000);
        }
    }
    return wake;
}

/* Tells the ranks, who wait at the step ring, to look at their channels. */
static void ring_bell(struct supervisor *s, enum message_type type)
{
    uint64_t number;

    if (type == MESSAGE_COMM_INIT) { /* before there are rings */
        return;
    }
    ENSURE_OP(ring_publish(&s->wiring.plans, RING_CONTROL, NULL, 0, &number, NULL), ==, STATUS_OK);
}

void talk_ask_all(struct supervisor *s, enum message_type type, const struct message_out *outs)
{
    for (uint32_t r = 0; r < s->n_members; r++) {
        struct member *member = &s->members[r];
        struct err err = {0};

        if (channel_request(&member->channel, type, outs == NULL ? NULL : &outs[r], &err) !=
            STATUS_OK) {
            link_fault(s, r, &err);
        } else {
            member->asked = true;
        }
    }
    ring_bell(s, type);
}

void talk_send_load(struct supervisor *s, bool keep_weights, bool keep_kv)
{
    struct message_out outs[SUPERVISOR_MAX_RANKS] = {0};
    int fds[SUPERVISOR_MAX_RANKS][4];
    json_t *body = json_deep_copy(s->load);
    json_t *options = json_object_get(body, "options");
    struct err err = {0};
    bool logits = s->config.logits_bytes > 0;

    if (kept_prepare(s, keep_weights, keep_kv, &err) != STATUS_OK) {
        struct world_event event = supervisor_event(s, WORLD_EV_LOAD_ERROR, 0);

        s->members[0].err = err;
        event.error = WORLD_ERROR_MEMORY;
        supervisor_post(s, &event);
        json_decref(body);
        return;
    }
    json_object_set_new(options, "keep_weights", json_boolean(keep_weights));
    json_object_set_new(options, "keep_kv", json_boolean(keep_kv));
    json_object_set_new(options, "logits", json_boolean(logits));
    for (uint32_t r = 0; r < s->n_members; r++) {
        fds[r][0] = s->kept.weights[r];
        fds[r][1] = s->kept.host;
        fds[r][2] = s->kept.kv[r];
        fds[r][3] = s->logits_fds[r];
        outs[r] = (struct message_out){.json = body, .fds = fds[r], .n_fds = logits ? 4 : 3};
        s->members[r].load_done = 0;
        s->members[r].load_total = 0;
    }
    talk_ask_all(s, MESSAGE_LOAD, outs);
    json_decref(body);
}

/* --- Answers --- */

static void on_hello(struct supervisor *s, uint32_t rank, const struct message *message,
                     struct world_event *event)
{
    const char *build = message_text(message->json, "build", "");
    uint64_t layout = message_uint(message->json, "layout", 0);

    event->kind = WORLD_EV_HELLO;
    event->mismatch = strcmp(build, s->config.build) != 0 || layout != s->config.layout;
    if (event->mismatch) {
        err_set(&s->members[rank].err, STATUS_UNSUPPORTED,
                "it is build %s, layout %llu, and the leader is %s, layout %u", build,
                (unsigned long long)layout, s->config.build, s->config.layout);
    }
}

static void on_progress(struct supervisor *s, uint32_t rank, const struct message *message)
{
    uint64_t done = 0;
    uint64_t total = 0;

    s->members[rank].load_done = message_uint(message->json, "bytes", 0);
    s->members[rank].load_total = message_uint(message->json, "total", 0);
    for (uint32_t r = 0; r < s->n_members; r++) {
        done += s->members[r].load_done;
        total += s->members[r].load_total;
    }
    if (s->config.on.progress != NULL && total > 0) {
        s->config.on.progress(s->config.on.progress_arg, done, total);
    }
}

/* An error in the place of an answer: of the load, or of a rank that should have known better. */
static void on_error(struct supervisor *s, uint32_t rank, const struct message *message)
{
    struct world_event event = supervisor_event(s, WORLD_EV_LOAD_ERROR, rank);
    enum error_kind kind;

    (void)message_error_read(message->json, &kind, &s->members[rank].err);
    event.error = (int)kind;
    watch_injected(s);
    if (kind == ERROR_DEVICE && watch_device(s, rank)) {
        return;
    }
    if (s->machine.state == WORLD_LOADING || s->machine.state == WORLD_COMM_INIT) {
        if (s->machine.state == WORLD_LOADING) {
            kept_refused(s);
        }
        if (s->refused_ns == 0) {
            s->refused_ns = clock_ns();
            s->refusal = event;
        } else if (s->refusal.error != WORLD_ERROR_USER) { /* the most telling of the errors */
            s->refusal = kind == ERROR_USER ? event : s->refusal;
        }
        return;
    }
    event.kind = WORLD_EV_RANK_ERROR;
    supervisor_post(s, &event);
}

void talk_unloaded(struct supervisor *s, uint32_t rank)
{
    bool all = true;

    if (!s->unloading || s->members[rank].unloaded) {
        return;
    }
    s->members[rank].unloaded = true;
    for (uint32_t r = 0; r < s->n_members; r++) {
        all = all && s->members[r].unloaded;
    }
    if (all) {
        talk_ask_all(s, MESSAGE_SHUTDOWN, NULL);
    }
}

static void on_load_ok(struct supervisor *s, uint32_t rank)
{
    bool all = true;

    const json_t *body = s->members[rank].answers[MESSAGE_LOAD_OK];

    log_debug("rank %u has loaded: %.1f MiB of weights, %.1f MiB read, %s kernels, %u threads, %s",
              rank, (double)message_uint(body, "weight_bytes", 0) / (1 << 20),
              (double)message_uint(body, "read_bytes", 0) / (1 << 20),
              message_text(body, "level", "?"), (unsigned)message_uint(body, "threads", 0),
              message_text(body, "arithmetic", "?"));
    s->kept.kv_page_bytes[rank] = message_uint(body, "kv_page_bytes", 0);
    kept_seal(s, rank);
    for (uint32_t r = 0; r < s->n_members; r++) {
        all = all && s->members[r].answers[MESSAGE_LOAD_OK] != NULL;
    }
    if (all) {
        kept_seal_host(s);
        kept_save(s);
    }
}

static void keep_answer(struct member *member, struct message *message)
{
    json_decref(member->answers[message->type]);
    member->answers[message->type] = json_incref(message->json);
}

/* Attaches to the rank's result ring, which init_ok says is there. */
static bool attach(struct supervisor *s, uint32_t rank)
{
    struct err err = {0};

    if (wiring_leader_attach(&s->wiring, rank, &err) == STATUS_OK) {
        return true;
    }
    link_fault(s, rank, &err);
    return false;
}

static void take_message(struct supervisor *s, uint32_t rank, struct message *message)
{
    struct member *member = &s->members[rank];
    struct world_event event = supervisor_event(s, WORLD_EV_TICK, rank);

    if (message->type != MESSAGE_LOAD_PROGRESS) {
        member->asked = false;
    }
    keep_answer(member, message);
    switch (message->type) {
    case MESSAGE_HELLO:
        on_hello(s, rank, message, &event);
        break;
    case MESSAGE_INIT_OK:
        event.kind = attach(s, rank) ? WORLD_EV_INIT_OK : WORLD_EV_TICK;
        break;
    case MESSAGE_SANITY_RESULT:
        event.kind = WORLD_EV_SANITY_RESULT;
        event.sum = (uint32_t)message_uint(message->json, "observed_sum", 0);
        break;
    case MESSAGE_LOAD_PROGRESS:
        on_progress(s, rank, message);
        event.kind = WORLD_EV_LOAD_PROGRESS;
        break;
    case MESSAGE_LOAD_OK:
        on_load_ok(s, rank);
        event.kind = WORLD_EV_LOAD_OK;
        break;
    case MESSAGE_STEP_OK:
        step_result_in(s, rank, message->bytes, message->n_bytes);
        break;
    case MESSAGE_ERROR:
        on_error(s, rank, message);
        break;
    case MESSAGE_DONE:
        talk_unloaded(s, rank);
        break;
    default:
        break;
    }
    if (event.kind != WORLD_EV_TICK) {
        supervisor_post(s, &event);
    }
}

bool talk_take(struct supervisor *s)
{
    bool any = false;

    for (uint32_t r = 0; r < s->n_members; r++) {
        struct member *member = &s->members[r];

        for (int i = 0; i < TAKE_AT_ONCE && member->channel.fd >= 0; i++) {
            struct message message = {0};
            struct err err = {0};
            enum status status = channel_try(&member->channel, &message, &err);

            if (status == STATUS_PENDING) {
                break;
            }
            any = true;
            if (status != STATUS_OK) {
                link_fault(s, r, &err);
                talk_unloaded(s, r); /* nor will it say anything else */
                break;
            }
            take_message(s, r, &message);
            message_release(&message);
        }
    }
    return any;
}

/* --- What waits for its turn --- */

/* The next fault that this epoch's processes were not told of: a FAULT to its rank, a ping to the
 * others. */
static bool send_fault(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->n_faults; i++) {
        struct planned_fault *fault = &s->faults[i];
        struct buf text = {0};
        json_t *body;

        if (!watch_is_due(s, fault)) {
            continue;
        }
        fault->armed = true;
        fault_format(&fault->spec, &text);
        body = json_pack("{s:s, s:I}", "what", buf_str(&text), "id", (json_int_t)fault->id);
        for (uint32_t r = 0; r < s->n_members; r++) {
            bool is_its = r == fault->spec.rank;
            struct err err = {0};

            if (channel_request(&s->members[r].channel, is_its ? MESSAGE_FAULT : MESSAGE_PING,
                                is_its ? &(struct message_out){.json = body} : NULL,
                                &err) != STATUS_OK) {
                link_fault(s, r, &err);
            } else {
                s->members[r].asked = true;
            }
        }
        ring_bell(s, MESSAGE_FAULT);
        json_decref(body);
        buf_release(&text);
        return true;
    }
    return false;
}

void talk_pump(struct supervisor *s)
{
    if (s->asking && !talk_busy(s)) {
        s->asking = false;
    }
    if (!world_computes(s->machine.state) || talk_busy(s)) {
        return;
    }
    if (send_fault(s)) {
        return;
    }
    if (s->want_query) {
        s->want_query = false;
        s->asking = true;
        talk_ask_all(s, MESSAGE_QUERY, NULL);
    }
}

void supervisor_query(struct supervisor *supervisor)
{
    supervisor->want_query = true;
}

bool supervisor_asking(const struct supervisor *supervisor)
{
    return supervisor->want_query || supervisor->asking;
}

enum status supervisor_inject(struct supervisor *supervisor, const struct fault_spec *spec,
                              struct err *err)
{
    struct supervisor *s = supervisor;
    uint32_t at = 0;

    if (spec->rank >= s->config.n_ranks) {
        return err_set(err, STATUS_INVALID, "there is no rank %u: the world has %u", spec->rank,
                       s->config.n_ranks);
    }
    while (at < s->n_faults && !s->faults[at].fired) { /* the place of one that is done */
        at++;
    }
    if (at == SUPERVISOR_MAX_FAULTS) {
        return err_set(err, STATUS_LIMIT, "%d faults are waiting already", SUPERVISOR_MAX_FAULTS);
    }
    s->n_faults = MAX(s->n_faults, at + 1);
    s->faults[at] = (struct planned_fault){.id = ++s->last_fault_id, .spec = *spec};
    return STATUS_OK;
}
