/* SPDX-License-Identifier: Apache-2.0 */
/* The request as handlers see it, and the answer as bytes in the connection's output. */
#include "http/server_priv.h"

#include <inttypes.h>
#include <time.h>

/* --- The request --- */

const char *http_method(const struct http_exchange *exchange)
{
    return exchange->conn->parser.method;
}

const char *http_path(const struct http_exchange *exchange)
{
    return exchange->conn->parser.path;
}

const char *http_query(const struct http_exchange *exchange, const char *name)
{
    return http_parser_param(&exchange->conn->parser, name);
}

const char *http_header(const struct http_exchange *exchange, const char *name)
{
    return http_parser_header(&exchange->conn->parser, name);
}

const char *http_body(const struct http_exchange *exchange, size_t *ret_bytes)
{
    *ret_bytes = exchange->conn->parser.body.len;
    return buf_str(&exchange->conn->parser.body);
}

char *http_body_detach(struct http_exchange *exchange, size_t *ret_bytes)
{
    *ret_bytes = exchange->conn->parser.body.len;
    return buf_detach(&exchange->conn->parser.body);
}

const char *http_peer(const struct http_exchange *exchange)
{
    return exchange->conn->peer;
}

uint64_t http_exchange_id(const struct http_exchange *exchange)
{
    return exchange->id;
}

void http_exchange_set(struct http_exchange *exchange, void *user)
{
    exchange->user = user;
}

void *http_exchange_get(const struct http_exchange *exchange)
{
    return exchange->user;
}

/* --- The head of an answer --- */

static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {100, "Continue"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {529, "Overloaded"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Unnamed";
}

/* Names are ours and ASCII whatever the locale. */
static const char *date_of(struct http_server *server)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = time(NULL);
    struct tm tm;

    if (server->date_s != now && gmtime_r(&now, &tm) != NULL) {
        server->date_s = now;
        snprintf(server->date, sizeof(server->date), "%s, %02d %s %d %02d:%02d:%02d GMT",
                 days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour,
                 tm.tm_min, tm.tm_sec);
    }
    return server->date;
}

static void append_clean(struct buf *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        buf_append_char(out, (unsigned char)*c < ' ' || *c == 0x7f ? ' ' : *c);
    }
}

static void append_header(struct buf *out, const char *name, const char *value)
{
    buf_append_str(out, name);
    buf_append_str(out, ": ");
    append_clean(out, value);
    buf_append_str(out, "\r\n");
}

/* Up to the headers of the handler; the empty line is still to come. */
static void append_head(struct conn *conn, int status, const char *content_type)
{
    struct buf *out = &conn->out;

    buf_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, reason_of(status),
               date_of(conn->server));
    if (content_type != NULL) {
        append_header(out, "Content-Type", content_type);
    }
    if (conn->last) {
        buf_append_str(out, "Connection: close\r\n");
    } else if (!conn->parser.is_1_1) {
        buf_append_str(out, "Connection: keep-alive\r\n");
    }
}

void http_answer_header(struct http_exchange *exchange, const char *name, const char *value)
{
    if (exchange->failed) {
        return;
    }
    ENSURE(!exchange->begun);
    append_header(&exchange->headers, name, value);
}

/* --- Answers --- */

/* False: there is nobody to answer. */
static bool begin(struct http_exchange *exchange, int status)
{
    struct conn *conn = exchange->conn;

    if (exchange->failed) {
        return false;
    }
    ENSURE(!exchange->begun);
    exchange->begun = true;
    exchange->bodiless = strcmp(conn->parser.method, "HEAD") == 0 || status == 204 || status == 304;
    conn->deaf = conn->state == CONN_BODY; /* what the client still sends is no request */
    if (conn->deaf || conn->server->draining || !conn->parser.keep_alive) {
        conn->last = true;
    }
    conn_mark_dirty(conn);
    return true;
}

static void append_own_headers(struct http_exchange *exchange)
{
    buf_append(&exchange->conn->out, exchange->headers.data, exchange->headers.len);
    buf_append_str(&exchange->conn->out, "\r\n");
    buf_release(&exchange->headers);
}

void http_answer(struct http_exchange *exchange, int status, const char *content_type,
                 const void *body, size_t bytes)
{
    struct conn *conn = exchange->conn;

    if (!begin(exchange, status)) {
        return;
    }
    append_head(conn, status, content_type);
    if (status != 204 && status != 304) {
        buf_printf(&conn->out, "Content-Length: %zu\r\n", bytes);
    }
    append_own_headers(exchange);
    if (!exchange->bodiless) {
        buf_append(&conn->out, body, bytes);
    }
    exchange->ended = true;
}

void http_stream_begin(struct http_exchange *exchange, int status, const char *content_type)
{
    struct conn *conn = exchange->conn;

    if (!begin(exchange, status)) {
        return;
    }
    exchange->streaming = true;
    exchange->chunked = conn->parser.is_1_1;
    if (!exchange->chunked) {
        conn->last = true; /* the close is the end */
    }
    append_head(conn, status, content_type);
    if (exchange->chunked && status != 204 && status != 304) {
        buf_append_str(&conn->out, "Transfer-Encoding: chunked\r\n");
    }
    append_own_headers(exchange);
}

/* A chunk's size; printf would cost more than the rest of a small chunk. */
static void append_hex(struct buf *out, size_t n)
{
    char text[20];
    size_t at = sizeof(text);

    do {
        text[--at] = "0123456789abcdef"[n & 15];
        n >>= 4;
    } while (n > 0);
    buf_append(out, text + at, sizeof(text) - at);
    buf_append(out, "\r\n", 2);
}

void http_stream_write(struct http_exchange *exchange, const void *bytes, size_t n)
{
    struct conn *conn = exchange->conn;
    size_t most = conn->server->config.max_pending_bytes;

    if (exchange->failed || conn->doomed) {
        return;
    }
    ENSURE(exchange->streaming && !exchange->ended);
    if (n == 0 || exchange->bodiless) {
        return;
    }
    if (exchange->chunked) {
        append_hex(&conn->out, n);
    }
    buf_append(&conn->out, bytes, n);
    if (exchange->chunked) {
        buf_append(&conn->out, "\r\n", 2);
    }
    /* A burst within a turn is not the client's fault: it gets the chance to take it. */
    if (conn_pending(conn) > most && (!conn_flush(conn) || conn_pending(conn) > most)) {
        conn->doomed = true;
    }
    conn_mark_dirty(conn);
}

void http_stream_end(struct http_exchange *exchange)
{
    if (exchange->failed) {
        return;
    }
    ENSURE(exchange->streaming && !exchange->ended);
    if (exchange->chunked && !exchange->bodiless) {
        buf_append_str(&exchange->conn->out, "0\r\n\r\n");
    }
    exchange->ended = true;
    conn_mark_dirty(exchange->conn);
}

bool http_answer_begun(const struct http_exchange *exchange)
{
    return exchange->begun;
}

size_t http_stream_pending(const struct http_exchange *exchange)
{
    return conn_pending(exchange->conn);
}

void http_answer_close(struct http_exchange *exchange)
{
    exchange->conn->last = true;
}

void conn_refuse(struct conn *conn, int status, const char *message)
{
    const char *type = "text/plain; charset=utf-8";
    struct buf body = {0};
    bool is_head = conn->parser.method != NULL && strcmp(conn->parser.method, "HEAD") == 0;

    conn->server->counters.refused++;
    if (conn->server->handlers.error_body != NULL) {
        conn->server->handlers.error_body(conn->server->handlers.arg, status, message, &body,
                                          &type);
    } else {
        buf_printf(&body, "%s\n", message);
    }
    conn->last = true;
    conn->deaf = true;
    append_head(conn, status, type);
    buf_append_str(&conn->out, status == 503 ? "Retry-After: 1\r\n" : "");
    buf_printf(&conn->out, "Content-Length: %zu\r\n\r\n", body.len);
    if (!is_head) {
        buf_append(&conn->out, body.data, body.len);
    }
    buf_release(&body);
    if (conn->exchange != NULL) {
        conn->exchange->begun = true;
        conn->exchange->ended = true;
        conn->exchange->failed = true;
    }
    conn_mark_dirty(conn);
}
