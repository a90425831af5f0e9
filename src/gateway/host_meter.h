/* SPDX-License-Identifier: Apache-2.0 */
/* What a host's thread counts. Private to gateway/. */
#pragma once

#include "gateway/host_priv.h"

/* Moments of a sequence; each also notes its time in the sequence. How it ended is counted by
 * whoever knows what its text came to (request.c); here, only why it was refused. */
void meter_started(struct seq *seq, uint32_t n_cached);
void meter_token(struct seq *seq);
void meter_end(const struct seq *seq, const struct seq_event *end);

/* The world's part, from a snapshot: now and then. */
void meter_world(struct host *host, const struct host_snapshot *snapshot);
/* The world is gone: what is only true while there is one becomes 0. Counters stay, and go on from
 * there when the model is loaded again. */
void meter_gone(struct host *host);
