/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control channel: one end of a socket pair that carries frames between the leader and one rank.
 *
 * The leader asks, the rank answers: each request has one sequence number and one answer, of the
 * type the message table gives or an error, perhaps after signs of life. A spawned rank owes
 * `hello` under number 0. The leader may ask again before an answer came (after a deadline): the
 * late answer is then dropped and counted, as is every frame of another epoch or of an unexpected
 * number. A peer whose bytes make no sense, who answers what was not asked, floods, or closes its
 * end is cut off: the descriptor is closed and every later call says STATUS_LINK and why. That a
 * peer is gone is noticed by reading, after the last thing it said; sending to it succeeds.
 *
 * No call blocks but channel_receive and channel_wait, which have deadlines; nothing raises
 * SIGPIPE. What a peer can make this side hold is one frame of max_body, one read and
 * CHANNEL_MAX_FDS descriptors. One thread at a time; the caller owns the struct.
 */
#pragma once

#include <poll.h>

#include "rpc/frame.h"
#include "rpc/message.h"

enum {
    CHANNEL_MAX_FDS = 8,        /* descriptors in flight, either way */
    CHANNEL_MAX_DROPPED = 64,   /* frames in a row that nobody wanted */
    CHANNEL_MAX_SIGNS = 100000, /* signs of life before one answer */
    CHANNEL_MAX_OUT = 2 * FRAME_MAX_BODY,
};

enum channel_side { CHANNEL_LEADER, CHANNEL_RANK };

/* All only ever rise. */
struct channel_counters {
    uint64_t frames_in;
    uint64_t frames_out;
    uint64_t dropped_epoch; /* of another epoch */
    uint64_t dropped_seq;   /* of an unexpected sequence number */
};

struct channel {
    int fd; /* -1: cut off */
    enum channel_side side;
    uint64_t epoch;
    uint64_t seq;             /* of the newest request: sent (leader) or received (rank) */
    enum message_type asked;  /* its type; MESSAGE_NONE for the spawning */
    enum message_type answer; /* that is owed; MESSAGE_NONE when nothing is */
    struct frame_decoder in;
    int in_fds[CHANNEL_MAX_FDS]; /* came and belong to no complete frame yet */
    uint32_t n_in_fds;
    struct buf out;
    size_t sent; /* of out */
    int out_fds[CHANNEL_MAX_FDS];
    uint32_t n_out_fds;
    size_t out_fds_at; /* offset in out of the frame they go with */
    uint32_t dropped;  /* in a row */
    uint32_t signs;    /* of life since the request */
    struct channel_counters counters;
    struct err cut; /* why it was cut off */
};

/* Two connected non-blocking ends, closed on exec. */
NODISCARD enum status channel_pair(int ret_fds[2], struct err *err);

/* Takes fd (any stream socket; made non-blocking and closed on exec). max_body: longest body that
 * will be accepted. */
void channel_init(struct channel *channel, int fd, enum channel_side side, uint64_t epoch,
                  uint32_t max_body);
void channel_release(struct channel *channel);

/* What a message consists of besides its type. All borrowed; descriptors are duplicated. */
struct message_out {
    const json_t *json; /* NULL: {} (JSON messages) */
    const void *bytes;  /* BINARY messages */
    uint32_t n_bytes;
    const int *fds;
    uint32_t n_fds;
};

/* A received message; release it. */
struct message {
    enum message_type type;
    uint64_t seq;
    json_t *json;   /* checked; NULL for BINARY */
    uint8_t *bytes; /* BINARY: 16-byte aligned; NULL for JSON */
    uint32_t n_bytes;
    int fds[CHANNEL_MAX_FDS]; /* set one to -1 to keep it */
    uint32_t n_fds;
};

void message_release(struct message *message);

/* Leader: queues a request and sends what the socket takes at once. out may be NULL. STATUS_LINK:
 * cut off. STATUS_LIMIT: too long, or the peer has not taken what is queued. STATUS_CORRUPT: the
 * body does not fit the message table. */
NODISCARD enum status channel_request(struct channel *channel, enum message_type type,
                                      const struct message_out *out, struct err *err);

/* Rank: the same for the owed answer, an error in its place, or a sign of life before it. */
NODISCARD enum status channel_answer(struct channel *channel, enum message_type type,
                                     const struct message_out *out, struct err *err);
/* An error message with err's status and text. */
NODISCARD enum status channel_answer_error(struct channel *channel, const struct err *why,
                                           struct err *err);

/* Sends what the socket takes and returns the next message that is wanted, without blocking.
 * STATUS_PENDING: there is none yet. STATUS_LINK: cut off. One call reads a bounded amount. */
NODISCARD enum status channel_try(struct channel *channel, struct message *ret_message,
                                  struct err *err);

/* The same, waiting until deadline_ns (clock_ns): STATUS_TIMEOUT. */
NODISCARD enum status channel_receive(struct channel *channel, uint64_t deadline_ns,
                                      struct message *ret_message, struct err *err);

/* Waits until everything queued is sent: STATUS_TIMEOUT, STATUS_LINK. */
NODISCARD enum status channel_flush(struct channel *channel, uint64_t deadline_ns, struct err *err);

/* What to poll for: {fd, POLLIN and perhaps POLLOUT}; fd -1 when cut off. */
struct pollfd channel_poll(const struct channel *channel);

/* poll over n descriptors until deadline_ns; true if one is ready. */
bool channel_wait(struct pollfd *fds, uint32_t n, uint64_t deadline_ns);

/* Closes the descriptor and keeps the reason (the first one given). Always STATUS_LINK. */
enum status channel_cut(struct channel *channel, struct err *err, const char *format, ...)
    PRINTF_LIKE(3, 4);
