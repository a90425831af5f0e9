/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks (engine/rank.h) on threads of the test, and the leader's side of everything that they are
 * connected with.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/shm.h"
#include "cpu/cpu.h"
#include "engine/engine.h"
#include "engine/rank.h"
#include "rpc/channel.h"
#include "rpc/region.h"
#include "rpc/result.h"
#include "rpc/wiring.h"

#define RIG_MODEL TEST_SOURCE_DIR "/tests/model/golden/llama-bf16"
#define RIG_BUILD "the build of a test"

enum {
    RIG_MAX_RANKS = 2,
    RIG_EPOCH = 4,
    RIG_VOCAB = 2500,
    RIG_LAYERS = 2,
    RIG_ROWS = 16,
    RIG_SLOTS = 2,
    RIG_CONTEXT = 128,
    RIG_PLAN_BYTES = 1024,
    RIG_WAIT_MS = 60000,
};

struct rig_rank {
    struct rank_args args;
    pthread_t thread;
    bool runs;
    enum status status;
    struct err err;

    struct channel channel; /* the leader's end */
    int region_fd;
    int weights_fd;
    int kv_fd;
    int logits_fd;
};

struct rig {
    uint32_t n_ranks;
    struct rig_rank ranks[RIG_MAX_RANKS];
    struct wiring_shape shape;
    struct wiring_leader wiring;
    int leader_fd;
    int comm_fd;
    int host_fd;
    struct comm_id id;
    bool connected;
    uint64_t step;
    _Alignas(16) uint8_t bytes[1 << 16]; /* of a plan or result */
    int n_fds;
};

static inline int rig_count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static inline int rig_memfd(void)
{
    int fd = memfd_create("lockstep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    return fd;
}

static inline void *rig_run(void *arg)
{
    struct rig_rank *rank = arg;

    rank->status = rank_run(&rank->args, &rank->err);
    return NULL;
}

static inline uint64_t rig_deadline(void)
{
    return clock_ns() + (uint64_t)RIG_WAIT_MS * 1000000;
}

/* The answer to what was asked last, or an error if that is what type says. */
static inline struct message rig_answer(struct rig *rig, uint32_t rank, enum message_type type)
{
    struct message message = {0};
    struct err err = {0};

    do {
        message_release(&message);
        if (channel_receive(&rig->ranks[rank].channel, rig_deadline(), &message, &err) !=
            STATUS_OK) {
            fail_msg("rank %u: no %s: %s", rank, message_name(type), err.text);
        }
    } while (message.type == MESSAGE_LOAD_PROGRESS);
    if (message.type != type) {
        fail_msg("rank %u: %s, not %s: %s", rank, message_name(message.type), message_name(type),
                 message_text(message.json, "message", ""));
    }
    return message;
}

static inline void rig_bell(struct rig *rig)
{
    uint64_t number;

    if (rig->connected) {
        assert_int_equal(ring_publish(&rig->wiring.plans, RING_CONTROL, NULL, 0, &number, NULL),
                         STATUS_OK);
    }
}

/* Asks all ranks the same. */
static inline void rig_ask(struct rig *rig, enum message_type type, const struct message_out *out)
{
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        assert_int_equal(channel_request(&rig->ranks[r].channel, type, out, NULL), STATUS_OK);
    }
    rig_bell(rig);
}

/* Asks, and takes the answers that all ranks give. */
static inline void rig_do(struct rig *rig, enum message_type type, const struct message_out *out)
{
    rig_ask(rig, type, out);
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct message message = rig_answer(rig, r, message_info(type)->answer);

        message_release(&message);
    }
}

/* Asks rank 0 (of a world of one) what it must refuse with this kind and these words. */
static inline void rig_refused(struct rig *rig, enum message_type type,
                               const struct message_out *out, enum error_kind kind,
                               const char *words)
{
    struct message message;

    rig_ask(rig, type, out);
    message = rig_answer(rig, 0, MESSAGE_ERROR);
    if (strstr(message_text(message.json, "message", ""), words) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", message_text(message.json, "message", ""), words);
    }
    assert_int_equal(message_uint(message.json, "kind", 0), kind);
    message_release(&message);
}

/* Starts the ranks and takes their hello. */
static inline void rig_open(struct rig *rig, uint32_t n_ranks)
{
    *rig = (struct rig){
        .n_ranks = n_ranks,
        .n_fds = rig_count_fds(),
        .shape = {.epoch = RIG_EPOCH,
                  .n_ranks = n_ranks,
                  .n_slots = 8,
                  .plan_bytes = RIG_PLAN_BYTES,
                  .result_bytes = 2048},
    };
    assert_int_equal(
        region_create("leader", wiring_leader_bytes(&rig->shape), &rig->leader_fd, NULL),
        STATUS_OK);
    rig->host_fd = rig_memfd();
    for (uint32_t r = 0; r < n_ranks; r++) {
        struct rig_rank *rank = &rig->ranks[r];
        struct message hello;
        int ends[2];

        assert_int_equal(channel_pair(ends, NULL), STATUS_OK);
        channel_init(&rank->channel, ends[0], CHANNEL_LEADER, RIG_EPOCH, 1 << 20);
        assert_int_equal(
            region_create("rank", wiring_rank_bytes(&rig->shape), &rank->region_fd, NULL),
            STATUS_OK);
        rank->weights_fd = rig_memfd();
        rank->kv_fd = rig_memfd();
        assert_int_equal(region_create("logits", (size_t)RIG_ROWS * RIG_VOCAB * sizeof(float),
                                       &rank->logits_fd, NULL),
                         STATUS_OK);
        rank->args = (struct rank_args){
            .rank = r,
            .epoch = RIG_EPOCH,
            .channel_fd = ends[1],
            .region_fd = fcntl(rank->region_fd, F_DUPFD_CLOEXEC, 0),
            .build = RIG_BUILD,
            .ops = &cpu_ops,
        };
        assert_int_equal(pthread_create(&rank->thread, NULL, rig_run, rank), 0);
        rank->runs = true;
        hello = rig_answer(rig, r, MESSAGE_HELLO);
        assert_string_equal(message_text(hello.json, "build", ""), RIG_BUILD);
        assert_int_equal(message_uint(hello.json, "layout", 0), RANK_LAYOUT_VERSION);
        assert_int_equal(message_uint(hello.json, "pid", 0), getpid());
        message_release(&hello);
    }
}

/* The body of comm_init for a rank, right in every field. */
static inline json_t *rig_comm_body(const struct rig *rig, uint32_t rank)
{
    char id[2 * sizeof(rig->id.bytes) + 1];

    for (size_t i = 0; i < sizeof(rig->id.bytes); i++) {
        snprintf(id + 2 * i, 3, "%02x", rig->id.bytes[i]);
    }
    return json_pack("{s:I, s:I, s:s, s:I, s:s, s:o}", "rank", (json_int_t)rank, "world_size",
                     (json_int_t)rig->n_ranks, "id", id, "timeout_ms", (json_int_t)20000, "device",
                     "cpu", "rings", wiring_to_json(&rig->shape));
}

/* The memory that comm_init names. */
static inline void rig_wire(struct rig *rig)
{
    size_t bytes = comm_shm_region_bytes(rig->n_ranks);
    int rank_fds[RIG_MAX_RANKS];
    void *memory;

    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        rank_fds[r] = rig->ranks[r].region_fd;
    }
    assert_int_equal(wiring_leader_init(&rig->wiring, &rig->shape, rig->leader_fd, rank_fds, NULL),
                     STATUS_OK);
    assert_int_equal(region_create("comm", bytes, &rig->comm_fd, NULL), STATUS_OK);
    assert_int_equal(region_map(rig->comm_fd, bytes, true, &memory, NULL), STATUS_OK);
    comm_id_make(&rig->id);
    comm_shm_region_init(memory, rig->n_ranks, &rig->id);
    region_unmap(memory, bytes);
}
