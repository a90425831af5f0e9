/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by server.c (sockets, the loop), conn.c (one connection's life) and answer.c (what is
 * written). All on the loop's thread.
 *
 * A connection:
 *
 *   IDLE -first byte-> HEAD -headers-> BODY -> BUSY -answer ended and sent-> IDLE
 *     any error of the client: an answer is queued, then LINGER; likewise after the last answer
 *   LINGER: our side is shut, what the client still sends is thrown away, so that it can read the
 *     answer without a reset; bounded in time and bytes; then CLOSED
 *   CLOSED: the descriptor is closed, the memory goes at the end of the turn
 *
 * Handlers may write to any exchange at any moment. So nothing is closed and no handler is called
 * under their feet: what a write leads to is put on the list `dirty` and happens in conn_settle at
 * the end of the turn.
 */
#pragma once

#include "http/parser.h"
#include "http/server.h"

enum source_kind { SOURCE_LISTENER, SOURCE_WATCH, SOURCE_CONN };

/* What an epoll event points to. */
struct source {
    enum source_kind kind;
};

struct watch {
    struct source source;
    struct watch *next;
    void (*ready)(void *arg);
    void *arg;
};

/* Connections that wait for one kind of limit, in the order in which it comes: for each kind the
 * limit is the same for all, so that a list is a queue and nothing is searched. */
enum timer_kind {
    TIMER_HEADER,
    TIMER_BODY,
    TIMER_IDLE,
    TIMER_WRITE,
    TIMER_LINGER,
    N_TIMERS,
    TIMER_NONE = N_TIMERS,
};

struct timer_list {
    struct conn *first;
    struct conn *last;
    uint64_t after_ns; /* 0: never */
};

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_BUSY, CONN_LINGER, CONN_CLOSED };

enum { PEER_BYTES = 64 };

struct http_exchange {
    struct conn *conn;
    uint64_t id;
    void *user;
    struct buf headers; /* of the answer, complete lines */
    bool begun;
    bool streaming;
    bool chunked;
    bool bodiless; /* HEAD, 204, 304 */
    bool ended;
    bool failed;       /* the server has answered in the handler's place */
    size_t body_bytes; /* of the request, that were read */
};

struct conn {
    struct source source;
    struct http_server *server;
    int fd;
    enum conn_state state;
    uint32_t mask; /* what epoll watches */

    struct http_parser parser;
    struct http_exchange *exchange;
    struct buf in; /* read, not parsed */
    size_t in_at;
    struct buf out; /* to be sent, from out_at on */
    size_t out_at;

    bool last;   /* the answer under way is the last one; LINGER once it is sent */
    bool deaf;   /* and nothing further is parsed */
    bool doomed; /* no use in writing: to be aborted when it is settled */
    bool eof;    /* the client sends nothing more */
    bool is_dirty;
    bool is_extra; /* beyond max_connections, only here to be told so */
    bool greeted;  /* had a request */

    enum timer_kind timer; /* or TIMER_NONE */
    uint64_t deadline_ns;
    struct conn *timer_next;
    struct conn *timer_prev;
    struct conn *dirty_next;
    struct conn *next; /* of all, or of the closed */
    struct conn *prev;
    size_t lingered; /* bytes thrown away */
    char peer[PEER_BYTES];
};

struct http_server {
    struct source source; /* the listener's */
    struct http_config config;
    struct http_handlers handlers;
    int epoll_fd;
    int listen_fd; /* -1 once draining */
    uint16_t port;
    bool draining;
    bool starved;      /* the last attempt to accept found no descriptor */
    uint64_t retry_ns; /* accepting is paused until then; 0: it is not */

    struct conn *conns;
    struct conn *closed;
    struct conn *dirty_first;
    struct conn *dirty_last;
    struct timer_list timers[N_TIMERS];
    struct watch *watches;
    uint32_t n_extra;
    uint64_t now_ns; /* of this turn */
    uint64_t n_exchanges;
    size_t bodies_bytes; /* of all exchanges */
    struct http_counters counters;

    char date[64];
    int64_t date_s;
    char *scratch; /* READ_BYTES, for what was just read */
};

enum { READ_BYTES = 64 << 10 };

/* --- conn.c --- */

/* Takes fd. */
void conn_create(struct http_server *server, int fd, const char *peer, bool is_extra);
void conn_on_event(struct conn *conn, uint32_t events);
void conn_on_timeout(struct conn *conn);
/* Sends, ends what has ended, goes on with what was read. */
void conn_settle(struct conn *conn);
void conn_mark_dirty(struct conn *conn);
/* Closes at once; `gone` is called. */
void conn_abort(struct conn *conn);
void conn_free(struct conn *conn);
/* Sends what it can; false if the connection is broken. */
bool conn_flush(struct conn *conn);

static inline size_t conn_pending(const struct conn *conn)
{
    return conn->out.len - conn->out_at;
}

/* --- answer.c --- */

/* Answers in the server's own words and closes. */
void conn_refuse(struct conn *conn, int status, const char *message);
