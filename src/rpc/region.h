/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that several processes map: a memfd of fixed size. It cannot shrink under a mapping (a
 * peer could otherwise make a reader die of SIGBUS), and once its one writer has mapped it, nobody
 * can map it writable again: what a rank scribbles stays in the rank's own region.
 *
 * The layout of a world (world/): one region written by the leader (step ring, the leader's lines
 * of the result rings), and one for each rank, written by that rank (its line of the step ring, its
 * result ring, its status page). Every epoch gets fresh ones.
 */
#pragma once

#include "base/err.h"

/* A zeroed memfd, closed on exec; name is for /proc only. STATUS_NO_MEMORY, STATUS_IO. */
NODISCARD enum status region_create(const char *name, size_t bytes, int *ret_fd, struct err *err);

/* Maps all bytes of it. STATUS_CORRUPT if fd is no such region or smaller. */
NODISCARD enum status region_map(int fd, size_t bytes, bool writable, void **ret_memory,
                                 struct err *err);
void region_unmap(void *memory, size_t bytes);

/* From now on no new writable mapping; those that exist stay. */
NODISCARD enum status region_seal(int fd, struct err *err);
