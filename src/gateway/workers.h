/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads for work that takes long and waits for nobody: parsing, rendering, tokenizing, so
 * that the loop that answers everyone is never held up by one large prompt. A job runs on some
 * worker, then it is delivered to the box of the loop that gave it.
 */
#pragma once

#include "gateway/mailbox.h"

struct workers;

/* Owned by its giver; workers hold it from workers_give until it is delivered. */
struct job {
    struct mail mail;             /* deliver: what is to happen afterwards, on the loop */
    void (*run)(struct job *job); /* on a worker */
    struct mailbox *done;
    struct job *next;
};

NODISCARD enum status workers_create(uint32_t n, struct workers **ret_workers, struct err *err);
/* Waits for the jobs that run; those that have not begun are delivered without having run. */
void workers_destroy(struct workers **workers);

void workers_give(struct workers *workers, struct job *job);
