/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The float environment of canonical arithmetic: round to nearest, denormal results flushed to zero
 * and denormal inputs taken as zero. Compute threads set it; a caller's own is put back. Any
 * thread, acts on the calling one.
 */
#pragma once

#include "base/base.h"

struct float_env {
    uint64_t saved;
};

/* Sets the canonical environment and remembers the caller's. */
void float_env_enter(struct float_env *env);
void float_env_leave(const struct float_env *env);

/* True if the calling thread is in the canonical environment (asserted at step start). */
bool float_env_is_canonical(void);
