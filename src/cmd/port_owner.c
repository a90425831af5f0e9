/* SPDX-License-Identifier: Apache-2.0 */
/* From /proc/net/tcp to the socket's inode, and from there to the process that has it open. */
#include "cmd/port_owner.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_TABLE_BYTES = 16 << 20, STATE_LISTEN = 0x0a };

/* The inode of the listening socket in one table; 0: none. */
static unsigned long find_inode(const char *table, uint16_t port)
{
    struct buf text = {0};
    unsigned long found = 0;
    const char *line;

    if (file_read_all(table, MAX_TABLE_BYTES, &text, NULL) != STATUS_OK) {
        return 0;
    }
    line = strchr(buf_str(&text), '\n'); /* behind the titles */
    while (line != NULL && found == 0) {
        unsigned local_port;
        unsigned state;
        unsigned long inode;

        if (sscanf(line + 1, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*d %*d %lu",
                   &local_port, &state, &inode) == 3 &&
            state == STATE_LISTEN && local_port == port) {
            found = inode;
        }
        line = strchr(line + 1, '\n');
    }
    buf_release(&text);
    return found;
}

static bool has_socket(const char *pid, unsigned long inode)
{
    char folder[300];
    char wanted[64];
    struct dirent *entry;
    bool found = false;
    DIR *dir;

    snprintf(folder, sizeof(folder), "/proc/%.20s/fd", pid);
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    dir = opendir(folder);
    while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (n > 0) {
            target[n] = '\0';
            found = strcmp(target, wanted) == 0;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

void port_owner_find(uint16_t port, struct buf *out)
{
    unsigned long inode = find_inode("/proc/net/tcp", port);
    struct dirent *entry;
    DIR *dir;

    if (inode == 0) {
        inode = find_inode("/proc/net/tcp6", port);
    }
    dir = inode == 0 ? NULL : opendir("/proc");
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char path[300];
        struct buf name = {0};

        if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || !has_socket(entry->d_name, inode)) {
            continue;
        }
        snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
        if (file_read_all(path, 256, &name, NULL) == STATUS_OK) {
            buf_printf(out, "%.*s (pid %s)", (int)strcspn(buf_str(&name), "\n"), buf_str(&name),
                       entry->d_name);
        }
        buf_release(&name);
        break;
    }
    if (dir != NULL) {
        closedir(dir);
    }
}
