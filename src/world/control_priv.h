/* SPDX-License-Identifier: Apache-2.0 */
/* Between the two sides of the control socket: where it lies. */
#pragma once

#include <sys/un.h>

#include "world/control.h"

/* A socket's folder and its name there. */
struct control_place {
    int folder_fd;
    const char *name; /* borrowed from the path */
};

/* Opens the folder of path. STATUS_NOT_FOUND, STATUS_INVALID (the name is none, or too long),
 * STATUS_IO. The folder is the caller's to close. */
NODISCARD enum status control_place_open(const char *path, struct control_place *ret_place,
                                         struct err *err);

/* Its address, by way of the open folder: so a path may be longer than an address. */
struct sockaddr_un control_address(const struct control_place *place);

/* The default place of a leader: below runtime_dir, or in /tmp where that is NULL. Free it. */
char *control_default_path(const char *runtime_dir, uid_t uid, pid_t pid);

/* $XDG_RUNTIME_DIR if it is an absolute path, otherwise NULL. */
const char *control_runtime_dir(void);

/* User at the other end; false if that is not known. */
NODISCARD bool control_peer(int fd, uid_t *ret_uid);
