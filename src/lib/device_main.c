/* SPDX-License-Identifier: Apache-2.0 */
/* A device's process: it maps what it was given and carries out one order after the other until it
 * is killed. It never outlives the program that started it (world/guard.h). */
#include <lockstep/device.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "lib/context.h"
#include "lib/fail.h"
#include "lib/page.h"
#include "world/guard.h"

enum { SPIN_NS = 20000, SPIN_CORES_MIN = 4 };

/* That the program can be a device's process; set once, before its first device. */
static _Atomic bool can_be_device;

bool context_process_possible(void)
{
    return atomic_load(&can_be_device);
}

uint64_t page_spin_ns(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= SPIN_CORES_MIN ? SPIN_NS : 0;
}

struct child {
    const char *name;
    uint64_t generation;
    const struct lockstep_function *functions;
    size_t n_functions;
    struct page *page;
    struct work_place place;
    struct comm *comm; /* NULL: in no world */
    void *region;
    size_t region_bytes;
};

/* Maps the whole file; NULL if it is not at least that large. */
static void *map_all(int fd, size_t bytes_min, size_t *ret_bytes)
{
    struct stat info;
    void *memory;

    if (fstat(fd, &info) < 0 || info.st_size <= 0 || (size_t)info.st_size < bytes_min) {
        return NULL;
    }
    memory =
        mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    *ret_bytes = (size_t)info.st_size;
    return memory == MAP_FAILED ? NULL : memory;
}

static int receive_fd(int socket)
{
    char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    struct cmsghdr *header;
    int fd = -1;

    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) {
        return -1;
    }
    header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    }
    return fd;
}

static void leave(struct child *child)
{
    if (child->comm != NULL) {
        comm_destroy(&child->comm);
        munmap(child->region, child->region_bytes);
    }
}

static void join(struct child *child, struct work_result *result)
{
    const struct page_join join = child->page->join;
    struct comm_shm_member member = {.id = &join.id, .rank = join.rank, .n_ranks = join.n_ranks};
    struct err err = {0};
    enum status status;
    int fd = receive_fd(PAGE_FD_SOCKET);

    leave(child);
    member.region = fd < 0 ? NULL : map_all(fd, 1, &member.region_bytes);
    if (fd >= 0) {
        close(fd);
    }
    if (member.region == NULL) {
        work_fail(result, LOCKSTEP_IO, "no memory of a world came");
        return;
    }
    status = comm_shm_join(&member, &child->comm, &err);
    if (status != STATUS_OK) {
        munmap(member.region, member.region_bytes);
        work_fail(result, lib_status(status), "%s", err.text);
        return;
    }
    child->region = member.region;
    child->region_bytes = member.region_bytes;
    result->status = LOCKSTEP_OK;
}

/* The memory that a work names lies inside the arena. */
static bool is_inside(const struct child *child, const struct work *work)
{
    return work_address(&child->place, &work->in, work->in_bytes) != NULL &&
           work_address(&child->place, &work->out, work->out_bytes) != NULL;
}

static void run_works(struct child *child, struct work_result *result)
{
    const struct page *page = child->page;
    const struct work *works[LOCKSTEP_GROUP_MAX];
    uint32_t n = page->n_works;

    if (child->comm == NULL || n == 0 || n > LOCKSTEP_GROUP_MAX) {
        work_fail(result, LOCKSTEP_LINK, "device %s is in no world", child->name);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        works[i] = &page->works[i];
        if (!is_inside(child, works[i])) {
            work_fail(result, LOCKSTEP_INVALID, "memory of %s lies outside of the arena",
                      work_kind_text(works[i]->kind));
            return;
        }
    }
    work_run(child->comm, &child->place, works, n, page->deadline_ns, result);
}

static void run_call(struct child *child, struct work_result *result)
{
    struct page *page = child->page;
    struct work_call call = page->call;

    call.name[sizeof(call.name) - 1] = '\0';
    work_run_call(&child->place, &call, child->functions, child->n_functions, child->name,
                  child->generation, result);
    page->result_bytes = call.result_bytes;
    memcpy(page->call_result, call.result, call.result_bytes);
}

static void carry_out(struct child *child)
{
    struct work_result result = {0};

    switch (child->page->kind) {
    case PAGE_JOIN:
        join(child, &result);
        break;
    case PAGE_LEAVE:
        leave(child);
        break;
    case PAGE_CALL:
        run_call(child, &result);
        break;
    case PAGE_WORKS:
        run_works(child, &result);
        break;
    default:
        work_fail(&result, LOCKSTEP_INVALID, "order %u is not known", (unsigned)child->page->kind);
    }
    child->page->result = result;
}

static NORETURN void serve(struct child *child)
{
    struct page *page = child->page;
    uint32_t last = PAGE_HELLO;

    atomic_store(&page->reply, last);
    futex_wake_all_shared(&page->reply);
    for (;;) {
        uint64_t spin_until = clock_ns() + page_spin_ns();
        uint32_t number;

        while (atomic_load(&page->request) == last && clock_ns() < spin_until) {
            cpu_relax();
        }
        number = atomic_load(&page->request);
        if (number == last) {
            futex_wait_shared(&page->request, last, 0);
            continue;
        }
        carry_out(child);
        last = number;
        atomic_store(&page->reply, last);
        futex_wake_all_shared(&page->reply);
    }
}

static NORETURN void give_up(const char *why)
{
    fprintf(stderr, "a device's process cannot start: %s\n", why);
    _exit(1);
}

void lockstep_device_main(int argc, char **argv, const struct lockstep_function *functions,
                          size_t n_functions)
{
    struct child child = {.functions = functions, .n_functions = n_functions};
    struct err err = {0};
    cpu_set_t cores;
    size_t bytes;

    if (argc != PAGE_ARGS || strcmp(argv[1], PAGE_WORD) != 0) {
        atomic_store(&can_be_device, true);
        return;
    }
    if (world_child_guard((pid_t)strtol(argv[PAGE_ARG_LEADER], NULL, 10), SPAWNER_FD_DEATH, &err) !=
        STATUS_OK) {
        give_up(err.text);
    }
    child.name = argv[PAGE_ARG_NAME];
    child.generation = strtoull(argv[PAGE_ARG_GENERATION], NULL, 10);
    child.page = map_all(PAGE_FD_PAGE, sizeof(*child.page), &bytes);
    if (child.page == NULL || child.page->magic != PAGE_MAGIC ||
        child.page->version != PAGE_VERSION || child.page->layout != sizeof(*child.page)) {
        give_up("what it was given is not of this version of the library");
    }
    child.place.arena = map_all(PAGE_FD_ARENA, 1, &bytes);
    if (child.place.arena == NULL) {
        give_up("its memory cannot be mapped");
    }
    child.place.bytes = bytes;
    if (context_cores_parse(argv[PAGE_ARG_CORES], &cores, sizeof(cores))) {
        sched_setaffinity(0, sizeof(cores), &cores); /* a wish */
    }
    serve(&child);
}
