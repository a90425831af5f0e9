/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that a test program becomes when it is started again: it speaks the whole protocol, has
 * the model of fake_model.h in the place of a real one, and misbehaves where the script says so
 * (fake_verbs.h). fake_step.h has its way from a plan to a result.
 */
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fake_step.h"
#include "world/guard.h"
#include "world/spawner.h"

static inline void fake_answer(struct fake_rank *f, enum message_type type,
                               const struct message_out *out)
{
    const char *place = type == MESSAGE_HELLO ? "hello" : message_name(f->channel.asked);
    struct err why = {0};
    enum status status;

    fake_misbehave(f, place);
    if (f->channel.fd < 0 || fake_is(f, "mute", place)) {
        return;
    }
    status = fake_error(f, place, &why);
    status = status == STATUS_OK ? channel_answer(&f->channel, type, out, &why)
                                 : channel_answer_error(&f->channel, &why, NULL);
    if (status == STATUS_OK) {
        status = channel_flush(&f->channel, clock_ns() + 10000000000u, NULL);
    }
    if (fake_is(f, "twice", place)) {
        fake_frame(f, type, f->epoch, f->channel.seq, "{}");
    }
    if (fake_is(f, "deaf", place)) {
        fake_sleep();
    }
}

static inline void fake_answer_json(struct fake_rank *f, enum message_type type, json_t *body)
{
    fake_answer(f, type, &(struct message_out){.json = body});
    json_decref(body);
}

static inline void fake_comm_init(struct fake_rank *f, struct message *message)
{
    const json_t *json = message->json;
    struct wiring_shape shape;

    ENSURE_OP(wiring_from_json(json_object_get(json, "rings"), f->epoch,
                               (uint32_t)message_uint(json, "world_size", 0), &shape, NULL),
              ==, STATUS_OK);
    ENSURE_OP(wiring_rank_connect(&f->wiring, &shape, message->fds[0], NULL), ==, STATUS_OK);
    f->record = aligned_alloc(64, round_up(shape.plan_bytes, 64));
    f->connected = true;
    fake_answer(f, MESSAGE_INIT_OK, NULL);
}

static inline void fake_sanity(struct fake_rank *f)
{
    uint32_t sum = f->wiring.shape.n_ranks + fake_is(f, "sum", "sanity");

    fake_answer_json(f, MESSAGE_SANITY_RESULT, json_pack("{s:I}", "observed_sum", (json_int_t)sum));
}

#define FAKE_WEIGHTS "weights of rank"

/* The load message's numbers, the kept memory, and what the answer says of both. */
static inline json_t *fake_load(struct fake_rank *f, struct message *message)
{
    const json_t *o = json_object_get(message->json, "options");
    bool keep_weights = json_is_true(json_object_get(o, "keep_weights"));
    bool keep_kv = json_is_true(json_object_get(o, "keep_kv"));
    char text[64] = {0};
    char expected[64];
    struct stat info;
    int seals = fcntl(message->fds[0], F_GET_SEALS);

    f->limits = (struct plan_limits){
        .max_rows = (uint32_t)message_uint(o, "max_rows", 0),
        .n_slots = FAKE_SLOTS,
        .n_pages = (uint32_t)message_uint(o, "n_pages", 0),
        .page_tokens = FAKE_PAGE_TOKENS,
        .max_context = FAKE_CONTEXT,
        .vocab = FAKE_VOCAB,
        .max_top = PLAN_MAX_TOP,
        .max_bias = 1 << 20,
    };
    snprintf(expected, sizeof(expected), "%s %u of %u", FAKE_WEIGHTS, f->rank,
             f->wiring.shape.n_ranks);
    f->kv_bytes = f->limits.n_pages * FAKE_PAGE_TOKENS * sizeof(*f->kv);
    ENSURE(message->n_fds == 3);
    if (keep_weights) {
        ENSURE(pread(message->fds[0], text, sizeof(text) - 1, 0) > 0);
        ENSURE(strcmp(text, expected) == 0);
    } else {
        ENSURE(pwrite(message->fds[0], expected, strlen(expected), 0) > 0);
        ENSURE(pwrite(message->fds[1], expected, 1, 0) > 0);
    }
    ENSURE(fstat(message->fds[2], &info) == 0);
    ENSURE(keep_kv == (info.st_size > 0));
    ENSURE(ftruncate(message->fds[2], (off_t)f->kv_bytes) == 0);
    f->kv = mmap(NULL, f->kv_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, message->fds[2], 0);
    ENSURE(f->kv != MAP_FAILED);
    return json_pack("{s:I, s:I, s:s, s:b, s:b, s:b, s:b}", "weight_bytes",
                     (json_int_t)strlen(expected), "kv_pages", (json_int_t)f->limits.n_pages,
                     "arithmetic", "fake", "keep_weights", keep_weights, "keep_kv", keep_kv,
                     "sealed", (seals & F_SEAL_WRITE) != 0, "host_sealed",
                     (fcntl(message->fds[1], F_GET_SEALS) & F_SEAL_WRITE) != 0);
}

static inline void fake_dispatch(struct fake_rank *f, struct message *message)
{
    switch (message->type) {
    case MESSAGE_COMM_INIT:
        fake_comm_init(f, message);
        break;
    case MESSAGE_SANITY:
        fake_sanity(f);
        break;
    case MESSAGE_LOAD:
        fake_answer_json(f, MESSAGE_LOAD_OK, fake_load(f, message));
        break;
    case MESSAGE_STEP:
        fake_answer(f, MESSAGE_STEP_OK,
                    &(struct message_out){
                        .n_bytes = (uint32_t)fake_step(f, message->bytes, message->n_bytes),
                        .bytes = f->result});
        break;
    case MESSAGE_PING:
        fake_answer_json(f, MESSAGE_PONG, json_loads(FAKE_PONG, 0, NULL));
        break;
    case MESSAGE_QUERY:
        fake_answer_json(
            f, MESSAGE_QUERY_RESULT,
            json_pack("{s:{s:I}, s:{}}", "memory", "rank", (json_int_t)f->rank, "counters"));
        break;
    case MESSAGE_SHUTDOWN:
        f->leave = true;
        fake_answer(f, MESSAGE_BYE, NULL);
        break;
    default:
        fake_answer(f, MESSAGE_DONE, NULL);
        break;
    }
}

static inline bool fake_take_message(struct fake_rank *f)
{
    struct message message;

    if (channel_receive(&f->channel, clock_ns() + 60000000000u, &message, NULL) != STATUS_OK) {
        if (!f->connected) {
            fake_sleep();
        }
        return false;
    }
    fake_dispatch(f, &message);
    message_release(&message);
    return true;
}

static inline void fake_take_record(struct fake_rank *f)
{
    struct wait wait = wait_rank(clock_ns() + 1000000000u);
    struct ring_record record;
    enum status status = ring_read(&f->wiring.plans, &wait, f->record, &record, NULL);

    if (status == STATUS_TIMEOUT) {
        return;
    }
    ENSURE_OP(status, ==, STATUS_OK);
    if (record.kind == RING_CONTROL) {
        (void)fake_take_message(f);
    } else {
        fake_publish(f, fake_step(f, f->record, record.n_bytes));
    }
    ring_ack(&f->wiring.plans, record.number);
}

/* argv: program, "rank", --rank R, --epoch E, --leader PID, perhaps --inject ...; first of all in
 * main, if argv[1] is "rank". */
static inline int fake_rank_main(int argc, char **argv)
{
    static struct fake_rank f;

    ENSURE(argc >= 8 && strcmp(argv[2], "--rank") == 0 && strcmp(argv[4], "--epoch") == 0);
    signal(SIGSEGV, SIG_DFL); /* also where a sanitizer would report it */
    f.rank = (uint32_t)strtoul(argv[3], NULL, 10);
    f.epoch = strtoull(argv[5], NULL, 10);
    if (world_child_guard((pid_t)strtol(argv[7], NULL, 10), SPAWNER_FD_DEATH, NULL) != STATUS_OK) {
        _exit(99);
    }
    channel_init(&f.channel, SPAWNER_FD_FIRST, CHANNEL_RANK, f.epoch, FRAME_MAX_BODY);
    ENSURE_OP(wiring_rank_init(&f.wiring, SPAWNER_FD_FIRST + 1, f.rank, f.epoch, NULL), ==,
              STATUS_OK);
    fake_answer_json(&f, MESSAGE_HELLO,
                     json_pack("{s:i, s:s, s:i}", "pid", (int)getpid(), "build",
                               fake_is(&f, "build", "hello") ? "another build" : FAKE_BUILD,
                               "layout", 1));
    while (!f.leave) {
        if (f.connected) {
            fake_take_record(&f);
        } else {
            (void)fake_take_message(&f);
        }
    }
    _exit(0);
}
