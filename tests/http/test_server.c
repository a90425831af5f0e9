/* SPDX-License-Identifier: Apache-2.0 */
/* What the server answers, what it refuses, streams, clients that go. */
#include "site.h"

/* --- Requests --- */

static void keep_alive(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    for (int i = 1; i <= 3; i++) {
        say(fd, "GET /a HTTP/1.1\r\n" H "\r\n");
        hear_until(&site, fd, &got, "\r\n\r\n/a", i);
    }
    assert_int_equal(counters(&site).connections, 1);
    assert_int_equal(counters(&site).requests, 3);
    assert_int_equal(counters(&site).active, 0);
    assert_int_equal(site.n_complete, 3);
    assert_null(strstr(got.data, "Connection: close"));
    assert_non_null(strstr(got.data, "\r\nDate: "));
    buf_clear(&got);
    say(fd, "GET /b HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    hear_end(&site, fd, &got);
    assert_non_null(strstr(got.data, "Connection: close\r\n"));
    close(fd);
    ask(&site, "GET /c HTTP/1.0\r\n\r\n", 19, &got);
    assert_non_null(strstr(got.data, "\r\n\r\n/c"));
    TURN_UNTIL(&site, counters(&site).open == 0);
    buf_release(&got);
    close_site(&site);
}

static void pipeline(void **state)
{
    static const char three[] = "GET /1 HTTP/1.1\r\n" H "\r\n"
                                "GET /wait HTTP/1.1\r\n" H "\r\n"
                                "POST /3 HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nhi"
                                "GET /4 HTTP/1.1\r\n" H "Connection: close\r\n\r\n"
                                "GET /5 HTTP/1.1\r\n" H "\r\n";
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, three);
    TURN_UNTIL(&site, site.n_held == 1);
    turn(&site);
    assert_int_equal(site.n_requests, 2); /* one at a time */
    http_answer(site.held[0], 200, "text/plain", "late", 4);
    hear_end(&site, fd, &got);
    assert_int_equal(site.n_requests, 4); /* nothing behind a close */
    assert_true(strstr(got.data, "\r\n\r\n/1") < strstr(got.data, "\r\n\r\nlate"));
    assert_true(strstr(got.data, "\r\n\r\nlate") < strstr(got.data, "\r\n\r\nhi"));
    assert_true(strstr(got.data, "\r\n\r\nhi") < strstr(got.data, "\r\n\r\n/4"));
    close(fd);
    buf_release(&got);
    close_site(&site);
}

static void bodies(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    hear_until(&site, fd, &got, "HTTP/1.1 100 Continue\r\n\r\n", 1);
    assert_int_equal(site.n_requests, 0);
    say(fd, "hello");
    hear_until(&site, fd, &got, "\r\n\r\nhello", 1);
    say(fd, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n");
    turn(&site);
    say(fd, "\r\n");
    hear_until(&site, fd, &got, "\r\n\r\nabc", 1);
    buf_clear(&got);
    say(fd, "HEAD /head HTTP/1.1\r\n" H "\r\n");
    hear_until(&site, fd, &got, "\r\n\r\n", 1);
    assert_non_null(strstr(got.data, "Content-Length: 5\r\n"));
    assert_null(strstr(got.data, "/head"));
    /* answered before the body: what follows is no request */
    buf_clear(&got);
    say(fd, "POST /early HTTP/1.1\r\n" H "Content-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\n" H);
    hear_end(&site, fd, &got);
    assert_int_equal(count(got.data, "HTTP/1.1 "), 1);
    assert_non_null(strstr(got.data, "HTTP/1.1 404"));
    close(fd);
    /* without a body the connection stays */
    fd = client(&site);
    buf_clear(&got);
    say(fd, "GET /early HTTP/1.1\r\n" H "\r\nGET /x HTTP/1.1\r\n" H "\r\n");
    hear_until(&site, fd, &got, "\r\n\r\n/x", 1);
    close(fd);
    buf_release(&got);
    close_site(&site);
}

/* After a bad request nothing is executed, and the answer arrives. */
static void smuggling(void **state)
{
#define AFTER "GET /smuggled HTTP/1.1\r\n" H "\r\n"
#define CASE(status, text)                         \
    {                                              \
        status, text AFTER, sizeof(text AFTER) - 1 \
    }
    static const struct {
        const char *status;
        const char *bytes;
        size_t n;
    } cases[] = {
        CASE(" 400 ", "POST / HTTP/1.1\r\n" H
                      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        CASE(" 400 ", "POST / HTTP/1.1\r\n" H "Content-Length: 0\r\nContent-Length: 9\r\n\r\n"),
        CASE(" 400 ", "POST / HTTP/1.1\r\n" H "Content-Length: 0, 0\r\n\r\n"),
        CASE(" 400 ", "POST / HTTP/1.1\r\n" H "Content-Length : 9\r\n\r\n"),
        CASE(" 400 ", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        CASE(" 400 ", "GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n"),
        CASE(" 400 ", "GET / HTTP/1.1\r\n" H "X: a\n\n"),
        CASE(" 400 ", "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"),
        CASE(" 400 ", "GET / HTTP/1.1\r\n\r\n"),
        CASE(" 400 ", "POST /wait HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n"),
        CASE(" 501 ", "CONNECT a:1 HTTP/1.1\r\n" H "\r\n"),
        CASE(" 505 ", "GET / HTTP/3.0\r\n" H "\r\n"),
        CASE(" 417 ", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nExpect: x\r\n\r\n"),
        CASE(" 413 ", "POST / HTTP/1.1\r\n" H "Content-Length: 9999999\r\n\r\n"),
    };
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;

    (void)state;
    open_site(&site, &config);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ask(&site, cases[i].bytes, cases[i].n, &got);
        assert_int_equal(count(buf_str(&got), "\r\nDate: "), 1);
        assert_non_null(strstr(got.data, cases[i].status));
        assert_non_null(strstr(got.data, "Connection: close\r\n"));
    }
    assert_int_equal(site.n_requests, 0);
    assert_int_equal(counters(&site).refused, ARRAY_LEN(cases));
    buf_release(&got);
    close_site(&site);
}

/* Limits in bytes; the client is still sending when the answer comes, and can read it. */
static void too_large(void **state)
{
    struct http_config config = usual();
    char *much = xalloc(1 << 20);
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    memset(much, 'a', 1 << 20);
    open_site(&site, &config);
    for (int i = 0; i < 2; i++) {
        size_t sent = 0;

        fd = client(&site);
        buf_clear(&got);
        say(fd, i == 0 ? "POST / HTTP/1.1\r\n" H "Content-Length: 4194304\r\n\r\n"
                       : "GET / HTTP/1.1\r\n" H "X: ");
        while (sent < 4 << 20) {
            ssize_t n = send(fd, much, 1 << 20, MSG_NOSIGNAL | MSG_DONTWAIT);

            assert_true(n > 0 || errno == EAGAIN);
            sent += n > 0 ? (size_t)n : 0;
            turn(&site);
        }
        hear_end(&site, fd, &got);
        assert_non_null(strstr(got.data, i == 0 ? " 413 " : " 431 "));
        close(fd);
    }
    free(much);
    buf_release(&got);
    close_site(&site);
}

/* --- Streams --- */

static void stream(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    hear_until(&site, fd, &got, "\r\n\r\n", 1);
    assert_non_null(strstr(got.data, "Transfer-Encoding: chunked\r\n"));
    assert_null(strstr(got.data, "\nInjected")); /* no header within a value */
    http_stream_write(site.held[0], "data: 1\n\n", 9);
    http_stream_write(site.held[0], "0123456789abcdefg", 17);
    assert_int_equal(http_stream_pending(site.held[0]), 3 + 9 + 2 + 4 + 17 + 2);
    hear_until(&site, fd, &got, "9\r\ndata: 1\n\n\r\n11\r\n0123456789abcdefg\r\n", 1);
    http_stream_end(site.held[0]);
    hear_until(&site, fd, &got, "\r\n0\r\n\r\n", 1);
    say(fd, "GET /next HTTP/1.1\r\n" H "\r\n");
    hear_until(&site, fd, &got, "\r\n\r\n/next", 1);
    close(fd);
    /* to HTTP/1.0 the end is the close */
    fd = client(&site);
    buf_clear(&got);
    say(fd, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    TURN_UNTIL(&site, site.n_held == 1);
    http_stream_write(site.held[0], "data: 1\n\n", 9);
    http_stream_end(site.held[0]);
    hear_end(&site, fd, &got);
    assert_non_null(strstr(got.data, "Connection: close\r\n"));
    assert_non_null(strstr(got.data, "\r\n\r\ndata: 1\n\n"));
    close(fd);
    buf_release(&got);
    close_site(&site);
}

/* A reader that is slower than the limit allows is gone; one within it gets everything. */
static void slow_reader(void **state)
{
    struct http_config config = usual();
    char *much = xalloc(1 << 20);
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(&site, site.n_held == 1);
    for (int i = 0; i < 100 && site.n_held == 1; i++) {
        http_stream_write(site.held[0], much, 1 << 20);
        http_stream_write(site.held[0], much, 1); /* to a doomed one: nothing */
        turn(&site);
    }
    assert_int_equal(site.n_held, 0);
    assert_int_equal(site.n_complete, 0);
    close(fd);
    free(much);
    close_site(&site);
}

static void write_limit(void **state)
{
    struct http_config config = usual();
    size_t bytes = 64 << 20; /* more than the kernel takes */
    char *much = xalloc(bytes);
    struct site site;
    int fd;

    (void)state;
    config.write_ms = 50;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "GET /wait HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(&site, site.n_held == 1);
    http_answer(site.held[0], 200, "text/plain", much, bytes);
    TURN_UNTIL(&site, site.n_gone == 1);
    assert_int_equal(site.n_complete, 0);
    close(fd);
    free(much);
    close_site(&site);
}

/* --- Clients that go --- */

enum departure { HALF_CLOSE, CLOSE, RESET };

static void leave(int fd, enum departure how)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (how == HALF_CLOSE) {
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        return;
    }
    if (how == RESET) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(fd);
}

static void departures(void **state)
{
    static const char *const requests[] = {
        "GET /wait HTTP/1.1\r\n" H "\r\n",
        "GET /stream HTTP/1.1\r\n" H "\r\n",
        "POST /upload HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nhalf",
        "GET /wait HTTP/1.1\r\n" H "\r\nGET /behind HTTP/1.1\r\n" H "\r\n",
    };
    struct http_config config = usual();
    struct site site;

    (void)state;
    open_site(&site, &config);
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        for (int how = HALF_CLOSE; how <= RESET; how++) {
            int fd = client(&site);
            int before = site.n_gone;

            say(fd, requests[i]);
            TURN_UNTIL(&site, counters(&site).active == 1);
            leave(fd, how);
            TURN_UNTIL(&site, site.n_gone == before + 1);
            assert_int_equal(counters(&site).active, 0);
            assert_int_equal(counters(&site).open, 0);
            if (how == HALF_CLOSE) {
                close(fd);
            }
        }
    }
    assert_int_equal(site.n_complete, 0);
    assert_string_not_equal(site.last_path, "/behind");
    close_site(&site);
}

/* What was asked and answered before the client's end is still delivered. */
static void half_closed_early(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "GET /1 HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H "\r\n");
    leave(fd, HALF_CLOSE);
    hear_end(&site, fd, &got);
    assert_non_null(strstr(got.data, "\r\n\r\n/1"));
    close(fd);
    fd = client(&site);
    buf_clear(&got);
    say(fd, "BAD\r\n");
    leave(fd, HALF_CLOSE);
    hear_end(&site, fd, &got);
    assert_non_null(strstr(got.data, " 400 "));
    close(fd);
    buf_release(&got);
    close_site(&site);
}

static void on_ready(void *arg)
{
    struct site *site = arg;
    char byte;

    site->n_ready++;
    (void)!read(*(int *)http_exchange_get(site->held[0]), &byte, 1);
    http_stream_write(site->held[0], &byte, 1);
}

/* Another thread's mail makes a stream go on within the same turn. */
static void watched(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int ends[2];
    int fd;

    (void)state;
    open_site(&site, &config);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(http_server_watch(site.server, ends[0], on_ready, &site, NULL), STATUS_OK);
    fd = client(&site);
    say(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(&site, site.n_held == 1);
    http_exchange_set(site.held[0], &ends[0]);
    assert_int_equal(write(ends[1], "z", 1), 1);
    TURN_UNTIL(&site, site.n_ready == 1);
    assert_int_equal(http_stream_pending(site.held[0]), 0); /* sent at the turn's end */
    hear_until(&site, fd, &got, "1\r\nz\r\n", 1);
    close(fd);
    buf_release(&got);
    close_site(&site);
    close(ends[0]);
    close(ends[1]);
}

static void addresses(void **state)
{
    const struct http_handlers handlers = {.headers = headers, .request = request, .gone = gone};
    struct http_config config = usual();
    struct http_server *second = NULL;
    struct err err = {0};
    struct site site;
    char port[16];

    (void)state;
    open_site(&site, &config);
    config.port = http_server_port(site.server);
    snprintf(port, sizeof(port), "%u", config.port);
    assert_int_equal(http_server_create(&config, &handlers, &second, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    assert_non_null(strstr(err.text, port));
    close_site(&site);
    config.port = 0;
    config.host = "203.0.113.1"; /* kept for documentation: nobody's */
    assert_int_equal(http_server_create(&config, &handlers, &second, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "203.0.113.1"));
    config.host = "localhost";
    open_site(&site, &config);
    close(client(&site));
    close_site(&site);
    config.host = "[::1]";
    if (http_server_create(&config, &handlers, &second, &err) == STATUS_OK) { /* there is IPv6 */
        assert_true(http_server_port(second) > 0);
        http_server_destroy(&second);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),  cmocka_unit_test(pipeline),
        cmocka_unit_test(bodies),      cmocka_unit_test(smuggling),
        cmocka_unit_test(too_large),   cmocka_unit_test(stream),
        cmocka_unit_test(slow_reader), cmocka_unit_test(write_limit),
        cmocka_unit_test(departures),  cmocka_unit_test(half_closed_early),
        cmocka_unit_test(watched),     cmocka_unit_test(addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
