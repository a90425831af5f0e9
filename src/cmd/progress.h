/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a long read: a bar on a terminal (bytes, rate, time left), a log line now and then
 * otherwise, nothing with --quiet. One thread.
 */
#pragma once

#include "base/base.h"

struct progress {
    const char *what; /* "loading" */
    bool quiet;
    bool terminal;
    bool drawn; /* a bar stands on the terminal */
    uint64_t start_ns;
    uint64_t shown_ns; /* when the bar or line was last written */
};

void progress_start(struct progress *progress, const char *what, bool quiet);

/* arg is the struct progress; fits model_progress_fn. */
void progress_update(void *arg, uint64_t bytes_done, uint64_t bytes_total);

/* Takes the bar away. */
void progress_end(struct progress *progress);
