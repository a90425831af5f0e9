/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum status mailbox_init(struct mailbox *box, struct err *err)
{
    *box = (struct mailbox){.lock = PTHREAD_MUTEX_INITIALIZER};
    box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return box->fd >= 0 ? STATUS_OK
                        : err_set(err, STATUS_IO, "no event descriptor: %s", strerror(errno));
}

void mailbox_release(struct mailbox *box)
{
    if (box->fd >= 0) {
        close(box->fd);
        box->fd = -1;
    }
    pthread_mutex_destroy(&box->lock);
}

/* Under the lock. True: whoever waits must be woken. */
static bool is_quiet(const struct mailbox *box)
{
    return box->first == NULL && !box->rung;
}

static void wake(struct mailbox *box)
{
    (void)eventfd_write(box->fd, 1); /* it fails only where it is readable already */
}

void mailbox_ring(struct mailbox *box)
{
    bool quiet;

    pthread_mutex_lock(&box->lock);
    quiet = is_quiet(box);
    box->rung = true;
    pthread_mutex_unlock(&box->lock);
    if (quiet) {
        wake(box);
    }
}

void mailbox_put(struct mailbox *box, struct mail *mail)
{
    bool quiet;

    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    quiet = is_quiet(box);
    if (box->first == NULL) {
        box->first = mail;
    } else {
        box->last->next = mail;
    }
    box->last = mail;
    pthread_mutex_unlock(&box->lock);
    if (quiet) {
        wake(box);
    }
}

/* The wake-up that belongs to what is in the box is taken before the list is: what is put in
 * between finds the box not quiet, is in the list, and wakes nobody. */
bool mailbox_deliver(struct mailbox *box)
{
    struct mail *mail;
    eventfd_t value;
    bool quiet;

    pthread_mutex_lock(&box->lock);
    quiet = is_quiet(box);
    pthread_mutex_unlock(&box->lock);
    if (quiet) {
        return false;
    }
    (void)eventfd_read(box->fd, &value);
    pthread_mutex_lock(&box->lock);
    mail = box->first;
    box->first = NULL;
    box->last = NULL;
    box->rung = false;
    pthread_mutex_unlock(&box->lock);
    while (mail != NULL) {
        struct mail *next = mail->next;

        mail->deliver(mail);
        mail = next;
    }
    return true;
}
