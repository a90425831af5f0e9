/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices of speed (tune/tune.h) as commands use them: found for a load, made by doctor, bench, and
 * by a server in its first idle second, for its next start; by the last two only where nothing is
 * kept yet, and never with LOCKSTEP_TUNE=off in the environment.
 */
#pragma once

#include "config/options.h"
#include "tune/tune.h"

/* What was measured for this machine, if anything: zero otherwise. What the options decide is left
 * to them. */
struct ops_tune tuning_find(const struct options *options, uint32_t n_ranks);

/* Measures and keeps. *ret_result holds what was measured even if it cannot be kept (STATUS_IO). */
NODISCARD enum status tuning_make(const struct options *options, struct tune_result *ret_result,
                                  struct err *err);

/* Where they are kept, owned by the caller; NULL as tune_path. */
char *tuning_path(const struct options *options);

/* The same if nothing is kept yet; what goes wrong is logged. */
void tuning_make_once(const struct options *options);

struct tuning_idle;

/* NULL: something is kept already, or there is no place for it. options are borrowed. */
struct tuning_idle *tuning_idle_create(const struct options *options);
void tuning_idle_destroy(struct tuning_idle **idle);

/* From the server's loop: busy is whether there are requests. After a second without any a process
 * of the lowest priority measures (the leader never computes: docs/decisions/0008), which is ended
 * when one comes. Returns when it wants to be asked again. */
uint64_t tuning_idle_turn(struct tuning_idle *idle, uint64_t now, bool busy);
