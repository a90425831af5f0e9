/* SPDX-License-Identifier: Apache-2.0 */
/* The leader's side of the control socket. */
#include "world/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "world/control_priv.h"

struct client {
    int fd;          /* -1: a free place */
    uint64_t number; /* in the order of their coming */
    char in[CONTROL_MAX_REQUEST];
    size_t n_in;
    struct buf out; /* empty until the request is there */
    size_t sent;
};

struct control {
    int fd; /* that listens */
    char *path;
    struct control_place place; /* its folder stays open; its name is in path */
    dev_t device;               /* of the socket's file */
    ino_t inode;                /* 0: there is none yet */
    uint64_t n_clients;         /* that came so far */
    struct client clients[CONTROL_MAX_CLIENTS];
};

/* --- The socket's place --- */

/* Makes the folder of a default path. */
static bool make_folder(const char *path)
{
    char *folder = xstrndup(path, (size_t)(strrchr(path, '/') - path));
    bool made = mkdir(folder, 0700) == 0 || errno == EEXIST;

    free(folder);
    return made;
}

static char *choose_path(void)
{
    const char *runtime_dir = control_runtime_dir();
    char *path;

    if (runtime_dir != NULL) {
        path = control_default_path(runtime_dir, geteuid(), getpid());
        if (make_folder(path)) {
            return path;
        }
        free(path);
    }
    path = control_default_path(NULL, geteuid(), getpid());
    make_folder(path); /* if that failed, opening it says why */
    return path;
}

/* Whoever can write the folder could put a socket of his own in the place of ours. */
static enum status check_folder(const struct control *control, struct err *err)
{
    struct stat info;

    if (fstat(control->place.folder_fd, &info) != 0) {
        return err_set(err, STATUS_IO, "control socket %s: its folder: %s", control->path,
                       strerror(errno));
    }
    if (info.st_uid != geteuid()) {
        return err_set(err, STATUS_INVALID, "control socket %s: its folder belongs to user %u",
                       control->path, (unsigned)info.st_uid);
    }
    if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return err_set(err, STATUS_INVALID,
                       "control socket %s: others can write its folder (mode %04o)", control->path,
                       (unsigned)info.st_mode & 07777);
    }
    return STATUS_OK;
}

/* Removes what lies in the place of the socket, if it is a socket on which nobody listens. */
static enum status remove_stale(const struct control *control, struct err *err)
{
    struct sockaddr_un address = control_address(&control->place);
    struct stat info;
    bool refused;
    int fd;

    if (fstatat(control->place.folder_fd, control->place.name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISSOCK(info.st_mode)) {
        return err_set(err, STATUS_INVALID, "control socket %s: something else lies there",
                       control->path);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(err, STATUS_IO, "control socket %s: %s", control->path, strerror(errno));
    }
    refused =
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!refused) {
        return err_set(err, STATUS_INVALID, "control socket %s: another leader listens there",
                       control->path);
    }
    if (unlinkat(control->place.folder_fd, control->place.name, 0) != 0) {
        return err_set(err, STATUS_IO, "control socket %s: %s", control->path, strerror(errno));
    }
    return STATUS_OK;
}

/* Nobody can connect before the mode is right, because nothing listens before. */
static enum status bind_socket(struct control *control, struct err *err)
{
    struct sockaddr_un address = control_address(&control->place);
    int folder = control->place.folder_fd;
    struct stat info;
    enum status status;

    if (bind(control->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno != EADDRINUSE) {
            return err_set(err, STATUS_IO, "control socket %s: %s", control->path, strerror(errno));
        }
        status = remove_stale(control, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (bind(control->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
            return err_set(err, STATUS_IO, "control socket %s: %s", control->path, strerror(errno));
        }
    }
    if (fstatat(folder, control->place.name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
        control->device = info.st_dev;
        control->inode = info.st_ino;
    }
    if (control->inode == 0 || fchmodat(folder, control->place.name, 0600, 0) != 0 ||
        listen(control->fd, CONTROL_MAX_CLIENTS) != 0) {
        return err_set(err, STATUS_IO, "control socket %s: %s", control->path, strerror(errno));
    }
    return STATUS_OK;
}

enum status control_open(const char *path, struct control **ret_control, struct err *err)
{
    struct control *control = xalloc(sizeof(*control));
    enum status status;

    control->fd = -1;
    control->place.folder_fd = -1;
    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        control->clients[i].fd = -1;
    }
    control->path = path != NULL ? xstrdup(path) : choose_path();
    status = control_place_open(control->path, &control->place, err);
    if (status == STATUS_OK) {
        status = check_folder(control, err);
    }
    if (status == STATUS_OK) {
        control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (control->fd < 0) {
            status = err_set(err, STATUS_IO, "control socket: %s", strerror(errno));
        }
    }
    if (status == STATUS_OK) { /* the lock: two that find the same dead socket */
        flock(control->place.folder_fd, LOCK_EX);
        status = bind_socket(control, err);
        flock(control->place.folder_fd, LOCK_UN);
    }
    if (status != STATUS_OK) {
        control_close(&control);
        return status;
    }
    *ret_control = control;
    return STATUS_OK;
}

/* --- Clients --- */

static void drop(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
    buf_release(&client->out);
    client->n_in = 0;
    client->sent = 0;
}

void control_close(struct control **control)
{
    struct control *c = *control;
    struct stat info;

    if (c == NULL) {
        return;
    }
    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        drop(&c->clients[i]);
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    if (c->inode != 0 &&
        fstatat(c->place.folder_fd, c->place.name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
        info.st_ino == c->inode && info.st_dev == c->device) { /* and not a successor's */
        unlinkat(c->place.folder_fd, c->place.name, 0);
    }
    if (c->place.folder_fd >= 0) {
        close(c->place.folder_fd);
    }
    free(c->path);
    free(c);
    *control = NULL;
}

const char *control_path(const struct control *control)
{
    return control->path;
}

uint32_t control_poll_fds(const struct control *control, struct pollfd fds[CONTROL_MAX_FDS])
{
    uint32_t n = 0;

    fds[n++] = (struct pollfd){.fd = control->fd, .events = POLLIN};
    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        const struct client *client = &control->clients[i];

        if (client->fd >= 0) {
            fds[n++] =
                (struct pollfd){.fd = client->fd, .events = client->out.len > 0 ? POLLOUT : POLLIN};
        }
    }
    return n;
}

/* A free place, or that of the client that is here longest. */
static struct client *find_place(struct control *control)
{
    struct client *oldest = &control->clients[0];

    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (control->clients[i].fd < 0) {
            return &control->clients[i];
        }
        if (control->clients[i].number < oldest->number) {
            oldest = &control->clients[i];
        }
    }
    drop(oldest);
    return oldest;
}

/* Receives what there is. STATUS_OK: the client's line is complete, *ret_line bytes without its
 * end. STATUS_PENDING: not yet. STATUS_LIMIT: too long. STATUS_LINK: the client is gone. */
static enum status receive(struct client *client, size_t *ret_line)
{
    for (;;) {
        size_t room = sizeof(client->in) - client->n_in;
        const char *end;
        ssize_t n;

        if (room == 0) {
            return STATUS_LIMIT;
        }
        n = recv(client->fd, client->in + client->n_in, room, 0);
        if (n <= 0) {
            bool later = n < 0 && (errno == EAGAIN || errno == EINTR);

            return later ? STATUS_PENDING : STATUS_LINK;
        }
        end = memchr(client->in + client->n_in, '\n', (size_t)n);
        client->n_in += (size_t)n;
        if (end != NULL) {
            *ret_line = (size_t)(end - client->in);
            return STATUS_OK;
        }
    }
}

static enum status handle(const struct client *client, size_t n_line, control_fn *handler,
                          void *arg, json_t *answer, struct err *err)
{
    json_t *request = NULL;
    enum status status = json_parse(client->in, n_line, &request, err);

    if (status != STATUS_OK) {
        return err_prefix(err, "the request");
    }
    status = json_is_object(request)
                 ? handler(arg, request, answer, err)
                 : err_set(err, STATUS_INVALID, "the request must be a JSON object");
    json_decref(request);
    return status;
}

/* Queues the answer to a line, or to none that came to an end. */
static void answer_line(struct client *client, enum status received, size_t n_line,
                        control_fn *handler, void *arg)
{
    json_t *answer = json_pack("{s:b}", "ok", 1);
    struct err err = {0};
    enum status status = received;

    if (received == STATUS_OK) {
        status = handle(client, n_line, handler, arg, answer, &err);
    } else {
        err_set(&err, STATUS_LIMIT, "a request is one line of at most %d bytes",
                CONTROL_MAX_REQUEST);
    }
    if (status != STATUS_OK) {
        char text[ERR_TEXT_BYTES];

        json_decref(answer);
        answer = json_pack("{s:s}", "error", err_escape(err.text, text, sizeof(text)));
    }
    json_write(&client->out, answer, &json_style_compact);
    buf_append_char(&client->out, '\n');
    json_decref(answer);
}

/* Sends what the socket takes; the client is done when all of it went. */
static void send_answer(struct client *client)
{
    while (client->sent < client->out.len) {
        ssize_t n = send(client->fd, client->out.data + client->sent,
                         client->out.len - client->sent, MSG_NOSIGNAL);

        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                drop(client);
            }
            return;
        }
        client->sent += (size_t)n;
    }
    drop(client);
}

static void serve(struct client *client, control_fn *handler, void *arg)
{
    if (client->out.len == 0) {
        size_t n_line = 0;
        enum status received = receive(client, &n_line);

        if (received == STATUS_PENDING) {
            return;
        }
        if (received == STATUS_LINK) {
            drop(client);
            return;
        }
        answer_line(client, received, n_line, handler, arg);
    }
    send_answer(client);
}

/* As many as there are places, so that a flood of connections does not keep the leader here. Each
 * is served at once: one that has sent its request is never dropped for the next. */
static void accept_clients(struct control *control, control_fn *handler, void *arg)
{
    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct client *client;
        uid_t uid;

        if (fd < 0) {
            return;
        }
        if (!control_peer(fd, &uid) || (uid != geteuid() && uid != 0)) {
            close(fd);
            continue;
        }
        client = find_place(control);
        client->fd = fd;
        client->number = ++control->n_clients;
        serve(client, handler, arg);
    }
}

void control_run(struct control *control, control_fn *handler, void *arg)
{
    for (uint32_t i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        if (control->clients[i].fd >= 0) {
            serve(&control->clients[i], handler, arg);
        }
    }
    accept_clients(control, handler, arg);
}
