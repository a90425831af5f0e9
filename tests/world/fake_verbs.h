/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a fake rank (fake_rank.h) misbehaves where its script says so. Verbs at every place:
 *
 *   kill, exit, exit0, hang, slow, slower     what they say
 *   close      closes its channel and lives on
 *   deaf       answers, and never reads again
 *   mute       does not answer
 *   shout      writes a whole frame and other things to its outputs
 *   old, stray, flood, rubbish, wrong frames besides the answer: of an older epoch, to nothing,
 * many of these, no frame at all, the answer to something else user, own, memory, device, link, bug
 * an error; own has the rank in its words
 *
 * and for single messages build, twice (hello), sum (sanity), progress (load), and of a plan hash,
 * token, state, number, junk, other, twice. A rank that exits or fails scribbles over its KV pages
 * before: pages that were kept after it show as wrong tokens.
 */
#pragma once

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fake_model.h"
#include "rpc/channel.h"
#include "rpc/result.h"
#include "rpc/wiring.h"

enum { FAKE_MAX_WANTS = 64, FAKE_MAX_TOPS = 128, FAKE_RESULT_BYTES = 4096, FAKE_SLOW_MS = 400 };

struct fake_slot {
    struct plan_params params;
    uint64_t key;
    uint32_t pages[FAKE_CONTEXT];
    uint32_t n_pages;
    int32_t tokens[2 * FAKE_CONTEXT]; /* as the plans' history and own samples say */
    uint32_t n_tokens;
    uint64_t last_step; /* 0: it sampled nothing since it was set */
    bool lost;          /* its newest position stands for a token that there is not */
};

struct fake_rank {
    uint32_t rank;
    uint64_t epoch;
    uint64_t step;
    struct channel channel;
    struct wiring_rank wiring;
    bool connected;
    bool leave;
    struct plan_limits limits;
    int32_t *kv; /* [n_pages][page_tokens] token + 1; 0: nothing */
    size_t kv_bytes;
    struct fake_slot slots[FAKE_SLOTS];
    struct result_token tokens[FAKE_MAX_WANTS];
    struct result_top tops[FAKE_MAX_TOPS];
    uint32_t n_tops;
    void *record;
    _Alignas(16) uint8_t result[FAKE_RESULT_BYTES];
};

static inline bool fake_is(const struct fake_rank *f, const char *verb, const char *place)
{
    return fake_scripted(verb, place, f->rank, f->epoch, f->step);
}

static inline void fake_send(struct fake_rank *f, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;

    while (n > 0) {
        ssize_t sent = send(f->channel.fd, at, n, MSG_NOSIGNAL);
        struct pollfd slot = {.fd = f->channel.fd, .events = POLLOUT};

        if (sent < 0 && errno != EAGAIN) {
            return; /* cut off, as it should be */
        }
        at += MAX(sent, 0);
        n -= (size_t)MAX(sent, 0);
        poll(&slot, 1, 1000);
    }
}

/* A frame of any kind, past the channel's own checks. */
static inline void fake_frame(struct fake_rank *f, enum message_type type, uint64_t epoch,
                              uint64_t seq, const char *body)
{
    struct buf out = {0};
    struct frame frame = {.type = (uint8_t)type,
                          .epoch = epoch,
                          .seq = seq,
                          .body = body,
                          .length = (uint32_t)strlen(body)};

    ENSURE_OP(frame_append(&frame, &out, NULL), ==, STATUS_OK);
    fake_send(f, out.data, out.len);
    buf_release(&out);
}

#define FAKE_PONG "{\"rank\":0,\"world_size\":1,\"device\":\"cpu\",\"generation\":1}"

/* What may not be kept. */
static inline void fake_scribble(struct fake_rank *f)
{
    for (size_t i = 0; i < f->kv_bytes / sizeof(*f->kv); i++) {
        f->kv[i] = (int32_t)(1 + i % FAKE_VOCAB);
    }
}

static inline void fake_sleep(void)
{
    for (;;) {
        pause();
    }
}

/* What a library may print: lines, a line without an end, and what on the channel would be a frame.
 */
static inline void fake_shout(const struct fake_rank *f)
{
    struct buf out = {0};
    struct frame frame = {.type = MESSAGE_PONG,
                          .epoch = f->epoch,
                          .seq = f->channel.seq,
                          .body = FAKE_PONG,
                          .length = (uint32_t)strlen(FAKE_PONG)};

    ENSURE_OP(frame_append(&frame, &out, NULL), ==, STATUS_OK);
    buf_append_str(&out, "\n{\"not\": \"a message\"}\nno end");
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
        ENSURE_OP(write(fd, out.data, out.len), ==, (ssize_t)out.len);
    }
    buf_release(&out);
}

/* The ends of a rank, and what it says besides its answer. */
static inline void fake_misbehave(struct fake_rank *f, const char *place)
{
    static const uint8_t rubbish[256] = {1, 2, 3};

    if (fake_is(f, "kill", place)) {
        kill(getpid(), SIGKILL);
    }
    if (fake_is(f, "hang", place)) {
        fake_sleep();
    }
    if (fake_is(f, "exit", place) || fake_is(f, "exit0", place)) {
        fake_scribble(f);
        _exit(fake_is(f, "exit", place) ? 3 : 0);
    }
    if (fake_is(f, "slow", place)) {
        usleep(FAKE_SLOW_MS * 1000);
    }
    if (fake_is(f, "slower", place)) {
        usleep((FAKE_SLOW_MS + 120) * 1000);
    }
    if (fake_is(f, "old", place)) {
        fake_frame(f, MESSAGE_PONG, f->epoch - 1, f->channel.seq, FAKE_PONG);
    }
    if (fake_is(f, "stray", place)) {
        fake_frame(f, MESSAGE_PONG, f->epoch, f->channel.seq + 7, FAKE_PONG);
    }
    if (fake_is(f, "shout", place)) {
        fake_shout(f);
    }
    if (fake_is(f, "rubbish", place)) {
        fake_send(f, rubbish, sizeof(rubbish));
    }
    if (fake_is(f, "wrong", place)) {
        fake_frame(f, MESSAGE_PONG, f->epoch, f->channel.seq, FAKE_PONG);
    }
    for (int i = 0; fake_is(f, "flood", place) && i < 2 * CHANNEL_MAX_DROPPED; i++) {
        fake_frame(f, MESSAGE_PONG, f->epoch, f->channel.seq + 7, FAKE_PONG);
    }
    for (int i = 0; fake_is(f, "progress", place) && i < CHANNEL_MAX_SIGNS + 10; i++) {
        fake_frame(f, MESSAGE_LOAD_PROGRESS, f->epoch, f->channel.seq, "{\"bytes\":1,\"total\":2}");
    }
    if (fake_is(f, "close", place)) {
        channel_release(&f->channel);
    }
}

/* STATUS_OK, or the error that the script wants here. */
static inline enum status fake_error(struct fake_rank *f, const char *place, struct err *err)
{
    if (fake_is(f, "user", place)) {
        return err_set(err, STATUS_INVALID, "the file has no such tensor");
    }
    if (fake_is(f, "own", place)) {
        return err_set(err, STATUS_CORRUPT, "shard %u is bad", f->rank);
    }
    if (fake_is(f, "memory", place)) {
        return err_set(err, STATUS_NO_MEMORY, "no memory is left here");
    }
    if (fake_is(f, "device", place)) {
        return err_set(err, STATUS_DEVICE, "the device is in the woods");
    }
    if (fake_is(f, "link", place)) {
        return err_set(err, STATUS_LINK, "a peer has left");
    }
    return fake_is(f, "bug", place) ? err_set(err, STATUS_BUG, "this cannot be") : STATUS_OK;
}
