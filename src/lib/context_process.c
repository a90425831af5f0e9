/* SPDX-License-Identifier: Apache-2.0 */
/* A context that is a process: this program's side of it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "lib/context.h"
#include "lib/fail.h"
#include "lib/page.h"
#include "lib/region.h"
#include "world/guard.h"

/* A process that owes a reply GRACE_MS after the deadline has lost itself in a function. */
enum { WAIT_MS = 100, GRACE_MS = 1000, OOM_SCORE_ADJ = 500 };

struct context_process {
    struct context base;
    struct context_config config;
    struct spawner *spawner;
    uint64_t n_started; /* the spawner's epoch */
    bool is_alive;      /* something of the last start is not reaped */
    bool ended;         /* it died, or did not start; end_text says how */
    char end_text[WORK_TEXT_BYTES];
    int page_fd;
    int socket; /* this side's */
    int their_socket;
    struct page *page;
    uint32_t number; /* of the last order */
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* A line that the process wrote. */
static void tell_line(void *arg, uint32_t rank, const char *line)
{
    const struct context_process *self = arg;

    (void)rank;
    log_info("%s: %s", self->config.name, line);
}

/* Takes what the spawner has to say. */
static void take_events(struct context_process *self)
{
    struct spawner_event event;

    while (spawner_next(self->spawner, &event)) {
        switch (event.kind) {
        case SPAWNER_SPAWNED:
            self->base.process = (int)event.pid;
            break;
        case SPAWNER_SPAWN_FAILED:
            self->ended = true;
            lib_text(self->end_text, sizeof(self->end_text), "no process: %s",
                     strerror(event.error));
            break;
        case SPAWNER_DIED:
            self->ended = true;
            if (event.signal != 0) {
                lib_text(self->end_text, sizeof(self->end_text),
                         "its process %d died of signal %d (%s)", (int)event.pid, event.signal,
                         strsignal(event.signal));
            } else {
                lib_text(self->end_text, sizeof(self->end_text),
                         "its process %d ended with status %d", (int)event.pid, event.exit_code);
            }
            break;
        case SPAWNER_ALL_REAPED:
            self->is_alive = false;
            break;
        }
    }
}

static bool make_page(struct context_process *self)
{
    int sockets[2];
    void *memory;

    self->page_fd = memfd_create("lockstep-device", MFD_CLOEXEC);
    if (self->page_fd < 0 || ftruncate(self->page_fd, sizeof(struct page)) < 0) {
        return false;
    }
    memory = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, self->page_fd, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    self->page = memory;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
        return false;
    }
    self->socket = sockets[0];
    self->their_socket = sockets[1];
    self->page->magic = PAGE_MAGIC;
    self->page->version = PAGE_VERSION;
    self->page->layout = sizeof(struct page);
    atomic_store(&self->page->request, PAGE_HELLO);
    self->number = PAGE_HELLO;
    self->base.memory = memory_arena_create(self->config.memory_bytes);
    return self->base.memory != NULL;
}

static enum lockstep_status spawn(struct context_process *self, uint64_t generation,
                                  struct work_result *result)
{
    char leader[16];
    char number[24];
    char word[] = PAGE_WORD;
    char all[] = "-";
    char program[] = "lockstep-device";
    char *argv[PAGE_ARGS + 1] = {program, word};
    struct err err = {0};
    int fds[3];

    if (!make_page(self)) {
        return work_fail(result, errno == ENOMEM ? LOCKSTEP_NO_MEMORY : LOCKSTEP_IO,
                         "no memory to share with its process: %s", strerror(errno));
    }
    snprintf(leader, sizeof(leader), "%d", (int)getpid());
    snprintf(number, sizeof(number), "%llu", (unsigned long long)generation);
    argv[PAGE_ARG_LEADER] = leader;
    argv[PAGE_ARG_NAME] = (char *)(uintptr_t)self->config.name;
    argv[PAGE_ARG_CORES] = self->config.cores != NULL ? (char *)(uintptr_t)self->config.cores : all;
    argv[PAGE_ARG_GENERATION] = number;
    fds[0] = self->page_fd;
    fds[1] = memory_fd(self->base.memory);
    fds[2] = self->their_socket;
    if (spawner_spawn(self->spawner, ++self->n_started,
                      &(struct spawner_rank){.argv = argv, .fds = fds, .n_fds = 3}, 1,
                      &err) != STATUS_OK) {
        return work_fail(result, LOCKSTEP_IO, "%s", err.text);
    }
    close_fd(&self->their_socket);
    self->is_alive = true;
    self->ended = false;
    return LOCKSTEP_PENDING;
}

static enum lockstep_status start(struct context *context, uint64_t generation,
                                  struct work_result *result)
{
    struct context_process *self = (struct context_process *)context;

    if (self->page == NULL) {
        return spawn(self, generation, result);
    }
    take_events(self);
    if (self->ended) {
        return work_fail(result, LOCKSTEP_DEVICE, "%s before it was up", self->end_text);
    }
    if (context->process == 0 || atomic_load(&self->page->reply) != PAGE_HELLO) {
        return LOCKSTEP_PENDING;
    }
    return LOCKSTEP_OK;
}

/* Sends a descriptor. */
static bool send_fd(int socket, int fd)
{
    char byte = 0;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

/* Writes the order into this program's half. */
static bool write_order(struct context_process *self, const struct context_order *order,
                        struct work_result *result)
{
    struct page *page = self->page;

    page->deadline_ns = order->deadline_ns;
    if (order->join != NULL) {
        page->kind = PAGE_JOIN;
        page->join = (struct page_join){
            .id = order->join->id, .rank = order->join->rank, .n_ranks = order->join->n_ranks};
        if (!send_fd(self->socket, region_fd(order->join->region))) {
            work_fail(result, LOCKSTEP_DEVICE, "its process does not take a descriptor: %s",
                      strerror(errno));
            return false;
        }
    } else if (order->leave) {
        page->kind = PAGE_LEAVE;
    } else if (order->call != NULL) {
        page->kind = PAGE_CALL;
        page->call = *order->call;
    } else {
        ENSURE_OP(order->n_works, <=, LOCKSTEP_GROUP_MAX);
        page->kind = PAGE_WORKS;
        page->n_works = (uint32_t)order->n_works;
        for (size_t i = 0; i < order->n_works; i++) {
            page->works[i] = *order->works[i];
        }
    }
    return true;
}

/* A look at a process that lets this program wait, about every WAIT_MS. n_stopped: looks in a row
 * that found it stopped, which are counted rather than timed, so that a program that was stopped
 * together with its devices does not hold that against them. False: it is lost. */
static bool look_at_late(const struct context_process *self, uint64_t deadline_ns,
                         uint32_t *n_stopped, struct work_result *result)
{
    bool stopped = process_is_stopped(self->base.process);

    *n_stopped = stopped ? *n_stopped + 1 : 0;
    if (self->config.stopped_ms != UINT32_MAX &&
        (uint64_t)*n_stopped * WAIT_MS > self->config.stopped_ms) {
        work_fail(result, LOCKSTEP_DEVICE, "its process %d was stopped (by a signal) for %u ms",
                  self->base.process, (unsigned)self->config.stopped_ms);
        return false;
    }
    if (clock_ns() > deadline_ns && clock_ns() - deadline_ns > GRACE_MS * UINT64_C(1000000)) {
        work_fail(result, LOCKSTEP_DEVICE, "its process %d %s %d ms after the deadline",
                  self->base.process, stopped ? "was stopped (by a signal)" : "was still busy",
                  GRACE_MS);
        return false;
    }
    return true;
}

/* Waits for the reply; false if there will be none. */
static bool await_reply(struct context_process *self, uint64_t deadline_ns,
                        struct work_result *result)
{
    struct page *page = self->page;
    uint64_t spin_until = clock_ns() + page_spin_ns();
    uint64_t look_at = clock_ns() + WAIT_MS * UINT64_C(1000000);
    uint32_t n_stopped = 0;

    for (;;) {
        uint32_t seen = atomic_load(self->config.alarm);
        uint32_t reply = atomic_load(&page->reply);

        if (reply == self->number) {
            return true;
        }
        take_events(self);
        if (self->ended) {
            work_fail(result, LOCKSTEP_DEVICE, "%s", self->end_text);
            return false;
        }
        if (atomic_load(self->config.give_up)) {
            work_fail(result, LOCKSTEP_DEVICE, "its process was given up");
            return false;
        }
        if (clock_ns() >= look_at) {
            if (!look_at_late(self, deadline_ns, &n_stopped, result)) {
                return false;
            }
            look_at = clock_ns() + WAIT_MS * UINT64_C(1000000);
        }
        while (clock_ns() < spin_until && atomic_load(&page->reply) == reply) {
            cpu_relax();
        }
        if (atomic_load(&page->reply) == reply &&
            !futex_wait_two_shared(&page->reply, reply, self->config.alarm, seen,
                                   (uint64_t)WAIT_MS * 1000000)) {
            futex_wait_shared(&page->reply, reply, 1000000);
        }
    }
}

/* What the process wrote is looked at once and checked. */
static void read_reply(const struct context_process *self, const struct context_order *order,
                       struct work_result *result)
{
    const struct page *page = self->page;

    *result = page->result;
    result->text[sizeof(result->text) - 1] = '\0';
    if (result->status > LOCKSTEP_OK || result->status < LOCKSTEP_GIVEN_UP) {
        work_fail(result, LOCKSTEP_DEVICE, "its process answered with an unknown status");
    }
    if (order->call != NULL) {
        order->call->result_bytes = MIN(page->result_bytes, (uint32_t)LOCKSTEP_BYTES_MAX);
        memcpy(order->call->result, page->call_result, order->call->result_bytes);
    }
}

static void run(struct context *context, const struct context_order *order,
                struct work_result *result)
{
    struct context_process *self = (struct context_process *)context;

    if (!write_order(self, order, result)) {
        return;
    }
    self->number++;
    atomic_store(&self->page->request, self->number);
    futex_wake_all_shared(&self->page->request);
    if (await_reply(self, order->deadline_ns, result)) {
        read_reply(self, order, result);
    }
}

static bool alive(struct context *context, struct work_result *result)
{
    struct context_process *self = (struct context_process *)context;

    take_events(self);
    if (self->ended) {
        work_fail(result, LOCKSTEP_DEVICE, "%s", self->end_text);
    }
    return !self->ended;
}

static void stop(struct context *context)
{
    struct context_process *self = (struct context_process *)context;

    while (self->is_alive) {
        uint32_t seen = atomic_load(self->config.alarm);

        spawner_kill(self->spawner);
        take_events(self);
        if (self->is_alive) {
            futex_wait_shared(self->config.alarm, seen, (uint64_t)WAIT_MS * 1000000);
        }
    }
    if (self->page != NULL) {
        munmap(self->page, sizeof(*self->page));
        self->page = NULL;
    }
    close_fd(&self->page_fd);
    close_fd(&self->socket);
    close_fd(&self->their_socket);
    memory_unref(&context->memory);
    context->process = 0;
    self->ended = false;
}

static void destroy(struct context **context)
{
    struct context_process *self = (struct context_process *)*context;

    stop(*context);
    spawner_destroy(&self->spawner);
    free(self);
    *context = NULL;
}

static const struct context_backend backend = {
    .start = start,
    .run = run,
    .alive = alive,
    .stop = stop,
    .destroy = destroy,
};

enum lockstep_status context_process_create(const struct context_config *config,
                                            struct context **ret_context,
                                            struct lockstep_error *error)
{
    struct context_process *self = xalloc(sizeof(*self));
    struct err err = {0};
    enum status status;
    sigset_t before;

    self->base.backend = &backend;
    self->config = *config;
    self->page_fd = -1;
    self->socket = -1;
    self->their_socket = -1;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    world_signals_block(); /* inherited by the spawner's thread */
    status = spawner_local_create(
        &(struct spawner_local_config){
            .oom_score_adj = OOM_SCORE_ADJ,
            .line = tell_line,
            .arg = self,
            .alarm = config->alarm,
        },
        &self->spawner, &err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != STATUS_OK) {
        free(self);
        return lib_fail(error, lib_status(status), "device %s: %s", config->name, err.text);
    }
    *ret_context = &self->base;
    return LOCKSTEP_OK;
}
