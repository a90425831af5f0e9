/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs at least to tell a client of a token, in processor time, where ranks read weights
 * on every core meanwhile and nothing of the teller is left in a cache: a thread sleeps on a futex
 * that a "rank" wakes once per pass over its memory, and sends 250 bytes over loopback, by itself
 * or through a second thread that sleeps in epoll, as the leader does. Nothing else is computed.
 *
 *   bench_wakeup
 */
#include <arpa/inet.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { CORES = 2, WARM = 20, EVENTS = 200, EVENT_BYTES = 250 };

static const size_t RANK_BYTES = (size_t)600 << 20; /* half of qwen3-0.6b in BF16 */

struct teller {
    _Atomic uint32_t *word; /* counts passes */
    int client;             /* the socket */
    int front;              /* eventfd of the second thread; -1: there is none */
};

static void say(const struct teller *teller)
{
    static const char event[EVENT_BYTES];

    ENSURE(send(teller->client, event, sizeof(event), MSG_NOSIGNAL) == (ssize_t)sizeof(event));
}

static void *front(void *arg)
{
    const struct teller *teller = arg;
    struct epoll_event event = {.events = EPOLLIN};
    int poll = epoll_create1(EPOLL_CLOEXEC);
    uint64_t count;

    ENSURE(poll >= 0 && epoll_ctl(poll, EPOLL_CTL_ADD, teller->front, &event) == 0);
    for (;;) {
        ENSURE(epoll_wait(poll, &event, 1, -1) == 1);
        ENSURE(read(teller->front, &count, sizeof(count)) == (ssize_t)sizeof(count));
        say(teller);
    }
    return NULL;
}

/* A child that reads its memory over and over on one core and, where word is given, wakes. */
static void start_rank(int core, _Atomic uint32_t *word)
{
    cpu_set_t cores;
    uint64_t *memory;

    if (fork() != 0) {
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof(cores), &cores);
    memory = mmap(NULL, RANK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ENSURE(memory != MAP_FAILED);
    memset(memory, 1, RANK_BYTES);
    for (;;) {
        uint64_t sum = 0;

        for (size_t i = 0; i < RANK_BYTES / sizeof(*memory); i += CACHE_LINE / sizeof(*memory)) {
            sum += memory[i];
        }
        __asm__ volatile("" ::"r"(sum));
        if (word != NULL) {
            atomic_fetch_add(word, 1);
            syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
        }
    }
}

/* A child that reads what is said; returns the socket to it. */
static int start_client(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    char buf[512];

    ENSURE(bind(listener, (void *)&at, sizeof(at)) == 0 && listen(listener, 1) == 0);
    ENSURE(getsockname(listener, (void *)&at, &size) == 0);
    if (fork() == 0) {
        int mine = socket(AF_INET, SOCK_STREAM, 0);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        ENSURE(connect(mine, (void *)&at, sizeof(at)) == 0);
        while (read(mine, buf, sizeof(buf)) > 0) {
        }
        _exit(0);
    }
    return accept(listener, NULL, NULL);
}

static double cpu_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void measure(const struct teller *teller)
{
    const uint64_t one = 1;
    uint32_t seen = atomic_load(teller->word);
    uint64_t start_ns = 0;
    double start_us = 0;

    for (int n = 0; n < WARM + EVENTS; n++) {
        if (n == WARM) {
            start_us = cpu_us();
            start_ns = clock_ns();
        }
        while (atomic_load(teller->word) == seen) {
            syscall(SYS_futex, teller->word, FUTEX_WAIT, seen, NULL, NULL, 0);
        }
        seen = atomic_load(teller->word);
        if (teller->front < 0) {
            say(teller);
        } else {
            ENSURE(write(teller->front, &one, sizeof(one)) == (ssize_t)sizeof(one));
        }
    }
    printf("%s: %.1f us of processor time an event, one every %.1f ms\n",
           teller->front < 0 ? "one thread " : "two threads", (cpu_us() - start_us) / EVENTS,
           (double)(clock_ns() - start_ns) / 1e6 / EVENTS);
}

int main(void)
{
    struct teller teller = {.front = -1};
    pthread_t thread;

    teller.word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ENSURE(teller.word != MAP_FAILED);
    teller.client = start_client();
    ENSURE(teller.client >= 0);
    for (int core = 0; core < CORES; core++) {
        start_rank(core, core == 0 ? teller.word : NULL);
    }
    measure(&teller);
    teller.front = eventfd(0, EFD_CLOEXEC);
    ENSURE(teller.front >= 0 && pthread_create(&thread, NULL, front, &teller) == 0);
    measure(&teller);
    return 0;
}
