/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: what is read becomes requests, one at a time; what was written is sent. */
#include "http/server_priv.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    KEPT_BYTES = 4096,         /* of an idle connection's output */
    LINGER_BYTES = 64 << 20,   /* a client may be in the middle of a body that nobody wants */
    COMPACT_BYTES = 256 << 10, /* of sent output in front of what is unsent */
};

/* --- Timers --- */

static void timer_stop(struct conn *conn)
{
    struct timer_list *list;

    if (conn->timer == TIMER_NONE) {
        return;
    }
    list = &conn->server->timers[conn->timer];
    *(conn->timer_prev != NULL ? &conn->timer_prev->timer_next : &list->first) = conn->timer_next;
    *(conn->timer_next != NULL ? &conn->timer_next->timer_prev : &list->last) = conn->timer_prev;
    conn->timer_next = NULL;
    conn->timer_prev = NULL;
    conn->timer = TIMER_NONE;
}

/* A limit that runs already goes on: nothing that a client drips in extends it. */
static void timer_start(struct conn *conn, enum timer_kind kind)
{
    struct timer_list *list;

    if (conn->timer == kind) {
        return;
    }
    timer_stop(conn);
    if (kind == TIMER_NONE || conn->server->timers[kind].after_ns == 0) {
        return;
    }
    list = &conn->server->timers[kind];
    conn->timer = kind;
    conn->deadline_ns = conn->server->now_ns + list->after_ns;
    conn->timer_prev = list->last;
    *(list->last != NULL ? &list->last->timer_next : &list->first) = conn;
    list->last = conn;
}

static enum timer_kind timer_wanted(const struct conn *conn)
{
    if (conn->state == CONN_LINGER) {
        return TIMER_LINGER;
    }
    if (conn_pending(conn) > 0 && (conn->deaf || conn->exchange == NULL || conn->exchange->begun)) {
        return TIMER_WRITE;
    }
    switch (conn->state) {
    case CONN_IDLE:
        return conn->greeted ? TIMER_IDLE : TIMER_HEADER;
    case CONN_HEAD:
        return TIMER_HEADER;
    case CONN_BODY:
        return conn->deaf ? TIMER_NONE : TIMER_BODY;
    default:
        return TIMER_NONE;
    }
}

/* --- Life --- */

void conn_mark_dirty(struct conn *conn)
{
    struct http_server *server = conn->server;

    if (conn->is_dirty || conn->state == CONN_CLOSED) {
        return;
    }
    conn->is_dirty = true;
    conn->dirty_next = NULL;
    if (server->dirty_last != NULL) {
        server->dirty_last->dirty_next = conn;
    } else {
        server->dirty_first = conn;
    }
    server->dirty_last = conn;
}

void conn_create(struct http_server *server, int fd, const char *peer, bool is_extra)
{
    struct conn *conn = xalloc(sizeof(*conn));
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = conn};

    conn->source.kind = SOURCE_CONN;
    conn->server = server;
    conn->fd = fd;
    conn->mask = event.events;
    conn->timer = TIMER_NONE;
    conn->is_extra = is_extra;
    snprintf(conn->peer, sizeof(conn->peer), "%s", peer);
    http_parser_init(&conn->parser, server->config.max_header_bytes, server->config.max_body_bytes);
    conn->next = server->conns;
    if (conn->next != NULL) {
        conn->next->prev = conn;
    }
    server->conns = conn;
    server->counters.connections++;
    server->counters.open++;
    server->n_extra += is_extra;
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) { /* a limit of the user's */
        conn_abort(conn);
        return;
    }
    if (is_extra) {
        conn_refuse(conn, 503, "there are too many connections");
    }
    conn_mark_dirty(conn);
}

static void end_exchange(struct conn *conn, bool complete)
{
    struct http_server *server = conn->server;

    server->handlers.gone(server->handlers.arg, conn->exchange, complete);
    server->bodies_bytes -= conn->exchange->body_bytes;
    buf_release(&conn->exchange->headers);
    free(conn->exchange);
    conn->exchange = NULL;
    server->counters.active--;
}

void conn_abort(struct conn *conn)
{
    struct http_server *server = conn->server;

    if (conn->state == CONN_CLOSED) {
        return;
    }
    conn->doomed = true;
    if (conn->exchange != NULL) {
        end_exchange(conn, conn->exchange->ended && conn_pending(conn) == 0);
    }
    conn->state = CONN_CLOSED;
    timer_stop(conn);
    /* a child between fork and exec may hold the descriptor: without DEL its events would go on */
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    close(conn->fd);
    *(conn->prev != NULL ? &conn->prev->next : &server->conns) = conn->next;
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
    conn->next = server->closed;
    server->closed = conn;
    server->counters.open--;
    server->n_extra -= conn->is_extra;
}

void conn_free(struct conn *conn)
{
    http_parser_release(&conn->parser);
    buf_release(&conn->in);
    buf_release(&conn->out);
    free(conn);
}

/* --- Output --- */

bool conn_flush(struct conn *conn)
{
    while (conn_pending(conn) > 0) {
        ssize_t n = send(conn->fd, conn->out.data + conn->out_at, conn_pending(conn),
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)) {
            break;
        }
        if (n < 0) {
            return false;
        }
        conn->out_at += (size_t)n;
        if (conn->timer == TIMER_WRITE) {
            timer_stop(conn); /* it took something: from now on again */
        }
    }
    if (conn_pending(conn) == 0) {
        buf_clear(&conn->out);
        conn->out_at = 0;
    } else if (conn->out_at >= COMPACT_BYTES) {
        memmove(conn->out.data, conn->out.data + conn->out_at, conn_pending(conn));
        conn->out.len -= conn->out_at;
        conn->out_at = 0;
    }
    return true;
}

/* --- Requests --- */

static void on_head(struct conn *conn)
{
    struct http_server *server = conn->server;
    struct http_exchange *exchange = xalloc(sizeof(*exchange));

    exchange->conn = conn;
    exchange->id = ++server->n_exchanges;
    conn->exchange = exchange;
    conn->state = conn->parser.has_body ? CONN_BODY : CONN_BUSY;
    server->counters.requests++;
    server->counters.active++;
    server->handlers.headers(server->handlers.arg, exchange);
    if (exchange->begun) {
        return;
    }
    if (!conn->parser.has_body) {
        server->handlers.request(server->handlers.arg, exchange);
    } else if (conn->parser.expects_continue) {
        buf_append_str(&conn->out, "HTTP/1.1 100 Continue\r\n\r\n");
    }
}

/* All bodies together have a limit, or many connections with a large one each would take all
 * memory. The one that goes beyond is refused. Not reading on instead would be no help: bodies that
 * are all in the middle would wait for one another, and nothing says when there is room. Counted is
 * what was read, not what was announced, so that nobody reserves by announcing. False: refused. */
static bool count_body(struct conn *conn)
{
    struct http_server *server = conn->server;
    struct http_exchange *exchange = conn->exchange;
    size_t most = server->config.max_bodies_bytes;
    size_t n = conn->parser.body.len;

    server->bodies_bytes += n - exchange->body_bytes;
    exchange->body_bytes = n;
    if (most == 0 || server->bodies_bytes <= most || exchange->begun) {
        return true;
    }
    conn_refuse(conn, 503, "the server holds as many bytes of requests as it may");
    buf_release(&conn->parser.body); /* at once, the client may read slowly */
    server->bodies_bytes -= exchange->body_bytes;
    exchange->body_bytes = 0;
    return false;
}

/* Feeds until a request waits for its answer or the bytes are used up; returns how many were. */
static size_t parse(struct conn *conn, const char *bytes, size_t n)
{
    struct http_server *server = conn->server;
    size_t at = 0;

    while (!conn->deaf && conn->state != CONN_BUSY && (conn->exchange != NULL || !conn->last) &&
           (at < n || conn->state == CONN_BODY)) {
        size_t used;
        enum http_parse outcome = http_parser_feed(&conn->parser, bytes + at, n - at, &used);

        at += used;
        if (conn->state == CONN_IDLE && conn->parser.started) {
            conn->state = CONN_HEAD;
        }
        if (conn->exchange != NULL && outcome != HTTP_PARSE_BAD && !count_body(conn)) {
            break;
        }
        if (outcome == HTTP_PARSE_MORE) {
            break;
        }
        if (outcome == HTTP_PARSE_BAD) {
            conn_refuse(conn, conn->parser.error, conn->parser.reason);
        } else if (outcome == HTTP_PARSE_HEAD) {
            on_head(conn);
        } else {
            conn->state = CONN_BUSY;
            server->handlers.request(server->handlers.arg, conn->exchange);
        }
    }
    return at;
}

static void take_input(struct conn *conn, const char *bytes, size_t n)
{
    size_t used = conn->in.len == 0 ? parse(conn, bytes, n) : 0;

    if (conn->in_at > 0) { /* a client that is always ahead must not make it grow */
        conn->in.len -= conn->in_at;
        memmove(conn->in.data, conn->in.data + conn->in_at, conn->in.len);
        conn->in_at = 0;
    }
    if (!conn->deaf && used < n) {
        buf_append(&conn->in, bytes + used, n - used);
    }
}

/* What was left behind the request before. */
static void take_rest(struct conn *conn)
{
    conn->in_at += parse(conn, conn->in.data + conn->in_at, conn->in.len - conn->in_at);
    if (conn->in_at == conn->in.len || conn->deaf) {
        buf_release(&conn->in);
        conn->in_at = 0;
    }
}

static void read_input(struct conn *conn)
{
    char *scratch = conn->server->scratch;
    ssize_t n = recv(conn->fd, scratch, READ_BYTES, MSG_DONTWAIT);

    if (n > 0) {
        take_input(conn, scratch, (size_t)n);
    } else if (n == 0) {
        conn->eof = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        conn->doomed = true;
    }
}

static void read_lingering(struct conn *conn)
{
    ssize_t n = recv(conn->fd, conn->server->scratch, READ_BYTES, MSG_DONTWAIT);

    if (n > 0) {
        conn->lingered += (size_t)n;
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || conn->lingered > LINGER_BYTES) {
        conn_abort(conn);
    }
}

void conn_on_event(struct conn *conn, uint32_t events)
{
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (conn->state == CONN_LINGER) {
        read_lingering(conn);
        return;
    }
    conn_mark_dirty(conn);
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        conn->doomed = true;
        return;
    }
    if ((events & EPOLLIN) != 0) {
        read_input(conn);
    }
    /* With a request under way the client has gone. Without one there may be bytes before the end:
     * reading finds it. */
    if ((events & EPOLLRDHUP) != 0 && (conn->exchange != NULL || conn->deaf)) {
        conn->eof = true;
    }
}

void conn_on_timeout(struct conn *conn)
{
    enum timer_kind kind = conn->timer;

    timer_stop(conn);
    conn_mark_dirty(conn);
    if (kind == TIMER_HEADER && conn->state == CONN_HEAD) {
        conn_refuse(conn, 408, "the request's headers took too long");
    } else if (kind == TIMER_BODY) {
        conn_refuse(conn, 408, "the request's body took too long");
    } else {
        conn->doomed = true;
    }
}

/* --- The end of a turn --- */

/* The answer is sent. */
static void finish(struct conn *conn)
{
    timer_stop(conn);
    end_exchange(conn, true);
    conn->greeted = true;
    conn->state = CONN_IDLE;
    http_parser_reset(&conn->parser);
    if (conn->out.cap > KEPT_BYTES) {
        buf_release(&conn->out);
    }
}

static void linger(struct conn *conn)
{
    conn->state = CONN_LINGER;
    buf_release(&conn->in);
    conn->in_at = 0;
    shutdown(conn->fd, SHUT_WR);
}

static void watch(struct conn *conn)
{
    size_t rest = conn->in.len - conn->in_at;
    uint32_t mask = EPOLLIN | EPOLLRDHUP;
    struct epoll_event event = {.data.ptr = conn};

    if (conn->state == CONN_LINGER) {
        mask = EPOLLIN;
    } else if (conn->eof) {
        mask = 0;
    } else if (conn->deaf || rest >= READ_BYTES) {
        mask = EPOLLRDHUP;
    }
    if (conn_pending(conn) > 0) {
        mask |= EPOLLOUT;
    }
    if (mask != conn->mask) {
        event.events = mask;
        conn->mask = mask;
        ENSURE(epoll_ctl(conn->server->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) == 0);
    }
}

/* True: the connection is to be closed now, nobody waits for anything from it. */
static bool is_over(const struct conn *conn)
{
    if (conn->state == CONN_LINGER) {
        return false;
    }
    if (conn->eof) { /* only an answer that is on its way is still sent */
        return conn->exchange != NULL ? !conn->exchange->ended : !conn->deaf;
    }
    return conn->server->draining && conn->state == CONN_IDLE && !conn->deaf;
}

void conn_settle(struct conn *conn)
{
    bool again = true;

    conn->is_dirty = false;
    while (conn->state != CONN_CLOSED && again) {
        again = false;
        if (conn->doomed || !conn_flush(conn)) {
            conn_abort(conn);
        } else if (conn_pending(conn) > 0 || conn->state == CONN_LINGER) {
            break;
        } else if (conn->exchange != NULL && conn->exchange->ended) {
            finish(conn);
            again = true;
        } else if (conn->exchange == NULL && (conn->deaf || conn->last)) {
            linger(conn);
        } else if (conn->exchange == NULL && conn->in.len > 0) {
            take_rest(conn);
            again = true;
        }
    }
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (is_over(conn)) {
        conn_abort(conn);
        return;
    }
    timer_start(conn, timer_wanted(conn));
    watch(conn);
}
