/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instead of a host, one that remembers the sequences it is given: the linker takes these and
 * leaves gateway/host.c alone. For one source of a test program.
 */
#pragma once

#include "gateway/host.h"
#include "gateway/request.h"

enum { RIG_SEQS = REQUEST_MAX_CHOICES * 10 }; /* each may go on as others */

struct host {
    struct seq *seqs[RIG_SEQS];
    uint32_t n;
    struct metrics *metrics;
    enum host_phase phase;
};

static struct host rig_host = {.phase = HOST_READY};

void host_submit(struct host *host, struct seq *seq)
{
    ENSURE(host->n < RIG_SEQS);
    seq->host = host;
    seq->id = host->n + 1;
    host->seqs[host->n++] = seq;
}

void host_cancel(struct host *host, uint64_t id)
{
    ENSURE(id >= 1 && id <= host->n);
}

void seq_destroy(struct seq **seq)
{
    if (*seq != NULL) {
        free((*seq)->bias);
        free((*seq)->prompt);
        free((*seq)->ends);
        free(*seq);
        *seq = NULL;
    }
}

struct metrics *host_metrics(const struct host *host)
{
    return host->metrics;
}

enum host_phase host_phase(struct host *host)
{
    return host->phase;
}

const char *host_phase_text(enum host_phase phase)
{
    return phase == HOST_READY ? "ready" : "away";
}

void host_destroy(struct host **host)
{
    *host = NULL;
}

/* Nothing that a body's work may call. */
void host_snapshot(struct host *host, struct host_snapshot *ret_snapshot)
{
    ENSURE(host == NULL && ret_snapshot == NULL);
}

enum status host_load(struct host *host, struct err *err)
{
    ENSURE(host == NULL);
    return err_set(err, STATUS_BUG, "loaded");
}

enum status host_unload(struct host *host, uint32_t drain_ms, struct err *err)
{
    ENSURE(host == NULL && drain_ms == 0);
    return err_set(err, STATUS_BUG, "unloaded");
}

void host_call(struct host *host, struct host_call *call)
{
    ENSURE(host == NULL && call == NULL);
}
