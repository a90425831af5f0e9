/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known about this machine: processor, caches, NUMA nodes, memory, cores. Collected once,
 * without looking for I/O devices; the caller owns the struct.
 */
#pragma once

#include "base/err.h"

enum { HOST_MAX_CACHES = 16, HOST_MAX_NODES = 256 };

struct host_cache {
    uint32_t level;
    bool instructions;
    uint64_t bytes; /* of one */
    uint32_t count; /* how many there are */
};

struct host_node {
    uint32_t number; /* the operating system's */
    uint32_t cpus;
    uint64_t bytes;
};

struct host {
    char cpu[128]; /* the processor's own name */
    const char *architecture;
    char features[512]; /* those that kernels could use, separated by spaces */
    uint32_t packages;
    uint32_t cores;       /* physical */
    uint32_t cpus;        /* hardware threads online */
    uint32_t cpus_bound;  /* of those, in this process's affinity */
    uint32_t cpus_usable; /* and after the cgroup's quota: threads worth starting */
    uint32_t n_caches;
    struct host_cache caches[HOST_MAX_CACHES];
    uint32_t n_nodes;
    struct host_node nodes[HOST_MAX_NODES];
    uint64_t memory_bytes;
    uint64_t memory_available_bytes; /* the smaller of the system's and the cgroup's */
};

NODISCARD enum status host_collect(struct host *ret_host, struct err *err);

/* Bytes of all last-level caches together. */
uint64_t host_cache_bytes(const struct host *host);
