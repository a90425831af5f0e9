/* SPDX-License-Identifier: Apache-2.0 */
/* The asking side of the control socket. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "world/control_priv.h"

enum { RETRY_NS = 5000000 };

/* A call under way. */
struct call {
    const char *path;
    int fd;
    uint32_t timeout_ms;
    uint64_t deadline_ns;
};

enum status control_path_of_pid(pid_t pid, char **ret_path, struct err *err)
{
    const char *dirs[] = {control_runtime_dir(), NULL};
    char proc[32];
    struct stat info;

    snprintf(proc, sizeof(proc), "/proc/%d", (int)pid);
    if (stat(proc, &info) != 0) {
        return err_set(err, STATUS_NOT_FOUND, "there is no process %d", (int)pid);
    }
    for (size_t i = dirs[0] == NULL; i < ARRAY_LEN(dirs); i++) {
        char *path = control_default_path(dirs[i], info.st_uid, pid);
        struct stat there;

        if (lstat(path, &there) == 0 && S_ISSOCK(there.st_mode)) {
            *ret_path = path;
            return STATUS_OK;
        }
        free(path);
    }
    return err_set(err, STATUS_NOT_FOUND,
                   "process %d has no control socket in %s%s/tmp/lockstep-%u", (int)pid,
                   dirs[0] == NULL ? "" : dirs[0], dirs[0] == NULL ? "" : "/lockstep or ",
                   (unsigned)info.st_uid);
}

static enum status late(const struct call *call, struct err *err)
{
    return err_set(err, STATUS_TIMEOUT, "control socket %s: no answer within %u ms", call->path,
                   call->timeout_ms);
}

static enum status wait_for(const struct call *call, short events, struct err *err)
{
    struct pollfd fd = {.fd = call->fd, .events = events};
    int n;

    do {
        uint64_t now = clock_ns();

        if (now >= call->deadline_ns) {
            return late(call, err);
        }
        n = poll(&fd, 1, (int)MIN((call->deadline_ns - now) / 1000000 + 1, INT32_MAX));
    } while (n <= 0 && (n == 0 || errno == EINTR));
    return n > 0 ? STATUS_OK : err_set(err, STATUS_IO, "poll: %s", strerror(errno));
}

/* The leader, or somebody who sits in its place? Root may ask anybody. */
static enum status check_peer(const struct call *call, struct err *err)
{
    uid_t uid;

    if (!control_peer(call->fd, &uid) || (uid != geteuid() && uid != 0 && geteuid() != 0)) {
        return err_set(err, STATUS_LINK, "control socket %s: it is another user's", call->path);
    }
    return STATUS_OK;
}

static enum status connect_to(const struct call *call, const struct control_place *place,
                              struct err *err)
{
    struct sockaddr_un address = control_address(place);

    while (connect(call->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        struct timespec pause = {.tv_nsec = RETRY_NS};

        if (errno == ENOENT || errno == ECONNREFUSED) {
            return err_set(err, STATUS_NOT_FOUND, "control socket %s: nobody listens there",
                           call->path);
        }
        if (errno != EAGAIN && errno != EINTR) { /* EAGAIN: others wait too */
            return err_set(err, STATUS_LINK, "control socket %s: %s", call->path, strerror(errno));
        }
        if (clock_ns() >= call->deadline_ns) {
            return late(call, err);
        }
        nanosleep(&pause, NULL);
    }
    return check_peer(call, err);
}

static enum status gone(const struct call *call, struct err *err)
{
    return err_set(err, STATUS_LINK, "control socket %s: closed without an answer", call->path);
}

static enum status send_all(const struct call *call, const struct buf *line, struct err *err)
{
    size_t sent = 0;

    while (sent < line->len) {
        ssize_t n = send(call->fd, line->data + sent, line->len - sent, MSG_NOSIGNAL);

        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            enum status status = wait_for(call, POLLOUT, err);

            if (status != STATUS_OK) {
                return status;
            }
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return gone(call, err);
        } else if (errno != EINTR) {
            return err_set(err, STATUS_LINK, "control socket %s: %s", call->path, strerror(errno));
        }
    }
    return STATUS_OK;
}

/* Appends up to the line feed, which is left out. */
static enum status receive_line(const struct call *call, struct buf *line, struct err *err)
{
    for (;;) {
        enum status status = wait_for(call, POLLIN, err);
        char bytes[4096];
        const char *end;
        ssize_t n;

        if (status != STATUS_OK) {
            return status;
        }
        n = recv(call->fd, bytes, sizeof(bytes), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (n <= 0) {
            return gone(call, err);
        }
        end = memchr(bytes, '\n', (size_t)n);
        buf_append(line, bytes, end == NULL ? (size_t)n : (size_t)(end - bytes));
        if (end != NULL) {
            return STATUS_OK;
        }
        if (line->len > CONTROL_MAX_ANSWER) {
            return err_set(err, STATUS_CORRUPT, "control socket %s: the answer does not end",
                           call->path);
        }
    }
}

static enum status read_answer(const struct call *call, const struct buf *line, json_t **ret_answer,
                               struct err *err)
{
    json_t *answer = NULL;
    const char *error = NULL;
    enum status status = json_parse(buf_str(line), line->len, &answer, err);

    if (status != STATUS_OK) {
        return err_prefix(err, "control socket %s: its answer", call->path);
    }
    error = json_string_value(json_object_get(answer, "error"));
    if (error != NULL) {
        status = err_set(err, STATUS_INVALID, "%s", error);
    } else if (!json_is_true(json_object_get(answer, "ok"))) {
        status =
            err_set(err, STATUS_CORRUPT, "control socket %s: its answer is no answer", call->path);
    }
    if (status != STATUS_OK) {
        json_decref(answer);
        return status;
    }
    *ret_answer = answer;
    return STATUS_OK;
}

/* Over a socket that is not connected yet. */
static enum status ask(const struct call *call, const struct buf *request, json_t **ret_answer,
                       struct err *err)
{
    struct control_place place;
    struct buf line = {0};
    enum status status = control_place_open(call->path, &place, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = connect_to(call, &place, err);
    close(place.folder_fd);
    if (status == STATUS_OK) {
        status = send_all(call, request, err);
    }
    if (status == STATUS_OK) {
        status = receive_line(call, &line, err);
    }
    if (status == STATUS_OK) {
        status = read_answer(call, &line, ret_answer, err);
    }
    buf_release(&line);
    return status;
}

enum status control_call(const char *path, const json_t *request, uint32_t timeout_ms,
                         json_t **ret_answer, struct err *err)
{
    struct call call = {.path = path, .timeout_ms = timeout_ms};
    struct buf line = {0};
    enum status status;

    call.deadline_ns = clock_ns() + (uint64_t)timeout_ms * 1000000;
    json_write(&line, request, &json_style_compact);
    buf_append_char(&line, '\n');
    if (line.len > CONTROL_MAX_REQUEST) {
        status =
            err_set(err, STATUS_LIMIT, "the request has more than %d bytes", CONTROL_MAX_REQUEST);
        goto out;
    }
    call.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (call.fd < 0) {
        status = err_set(err, STATUS_IO, "control socket: %s", strerror(errno));
        goto out;
    }
    status = ask(&call, &line, ret_answer, err);
    close(call.fd);
out:
    buf_release(&line);
    return status;
}
