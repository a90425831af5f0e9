/* SPDX-License-Identifier: Apache-2.0 */
/* Who listens on a port of this machine. */
#pragma once

#include "base/buf.h"

/* Appends "NAME (pid N)" of a process that listens on this TCP port, as far as this user may see
 * it; nothing if that is not known. */
void port_owner_find(uint16_t port, struct buf *out);
