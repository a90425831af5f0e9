/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world for tests: a region and its ranks, as threads or as forked processes. A rank's function
 * returns true if all was well; what it finds wrong it prints, because cmocka's assertions work
 * only in the thread and process that runs the test.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "comm/shm.h"
#include "sanitized.h"

enum world_kind { WORLD_THREADS, WORLD_PROCESSES };

struct world {
    void *region;
    size_t region_bytes;
    struct comm_id id;
    uint32_t n_ranks;
    uint32_t timeout_ms;
};

typedef bool world_fn(struct comm *comm, void *arg);

/* False, and says what was found, if a call did not end as expected. text: part of its error, or
 * NULL. */
static inline bool world_expects(const struct comm *comm, enum status found, enum status expected,
                                 const struct err *err, const char *text)
{
    if (found != expected || (text != NULL && strstr(err->text, text) == NULL)) {
        print_error("rank %u: status %d, expected %d: '%s', expected '%s'\n", comm->rank, found,
                    expected, err->text, text == NULL ? "" : text);
        return false;
    }
    return true;
}

static inline void world_init(struct world *world, uint32_t n_ranks, uint32_t timeout_ms)
{
    world->n_ranks = n_ranks;
    world->timeout_ms = timeout_ms;
    world->region_bytes = comm_shm_region_bytes(n_ranks);
    world->region =
        mmap(NULL, world->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(world->region != MAP_FAILED);
    comm_id_make(&world->id);
    comm_shm_region_init(world->region, n_ranks, &world->id);
}

static inline void world_release(struct world *world)
{
    munmap(world->region, world->region_bytes);
}

static inline struct comm *world_join(const struct world *world, uint32_t rank)
{
    struct comm *comm = NULL;
    struct err err = {0};

    if (comm_shm_join(
            &(struct comm_shm_member){
                .region = world->region,
                .region_bytes = world->region_bytes,
                .id = &world->id,
                .rank = rank,
                .n_ranks = world->n_ranks,
            },
            &comm, &err) != STATUS_OK) {
        print_error("%s\n", err.text);
        return NULL;
    }
    comm->timeout_ns = (uint64_t)world->timeout_ms * 1000000;
    return comm;
}

struct world_member {
    const struct world *world;
    uint32_t rank;
    world_fn *fn;
    void *arg;
    bool good;
};

static inline void *world_member_main(void *arg)
{
    struct world_member *member = arg;
    struct comm *comm = world_join(member->world, member->rank);

    if (comm != NULL) {
        member->good = member->fn(comm, member->arg);
        comm_destroy(&comm);
    }
    return NULL;
}

/* Forks one rank; its exit status is 0 if all was well. */
static inline pid_t world_fork(const struct world *world, uint32_t rank, world_fn *fn, void *arg)
{
    struct world_member member = {.world = world, .rank = rank, .fn = fn, .arg = arg};
    pid_t pid = fork();

    if (pid == 0) {
        world_member_main(&member);
        _exit(member.good ? 0 : 1);
    }
    assert_true(pid > 0);
    return pid;
}

/* Runs every rank to its end; returns how many went wrong. */
static inline uint32_t world_run(const struct world *world, enum world_kind kind, world_fn *fn,
                                 void *arg)
{
    struct world_member members[COMM_SHM_RANKS_MAX];
    pthread_t threads[COMM_SHM_RANKS_MAX];
    pid_t pids[COMM_SHM_RANKS_MAX];
    uint32_t bad = 0;

    for (uint32_t r = 0; r < world->n_ranks; r++) {
        members[r] = (struct world_member){.world = world, .rank = r, .fn = fn, .arg = arg};
        if (kind == WORLD_PROCESSES) {
            pids[r] = world_fork(world, r, fn, arg);
        } else {
            assert_int_equal(pthread_create(&threads[r], NULL, world_member_main, &members[r]), 0);
        }
    }
    for (uint32_t r = 0; r < world->n_ranks; r++) {
        int status = 1;

        if (kind == WORLD_PROCESSES) {
            assert_int_equal(waitpid(pids[r], &status, 0), pids[r]);
            bad += status != 0;
        } else {
            pthread_join(threads[r], NULL);
            bad += !members[r].good;
        }
    }
    return bad;
}
