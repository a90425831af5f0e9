/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks on this host, the supervisor's side: commands are posted to the spawner's thread and events
 * taken from it under one lock, with an eventfd each way.
 */
#include "world/spawner_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"

void spawner_close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void spawner_ring(int event_fd)
{
    uint64_t one = 1;

    if (write(event_fd, &one, sizeof(one)) < 0) {
        ENSURE_OP(errno, ==, EAGAIN); /* it is full: as loud as can be */
    }
}

void spawner_hush(int event_fd)
{
    uint64_t count;

    if (read(event_fd, &count, sizeof(count)) < 0) {
        ENSURE_OP(errno, ==, EAGAIN);
    }
}

void spawner_free_orders(struct spawner_order *orders, uint32_t n)
{
    for (uint32_t r = 0; orders != NULL && r < n; r++) {
        for (char **arg = orders[r].argv; arg != NULL && *arg != NULL; arg++) {
            free(*arg);
        }
        free(orders[r].argv);
        for (uint32_t i = 0; i < orders[r].n_fds; i++) {
            spawner_close_fd(&orders[r].fds[i]);
        }
    }
    free(orders);
}

static struct spawner_local *local_of(struct spawner *spawner)
{
    return (struct spawner_local *)spawner; /* base is its first member */
}

static enum status copy_order(struct spawner_order *order, const struct spawner_rank *rank,
                              struct err *err)
{
    size_t n_args = 0;

    while (rank->argv[n_args] != NULL) {
        n_args++;
    }
    order->argv = xcalloc(n_args + 1, sizeof(*order->argv));
    for (size_t i = 0; i < n_args; i++) {
        order->argv[i] = xstrdup(rank->argv[i]);
    }
    for (uint32_t i = 0; i < rank->n_fds; i++) {
        order->fds[i] = fcntl(rank->fds[i], F_DUPFD_CLOEXEC, 0);
        if (order->fds[i] < 0) {
            return err_set(err, STATUS_IO, "descriptor %d: %s", rank->fds[i], strerror(errno));
        }
        order->n_fds = i + 1;
    }
    return STATUS_OK;
}

static enum status local_spawn(struct spawner *spawner, uint64_t epoch,
                               const struct spawner_rank *ranks, uint32_t n_ranks, struct err *err)
{
    struct spawner_local *local = local_of(spawner);
    struct spawner_order *orders = xcalloc(n_ranks, sizeof(*orders));

    ENSURE(!local->busy);
    ENSURE_OP(epoch, >, local->posted_epoch);
    for (uint32_t r = 0; r < n_ranks; r++) {
        enum status status = copy_order(&orders[r], &ranks[r], err);

        if (status != STATUS_OK) {
            err_prefix(err, "rank %u", (unsigned)r);
            spawner_free_orders(orders, n_ranks);
            return status;
        }
    }
    pthread_mutex_lock(&local->lock);
    local->orders = orders;
    local->n_orders = n_ranks;
    local->order_epoch = epoch;
    pthread_mutex_unlock(&local->lock);
    local->posted_epoch = epoch;
    local->busy = true;
    spawner_ring(local->command_fd);
    return STATUS_OK;
}

static void local_kill(struct spawner *spawner)
{
    struct spawner_local *local = local_of(spawner);

    if (!local->busy) {
        return;
    }
    pthread_mutex_lock(&local->lock);
    local->kill_epoch = local->posted_epoch;
    pthread_mutex_unlock(&local->lock);
    spawner_ring(local->command_fd);
}

static bool local_next(struct spawner *spawner, struct spawner_event *ret_event)
{
    struct spawner_local *local = local_of(spawner);
    bool found = false;

    pthread_mutex_lock(&local->lock);
    if (local->n_taken < local->n_events) {
        *ret_event = local->events[local->n_taken++];
        found = true;
    } else {
        spawner_hush(local->base.event_fd);
    }
    if (local->n_taken == local->n_events) {
        local->n_taken = 0;
        local->n_events = 0;
    }
    pthread_mutex_unlock(&local->lock);
    if (found && ret_event->kind == SPAWNER_ALL_REAPED) {
        local->busy = false;
    }
    return found;
}

static void release(struct spawner_local *local)
{
    spawner_free_orders(local->orders, local->n_orders);
    spawner_close_fd(&local->base.event_fd);
    spawner_close_fd(&local->command_fd);
    spawner_close_fd(&local->null_fd);
    spawner_close_fd(&local->death_pipe[0]);
    spawner_close_fd(&local->death_pipe[1]);
    pthread_mutex_destroy(&local->lock);
    free(local);
}

static void local_destroy(struct spawner **spawner)
{
    struct spawner_local *local = local_of(*spawner);

    pthread_mutex_lock(&local->lock);
    local->quit = true;
    pthread_mutex_unlock(&local->lock);
    spawner_ring(local->command_fd);
    pthread_join(local->thread, NULL);
    release(local);
    *spawner = NULL;
}

static const struct spawner_backend local_backend = {
    .name = "local",
    .spawn = local_spawn,
    .kill = local_kill,
    .next = local_next,
    .destroy = local_destroy,
};

enum status spawner_local_create(const struct spawner_local_config *config,
                                 struct spawner **ret_spawner, struct err *err)
{
    struct spawner_local *local = xalloc(sizeof(*local));
    int error;

    *local = (struct spawner_local){
        .base = {.backend = &local_backend, .event_fd = -1},
        .config = *config,
        .leader = getpid(),
        .command_fd = -1,
        .null_fd = -1,
        .death_pipe = {-1, -1},
    };
    pthread_mutex_init(&local->lock, NULL);
    local->base.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    local->command_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    local->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (local->base.event_fd < 0 || local->command_fd < 0 || local->null_fd < 0 ||
        pipe2(local->death_pipe, O_CLOEXEC) < 0) {
        error = errno;
        release(local);
        return err_set(err, STATUS_IO, "no descriptors for the spawner: %s", strerror(error));
    }
    error = pthread_create(&local->thread, NULL, spawner_local_run, local);
    if (error != 0) {
        release(local);
        return err_set(err, STATUS_NO_MEMORY, "no thread for the spawner: %s", strerror(error));
    }
    *ret_spawner = &local->base;
    return STATUS_OK;
}
