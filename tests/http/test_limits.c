/* SPDX-License-Identifier: Apache-2.0 */
/* The server's limits: time, connections, descriptors; and its end. */
#include "site.h"

/* --- Limits in time --- */

static void nap(uint32_t ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* Drips a byte a turn: the limit is for all of it. */
static void drip(struct site *site, const char *begin, char byte, uint32_t at_least_ms,
                 struct buf *got)
{
    uint64_t began = clock_ns();
    int fd = client(site);

    buf_clear(got);
    say(fd, begin);
    while (hear(fd, got)) {
        assert_true(clock_ns() - began < GIVE_UP_S * 1000 * MS);
        send(fd, &byte, 1, MSG_NOSIGNAL);
        turn(site);
        nap(2);
    }
    assert_true(clock_ns() - began >= at_least_ms * MS);
    close(fd);
}

static void slow_clients(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;

    (void)state;
    config.header_ms = 60;
    config.body_ms = 90;
    open_site(&site, &config);
    drip(&site, "GET / HTTP/1.1\r\nX: ", 'a', 60, &got);
    assert_non_null(strstr(buf_str(&got), " 408 "));
    drip(&site, "POST / HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\n", 'a', 90, &got);
    assert_non_null(strstr(buf_str(&got), " 408 "));
    assert_int_equal(site.n_requests, 0);
    drip(&site, "", '\n', 0, &got); /* an answer at once */
    assert_non_null(strstr(buf_str(&got), " 400 "));
    buf_release(&got);
    close_site(&site);
}

static void idle_clients(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int silent;
    int idle;
    int busy;

    (void)state;
    config.header_ms = 30;
    config.body_ms = 30;
    config.idle_ms = 60;
    config.write_ms = 30;
    open_site(&site, &config);
    silent = client(&site);
    idle = client(&site);
    busy = client(&site);
    say(idle, "GET /a HTTP/1.1\r\n" H "\r\n");
    say(busy, "GET /stream HTTP/1.1\r\n" H "\r\n");
    hear_end(&site, silent, &got);
    assert_int_equal(got.len, 0);
    hear_end(&site, idle, &got);
    assert_non_null(strstr(buf_str(&got), "\r\n\r\n/a"));
    nap(150); /* longer than every limit */
    for (int i = 0; i < 10; i++) {
        turn(&site);
    }
    assert_int_equal(site.n_held, 1); /* none of them ends a stream */
    buf_clear(&got);
    http_stream_write(site.held[0], "still", 5);
    http_stream_end(site.held[0]);
    hear_until(&site, busy, &got, "still\r\n0\r\n\r\n", 1);
    close(silent);
    close(idle);
    close(busy);
    buf_release(&got);
    close_site(&site);
}

/* --- Bodies, all together --- */

enum { HALF = 50 << 10 };

static void say_body(int fd, const char *path, size_t announced, size_t n)
{
    struct buf text = {0};

    buf_printf(&text, "POST %s HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n", path, announced);
    say(fd, buf_str(&text));
    buf_clear(&text);
    for (size_t i = 0; i < n; i++) {
        buf_append_char(&text, 'x');
    }
    say(fd, buf_str(&text));
    buf_release(&text);
}

/* What was read counts, not what was announced, until the answer is over, whoever has the body; who
 * goes beyond is refused, the others go on, and afterwards there is room again. */
static void bodies(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int greedy;
    int one;
    int two;

    (void)state;
    config.max_bodies_bytes = 2 * HALF + 100;
    open_site(&site, &config);
    greedy = client(&site);
    say_body(greedy, "/", 1 << 20, 50); /* announces more than there may be of all */
    one = client(&site);
    say_body(one, "/take", HALF, HALF);
    TURN_UNTIL(&site, site.n_held == 1);
    two = client(&site);
    say_body(two, "/", HALF, HALF / 2);
    TURN_UNTIL(&site, counters(&site).active == 3);
    say_body(greedy, "/", 0, HALF); /* headers and all are more of its body */
    hear_end(&site, greedy, &got);
    assert_non_null(strstr(buf_str(&got), "HTTP/1.1 503 "));
    assert_non_null(strstr(buf_str(&got), "\r\nRetry-After: 1\r\n"));
    close(greedy);
    for (int i = 0; i < HALF / 2; i += 1024) {
        char rest[1024];

        memset(rest, 'y', sizeof(rest));
        assert_int_equal(send(two, rest, sizeof(rest), MSG_NOSIGNAL), sizeof(rest));
        turn(&site);
    }
    buf_clear(&got);
    hear_until(&site, two, &got, "HTTP/1.1 200 ", 1);
    http_answer(site.held[0], 200, "text/plain", "one", 3);
    buf_clear(&got);
    hear_until(&site, one, &got, "\r\n\r\none", 1);
    close(two);
    two = client(&site); /* now there is room for all of it */
    say_body(two, "/", 2 * HALF, 2 * HALF);
    buf_clear(&got);
    hear_until(&site, two, &got, "HTTP/1.1 200 ", 1);
    close(one);
    close(two);
    buf_release(&got);
    close_site(&site);
}

/* --- Many, too many, the end --- */

static void too_many(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int one;
    int two;

    (void)state;
    config.max_connections = 1;
    open_site(&site, &config);
    one = client(&site);
    TURN_UNTIL(&site, counters(&site).open == 1);
    two = client(&site);
    hear_end(&site, two, &got);
    assert_non_null(strstr(buf_str(&got), " 503 "));
    close(two);
    say(one, "GET /a HTTP/1.1\r\n" H "\r\n");
    buf_clear(&got);
    hear_until(&site, one, &got, "\r\n\r\n/a", 1);
    close(one);
    TURN_UNTIL(&site, counters(&site).open == 0);
    one = client(&site); /* there is room again */
    say(one, "GET /a HTTP/1.1\r\n" H "\r\n");
    hear_until(&site, one, &got, "\r\n\r\n/a", 2);
    close(one);
    buf_release(&got);
    close_site(&site);
}

/* 500 connections that say nothing between streams: each stream gets its own bytes. */
static void many(void **state)
{
    enum { N_IDLE = 500, N_STREAMS = 64, N_WRITES = 50 };
    struct http_config config = usual();
    struct site site;
    int idle[N_IDLE];
    int fds[N_STREAMS];

    (void)state;
    open_site(&site, &config);
    for (int i = 0; i < N_IDLE; i++) {
        idle[i] = client(&site);
        turn(&site);
    }
    for (int i = 0; i < N_STREAMS; i++) {
        fds[i] = client(&site);
        say(fds[i], "GET /stream HTTP/1.1\r\n" H "\r\n");
        TURN_UNTIL(&site, site.n_held == i + 1);
    }
    for (int i = 0; i < N_WRITES; i++) {
        for (int j = 0; j < N_STREAMS; j++) {
            char text[32];

            snprintf(text, sizeof(text), "<%d:%d>", j, i);
            http_stream_write(site.held[j], text, strlen(text));
        }
        turn(&site);
    }
    while (site.n_held > 0) {
        struct http_exchange *last = site.held[site.n_held - 1];

        http_stream_end(last);
        turn(&site);
    }
    for (int j = 0; j < N_STREAMS; j++) {
        struct buf got = {0};
        char text[32];

        hear_until(&site, fds[j], &got, "\r\n0\r\n\r\n", 1);
        snprintf(text, sizeof(text), "<%d:", j);
        assert_int_equal(count(got.data, text), N_WRITES);
        assert_int_equal(count(got.data, "<"), N_WRITES);
        buf_release(&got);
        close(fds[j]);
    }
    assert_int_equal(site.n_complete, N_STREAMS);
    assert_int_equal(counters(&site).connections, N_IDLE + N_STREAMS);
    for (int i = 0; i < N_IDLE; i++) {
        close(idle[i]);
    }
    TURN_UNTIL(&site, counters(&site).open == 0);
    close_site(&site);
}

static double cpu_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* No descriptor is left: the client waits, the loop sleeps, and then it goes on. */
static void no_descriptors(void **state)
{
    struct http_config config = usual();
    struct rlimit before;
    struct rlimit few;
    struct buf got = {0};
    struct site site;
    double began;
    int fd;

    (void)state;
    open_site(&site, &config);
    fd = client(&site);
    say(fd, "GET /a HTTP/1.1\r\n" H "\r\n");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)fd + 1; /* the lowest free one is above it */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    began = cpu_s();
    for (uint64_t end = clock_ns() + 250 * MS; clock_ns() < end;) {
        http_server_turn(site.server, end);
    }
    assert_true(cpu_s() - began < 0.1); /* a spinning loop takes all of 0.25 s */
    assert_int_equal(counters(&site).open, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    hear_until(&site, fd, &got, "\r\n\r\n/a", 1);
    close(fd);
    buf_release(&got);
    close_site(&site);
}

static void drain(void **state)
{
    struct http_config config = usual();
    struct buf got = {0};
    struct site site;
    int idle;
    int busy;

    (void)state;
    open_site(&site, &config);
    idle = client(&site);
    busy = client(&site);
    say(busy, "GET /stream HTTP/1.1\r\n" H "\r\nGET /behind HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(&site, site.n_held == 1 && counters(&site).open == 2);
    http_server_drain(site.server);
    hear_end(&site, idle, &got);
    assert_int_equal(got.len, 0);
    turn(&site);
    assert_int_equal(site.n_held, 1);
    http_stream_write(site.held[0], "last", 4);
    http_stream_end(site.held[0]);
    hear_end(&site, busy, &got);
    assert_non_null(strstr(got.data, "last\r\n0\r\n\r\n"));
    close(idle);
    close(busy);
    TURN_UNTIL(&site, counters(&site).open == 0);
    buf_release(&got);
    close_site(&site);
}

/* The server goes while requests are under way: each is told. */
static void sudden_end(void **state)
{
    struct http_config config = usual();
    struct site site;
    struct buf got = {0};
    int one;
    int two;
    int three;

    (void)state;
    open_site(&site, &config);
    one = client(&site);
    two = client(&site);
    three = client(&site);
    say(three, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(&site, site.n_held == 1);
    http_stream_write(site.held[0], "last words", 10);
    http_stream_end(site.held[0]);
    say(one, "GET /wait HTTP/1.1\r\n" H "\r\n");
    say(two, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nhalf");
    TURN_UNTIL(&site, counters(&site).active == 2 && site.n_held == 1);
    http_answer(site.held[0], 503, "text/plain", "sorry", 5); /* no turn sends it */
    close_site(&site);
    assert_int_equal(site.n_complete, 2);
    assert_false(hear(one, &got));
    assert_non_null(strstr(buf_str(&got), "\r\n\r\nsorry"));
    assert_false(hear(three, &got));
    assert_non_null(strstr(buf_str(&got), "last words\r\n0\r\n\r\n"));
    buf_release(&got);
    close(one);
    close(two);
    close(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_clients),   cmocka_unit_test(idle_clients),
        cmocka_unit_test(too_many),       cmocka_unit_test(many),
        cmocka_unit_test(no_descriptors), cmocka_unit_test(drain),
        cmocka_unit_test(sudden_end),     cmocka_unit_test(bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
