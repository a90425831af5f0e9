/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says of another process. Any thread. */
#pragma once

#include <sys/types.h>

#include "base/base.h"

/* Whether the process is stopped by a signal. One that a debugger holds is not, nor one that is not
 * there. */
bool process_is_stopped(pid_t process);
