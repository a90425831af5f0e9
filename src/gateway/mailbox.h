/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages between loops: any thread puts a mail into a box, one thread takes them out, in order.
 * The box has a descriptor that is readable while there may be something in it, so that a loop can
 * wait for it with everything else. A mail is part of its sender's struct; who delivers it owns it.
 */
#pragma once

#include <pthread.h>

#include "base/err.h"

struct mail {
    struct mail *next;
    void (*deliver)(struct mail *mail); /* called on the taker's thread; may free the mail */
};

struct mailbox {
    pthread_mutex_t lock; /* of first, last, rung */
    struct mail *first;
    struct mail *last;
    bool rung;
    int fd;
};

NODISCARD enum status mailbox_init(struct mailbox *box, struct err *err);
/* What is still in it is not delivered: it must be empty, or its mails somebody else's. */
void mailbox_release(struct mailbox *box);

/* Any thread. */
void mailbox_put(struct mailbox *box, struct mail *mail);

/* Delivers what is there now, the taker's thread only; true if there was anything. */
bool mailbox_deliver(struct mailbox *box);

/* Wakes the taker with no mail. */
void mailbox_ring(struct mailbox *box);
