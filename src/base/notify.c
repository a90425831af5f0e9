/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

enum { MESSAGE_BYTES = 1024 };

/* STATUS_INVALID if the name is none that a socket can have. */
static enum status make_address(const char *name, struct sockaddr_un *ret_address,
                                socklen_t *ret_length, struct err *err)
{
    size_t n = strlen(name);
    bool abstract = name[0] == '@';

    if (name[0] != '/' && !abstract) {
        return err_set(err, STATUS_INVALID, "NOTIFY_SOCKET: %s is neither a path nor @name", name);
    }
    if (n < 2 || n + !abstract > sizeof(ret_address->sun_path)) {
        return err_set(err, STATUS_INVALID, "NOTIFY_SOCKET: a name of %zu bytes", n);
    }
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path, name, n);
    if (abstract) {
        ret_address->sun_path[0] = '\0'; /* and no byte behind the name */
    }
    *ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + !abstract);
    return STATUS_OK;
}

/* Microseconds between signs of life that are asked of this process; 0 if of none. */
static uint64_t read_watchdog(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    char *end;
    unsigned long long value;

    if (usec == NULL || usec[0] < '0' || usec[0] > '9') {
        return 0;
    }
    if (pid != NULL && strtoll(pid, NULL, 10) != (long long)getpid()) {
        return 0;
    }
    errno = 0;
    value = strtoull(usec, &end, 10);
    return errno != 0 || *end != '\0' || value > UINT64_MAX / 1000 ? 0 : value;
}

static enum status connect_to(const char *name, int *ret_fd, struct err *err)
{
    struct sockaddr_un address = {0};
    socklen_t length = 0;
    enum status status = make_address(name, &address, &length, err);
    int fd;

    if (status != STATUS_OK) {
        return status;
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(err, STATUS_IO, "NOTIFY_SOCKET: %s", strerror(errno));
    }
    if (connect(fd, (const struct sockaddr *)&address, length) != 0) {
        int error = errno;

        close(fd);
        return err_set(err, STATUS_IO, "NOTIFY_SOCKET: %s: %s", name, strerror(error));
    }
    *ret_fd = fd;
    return STATUS_OK;
}

enum status notify_open(struct notify *ret_notify, struct err *err)
{
    const char *name = getenv("NOTIFY_SOCKET");
    enum status status = STATUS_OK;

    *ret_notify = (struct notify){.fd = -1};
    if (name != NULL && name[0] != '\0') {
        status = connect_to(name, &ret_notify->fd, err);
    }
    if (status == STATUS_OK && ret_notify->fd >= 0) {
        ret_notify->watchdog_ns = read_watchdog() * 1000;
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return status;
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0) {
        close(notify->fd);
    }
    *notify = (struct notify){.fd = -1};
}

static enum status send_text(const struct notify *notify, const char *text)
{
    ssize_t n;

    if (notify->fd < 0) {
        return STATUS_OK;
    }
    do {
        n = send(notify->fd, text, strlen(text), MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return STATUS_OK;
    }
    return errno == EAGAIN || errno == ENOBUFS ? STATUS_PENDING : STATUS_IO;
}

/* state (complete lines) and, unless it is NULL, a line STATUS=status. */
static enum status send_state(const struct notify *notify, const char *state, const char *status)
{
    char line[MESSAGE_BYTES / 2] = "";
    char text[MESSAGE_BYTES];

    if (status != NULL) {
        err_escape(status, line, sizeof(line));
    }
    snprintf(text, sizeof(text), "%s%s%s%s", state, status != NULL ? "STATUS=" : "", line,
             status != NULL ? "\n" : "");
    return send_text(notify, text);
}

enum status notify_ready(struct notify *notify, const char *status)
{
    return send_state(notify, "READY=1\n", status);
}

enum status notify_reloading(struct notify *notify)
{
    char text[96];

    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu\n",
             (unsigned long long)(clock_ns() / 1000));
    return send_text(notify, text);
}

enum status notify_stopping(struct notify *notify, const char *status)
{
    return send_state(notify, "STOPPING=1\n", status);
}

enum status notify_status(struct notify *notify, const char *status)
{
    return send_state(notify, "", status);
}

enum status notify_alive(struct notify *notify)
{
    return send_text(notify, "WATCHDOG=1\n");
}

enum status notify_extend(struct notify *notify, uint64_t ns)
{
    char text[64];

    snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%llu\n", (unsigned long long)(ns / 1000));
    return send_text(notify, text);
}
