/* SPDX-License-Identifier: Apache-2.0 */
/* Time. Any thread. */
#pragma once

#include "base/base.h"

/* Monotonic nanoseconds since an arbitrary start. */
uint64_t clock_ns(void);
