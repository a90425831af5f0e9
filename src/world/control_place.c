/* SPDX-License-Identifier: Apache-2.0 */
/* Where the control socket lies, for both sides. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "world/control_priv.h"

enum { NAME_BYTES = 80 }; /* so that "/proc/self/fd/N/NAME" fits an address */

enum status control_place_open(const char *path, struct control_place *ret_place, struct err *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char *folder;
    int fd;
    int error;

    if (name[0] == '\0' || strlen(name) > NAME_BYTES) {
        return err_set(err, STATUS_INVALID, "control socket %s: the name must have 1 to %d bytes",
                       path, NAME_BYTES);
    }
    folder = slash == NULL ? xstrdup(".") : xstrndup(path, MAX((size_t)(slash - path), 1));
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    error = errno;
    free(folder);
    if (fd < 0) {
        return err_set(err, error == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                       "control socket %s: its folder: %s", path, strerror(error));
    }
    *ret_place = (struct control_place){.folder_fd = fd, .name = name};
    return STATUS_OK;
}

struct sockaddr_un control_address(const struct control_place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
                     place->folder_fd, place->name);

    ENSURE_OP(n, <, (int)sizeof(address.sun_path));
    return address;
}

const char *control_runtime_dir(void)
{
    const char *given = getenv("XDG_RUNTIME_DIR");

    return given != NULL && given[0] == '/' ? given : NULL;
}

char *control_default_path(const char *runtime_dir, uid_t uid, pid_t pid)
{
    struct buf path = {0};

    if (runtime_dir != NULL) {
        buf_printf(&path, "%s/lockstep/%d.sock", runtime_dir, (int)pid);
    } else {
        buf_printf(&path, "/tmp/lockstep-%u/%d.sock", (unsigned)uid, (int)pid);
    }
    return buf_detach(&path);
}

bool control_peer(int fd, uid_t *ret_uid)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        return false;
    }
    *ret_uid = peer.uid;
    return true;
}
