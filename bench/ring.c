/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the step ring between two processes, each pinned to a core: from before a record is
 * published to after its acknowledgement is seen, for several lengths; the same with an answer
 * through a second ring; and with a reader that sleeps. Beside it the round trip of one byte over
 * the socket pair that the control channel uses.
 *
 *   bench_ring [ROUNDS]     default 100000
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "rpc/channel.h"
#include "rpc/region.h"
#include "rpc/ring.h"

enum { SLOT_BYTES = 16 << 10, RESULT_BYTES = 64, SLEEPING_ROUNDS = 300 };

static const struct ring_shape plan_shape = {.n_slots = 4, .slot_bytes = SLOT_BYTES, .epoch = 1};
static const struct ring_shape result_shape = {
    .n_slots = 4, .slot_bytes = RESULT_BYTES, .epoch = 1};

struct bench {
    void *plans;             /* ring of this process */
    void *results;           /* ring of the child */
    struct ring_line *lines; /* [0] the child's, of plans; [1] this process's, of results */
    int sockets[2];
    uint32_t n_rounds;
    uint64_t *ns; /* [n_rounds] */
};

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_ring: %s failed\n", what);
        exit(1);
    }
}

/* To the n-th core that this process may use. */
static void pin(int n)
{
    cpu_set_t all;
    cpu_set_t one;

    CPU_ZERO(&one);
    check(sched_getaffinity(0, sizeof(all), &all) == 0, "sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all) && n-- == 0) {
            CPU_SET(cpu, &one);
        }
    }
    check(sched_setaffinity(0, sizeof(one), &one) == 0, "pinning (two cores are needed)");
}

/* Spins only: both cores are ours. */
static struct wait patient(void)
{
    struct wait wait = wait_rank(clock_ns() + UINT64_C(10000000000));

    wait.spin_ns = UINT64_C(1000000000);
    return wait;
}

static void *shared(size_t bytes)
{
    void *memory;
    int fd;

    check(region_create("bench", bytes, &fd, NULL) == STATUS_OK, "region_create");
    check(region_map(fd, bytes, true, &memory, NULL) == STATUS_OK, "region_map");
    return memory;
}

/* The child: acknowledges each record at once; answers those with an odd length through its own
 * ring first. Sleeps as a rank does. */
static NORETURN void serve(const struct bench *bench)
{
    const struct ring_line *line = &bench->lines[1];
    uint64_t *out = xalloc(SLOT_BYTES);
    struct ring_reader reader;
    struct ring_writer writer;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(1);
    ring_writer_init(&writer, bench->results, &result_shape, &line, 1);
    check(ring_reader_init(&reader, bench->plans, &plan_shape, &bench->lines[0], NULL) == STATUS_OK,
          "attaching");
    check(write(bench->sockets[1], "r", 1) == 1, "write");
    for (;;) {
        struct wait wait = wait_rank(UINT64_MAX);
        struct ring_record record;
        uint64_t number;

        check(ring_read(&reader, &wait, out, &record, NULL) == STATUS_OK, "ring_read");
        if (record.kind == RING_CONTROL) {
            break;
        }
        if (record.n_bytes % 2 != 0) {
            check(ring_publish(&writer, RING_RESULT, out, RESULT_BYTES, &number, NULL) == STATUS_OK,
                  "ring_publish");
        }
        ring_ack(&reader, record.number);
    }
    for (;;) { /* the socket pair's turn */
        struct pollfd fd = {.fd = bench->sockets[1], .events = POLLIN};
        char byte;

        if (channel_wait(&fd, 1, UINT64_MAX) && read(bench->sockets[1], &byte, 1) == 1) {
            check(write(bench->sockets[1], &byte, 1) == 1, "write");
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void report(struct bench *bench, uint32_t n, const char *what)
{
    qsort(bench->ns, n, sizeof(*bench->ns), compare);
    printf("%-44s p50 %8.2f  p99 %8.2f  p99.9 %8.2f  max %9.2f us\n", what,
           (double)bench->ns[n / 2] / 1e3, (double)bench->ns[n * UINT64_C(99) / 100] / 1e3,
           (double)bench->ns[n * UINT64_C(999) / 1000] / 1e3, (double)bench->ns[n - 1] / 1e3);
}

/* n records of so many bytes; pause_us before each. */
static void run(struct bench *bench, struct ring_writer *writer, struct ring_reader *results,
                uint32_t n_bytes, uint32_t pause_us)
{
    uint32_t n = pause_us > 0 ? SLEEPING_ROUNDS : bench->n_rounds;
    uint8_t *bytes = xalloc(SLOT_BYTES);
    uint64_t out[RESULT_BYTES / 8];
    bool answered = n_bytes % 2 != 0;
    char what[64];

    for (uint32_t i = 0; i < n; i++) {
        struct ring_record record;
        uint64_t number;
        uint64_t start;
        struct wait wait;

        if (pause_us > 0) {
            usleep(pause_us);
        }
        wait = patient();
        start = clock_ns();
        check(ring_publish(writer, RING_PLAN, bytes, n_bytes, &number, NULL) == STATUS_OK,
              "ring_publish");
        if (answered) {
            check(ring_read(results, &wait, out, &record, NULL) == STATUS_OK, "result");
        } else {
            check(ring_wait_acked(writer, number, &wait, NULL) == STATUS_OK, "acknowledgement");
        }
        bench->ns[i] = clock_ns() - start;
    }
    snprintf(what, sizeof(what), "ring, %u bytes, %s%s", n_bytes,
             answered ? "64 bytes back" : "acknowledged", pause_us > 0 ? ", reader asleep" : "");
    report(bench, n, what);
    free(bytes);
}

static void run_socket(struct bench *bench)
{
    uint32_t n = MIN(bench->n_rounds, 10000u);

    for (uint32_t i = 0; i < n; i++) {
        struct pollfd fd = {.fd = bench->sockets[0], .events = POLLIN};
        uint64_t start = clock_ns();
        char byte = 'x';

        check(write(bench->sockets[0], &byte, 1) == 1, "write");
        check(channel_wait(&fd, 1, start + UINT64_C(10000000000)), "poll");
        check(read(bench->sockets[0], &byte, 1) == 1, "read");
        bench->ns[i] = clock_ns() - start;
    }
    report(bench, n, "socket pair, 1 byte there and back");
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {64, 1024, 4096, 16384, 1023};
    struct bench bench = {.n_rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 100000};
    struct ring_writer writer;
    struct ring_reader results;
    const struct ring_line *line;
    uint64_t number;
    pid_t child;
    char byte;

    check(bench.n_rounds > 0, "reading ROUNDS");
    bench.ns = xcalloc(MAX(bench.n_rounds, SLEEPING_ROUNDS), sizeof(*bench.ns));
    bench.plans = shared(ring_bytes(&plan_shape));
    bench.results = shared(ring_bytes(&result_shape));
    bench.lines = shared(2 * sizeof(*bench.lines));
    check(channel_pair(bench.sockets, NULL) == STATUS_OK, "socketpair");
    line = &bench.lines[0];
    ring_writer_init(&writer, bench.plans, &plan_shape, &line, 1);
    child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        serve(&bench);
    }
    pin(0);
    check(channel_wait(&(struct pollfd){.fd = bench.sockets[0], .events = POLLIN}, 1, UINT64_MAX) &&
              read(bench.sockets[0], &byte, 1) == 1,
          "starting the reader");
    check(ring_reader_init(&results, bench.results, &result_shape, &bench.lines[1], NULL) ==
              STATUS_OK,
          "attaching");
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        run(&bench, &writer, &results, sizes[i], 0);
    }
    run(&bench, &writer, &results, 1024, 5000);
    check(ring_publish(&writer, RING_CONTROL, "", 0, &number, NULL) == STATUS_OK, "the end");
    run_socket(&bench);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    free(bench.ns);
    return 0;
}
