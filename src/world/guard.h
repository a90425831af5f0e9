/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides do so that no rank outlives its leader, and that signals reach the leader only.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* In a rank, first of all: asks the kernel for SIGKILL when the leader's spawning thread ends,
 * makes sure that leader (its pid, from the command line) is still the parent, and starts a thread
 * that kills this process group when the death pipe closes. The first reaches also a stopped
 * process; the second holds where the first was lost (a changed user id clears it).
 * STATUS_CANCELLED: the leader is gone, leave. STATUS_NO_MEMORY: no thread. */
NODISCARD enum status world_child_guard(pid_t leader, int death_fd, struct err *err);

/* In the leader, before its first thread: blocks every signal that is not a fault of the thread it
 * comes to, in this thread and those it will start. */
void world_signals_block(void);

/* A descriptor (CLOEXEC, does not block) that is readable when a signal that asks something of the
 * leader is pending: HUP, INT, QUIT, TERM, TSTP, USR1, USR2. */
NODISCARD enum status world_signals_open(int *ret_fd, struct err *err);

/* Takes one; 0 if there is none. */
int world_signals_take(int fd);
