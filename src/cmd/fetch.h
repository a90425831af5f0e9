/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models of the hub for commands: hub_pull and hub_open with a progress bar on a terminal, log
 * lines now and then otherwise, and an end on SIGINT and SIGTERM. Meanwhile both are blocked in the
 * calling thread; one that has come is still pending afterwards, so that a caller that does nothing
 * about it dies of it, and one with a signalfd reads it there. Any thread.
 */
#pragma once

#include "config/options.h"
#include "hub/hub.h"

/* As hub_pull; options without watch. quiet: no progress. STATUS_CANCELLED after a signal; what was
 * fetched stays for the next time. */
NODISCARD enum status fetch_pull(const struct hub_options *options, bool quiet, char **ret_path,
                                 struct err *err);

/* As hub_open: a path as it is, a model in the cache, or one that is fetched now. For MODEL
 * arguments: options with only a name take the rest from the environment. free() *ret_path. */
NODISCARD enum status fetch_open(const struct hub_options *options, bool quiet, char **ret_path,
                                 struct err *err);

/* What options->path means, for commands with a MODEL argument: leaves it alone if it is NULL, a
 * file or a folder; else replaces it by *ret_path (free() it after the options), and gives the
 * model to clients under the name that was asked for unless --served-model-name is there. */
NODISCARD enum status fetch_model(struct options *options, char **ret_path, struct err *err);
