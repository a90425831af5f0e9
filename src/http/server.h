/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1.1 server on one thread: an epoll loop that accepts, reads and checks requests, and
 * writes answers, whole or as streams. It knows nothing of what is served. It is strict where
 * leniency has let one request hide in another (http/parser.h lists what is refused): such a
 * request is answered once with 400, the connection is closed, and no byte behind it is
 * interpreted.
 *
 * An exchange is one request and its answer. It lives from `headers` until `gone`, which is called
 * exactly once, last: after the answer was handed to the kernel, or when the client has gone (a
 * half-closed client counts as gone, at once, also while nothing is being sent). After `gone` the
 * exchange must not be used.
 *
 * Everything here is called on the loop's thread, handlers too. Other threads reach it through a
 * descriptor added with http_server_watch.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

struct http_server;
struct http_exchange;

struct http_config {
    const char *host;   /* numeric address or name to bind; "localhost" binds the loopback */
    uint16_t port;      /* 0: a free one */
    uint32_t header_ms; /* from the first byte of a request (or the accept) to its last header */
    uint32_t body_ms;   /* from the last header to the last byte of the body; in all */
    uint32_t idle_ms;   /* of a connection between two requests */
    uint32_t write_ms;  /* a client that takes nothing for so long is gone; 0: never */
    size_t max_header_bytes;  /* request line and headers together: 431 above */
    size_t max_body_bytes;    /* 413 above */
    size_t max_bodies_bytes;  /* of all exchanges there are: 503 for the one above; 0: no limit */
    size_t max_pending_bytes; /* of a stream's unsent output: a client that reads slower is gone */
    uint32_t max_connections; /* further ones are closed unanswered with 503 */
};

struct http_handlers {
    void *arg;
    /* The headers are there and well-formed, nothing of the body was read. Answer now (401, 404,
     * 405, 413, 415 ...) and the body is not waited for; otherwise it is read and `request`
     * follows. "Expect: 100-continue" is answered in between. */
    void (*headers)(void *arg, struct http_exchange *exchange);
    /* The body is there, too. Answer now or later. */
    void (*request)(void *arg, struct http_exchange *exchange);
    /* The exchange is over. complete: the whole answer went out. */
    void (*gone)(void *arg, struct http_exchange *exchange, bool complete);
    /* The body of an error that the server answers by itself (400, 408, 413, 431, 501, 503, 505):
     * appended to body, as *ret_content_type. NULL: text/plain, the reason. */
    void (*error_body)(void *arg, int status, const char *message, struct buf *body,
                       const char **ret_content_type);
};

/* Binds and listens. STATUS_IO names address and port; if the port is taken STATUS_LIMIT. */
NODISCARD enum status http_server_create(const struct http_config *config,
                                         const struct http_handlers *handlers,
                                         struct http_server **ret_server, struct err *err);
/* Closes everything; `gone` is called for what is open. */
void http_server_destroy(struct http_server **server);

uint16_t http_server_port(const struct http_server *server);

/* Calls ready(arg) from http_server_turn whenever fd (borrowed) is readable. */
NODISCARD enum status http_server_watch(struct http_server *server, int fd,
                                        void (*ready)(void *arg), void *arg, struct err *err);

/* Handles what there is, waiting for it at most until deadline_ns (clock_ns). */
void http_server_turn(struct http_server *server, uint64_t deadline_ns);

/* No further connections are accepted; idle ones are closed, others after their answer. */
void http_server_drain(struct http_server *server);

struct http_counters {
    uint64_t connections; /* accepted, ever */
    uint64_t requests;
    uint64_t refused; /* by the server itself, for what they were */
    uint32_t open;    /* connections now */
    uint32_t active;  /* exchanges now */
};

void http_server_counters(const struct http_server *server, struct http_counters *ret_counters);

/* --- The request; texts are valid until `gone` --- */

const char *http_method(const struct http_exchange *exchange);
const char *http_path(const struct http_exchange *exchange); /* percent-decoded, without query */
/* A parameter of the query, decoded; NULL if it is not there. */
const char *http_query(const struct http_exchange *exchange, const char *name);
/* A header's value, name in any case; NULL if it is not there. Several of one name: joined ", ". */
const char *http_header(const struct http_exchange *exchange, const char *name);
const char *http_body(const struct http_exchange *exchange, size_t *ret_bytes);
/* Gives the body away: the caller frees it. Until `gone` it counts as held by the exchange, as what
 * is made of it is. */
char *http_body_detach(struct http_exchange *exchange, size_t *ret_bytes);
/* Numeric address of the client. */
const char *http_peer(const struct http_exchange *exchange);
/* Numbers exchanges from 1 on. */
uint64_t http_exchange_id(const struct http_exchange *exchange);

/* One pointer for whoever serves. */
void http_exchange_set(struct http_exchange *exchange, void *user);
void *http_exchange_get(const struct http_exchange *exchange);

/* --- The answer --- */

/* Adds a header to the answer that is still to begin. Control characters in value become spaces. */
void http_answer_header(struct http_exchange *exchange, const char *name, const char *value);

/* The whole answer. Content-Length, Date and Connection are added. HEAD gets no body. */
void http_answer(struct http_exchange *exchange, int status, const char *content_type,
                 const void *body, size_t bytes);

/* An answer in parts: chunked, or to an HTTP/1.0 client ended by the close. What is written in one
 * turn leaves with as few system calls as possible, at the end of that turn. */
void http_stream_begin(struct http_exchange *exchange, int status, const char *content_type);
void http_stream_write(struct http_exchange *exchange, const void *bytes, size_t n);
void http_stream_end(struct http_exchange *exchange);
bool http_answer_begun(const struct http_exchange *exchange);
/* Bytes that the client has not taken yet. */
size_t http_stream_pending(const struct http_exchange *exchange);

/* After this answer the connection is closed. */
void http_answer_close(struct http_exchange *exchange);
