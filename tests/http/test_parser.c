/* SPDX-License-Identifier: Apache-2.0 */
/* Requests, good and bad: what is understood, what is refused, and that splits change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/parser.h"

enum { MAX_HEADER = 600, MAX_BODY = 64 };

static void describe(struct http_parser *parser, struct buf *out)
{
    const char *x = http_parser_header(parser, "X");

    buf_printf(out, "%s %s", parser->method, parser->path);
    for (size_t i = 0; i < parser->n_params; i++) {
        buf_printf(out, " %s=%s", parser->params[i].name, parser->params[i].value);
    }
    if (x != NULL) {
        buf_printf(out, " X:%s", x);
    }
    buf_printf(out, "%s%s [%s]\n", parser->keep_alive ? "" : " close",
               parser->expects_continue ? " continue" : "", buf_str(&parser->body));
}

/* Feeds bytes in pieces of at most step, the first of them of first bytes. */
static void parse(const char *bytes, size_t n, size_t first, size_t step, struct buf *out)
{
    struct http_parser parser;
    enum http_parse outcome = HTTP_PARSE_MORE;
    size_t at = 0;
    size_t end = 0;

    http_parser_init(&parser, MAX_HEADER, MAX_BODY);
    while (outcome != HTTP_PARSE_BAD && (at < n || outcome == HTTP_PARSE_HEAD)) {
        size_t used = 0;

        if (at == end) {
            end = MIN(n, end + (at == 0 ? first : step));
        }
        outcome = http_parser_feed(&parser, bytes + at, end - at, &used);
        assert_true(used <= end - at);
        at += used;
        if (outcome == HTTP_PARSE_MORE) {
            assert_true(at == end);
        } else if (outcome == HTTP_PARSE_DONE) {
            describe(&parser, out);
            http_parser_reset(&parser);
        }
    }
    if (outcome == HTTP_PARSE_BAD) {
        size_t used = 0;

        buf_printf(out, "%d %s", parser.error, parser.reason);
        assert_int_equal(http_parser_feed(&parser, "GET / HTTP/1.1\r\n", 16, &used),
                         HTTP_PARSE_BAD); /* for good */
    } else if (outcome == HTTP_PARSE_MORE) {
        buf_append_str(out, "more");
    }
    http_parser_release(&parser);
}

/* The outcome of bytes, which is the same however they are split. */
static void check(const char *bytes, size_t n, struct buf *whole)
{
    parse(bytes, n, n, n, whole);
    for (size_t first = 0; first <= n; first++) {
        struct buf split = {0};

        parse(bytes, n, MAX(first, 1), first == 0 ? 1 : n, &split);
        assert_string_equal(buf_str(&split), buf_str(whole));
        buf_release(&split);
    }
}

static void expect(const char *bytes, size_t n, const char *wanted)
{
    struct buf outcome = {0};

    check(bytes, n, &outcome);
    if (strncmp(buf_str(&outcome), wanted, strlen(wanted)) != 0 ||
        (wanted[0] >= 'A' && outcome.len != strlen(wanted))) {
        print_message("request: %s\nwanted: %s\n", bytes, wanted);
        assert_string_equal(buf_str(&outcome), wanted);
    }
    buf_release(&outcome);
}

#define H "Host: a\r\n"

static void good(void **state)
{
    static const struct {
        const char *bytes;
        const char *outcome;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", "GET / []\n"},
        {"\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET / []\n"},
        {"GET / HTTP/1.0\r\n\r\n", "GET / close []\n"},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / []\n"},
        {"GET / HTTP/1.1\r\n" H "Connection: x, close\r\n\r\n", "GET / close []\n"},
        {"GET /a%20b%2fc?q=1+2&r&s=%c3%a4&&=z HTTP/1.1\r\n" H "\r\n",
         "GET /a b/c q=1 2 r= s=\xc3\xa4 =z []\n"},
        {"GET /+?a=b=c HTTP/1.1\r\n" H "\r\n", "GET /+ a=b=c []\n"},
        {"GET http://h:1/p?q=1 HTTP/1.1\r\n" H "\r\n", "GET /p q=1 []\n"},
        {"GET HTTP://h HTTP/1.1\r\n" H "\r\n", "GET / []\n"},
        {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS * []\n"},
        {"GET / HTTP/1.1\r\nHost: [::1]:80\r\nx:1\r\nX: \t2 3\t \r\nx:\r\n\r\n",
         "GET / X:1, 2 3,  []\n"},
        {"get / HTTP/1.1\r\n" H "X: \xff\xfe\r\n\r\n", "get / X:\xff\xfe []\n"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello", "POST / [hello]\n"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "POST / []\n"},
        {"POST / HTTP/1.1\r\n" H "content-length: 0005\r\nExpect: 100-Continue\r\n\r\nhello",
         "POST / continue [hello]\n"},
        {"POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n", "POST / []\n"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
         "3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nT: 1\r\nU: 2\r\n\r\n",
         "POST / [abc0123456789]\n"},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n000\r\n\r\n", "POST / []\n"},
        {"GET /1 HTTP/1.1\r\n" H "\r\nPOST /2 HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nx"
         "POST /3 HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n"
         "GET /4 HTTP/1.1\r\n" H "\r\n",
         "GET /1 []\nPOST /2 [x]\nPOST /3 [y]\nGET /4 []\n"},
        {"GET / HTTP/1.1\r\n" H, "more"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhell", "more"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect(cases[i].bytes, strlen(cases[i].bytes), cases[i].outcome);
    }
}

#define GET     "GET / HTTP/1.1\r\n" H
#define POST    "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define BAD(text, outcome)                                                                \
    {                                                                                     \
        text "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",                         \
            sizeof(text "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") - 1, outcome \
    }

/* long: the corpus is one table */
static void bad(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *outcome;
    } cases[] = {
        /* where the body ends */
        BAD(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
            "400 Content-Length t"),
        BAD(POST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0",
            "400 Content-Length t"),
        BAD(POST "Content-Length: 1\r\nContent-Length: 2", "400 two Content-Length"),
        BAD(POST "Content-Length: 1\r\nContent-Length: 1", "400 two Content-Length"),
        BAD(POST "Content-Length: 1, 1", "400 a Content-Length that is no"),
        BAD(POST "Content-Length: +1", "400 a Content-Length that is no"),
        BAD(POST "Content-Length: -1", "400 a Content-Length that is no"),
        BAD(POST "Content-Length: 0x1", "400 a Content-Length that is no"),
        BAD(POST "Content-Length: 1 1", "400 a Content-Length that is no"),
        BAD(POST "Content-Length:", "400 a Content-Length that is no"),
        BAD(POST "Content-Length: 18446744073709551616", "400 a Content-Length that does not"),
        BAD(POST "Content-Length: 65", "413"),
        BAD(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400 two Transfer"),
        BAD(POST "Transfer-Encoding: gzip, chunked", "400 a Transfer-Encoding"),
        BAD(POST "Transfer-Encoding: xchunked", "400 a Transfer-Encoding"),
        BAD(POST "Transfer-Encoding: \"chunked\"", "400 a Transfer-Encoding"),
        BAD(POST "Transfer-Encoding: chunked, identity", "400 a Transfer-Encoding"),
        BAD(POST "Transfer-Encoding: identity", "400 a Transfer-Encoding"),
        BAD(POST "Transfer-Encoding:", "400 a Transfer-Encoding"),
        BAD("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", "400 Transfer-Encoding with"),
        /* lines and names */
        BAD(POST "Content-Length : 5", "400 a header's name"),
        BAD(POST "Transfer-Encoding\t: chunked", "400 a header's name"),
        BAD(GET "X: 1\r\n folded: 2", "400 a header that goes on"),
        BAD(GET "X: 1\r\n\t2", "400 a header that goes on"),
        BAD("GET / HTTP/1.1\r\n Host: a", "400 a header that goes on"),
        BAD(GET "X", "400 a header line without"),
        BAD(GET ": x", "400 a header line without"),
        BAD(GET "X(: 1", "400 a header's name"),
        BAD(GET "X\xc3\xa4: 1", "400 a header's name"),
        BAD(GET "X: 1\rY: 2", "400 a CR without LF"),
        BAD(GET "X: 1\r\r\n", "400 a CR without LF"),
        BAD(GET "X: 1\nY: 2", "400 a line ends with LF"),
        BAD("GET / HTTP/1.1\nHost: a\n", "400 a line ends with LF"),
        BAD(GET "X: a\0b", "400 a control"),
        BAD(GET "X\0: b", "400 a control"),
        BAD(GET "X: \x01", "400 a control"),
        BAD(GET "X: \x7f", "400 a control"),
        BAD(GET "X: \x1b[0m", "400 a control"),
        /* the request line */
        BAD("GET / HTTP/1.1 \r\n" H, "400"),
        BAD("GET  / HTTP/1.1\r\n" H, "400 a request line"),
        BAD("GET /a b HTTP/1.1\r\n" H, "400"),
        BAD("GET\t/ HTTP/1.1\r\n" H, "400"),
        BAD("GET /", "400 a request line"),
        BAD("GET", "400 a request line"),
        BAD("\r\n\r\nGET / HTTP/1.1\r\n" H, "400 this is no HTTP"),
        BAD("\x16\x03\x01", "400 this is no HTTP"),
        BAD(" GET / HTTP/1.1\r\n" H, "400 this is no HTTP"),
        BAD("G(T / HTTP/1.1\r\n" H, "400 a method"),
        BAD("TRACE / HTTP/1.1\r\n" H, "501"),
        BAD("CONNECT a:1 HTTP/1.1\r\n" H, "501"),
        BAD("GET / HTTP/1.2\r\n" H, "505"),
        BAD("PRI * HTTP/2.0\r\n", "505"),
        BAD("GET / http/1.1\r\n" H, "400"),
        BAD("GET / HTTP/1.10\r\n" H, "400"),
        BAD("GET / HTTP/1,1\r\n" H, "400"),
        /* the target */
        BAD("GET x HTTP/1.1\r\n" H, "400 a target that is neither"),
        BAD("GET a:80 HTTP/1.1\r\n" H, "400 a target that is neither"),
        BAD("GET * HTTP/1.1\r\n" H, "400 a target that is neither"),
        BAD("GET https://a/ HTTP/1.1\r\n" H, "400 a target that is neither"),
        BAD("GET http:///x HTTP/1.1\r\n" H, "400 a Host"),
        BAD("GET http://u@h/ HTTP/1.1\r\n" H, "400 a user"),
        BAD("GET http://h?x HTTP/1.1\r\n" H, "400 a target without"),
        BAD("GET /#x HTTP/1.1\r\n" H, "400 a character"),
        BAD("GET /\xc3\xa4 HTTP/1.1\r\n" H, "400 a character"),
        BAD("GET /\0 HTTP/1.1\r\n" H, "400 a control"),
        BAD("GET /%00 HTTP/1.1\r\n" H, "400 an encoded NUL"),
        BAD("GET /?a=%00 HTTP/1.1\r\n" H, "400 an encoded NUL"),
        BAD("GET /% HTTP/1.1\r\n" H, "400 a percent"),
        BAD("GET /%4 HTTP/1.1\r\n" H, "400 a percent"),
        BAD("GET /?%4g HTTP/1.1\r\n" H, "400 a percent"),
        BAD("GET /%ff HTTP/1.1\r\n" H, "400 a target that is not UTF-8"),
        /* who is asked */
        BAD("GET / HTTP/1.1\r\nX: 1", "400 a request of HTTP/1.1 without"),
        BAD(GET "Host: a", "400 two Host"),
        BAD("GET / HTTP/1.0\r\n" H H, "400 two Host"),
        BAD("GET / HTTP/1.1\r\nHost:", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: a, b", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: a/b", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: u@a", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: a:b", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: [::1", "400 a Host"),
        BAD("GET / HTTP/1.1\r\nHost: [x]", "400 a Host"),
        BAD(POST "Content-Length: 1\r\nExpect: 200-ok", "417"),
        /* chunks */
        BAD(CHUNKED "g", "400 a chunk size"),
        BAD(CHUNKED "", "400 a chunk size"),
        BAD(CHUNKED " 1\r\nx", "400 a chunk size"),
        BAD(CHUNKED "1 \r\nx", "400 a chunk size"),
        BAD(CHUNKED "0x1\r\nx", "400 a chunk size"),
        BAD(CHUNKED "+1\r\nx", "400 a chunk size"),
        BAD(CHUNKED "-1\r\nx", "400 a chunk size"),
        BAD(CHUNKED "1\nx", "400 a chunk size"),
        BAD(CHUNKED "1\rx", "400 a CR without LF"),
        BAD(CHUNKED "00000000000000001\r\nx", "400 a chunk size of too many"),
        BAD(CHUNKED "ffffffffffffffff\r\nx", "413"),
        BAD(CHUNKED "41\r\nx", "413"),
        BAD(CHUNKED "1\r\nxy", "400 chunk data"),
        BAD(CHUNKED "1\r\nx\n", "400 chunk data"),
        BAD(CHUNKED "1\r\nx\r0", "400 chunk data"),
        BAD(CHUNKED "1;a\nb\r\nx", "400 a control"),
        BAD(CHUNKED "1;a\0b\r\nx", "400 a control"),
        BAD(CHUNKED "0\r\nT : 1", "400 a header's name"),
        BAD(CHUNKED "0\r\nT: 1\nU: 2", "400 a line ends"),
        BAD(CHUNKED "0\r\nT: 1\r\n folded", "400 a header that goes on"),
        BAD(CHUNKED "0\r\nGET /x HTTP/1.1", "400 a header line without"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect(cases[i].bytes, cases[i].n, cases[i].outcome);
    }
}

/* A head of n bytes more than the text, in a header's value or in the target. */
static void expect_long(const char *before, size_t n, const char *after, const char *outcome)
{
    struct buf text = {0};

    buf_append_str(&text, before);
    for (size_t i = 0; i < n; i++) {
        buf_append_char(&text, 'a');
    }
    buf_append_str(&text, after);
    expect(buf_str(&text), text.len, outcome);
    buf_release(&text);
}

static void limits(void **state)
{
    static const char head[] = GET "Y: ";
    size_t room = MAX_HEADER - (sizeof(head) - 1) - 4;

    (void)state;
    expect_long(head, room, "\r\n\r\n", "GET / []\n");
    expect_long(head, room + 1, "\r\n\r\n", "431");
    expect_long("GET /", MAX_HEADER, " HTTP/1.1\r\n" H "\r\n", "414");
    expect_long("GET /", MAX_HEADER, "", "414");
    expect_long(CHUNKED "0\r\nT: ", MAX_HEADER, "\r\n\r\n", "431");
    expect_long(CHUNKED "1;", MAX_HEADER + 1, "\r\nx\r\n0\r\n\r\n", "400 chunk extensions");
    expect_long(POST "Content-Length: 64\r\n\r\n", 63, "", "more");
}

/* Each chunk is small, together they are too much. */
static void chunks_add_up(void **state)
{
    struct buf text = {0};

    (void)state;
    buf_append_str(&text, CHUNKED);
    for (int i = 0; i <= MAX_BODY; i++) {
        buf_append_str(&text, "1\r\nx\r\n");
    }
    expect(buf_str(&text), text.len, "413");
    buf_release(&text);
}

static void many_fields(void **state)
{
    struct http_parser parser;
    struct buf text = {0};
    size_t used;

    (void)state;
    buf_append_str(&text, GET);
    for (int i = 0; i < HTTP_MAX_FIELDS; i++) {
        buf_append_str(&text, "X: 1\r\n");
    }
    http_parser_init(&parser, 1 << 20, 0);
    assert_int_equal(http_parser_feed(&parser, text.data, text.len, &used), HTTP_PARSE_BAD);
    assert_int_equal(parser.error, 431);
    http_parser_release(&parser);
    buf_release(&text);
}

static void look_ups(void **state)
{
    static const char text[] = "GET http://Other:8/?n=1&n=2 HTTP/1.1\r\nhOsT: a\r\nAccept: x\r\n"
                               "ACCEPT: y\r\n\r\n";
    struct http_parser parser;
    const char *accept;
    size_t used;

    (void)state;
    http_parser_init(&parser, MAX_HEADER, MAX_BODY);
    assert_int_equal(http_parser_feed(&parser, text, strlen(text), &used), HTTP_PARSE_HEAD);
    assert_string_equal(http_parser_header(&parser, "Host"), "Other:8"); /* the target's counts */
    accept = http_parser_header(&parser, "accept");
    assert_string_equal(accept, "x, y");
    assert_ptr_equal(http_parser_header(&parser, "Accept"), accept); /* and stays valid */
    assert_null(http_parser_header(&parser, "accep"));
    assert_string_equal(http_parser_param(&parser, "n"), "1");
    assert_null(http_parser_param(&parser, "N"));
    http_parser_release(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),          cmocka_unit_test(bad),         cmocka_unit_test(limits),
        cmocka_unit_test(chunks_add_up), cmocka_unit_test(many_fields), cmocka_unit_test(look_ups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
