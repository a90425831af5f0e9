/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A site and its clients over real sockets on the loopback: one thread is both client and server,
 * so that nothing depends on how fast the machine is.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/server.h"

#define MS UINT64_C(1000000)

enum { MAX_HELD = 128, GIVE_UP_S = 20 };

struct site {
    struct http_server *server;
    struct http_exchange *held[MAX_HELD]; /* waiting or streaming */
    int n_held;
    int n_headers;
    int n_requests;
    int n_gone;
    int n_complete;
    int n_ready;
    char last_path[64];
};

/* --- What is served --- */

static inline void headers(void *arg, struct http_exchange *x)
{
    struct site *site = arg;

    site->n_headers++;
    if (strcmp(http_path(x), "/early") == 0) {
        http_answer(x, 404, "text/plain", "early", 5);
    }
}

static inline void hold(struct site *site, struct http_exchange *x)
{
    assert_true(site->n_held < MAX_HELD);
    http_exchange_set(x, site);
    site->held[site->n_held++] = x;
}

static inline void request(void *arg, struct http_exchange *x)
{
    struct site *site = arg;
    size_t n;
    const char *body = http_body(x, &n);

    site->n_requests++;
    snprintf(site->last_path, sizeof(site->last_path), "%s", http_path(x));
    if (strcmp(http_path(x), "/wait") == 0) {
        hold(site, x);
    } else if (strcmp(http_path(x), "/take") == 0) {
        free(http_body_detach(x, &n));
        hold(site, x);
    } else if (strcmp(http_path(x), "/stream") == 0) {
        http_answer_header(x, "X-Split", "a\r\nInjected: b");
        http_stream_begin(x, 200, "text/event-stream");
        hold(site, x);
    } else if (n > 0) {
        http_answer(x, 200, "application/octet-stream", body, n);
    } else {
        http_answer(x, 200, "text/plain", http_path(x), strlen(http_path(x)));
    }
}

static inline void gone(void *arg, struct http_exchange *x, bool complete)
{
    struct site *site = arg;

    site->n_gone++;
    site->n_complete += complete;
    for (int i = 0; i < site->n_held; i++) {
        if (site->held[i] == x) {
            site->held[i] = site->held[--site->n_held];
        }
    }
}

static inline struct http_config usual(void)
{
    return (struct http_config){
        .host = "127.0.0.1",
        .header_ms = 60000,
        .body_ms = 60000,
        .idle_ms = 60000,
        .write_ms = 60000,
        .max_header_bytes = 4096,
        .max_body_bytes = 1 << 20,
        .max_pending_bytes = 256 << 10,
        .max_connections = 1000,
    };
}

static inline void open_site(struct site *site, const struct http_config *config)
{
    const struct http_handlers handlers = {
        .arg = site, .headers = headers, .request = request, .gone = gone};

    *site = (struct site){0};
    assert_int_equal(http_server_create(config, &handlers, &site->server, NULL), STATUS_OK);
}

static inline void close_site(struct site *site)
{
    http_server_destroy(&site->server);
    assert_null(site->server);
    assert_int_equal(site->n_gone, site->n_headers); /* each exactly once */
    assert_int_equal(site->n_held, 0);
}

static inline struct http_counters counters(const struct site *site)
{
    struct http_counters now;

    http_server_counters(site->server, &now);
    return now;
}

static inline void turn(struct site *site)
{
    http_server_turn(site->server, clock_ns() + 5 * MS);
}

#define TURN_UNTIL(site, condition)                            \
    do {                                                       \
        uint64_t give_up = clock_ns() + GIVE_UP_S * 1000 * MS; \
        while (!(condition)) {                                 \
            assert_true(clock_ns() < give_up);                 \
            turn(site);                                        \
        }                                                      \
    } while (0)

/* --- A client --- */

static inline int client(const struct site *site)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(site->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Adds what has come; false at the end, also if it came by a reset. */
static inline bool hear(int fd, struct buf *into)
{
    char bytes[65536];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
        buf_append(into, bytes, (size_t)n);
    }
    assert_true(n == 0 || errno == EAGAIN); /* an answer is never lost in a reset */
    return n != 0;
}

static inline int count(const char *text, const char *what)
{
    int n = 0;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) {
        n++;
    }
    return n;
}

/* Until the text has come so many times. */
static inline void hear_until(struct site *site, int fd, struct buf *into, const char *what,
                              int times)
{
    uint64_t give_up = clock_ns() + GIVE_UP_S * 1000 * MS;

    while (hear(fd, into) && count(buf_str(into), what) < times) {
        assert_true(clock_ns() < give_up);
        turn(site);
    }
    assert_int_equal(count(buf_str(into), what), times);
}

static inline void hear_end(struct site *site, int fd, struct buf *into)
{
    uint64_t give_up = clock_ns() + GIVE_UP_S * 1000 * MS;

    while (hear(fd, into)) {
        assert_true(clock_ns() < give_up);
        turn(site);
    }
}

/* What a client gets for these bytes, until the server closes. */
static inline void ask(struct site *site, const char *bytes, size_t n, struct buf *answer)
{
    int fd = client(site);

    buf_clear(answer);
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
    hear_end(site, fd, answer);
    close(fd);
}

#define H "Host: a\r\n"
