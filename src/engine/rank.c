/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a rank's process, and its answers to what is asked over the channel. */
#include "engine/rank.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/rank_priv.h"

enum {
    IDLE_AFTER_MS = 20,
    IDLE_SLICE_MS = 1000,
    AHEAD_SLICE_MS = 1, /* between two blocks of KV pages */
    FLUSH_MS = 10 * 1000,
};

enum status rank_answer(struct rank *rank, enum message_type type, const struct message_out *out,
                        struct err *err)
{
    enum status status;

    faults_alloc(&rank->faults);
    if (faults_take_drop(&rank->faults)) {
        rank->channel.answer = MESSAGE_NONE;
        return STATUS_OK;
    }
    if (faults_take_corrupt(&rank->faults)) {
        static const char rubbish[FRAME_HEADER_BYTES] = "this is no frame";

        (void)!write(rank->channel.fd, rubbish, sizeof(rubbish));
        return STATUS_OK;
    }
    status = channel_answer(&rank->channel, type, out, err);
    if (status == STATUS_OK) {
        status_page_event(&rank->wiring.status, STATUS_EVENT_ANSWER, type, rank->channel.seq);
        status = channel_flush(&rank->channel, clock_ns() + (uint64_t)FLUSH_MS * 1000000, err);
    }
    return status;
}

enum status rank_answer_json(struct rank *rank, enum message_type type, json_t *body,
                             struct err *err)
{
    enum status status;

    ENSURE(body != NULL);
    status = rank_answer(rank, type, &(struct message_out){.json = body}, err);
    json_decref(body);
    return status;
}

static void enter_phase(struct rank *rank, enum status_phase phase)
{
    status_page_phase(&rank->wiring.status, phase);
    faults_at_phase(&rank->faults, phase);
}

/* --- The answers --- */

static enum status say_hello(struct rank *rank, struct err *err)
{
    enter_phase(rank, STATUS_PHASE_HELLO);
    return rank_answer_json(rank, MESSAGE_HELLO,
                            json_pack("{s:i, s:s, s:i}", "pid", (int)getpid(), "build",
                                      rank->args->build, "layout", RANK_LAYOUT_VERSION),
                            err);
}

static enum status on_ping(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    return rank_answer_json(rank, MESSAGE_PONG,
                            json_pack("{s:I, s:I, s:s, s:I}", "rank", (json_int_t)rank->args->rank,
                                      "world_size", (json_int_t)rank->n_ranks, "device",
                                      rank->device, "generation", (json_int_t)rank->args->epoch),
                            err);
}

static enum status on_comm_init(struct rank *rank, struct message *message, struct err *err)
{
    enum status status;

    enter_phase(rank, STATUS_PHASE_COMM_INIT);
    status = rank_comm_init(rank, message, err);
    return status == STATUS_OK ? rank_answer(rank, MESSAGE_INIT_OK, NULL, err) : status;
}

/* All ranks add a 1: what comes out must be their number, on each of them. */
static enum status on_sanity(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    uint32_t sum = 1;
    enum status status;

    if (rank->watched == NULL) {
        return err_set(err, STATUS_BUG, "sanity before comm_init");
    }
    enter_phase(rank, STATUS_PHASE_SANITY);
    status = comm_all_reduce(&rank->watched->comm, &(struct comm_data){&sum, &sum, 1, COMM_U32},
                             COMM_SUM, err);
    if (status != STATUS_OK) {
        return status;
    }
    return rank_answer_json(rank, MESSAGE_SANITY_RESULT,
                            json_pack("{s:I}", "observed_sum", (json_int_t)sum), err);
}

static enum status on_load(struct rank *rank, struct message *message, struct err *err)
{
    enum status status;

    if (rank->watched == NULL || rank->engine != NULL) {
        return err_set(err, STATUS_BUG, "load %s",
                       rank->engine != NULL ? "while a model is loaded" : "before comm_init");
    }
    enter_phase(rank, STATUS_PHASE_LOADING);
    status = faults_take_device(&rank->faults)
                 ? err_set(err, STATUS_DEVICE, "the device has failed, as injected")
                 : rank_load(rank, message, err);
    if (status != STATUS_OK) {
        rank_unload(rank);
        return status;
    }
    return rank_answer_json(
        rank, MESSAGE_LOAD_OK,
        json_pack("{s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:I}", "weight_bytes",
                  (json_int_t)model_weight_bytes(engine_model(rank->engine)), "host_bytes",
                  (json_int_t)model_host_bytes(engine_model(rank->engine)), "kv_pages",
                  (json_int_t)rank->limits.n_pages, "kv_page_bytes",
                  (json_int_t)(engine_kv_bytes(rank->engine) / rank->limits.n_pages), "arithmetic",
                  engine_arith_class(rank->engine), "level", engine_level(rank->engine), "threads",
                  (json_int_t)engine_n_threads(rank->engine), "read_bytes",
                  (json_int_t)engine_load_bytes(rank->engine), "token_bytes",
                  (json_int_t)model_bytes_per_token(engine_model(rank->engine))),
        err);
}

/* A plan that did not fit the ring: its result goes back the same way. */
static enum status on_step(struct rank *rank, struct message *message, struct err *err)
{
    size_t bytes;
    enum status status = rank_step(rank, message->bytes, message->n_bytes, &bytes, err);

    if (status != STATUS_OK) {
        return status;
    }
    return rank_answer(rank, MESSAGE_STEP_OK,
                       &(struct message_out){.bytes = rank->result, .n_bytes = (uint32_t)bytes},
                       err);
}

static enum status on_clear_kv(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    for (uint32_t i = 0; rank->slots != NULL && i < rank->limits.n_slots; i++) {
        rank->slots[i].n_pages = 0;
        rank->slots[i].lost = false;
        draw_slot_clear(rank->draw, i);
    }
    return rank_answer(rank, MESSAGE_DONE, NULL, err);
}

/* Kilobytes of a line of /proc/self/smaps_rollup, such as "Pss:". */
static uint64_t memory_kb(const char *name)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    unsigned long long kb = 0;
    char line[256];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kb = strtoull(line + strlen(name), NULL, 10);
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kb;
}

static enum status on_query(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    struct status_snapshot *page = xalloc(sizeof(*page));
    json_t *counters = json_object();
    json_t *memory =
        json_pack("{s:I, s:I, s:I, s:I}", "pss_kb", (json_int_t)memory_kb("Pss:"), "rss_kb",
                  (json_int_t)memory_kb("Rss:"), "weight_bytes",
                  rank->engine == NULL ? (json_int_t)0
                                       : (json_int_t)model_weight_bytes(engine_model(rank->engine)),
                  "kv_bytes",
                  rank->engine == NULL ? (json_int_t)0 : (json_int_t)engine_kv_bytes(rank->engine));

    if (status_page_read(rank->wiring.own, rank->args->rank, rank->args->epoch, page, NULL) ==
        STATUS_OK) {
        for (uint32_t i = 0; i < STATUS_COUNTERS; i++) {
            json_object_set_new(counters, status_counter_name(i),
                                json_integer((json_int_t)page->counters[i]));
        }
    }
    free(page);
    return rank_answer_json(rank, MESSAGE_QUERY_RESULT,
                            json_pack("{s:o, s:o}", "memory", memory, "counters", counters), err);
}

static enum status on_unload(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    enter_phase(rank, STATUS_PHASE_UNLOAD);
    rank_unload(rank);
    return rank_answer(rank, MESSAGE_DONE, NULL, err);
}

static enum status on_fault(struct rank *rank, struct message *message, struct err *err)
{
    struct fault_spec spec;
    enum status status = fault_parse(message_text(message->json, "what", ""), &spec, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = rank_answer(rank, MESSAGE_DONE, NULL, err); /* first: the fault may be at once */
    if (!faults_arm(&rank->faults, (uint32_t)message_uint(message->json, "id", UINT32_MAX),
                    &spec)) {
        log_warn("too many faults are armed: one more is left out");
    }
    faults_at_phase(&rank->faults, rank->wiring.status.phase);
    return status;
}

static enum status on_shutdown(struct rank *rank, UNUSED struct message *message, struct err *err)
{
    enter_phase(rank, STATUS_PHASE_SHUTDOWN);
    rank->leave = true;
    return rank_answer(rank, MESSAGE_BYE, NULL, err);
}

typedef enum status answer_fn(struct rank *rank, struct message *message, struct err *err);

static answer_fn *const answers[MESSAGE_END] = {
    [MESSAGE_PING] = on_ping,     [MESSAGE_COMM_INIT] = on_comm_init,
    [MESSAGE_SANITY] = on_sanity, [MESSAGE_LOAD] = on_load,
    [MESSAGE_STEP] = on_step,     [MESSAGE_CLEAR_KV] = on_clear_kv,
    [MESSAGE_QUERY] = on_query,   [MESSAGE_UNLOAD] = on_unload,
    [MESSAGE_FAULT] = on_fault,   [MESSAGE_SHUTDOWN] = on_shutdown,
};

/* Answers one message, with an error if it cannot be done. Fails only with the link. */
static enum status dispatch(struct rank *rank, struct message *message, struct err *err)
{
    struct err why = {0};
    enum status status;

    status_page_event(&rank->wiring.status, STATUS_EVENT_REQUEST, message->type, message->seq);
    status_page_count(&rank->wiring.status, STATUS_COUNTER_REQUESTS, 1);
    status = answers[message->type] == NULL
                 ? err_set(&why, STATUS_BUG, "no answer to %s", message_name(message->type))
                 : answers[message->type](rank, message, &why);
    if (status == STATUS_OK || rank->channel.fd < 0 || rank->channel.answer == MESSAGE_NONE) {
        if (status != STATUS_OK && err != NULL) {
            *err = why;
        }
        return status;
    }
    faults_alloc(&rank->faults);
    status_page_count(&rank->wiring.status, STATUS_COUNTER_ERRORS, 1);
    status_page_error(&rank->wiring.status, why.text);
    status = channel_answer_error(&rank->channel, &why, err);
    return status == STATUS_OK
               ? channel_flush(&rank->channel, clock_ns() + (uint64_t)FLUSH_MS * 1000000, err)
               : status;
}

/* --- The loop --- */

/* One message, waited for until the deadline. */
static enum status take_message(struct rank *rank, uint64_t deadline_ns, struct err *err)
{
    struct message message;
    struct channel_counters before = rank->channel.counters;
    enum status status = channel_receive(&rank->channel, deadline_ns, &message, err);

    status_page_count(&rank->wiring.status, STATUS_COUNTER_DROPPED_EPOCH,
                      rank->channel.counters.dropped_epoch - before.dropped_epoch);
    status_page_count(&rank->wiring.status, STATUS_COUNTER_DROPPED_SEQ,
                      rank->channel.counters.dropped_seq - before.dropped_seq);
    if (status == STATUS_OK) {
        status = dispatch(rank, &message, err);
        message_release(&message);
    }
    return status;
}

static enum status carry_out(struct rank *rank, const struct ring_record *record, struct err *err)
{
    static const char rubbish[] = "this is no result";
    uint64_t number;
    size_t bytes;
    enum status status;

    status = rank_step(rank, rank->record, record->n_bytes, &bytes, err);
    if (status != STATUS_OK || faults_take_drop(&rank->faults)) {
        return status;
    }
    if (faults_take_corrupt(&rank->faults)) {
        return ring_publish(&rank->wiring.results, RING_RESULT, rubbish, sizeof(rubbish), &number,
                            err);
    }
    return ring_publish(&rank->wiring.results, RING_RESULT, rank->result, bytes, &number, err);
}

/* How long to wait for a record before something else is done. */
static uint32_t idle_limit_ms(const struct rank *rank)
{
    if (rank->wiring.status.phase != STATUS_PHASE_IDLE) {
        return IDLE_AFTER_MS;
    }
    return rank->takes_ahead ? AHEAD_SLICE_MS : IDLE_SLICE_MS;
}

/* The next record of the step ring: a plan, or word of a message. */
static enum status take_record(struct rank *rank, struct err *err)
{
    uint32_t limit_ms = idle_limit_ms(rank);
    uint64_t now = clock_ns();
    struct wait wait = wait_rank(now + (uint64_t)limit_ms * 1000000);
    struct ring_record record;
    enum status status = ring_read(&rank->wiring.plans, &wait, rank->record, &record, err);

    status_page_count(&rank->wiring.status, STATUS_COUNTER_WAIT_NS, clock_ns() - now);
    if (status == STATUS_TIMEOUT) {
        if (rank->wiring.status.phase != STATUS_PHASE_IDLE) {
            enter_phase(rank, STATUS_PHASE_IDLE);
        } else {
            rank->takes_ahead = rank->takes_ahead && engine_take_ahead(rank->engine);
        }
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (record.kind == RING_CONTROL) {
        status = take_message(rank, clock_ns() + (uint64_t)FLUSH_MS * 1000000, err);
    } else if (record.kind == RING_PLAN) {
        status = carry_out(rank, &record, err);
    } else {
        status = err_set(err, STATUS_CORRUPT, "step ring: record of kind %d", (int)record.kind);
    }
    ring_ack(&rank->wiring.plans, record.number);
    return status;
}

static void release(struct rank *rank)
{
    rank_unload(rank);
    rank_comm_release(rank);
    free(rank->record);
    free(rank->result);
    channel_release(&rank->channel);
    wiring_rank_release(&rank->wiring);
}

enum status rank_run(const struct rank_args *args, struct err *err)
{
    struct rank rank = {.args = args, .channel = {.fd = -1}};
    enum status status;

    channel_init(&rank.channel, args->channel_fd, CHANNEL_RANK, args->epoch, FRAME_MAX_BODY);
    status = wiring_rank_init(&rank.wiring, args->region_fd, args->rank, args->epoch, err);
    close(args->region_fd);
    if (status == STATUS_OK) {
        faults_init(&rank.faults, &rank.wiring.status);
        for (uint32_t i = 0; i < args->n_faults; i++) {
            (void)faults_arm(&rank.faults, args->fault_ids[i], &args->faults[i]);
        }
        status = say_hello(&rank, err);
    }
    while (status == STATUS_OK && !rank.leave) {
        status = rank.connected ? take_record(&rank, err) : take_message(&rank, UINT64_MAX, err);
    }
    release(&rank);
    return status;
}
