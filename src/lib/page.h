/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this program and a device's process share beside the arena: one order at a time, and what
 * came of it. Each side writes its own half and publishes it by a number, written last; there is no
 * lock. Every context has a fresh page. Descriptors come in the order of enum page_fd; the memory
 * of a communicator comes over the socket, beside the order to join.
 */
#pragma once

#include "lib/work.h"
#include "world/spawner.h"

enum { PAGE_MAGIC = 0x4c534450, PAGE_VERSION = 1, PAGE_HELLO = 1 };

enum page_fd {
    PAGE_FD_PAGE = SPAWNER_FD_FIRST,
    PAGE_FD_ARENA,
    PAGE_FD_SOCKET,
};

/* argv of a device's process: the program, this word, and: */
#define PAGE_WORD "--lockstep-device"
enum page_arg {
    PAGE_ARG_LEADER = 2,
    PAGE_ARG_NAME,
    PAGE_ARG_CORES,
    PAGE_ARG_GENERATION,
    PAGE_ARGS
};

enum page_kind { PAGE_WORKS, PAGE_CALL, PAGE_JOIN, PAGE_LEAVE };

struct page_join {
    struct comm_id id;
    uint32_t rank;
    uint32_t n_ranks;
};

struct page {
    uint32_t magic;
    uint32_t version;
    uint64_t layout; /* sizeof(struct page): another build has another */

    /* the leader's; request is PAGE_HELLO at first and then counts up */
    _Alignas(CACHE_LINE) _Atomic uint32_t request;
    uint32_t kind;
    uint32_t n_works;
    uint64_t deadline_ns;
    struct page_join join;
    struct work_call call;
    struct work works[LOCKSTEP_GROUP_MAX];

    /* the device's; reply is 0 until its process is ready, then the number of the last order */
    _Alignas(CACHE_LINE) _Atomic uint32_t reply;
    struct work_result result;
    uint32_t result_bytes;
    unsigned char call_result[LOCKSTEP_BYTES_MAX];
};

/* How long a side looks before it sleeps: nothing where there are too few cores. */
uint64_t page_spin_ns(void);
