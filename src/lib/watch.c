/* SPDX-License-Identifier: Apache-2.0 */
/* A watch keeps its newest events in a ring; its eventfd counts whether there are any. */
#include "lib/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "lib/device.h"
#include "lib/fail.h"
#include "lib/world.h"

enum { WATCH_EVENTS = 64 };

struct lockstep_watch {
    struct lockstep_watch *next; /* the list's lock */
    struct watch_list *list;
    pthread_mutex_t *list_lock;
    struct lockstep_device *device; /* a reference, as the list is its */
    lockstep_event_fn *callback;
    void *arg;
    int fd;
    pthread_mutex_t lock; /* of what follows */
    struct lockstep_event events[WATCH_EVENTS];
    uint32_t begin;
    uint32_t n;
    uint32_t n_missed;
};

/* Puts the event into the ring, in place of the oldest if it is full. */
static void keep(struct lockstep_watch *watch, const struct lockstep_event *event)
{
    uint64_t one = 1;

    pthread_mutex_lock(&watch->lock);
    if (watch->n == WATCH_EVENTS) {
        watch->begin++;
        watch->n--;
        watch->n_missed++;
    }
    watch->events[(watch->begin + watch->n++) % WATCH_EVENTS] = *event;
    if (watch->n == 1 && write(watch->fd, &one, sizeof(one)) < 0) {
        ENSURE_OP(errno, ==, EAGAIN); /* it is full: readable already */
    }
    pthread_mutex_unlock(&watch->lock);
}

static void tell(struct lockstep_watch *watch, const struct lockstep_event *event)
{
    if (watch->callback != NULL) {
        bool was = lib_callback_enter();

        watch->callback(watch->arg, event);
        lib_callback_leave(was);
    } else {
        keep(watch, event);
    }
}

void watch_tell(const struct watch_list *list, const struct lockstep_event *event)
{
    for (struct lockstep_watch *watch = list->first; watch != NULL; watch = watch->next) {
        tell(watch, event);
    }
}

enum lockstep_status lockstep_watch_create(struct lockstep_device *device,
                                           struct lockstep_world *world, lockstep_event_fn *event,
                                           void *arg, struct lockstep_watch **ret_watch,
                                           struct lockstep_error *error)
{
    struct lockstep_event now = {0};
    struct lockstep_watch *watch;

    if (ret_watch == NULL || (device == NULL) == (world == NULL)) {
        return lib_fail(error, LOCKSTEP_INVALID,
                        "lockstep_watch_create: one device or one world is watched");
    }
    watch = xalloc(sizeof(*watch));
    watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->fd < 0) {
        free(watch);
        return lib_fail(error, LOCKSTEP_IO, "no descriptor for a watch: %s", strerror(errno));
    }
    pthread_mutex_init(&watch->lock, NULL);
    watch->callback = event;
    watch->arg = arg;
    if (device != NULL) {
        device_ref(device);
        watch->device = device;
        watch->list = &device->watches;
        watch->list_lock = &device->changing;
    } else {
        watch->list = lib_world_watches(world, &watch->list_lock);
    }
    pthread_mutex_lock(watch->list_lock);
    if (device != NULL) {
        struct lockstep_device_info info;

        lockstep_device_info(device, &info);
        now.device = device;
        now.device_state = info.state;
        now.generation = info.generation;
        memcpy(now.reason, info.reason, sizeof(now.reason));
    } else {
        lib_world_event(world, &now);
    }
    tell(watch, &now);
    watch->next = watch->list->first;
    watch->list->first = watch;
    pthread_mutex_unlock(watch->list_lock);
    *ret_watch = watch;
    return LOCKSTEP_OK;
}

int lockstep_watch_fd(struct lockstep_watch *watch)
{
    return watch->fd;
}

bool lockstep_watch_next(struct lockstep_watch *watch, struct lockstep_event *ret_event)
{
    uint64_t count;
    bool found = false;

    pthread_mutex_lock(&watch->lock);
    if (watch->n > 0) {
        *ret_event = watch->events[watch->begin++ % WATCH_EVENTS];
        ret_event->n_missed = watch->n_missed;
        watch->n_missed = 0;
        watch->n--;
        found = true;
    }
    if (watch->n == 0 && read(watch->fd, &count, sizeof(count)) < 0) {
        ENSURE_OP(errno, ==, EAGAIN);
    }
    pthread_mutex_unlock(&watch->lock);
    return found;
}

void lockstep_watch_destroy(struct lockstep_watch **watch)
{
    struct lockstep_watch *w = watch == NULL ? NULL : *watch;

    if (w == NULL) {
        return;
    }
    *watch = NULL;
    pthread_mutex_lock(w->list_lock);
    for (struct lockstep_watch **link = &w->list->first; *link != NULL; link = &(*link)->next) {
        if (*link == w) {
            *link = w->next;
            break;
        }
    }
    pthread_mutex_unlock(w->list_lock);
    if (w->device != NULL) {
        device_unref(&w->device);
    }
    close(w->fd);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
