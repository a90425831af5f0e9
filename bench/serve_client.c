/* SPDX-License-Identifier: Apache-2.0 */
#include "serve_client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { READ_BYTES = 64 << 10, MAX_LINE = 1 << 20, POLL_MS = 200 };

enum part {
    PART_STATUS,
    PART_HEADERS,
    PART_BODY,
    PART_CHUNK_SIZE,
    PART_CHUNK,
    PART_CHUNK_END,
    PART_TRAILER
};

struct stream {
    int fd; /* -1: not connected */
    uint32_t number;
    uint32_t n_begun;
    bool running;
    bool dead; /* of a connection that the server has ended */
    struct buf out;
    size_t sent;
    struct buf in; /* not interpreted yet */
    enum part part;
    int code;
    bool chunked;
    bool closes;
    bool has_length;
    uint64_t left;   /* of the body or of the chunk */
    struct buf line; /* of the event stream; of an answer that is none: all of it */
    bool saw_done;
    bool failed;
    uint64_t start_ns;
    uint64_t last_ns; /* of the last text; 0: none yet */
    uint64_t heard_ns;
};

struct client {
    const struct client_load *load;
    struct addrinfo *address;
    struct client_result *result;
    struct stream *streams;
    int epoll;
    uint32_t n_running;
};

enum status client_url_parse(const char *text, struct client_url *ret_url, struct err *err)
{
    struct client_url url = {.port = "80"};
    const char *host = text + strlen("http://");
    size_t n;
    const char *port;

    if (strncmp(text, "http://", strlen("http://")) != 0) {
        return err_set(err, STATUS_INVALID, "%s: not http://HOST[:PORT]", text);
    }
    n = strcspn(host, "/");
    if (n == 0 || n >= sizeof(url.host) || (host[n] == '/' && host[n + 1] != '\0')) {
        return err_set(err, STATUS_INVALID, "%s: not http://HOST[:PORT]", text);
    }
    snprintf(url.host, sizeof(url.host), "%.*s", (int)n, host);
    port = strrchr(url.host, ':');
    if (port != NULL && strchr(port, ']') == NULL) {
        snprintf(url.port, sizeof(url.port), "%s", port + 1);
        n = (size_t)(port - url.host);
    }
    if (url.host[0] == '[' && url.host[n - 1] == ']') { /* IPv6 */
        snprintf(url.name, sizeof(url.name), "%.*s", (int)n - 2, url.host + 1);
    } else {
        snprintf(url.name, sizeof(url.name), "%.*s", (int)n, url.host);
    }
    *ret_url = url;
    return STATUS_OK;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

double client_times_at(struct client_times *times, double share)
{
    if (times->n == 0) {
        return 0;
    }
    qsort(times->ns, times->n, sizeof(*times->ns), compare);
    return (double)times->ns[(size_t)(share * (double)(times->n - 1) + 0.5)] * 1e-6;
}

static void add_time(struct client_times *times, uint64_t ns)
{
    if (times->n == times->cap) {
        times->cap = MAX(1024, 2 * times->cap);
        times->ns = xrealloc(times->ns, times->cap, sizeof(*times->ns));
    }
    times->ns[times->n++] = ns;
}

void client_result_release(struct client_result *result)
{
    free(result->first.ns);
    free(result->gaps.ns);
    *result = (struct client_result){0};
}

static enum status look_up(const struct client_url *url, struct addrinfo **ret_address,
                           struct err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int code = getaddrinfo(url->name, url->port, &hints, ret_address);

    return code == 0
               ? STATUS_OK
               : err_set(err, STATUS_IO, "%s:%s: %s", url->name, url->port, gai_strerror(code));
}

static void fail(struct client *client, struct stream *stream, const char *why)
{
    stream->failed = true;
    if (client->result->error[0] == '\0') {
        snprintf(client->result->error, sizeof(client->result->error), "%s", why);
    }
}

/* --- What the server sends --- */

/* The number after a key, in the text of a JSON object; a quote inside of a string is escaped, so
 * that no text of an answer looks like a key. */
static uint64_t number_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

/* True if a frame carries text that a person would see. */
static bool has_text(const char *frame)
{
    static const char *const keys[] = {"\"content\":\"", "\"text\":\"", "\"reasoning_content\":\""};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const char *at = strstr(frame, keys[i]);

        if (at != NULL && at[strlen(keys[i])] != '"') {
            return true;
        }
    }
    return false;
}

static void take_text(struct client *client, struct stream *stream, uint64_t now)
{
    struct client_result *result = client->result;

    result->n_events++;
    if (stream->last_ns != 0) {
        add_time(&result->gaps, now - stream->last_ns);
    } else {
        add_time(&result->first, now - stream->start_ns);
    }
    stream->last_ns = now;
}

static void take_frame(struct client *client, struct stream *stream, const char *frame,
                       uint64_t now)
{
    struct client_result *result = client->result;

    stream->heard_ns = now;
    if (strcmp(frame, "[DONE]") == 0) {
        stream->saw_done = true;
        return;
    }
    result->n_frames++;
    if (strncmp(frame, "{\"error\"", 8) == 0) {
        fail(client, stream, frame);
        return;
    }
    if (has_text(frame)) {
        take_text(client, stream, now);
    }
    if (strstr(frame, "\"usage\":{") != NULL) {
        result->n_tokens += number_of(frame, "\"completion_tokens\":");
        result->n_prompt += number_of(frame, "\"prompt_tokens\":");
        result->n_cached += number_of(frame, "\"cached_tokens\":");
    }
}

/* Part of a body: lines of the event stream, or an error as JSON. */
static void take_body(struct client *client, struct stream *stream, const char *bytes, size_t n,
                      uint64_t now)
{
    if (stream->line.len + n > MAX_LINE) {
        fail(client, stream, "a line of more than 1 MiB");
        return;
    }
    if (stream->code != 200) {
        buf_append(&stream->line, bytes, n);
        return;
    }
    while (n > 0) {
        const char *end = memchr(bytes, '\n', n);
        size_t size = end == NULL ? n : (size_t)(end - bytes);

        buf_append(&stream->line, bytes, size);
        if (end == NULL) {
            return;
        }
        if (strncmp(buf_str(&stream->line), "data: ", 6) == 0) {
            take_frame(client, stream, stream->line.data + 6, now);
        } else if (stream->line.len > 0) {
            stream->heard_ns = now; /* a comment */
        }
        buf_clear(&stream->line);
        bytes += size + 1;
        n -= size + 1;
    }
}

static void take_header(struct stream *stream, const char *line)
{
    if (strncasecmp(line, "content-length:", 15) == 0) {
        stream->has_length = true;
        stream->left = strtoull(line + 15, NULL, 10);
    } else if (strncasecmp(line, "transfer-encoding:", 18) == 0) {
        stream->chunked = true;
    } else if (strncasecmp(line, "connection:", 11) == 0 &&
               strcasestr(line + 11, "close") != NULL) {
        stream->closes = true;
    }
}

/* A line of the head or between chunks. True when the answer is whole. */
static bool take_line(struct stream *stream, const char *line)
{
    switch (stream->part) {
    case PART_STATUS:
        stream->code = (int)strtol(line + MIN(strlen(line), 9), NULL, 10);
        stream->part = PART_HEADERS;
        break;
    case PART_HEADERS:
        if (line[0] != '\0') {
            take_header(stream, line);
        } else if (stream->code == 100) {
            stream->part = PART_STATUS;
        } else {
            stream->part = stream->chunked ? PART_CHUNK_SIZE : PART_BODY;
            return !stream->chunked && stream->has_length && stream->left == 0;
        }
        break;
    case PART_CHUNK_SIZE:
        stream->left = strtoull(line, NULL, 16);
        stream->part = stream->left > 0 ? PART_CHUNK : PART_TRAILER;
        break;
    case PART_CHUNK_END:
        stream->part = PART_CHUNK_SIZE;
        break;
    default:
        return line[0] == '\0'; /* the trailer's end */
    }
    return false;
}

/* Interprets what has come; true when the answer is whole. */
static bool take_bytes(struct client *client, struct stream *stream, uint64_t now)
{
    struct buf *in = &stream->in;
    size_t at = 0;
    bool whole = false;

    while (!whole && at < in->len) {
        bool counted =
            stream->part == PART_CHUNK || (stream->part == PART_BODY && stream->has_length);
        size_t n = in->len - at;

        if (stream->part == PART_CHUNK || stream->part == PART_BODY) {
            n = counted ? (size_t)MIN((uint64_t)n, stream->left) : n;
            take_body(client, stream, in->data + at, n, now);
            at += n;
            stream->left -= counted ? n : 0;
            if (counted && stream->left == 0) {
                whole = stream->part == PART_BODY;
                stream->part = PART_CHUNK_END;
            }
        } else {
            char *end = memchr(in->data + at, '\n', n);

            if (end == NULL) {
                break;
            }
            *end = '\0';
            if (end > in->data + at && end[-1] == '\r') {
                end[-1] = '\0';
            }
            whole = take_line(stream, in->data + at);
            at = (size_t)(end - in->data) + 1;
        }
    }
    memmove(in->data, in->data + at, in->len - at);
    in->len -= at;
    return whole;
}

/* --- Connections --- */

static void disconnect(struct stream *stream)
{
    if (stream->fd >= 0) {
        close(stream->fd); /* and out of the epoll */
        stream->fd = -1;
    }
    buf_clear(&stream->in);
}

static bool reach(struct client *client, struct stream *stream)
{
    const struct addrinfo *address = client->address;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = stream};
    int one = 1;

    stream->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream->fd < 0) {
        return false;
    }
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if ((connect(stream->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(client->epoll, EPOLL_CTL_ADD, stream->fd, &event) != 0) {
        disconnect(stream);
        return false;
    }
    return true;
}

/* False if the connection is gone. */
static bool send_more(struct stream *stream)
{
    while (stream->sent < stream->out.len) {
        ssize_t n = send(stream->fd, stream->out.data + stream->sent,
                         stream->out.len - stream->sent, MSG_NOSIGNAL);

        if (n < 0) {
            return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
        }
        stream->sent += (size_t)n;
    }
    return true;
}

static void write_request(struct buf *out, const struct client_url *url, const char *method,
                          const char *path, const char *key, const struct buf *body)
{
    buf_clear(out);
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, url->host);
    if (key != NULL) {
        buf_printf(out, "Authorization: Bearer %s\r\n", key);
    }
    if (body != NULL) {
        buf_printf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body->len);
    }
    buf_append_str(out, "\r\n");
    if (body != NULL) {
        buf_append(out, body->data, body->len);
    }
}

static void begin(struct client *client, struct stream *stream);

/* The request that runs has ended, one way or the other: the next one, or none. */
static void end(struct client *client, struct stream *stream, bool whole)
{
    if (!stream->failed && stream->code != 200) {
        char text[200];

        snprintf(text, sizeof(text), "status %d: %.160s", stream->code, buf_str(&stream->line));
        fail(client, stream, stream->code == 0 ? "the connection broke" : text);
    } else if (!stream->failed && (!whole || !stream->saw_done)) {
        fail(client, stream, "the answer ended without [DONE]");
    }
    client->result->n_errors += stream->failed ? 1 : 0;
    client->result->n_done += stream->failed ? 0 : 1;
    if (!whole || stream->closes || stream->failed) {
        disconnect(stream);
    }
    stream->running = false;
    client->n_running--;
    if (stream->n_begun < client->load->n_requests) {
        begin(client, stream);
    }
}

static void begin(struct client *client, struct stream *stream)
{
    const struct client_load *load = client->load;
    struct buf body = {0};

    load->body(load->arg, stream->number, stream->n_begun, &body);
    write_request(&stream->out, load->url, "POST", load->path, load->key, &body);
    buf_release(&body);
    stream->n_begun++;
    stream->running = true;
    stream->sent = 0;
    stream->part = PART_STATUS;
    stream->code = 0;
    stream->chunked = stream->closes = stream->has_length = false;
    stream->saw_done = stream->failed = false;
    stream->last_ns = 0;
    buf_clear(&stream->line);
    client->n_running++;
    stream->start_ns = stream->heard_ns = clock_ns();
    if ((stream->fd < 0 && !reach(client, stream)) || !send_more(stream)) {
        stream->dead = true; /* its end is taken by the loop: no recursion */
    }
}

static void receive(struct client *client, struct stream *stream)
{
    while (stream->running && stream->fd >= 0) {
        ssize_t n;

        buf_reserve(&stream->in, READ_BYTES);
        n = recv(stream->fd, stream->in.data + stream->in.len, READ_BYTES - 1, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            stream->dead = true;
            return;
        }
        stream->in.len += (size_t)n;
        if (take_bytes(client, stream, clock_ns())) {
            end(client, stream, true);
        } else if (stream->failed) {
            end(client, stream, false);
        }
    }
}

/* Streams whose connection has ended or that have heard nothing for too long. */
static void look_after(struct client *client)
{
    uint64_t now = clock_ns();

    for (uint32_t i = 0; i < client->load->n_streams; i++) {
        struct stream *stream = &client->streams[i];

        if (!stream->running) {
            continue;
        }
        if (stream->dead) {
            stream->dead = false;
            end(client, stream, stream->part == PART_BODY && !stream->has_length);
        } else if (now - stream->heard_ns > client->load->timeout_ns && now > stream->heard_ns) {
            fail(client, stream, "nothing heard for too long");
            end(client, stream, false);
        }
    }
}

static void run(struct client *client)
{
    struct epoll_event events[64];
    uint64_t looked_ns = 0;

    for (uint32_t i = 0; i < client->load->n_streams; i++) {
        begin(client, &client->streams[i]);
    }
    while (client->n_running > 0) {
        int n = epoll_wait(client->epoll, events, ARRAY_LEN(events), POLL_MS);
        bool look = clock_ns() - looked_ns > (uint64_t)POLL_MS * 1000000;

        for (int i = 0; i < n; i++) {
            struct stream *stream = events[i].data.ptr;

            if (stream->fd >= 0 && stream->running && !send_more(stream)) {
                stream->dead = true;
            }
            receive(client, stream);
            look = look || stream->dead;
        }
        if (look) {
            look_after(client);
            looked_ns = clock_ns();
        }
    }
}

enum status client_run(const struct client_load *load, struct client_result *ret_result,
                       struct err *err)
{
    struct client_result result = {0};
    struct client client = {.load = load, .result = &result};
    enum status status = look_up(load->url, &client.address, err);
    uint64_t start;

    if (status != STATUS_OK) {
        return status;
    }
    client.epoll = epoll_create1(EPOLL_CLOEXEC);
    ENSURE(client.epoll >= 0);
    client.streams = xcalloc(load->n_streams, sizeof(*client.streams));
    for (uint32_t i = 0; i < load->n_streams; i++) {
        client.streams[i].number = i;
        client.streams[i].fd = -1;
    }
    start = clock_ns();
    run(&client);
    result.wall_ns = clock_ns() - start;
    for (uint32_t i = 0; i < load->n_streams; i++) {
        disconnect(&client.streams[i]);
        buf_release(&client.streams[i].in);
        buf_release(&client.streams[i].out);
        buf_release(&client.streams[i].line);
    }
    free(client.streams);
    close(client.epoll);
    freeaddrinfo(client.address);
    *ret_result = result;
    return STATUS_OK;
}

/* True if all that Content-Length tells of is there. */
static bool is_whole(const struct buf *in)
{
    const char *body = strstr(buf_str(in), "\r\n\r\n");
    const char *length = body == NULL ? NULL : strcasestr(in->data, "\r\ncontent-length:");

    return length != NULL && length < body &&
           strlen(body + 4) >= strtoull(length + strlen("\r\ncontent-length:"), NULL, 10);
}

/* Reads one answer, to its end or the connection's. */
static enum status read_answer(int fd, struct buf *in)
{
    for (;;) {
        ssize_t n;

        buf_reserve(in, READ_BYTES);
        n = recv(fd, in->data + in->len, READ_BYTES - 1, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n > 0) {
            in->len += (size_t)n;
        }
        in->data[in->len] = '\0';
        if (n <= 0 || in->len > MAX_LINE || is_whole(in)) {
            return n >= 0 && in->len <= MAX_LINE ? STATUS_OK : STATUS_IO;
        }
    }
}

enum status client_get(const struct client_url *url, const char *path, const char *key,
                       struct buf *body, struct err *err)
{
    const struct timeval limit = {.tv_sec = 10};
    struct addrinfo *address = NULL;
    struct buf in = {0};
    enum status status = look_up(url, &address, err);
    const char *rest;
    int fd = -1;

    if (status != STATUS_OK) {
        return status;
    }
    buf_printf(&in, "GET %s HTTP/1.0\r\nHost: %s\r\n", path, url->host);
    if (key != NULL) {
        buf_printf(&in, "Authorization: Bearer %s\r\n", key);
    }
    buf_append_str(&in, "\r\n");
    fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    if (fd < 0 || connect(fd, address->ai_addr, address->ai_addrlen) != 0 ||
        send(fd, in.data, in.len, MSG_NOSIGNAL) != (ssize_t)in.len) {
        status = err_set(err, STATUS_IO, "%s: %s", url->host, strerror(errno));
        goto out;
    }
    buf_clear(&in);
    status = read_answer(fd, &in);
    rest = status == STATUS_OK ? strstr(buf_str(&in), "\r\n\r\n") : NULL;
    if (rest == NULL || strncmp(in.data + MIN(in.len, 8), " 200", 4) != 0) {
        status = err_set(err, STATUS_IO, "%s%s: %.100s", url->host, path,
                         in.len == 0 ? "no answer" : in.data);
    } else {
        buf_append_str(body, rest + 4);
    }
out:
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(address);
    buf_release(&in);
    return status;
}
