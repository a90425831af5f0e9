/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: the listener, other people's descriptors, the limits in time, the end of each turn. */
#include "http/server.h"

#include "http/server_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    MAX_EVENTS = 128,   /* of a turn; what is left comes in the next */
    MAX_ACCEPTS = 64,   /* of a turn */
    MAX_EXTRA = 32,     /* connections beyond the limit that are told so at a time */
    BACKLOG = 1024,     /* the kernel cuts it to its own limit */
    LINGER_MS = 3000,   /* for a client to read its last answer */
    RETRY_MS = 100,     /* until descriptors may have come back */
    LONGEST_MS = 60000, /* of one wait */
};

#define NS_PER_MS UINT64_C(1000000)

/* --- Binding --- */

static enum status listen_on(const struct addrinfo *address, int *ret_fd)
{
    int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return STATUS_IO;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int error = errno;

        close(fd);
        errno = error;
        return error == EADDRINUSE ? STATUS_LIMIT : STATUS_IO;
    }
    *ret_fd = fd;
    return STATUS_OK;
}

/* "[::1]" is ::1, and localhost the loopback whatever the resolver thinks. */
static char *plain_host(const char *host)
{
    size_t length = strlen(host);

    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        return xstrndup(host + 1, length - 2);
    }
    return xstrdup(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host);
}

static enum status bind_host(struct http_server *server, struct err *err)
{
    const struct http_config *config = &server->config;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char *host = plain_host(config->host);
    struct addrinfo *list = NULL;
    enum status status = STATUS_IO;
    char port[8];
    int code;

    snprintf(port, sizeof(port), "%u", config->port);
    code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) {
        err_set(err, STATUS_IO, "cannot listen on %s port %u: %s", host, config->port,
                gai_strerror(code));
        goto out;
    }
    for (const struct addrinfo *a = list; a != NULL && status != STATUS_OK; a = a->ai_next) {
        status = listen_on(a, &server->listen_fd);
    }
    if (status != STATUS_OK) {
        err_set(err, status, "cannot listen on %s port %u: %s", host, config->port,
                strerror(errno));
    }
out:
    if (list != NULL) {
        freeaddrinfo(list);
    }
    free(host);
    return status;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof(address);

    ENSURE(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

/* --- Life --- */

static bool watch_listener(struct http_server *server)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &server->source};

    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &event) == 0;
}

static void set_limits(struct http_server *server)
{
    const struct http_config *config = &server->config;

    server->timers[TIMER_HEADER].after_ns = config->header_ms * NS_PER_MS;
    server->timers[TIMER_BODY].after_ns = config->body_ms * NS_PER_MS;
    server->timers[TIMER_IDLE].after_ns = config->idle_ms * NS_PER_MS;
    server->timers[TIMER_WRITE].after_ns = config->write_ms * NS_PER_MS;
    server->timers[TIMER_LINGER].after_ns = LINGER_MS * NS_PER_MS;
}

enum status http_server_create(const struct http_config *config,
                               const struct http_handlers *handlers,
                               struct http_server **ret_server, struct err *err)
{
    struct http_server *server = xalloc(sizeof(*server));
    enum status status;

    server->source.kind = SOURCE_LISTENER;
    server->config = *config;
    server->handlers = *handlers;
    server->listen_fd = -1;
    server->scratch = xalloc(READ_BYTES);
    server->now_ns = clock_ns();
    set_limits(server);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll_fd < 0) {
        status = err_set(err, STATUS_IO, "epoll: %s", strerror(errno));
        goto out;
    }
    status = bind_host(server, err);
    server->config.host = NULL; /* borrowed for the call only */
    if (status != STATUS_OK) {
        goto out;
    }
    server->port = port_of(server->listen_fd);
    if (!watch_listener(server)) {
        status = err_set(err, STATUS_IO, "epoll: %s", strerror(errno));
    }
out:
    if (status != STATUS_OK) {
        http_server_destroy(&server);
        return status;
    }
    *ret_server = server;
    return STATUS_OK;
}

static void free_closed(struct http_server *server)
{
    while (server->closed != NULL) {
        struct conn *conn = server->closed;

        server->closed = conn->next;
        conn_free(conn);
    }
}

static void close_listener(struct http_server *server)
{
    if (server->listen_fd >= 0) {
        epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->listen_fd, NULL);
        close(server->listen_fd);
        server->listen_fd = -1;
    }
    server->retry_ns = 0;
}

void http_server_destroy(struct http_server **server)
{
    struct http_server *s = *server;

    if (s == NULL) {
        return;
    }
    close_listener(s);
    while (s->conns != NULL) {
        (void)conn_flush(s->conns); /* the last words, written since the last turn */
        conn_abort(s->conns);
    }
    free_closed(s);
    while (s->watches != NULL) {
        struct watch *watch = s->watches;

        s->watches = watch->next;
        free(watch);
    }
    if (s->epoll_fd >= 0) {
        close(s->epoll_fd);
    }
    free(s->scratch);
    free(s);
    *server = NULL;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

enum status http_server_watch(struct http_server *server, int fd, void (*ready)(void *arg),
                              void *arg, struct err *err)
{
    struct watch *watch = xalloc(sizeof(*watch));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};

    watch->source.kind = SOURCE_WATCH;
    watch->ready = ready;
    watch->arg = arg;
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(watch);
        return err_set(err, STATUS_IO, "cannot watch descriptor %d: %s", fd, strerror(errno));
    }
    watch->next = server->watches;
    server->watches = watch;
    return STATUS_OK;
}

void http_server_drain(struct http_server *server)
{
    server->draining = true;
    close_listener(server);
    for (struct conn *conn = server->conns; conn != NULL; conn = conn->next) {
        conn_mark_dirty(conn); /* the idle ones are closed when they are settled */
    }
}

void http_server_counters(const struct http_server *server, struct http_counters *ret_counters)
{
    *ret_counters = server->counters;
}

/* --- Accepting --- */

static void name_peer(const struct sockaddr_storage *address, char *peer, size_t size)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    const void *from = address->ss_family == AF_INET6 ? (const void *)&six->sin6_addr
                                                      : (const void *)&four->sin_addr;

    if (inet_ntop(address->ss_family, from, peer, (socklen_t)size) == NULL) {
        snprintf(peer, size, "?");
    } else if (strncmp(peer, "::ffff:", 7) == 0 && strchr(peer, '.') != NULL) {
        memmove(peer, peer + 7, strlen(peer + 7) + 1); /* an IPv4 client of an IPv6 socket */
    }
}

static void take_connection(struct http_server *server, int fd, const char *peer)
{
    uint32_t most = server->config.max_connections;
    bool is_extra = most > 0 && server->counters.open - server->n_extra >= most;
    int on = 1;

    if (is_extra && server->n_extra >= MAX_EXTRA) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    conn_create(server, fd, peer, is_extra);
}

/* No descriptor, no memory: what waits keeps waiting in the kernel, and the loop does not spin. */
static void pause_accepting(struct http_server *server)
{
    if (!server->starved) {
        log_warn("new connections wait: %s", strerror(errno));
    }
    server->starved = true;
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->listen_fd, NULL);
    server->retry_ns = server->now_ns + RETRY_MS * NS_PER_MS;
}

static void accept_some(struct http_server *server)
{
    for (int i = 0; i < MAX_ACCEPTS && server->listen_fd >= 0; i++) {
        struct sockaddr_storage address = {0};
        socklen_t length = sizeof(address);
        char peer[PEER_BYTES];
        int fd = accept4(server->listen_fd, (struct sockaddr *)&address, &length,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            server->starved = false;
            name_peer(&address, peer, sizeof(peer));
            take_connection(server, fd, peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(server);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

/* --- A turn --- */

/* Handlers that are called here may make further connections dirty: they join the end. */
static void settle_all(struct http_server *server)
{
    while (server->dirty_first != NULL) {
        struct conn *conn = server->dirty_first;

        server->dirty_first = conn->dirty_next;
        if (server->dirty_first == NULL) {
            server->dirty_last = NULL;
        }
        conn_settle(conn);
    }
    free_closed(server);
}

static int wait_ms(const struct http_server *server, uint64_t deadline_ns)
{
    uint64_t now = clock_ns();
    uint64_t until = deadline_ns;

    for (int i = 0; i < N_TIMERS; i++) {
        if (server->timers[i].first != NULL) {
            until = MIN(until, server->timers[i].first->deadline_ns);
        }
    }
    if (server->retry_ns != 0) {
        until = MIN(until, server->retry_ns);
    }
    if (until <= now) {
        return 0;
    }
    return (int)MIN((until - now + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)LONGEST_MS);
}

static void handle(struct http_server *server, const struct epoll_event *event)
{
    struct source *source = event->data.ptr;

    if (source->kind == SOURCE_CONN) {
        conn_on_event((struct conn *)source, event->events);
    } else if (source->kind == SOURCE_WATCH) {
        struct watch *watch = (struct watch *)source;

        watch->ready(watch->arg);
    } else {
        accept_some(server);
    }
}

static void expire(struct http_server *server)
{
    for (int i = 0; i < N_TIMERS; i++) {
        struct conn *conn;

        while ((conn = server->timers[i].first) != NULL && conn->deadline_ns <= server->now_ns) {
            conn_on_timeout(conn);
        }
    }
    if (server->retry_ns != 0 && server->retry_ns <= server->now_ns) {
        server->retry_ns = watch_listener(server) ? 0 : server->now_ns + RETRY_MS * NS_PER_MS;
    }
}

void http_server_turn(struct http_server *server, uint64_t deadline_ns)
{
    struct epoll_event events[MAX_EVENTS];
    int n;

    server->now_ns = clock_ns();
    settle_all(server); /* what was written between two turns */
    n = epoll_wait(server->epoll_fd, events, MAX_EVENTS, wait_ms(server, deadline_ns));
    server->now_ns = clock_ns();
    for (int i = 0; i < n; i++) {
        handle(server, &events[i]);
    }
    expire(server);
    settle_all(server);
}
