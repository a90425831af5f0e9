/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of rpc share: cmocka, random numbers with a printed seed, sealed shared memory. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "rpc/region.h"
#include "sanitized.h"

#define MS UINT64_C(1000000)

struct random {
    uint64_t state;
};

/* A new sequence each run; its seed is printed, and LOCKSTEP_SEED repeats it. */
static inline struct random random_start(const char *what)
{
    const char *given = getenv("LOCKSTEP_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : clock_ns();

    print_message("%s: LOCKSTEP_SEED=%llu\n", what, (unsigned long long)seed);
    return (struct random){.state = seed};
}

/* splitmix64 */
static inline uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* In [0, n). */
static inline uint32_t random_below(struct random *random, uint64_t n)
{
    return (uint32_t)(random_next(random) % n);
}

/* Shared memory of this process and its children. */
static inline void *shared_memory(size_t bytes)
{
    void *memory;
    int fd;

    assert_int_equal(region_create("test", bytes, &fd, NULL), STATUS_OK);
    assert_int_equal(region_map(fd, bytes, true, &memory, NULL), STATUS_OK);
    close(fd);
    return memory;
}

/* A free slot for n bytes at the end of a heap block, so that a sanitizer sees a read past it. */
static inline void *exact_copy(const void *bytes, size_t n)
{
    void *copy = malloc(MAX(n, 1));

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    return copy;
}

/* Open descriptors of this process. */
static inline uint32_t count_fds(void)
{
    uint32_t n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += dup2(fd, fd) == fd;
    }
    return n;
}

/* fork() whose child does not outlive a test that fails. */
static inline pid_t fork_child(void)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return child;
}
