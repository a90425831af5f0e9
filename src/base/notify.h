/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells the service manager how the service is, by the protocol of sd_notify(3) without its
 * library: a datagram of NAME=value lines to the socket that $NOTIFY_SOCKET names (a path, or @name
 * for an abstract one). Without that variable every function does nothing and says STATUS_OK.
 *
 * A datagram that the manager does not take at once is given up (STATUS_PENDING): the service does
 * not wait for its manager. The caller owns the struct; one thread at a time.
 */
#pragma once

#include "base/err.h"

struct notify {
    int fd; /* -1: nobody is to be told */
    uint64_t
        watchdog_ns; /* longest time between two notify_alive that the manager accepts; 0: any */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and removes them from the environment, so
 * that children do not speak for the service: before other threads are started. STATUS_INVALID,
 * STATUS_IO: a name that cannot be used; notify is then as without the variable. */
NODISCARD enum status notify_open(struct notify *ret_notify, struct err *err);
void notify_close(struct notify *notify); /* accepts one that failed to open */

/* The service is up (also: its configuration is read again). status: a line for people, or NULL. */
enum status notify_ready(struct notify *notify, const char *status);
/* The configuration is being read again; notify_ready tells that it is over. */
enum status notify_reloading(struct notify *notify);
enum status notify_stopping(struct notify *notify, const char *status);
/* A line for people; control characters are escaped. */
enum status notify_status(struct notify *notify, const char *status);
/* Feeds the watchdog; call it at least twice in watchdog_ns. */
enum status notify_alive(struct notify *notify);
/* So much more time for what is under way (start, reload, stop). */
enum status notify_extend(struct notify *notify, uint64_t ns);
