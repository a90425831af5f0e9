/* SPDX-License-Identifier: Apache-2.0 */
/* Facts from hwloc (topology), /proc (names, memory), the scheduler and the cgroup. */
#include "cmd/host.h"

#include <hwloc.h>
#include <sched.h>

#include "base/file.h"
#include "cpu/cpu.h"

enum { PROC_BYTES = 1 << 22 };

/* Copies the value after "key<blanks>:" in a /proc file; out is left alone if there is none. */
static void find_value(const char *text, const char *key, char *out, size_t size)
{
    size_t n = strlen(key);

    for (const char *line = text; *line != '\0';
         line += strcspn(line, "\n"), line += *line != '\0') {
        const char *at = line + n;

        if (strncmp(line, key, n) != 0) {
            continue;
        }
        at += strspn(at, " \t");
        if (*at == ':') {
            at += 1 + strspn(at + 1, " \t");
            snprintf(out, size, "%.*s", (int)strcspn(at, "\n"), at);
            return;
        }
    }
}

/* Keeps those of the processor's flags that kernels could use. */
static void keep_features(const char *flags, char *out, size_t size)
{
    static const char *const wanted[] = {
        "sse4_2",       "avx",         "avx2",        "fma",         "f16c",     "bmi2",
        "avx_vnni",     "avx512f",     "avx512bw",    "avx512vl",    "avx512dq", "avx512vbmi",
        "avx512_vbmi2", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
        "amx_bf16",     "asimd",       "asimdhp",     "asimddp",     "bf16",     "i8mm",
        "sve",          "sve2",
    };
    size_t used = 0;

    out[0] = '\0';
    while (*flags != '\0') {
        size_t n = strcspn(flags, " ");

        for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
            if (strlen(wanted[i]) == n && strncmp(wanted[i], flags, n) == 0 &&
                used + n + 2 <= size) {
                used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? " " : "",
                                         wanted[i]);
            }
        }
        flags += n;
        flags += strspn(flags, " ");
    }
}

static void read_cpuinfo(struct host *host)
{
    struct buf text = {0};
    char flags[8192] = "";

    snprintf(host->cpu, sizeof(host->cpu), "unknown processor");
    if (file_read_all("/proc/cpuinfo", PROC_BYTES, &text, NULL) == STATUS_OK) {
        find_value(buf_str(&text), "model name", host->cpu, sizeof(host->cpu));
        find_value(buf_str(&text), "Features", flags, sizeof(flags)); /* arm64 */
        find_value(buf_str(&text), "flags", flags, sizeof(flags));
    }
    keep_features(flags, host->features, sizeof(host->features));
    buf_release(&text);
}

/* Bytes that a cgroup leaves to its processes, UINT64_MAX if the files name no limit. */
static uint64_t cgroup_bytes_left(const char *limit_path, const char *used_path)
{
    struct buf limit = {0};
    struct buf used = {0};
    uint64_t left = UINT64_MAX;

    if (file_read_all(limit_path, 64, &limit, NULL) == STATUS_OK &&
        file_read_all(used_path, 64, &used, NULL) == STATUS_OK && buf_str(&limit)[0] != 'm') {
        uint64_t max = strtoull(buf_str(&limit), NULL, 10);
        uint64_t now = strtoull(buf_str(&used), NULL, 10);

        left = max > now ? max - now : 0;
    }
    buf_release(&limit);
    buf_release(&used);
    return left;
}

static void read_memory(struct host *host)
{
    struct buf text = {0};
    char total[64] = "0";
    char available[64] = "0";
    uint64_t v1 = cgroup_bytes_left("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                    "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    uint64_t v2 = cgroup_bytes_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");

    if (file_read_all("/proc/meminfo", PROC_BYTES, &text, NULL) == STATUS_OK) {
        find_value(buf_str(&text), "MemTotal", total, sizeof(total));
        find_value(buf_str(&text), "MemAvailable", available, sizeof(available));
    }
    host->memory_bytes = strtoull(total, NULL, 10) * 1024;
    host->memory_available_bytes = MIN(strtoull(available, NULL, 10) * 1024, MIN(v1, v2));
    buf_release(&text);
}

static void add_caches(struct host *host, hwloc_topology_t topology, hwloc_obj_type_t type,
                       uint32_t level)
{
    int n = hwloc_get_nbobjs_by_type(topology, type);

    if (n > 0 && host->n_caches < HOST_MAX_CACHES) {
        hwloc_obj_t first = hwloc_get_obj_by_type(topology, type, 0);

        host->caches[host->n_caches++] = (struct host_cache){
            .level = level,
            .instructions = first->attr->cache.type == HWLOC_OBJ_CACHE_INSTRUCTION,
            .bytes = first->attr->cache.size,
            .count = (uint32_t)n,
        };
    }
}

static void read_topology(struct host *host, hwloc_topology_t topology)
{
    hwloc_obj_t node = NULL;

    host->packages = (uint32_t)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), 1);
    host->cores = (uint32_t)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE), 1);
    host->cpus = (uint32_t)MAX(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU), 1);
    add_caches(host, topology, HWLOC_OBJ_L1CACHE, 1);
    add_caches(host, topology, HWLOC_OBJ_L1ICACHE, 1);
    add_caches(host, topology, HWLOC_OBJ_L2CACHE, 2);
    add_caches(host, topology, HWLOC_OBJ_L3CACHE, 3);
    add_caches(host, topology, HWLOC_OBJ_L4CACHE, 4);
    while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL &&
           host->n_nodes < HOST_MAX_NODES) {
        host->nodes[host->n_nodes++] = (struct host_node){
            .number = node->os_index,
            .cpus = (uint32_t)MAX(hwloc_bitmap_weight(node->cpuset), 0),
            .bytes = node->attr->numanode.local_memory,
        };
    }
}

enum status host_collect(struct host *ret_host, struct err *err)
{
    hwloc_topology_t topology;
    cpu_set_t set;
    struct host host = {0};

#if defined(__x86_64__)
    host.architecture = "x86-64";
#elif defined(__aarch64__)
    host.architecture = "arm64";
#else
    host.architecture = "other";
#endif
    if (hwloc_topology_init(&topology) != 0) {
        return err_set(err, STATUS_NO_MEMORY, "hwloc: no topology");
    }
    /* Looking for devices takes seconds on large machines and wakes sleeping GPUs. */
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_icache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    if (hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return err_set(err, STATUS_IO, "hwloc: cannot read this machine's topology");
    }
    read_topology(&host, topology);
    hwloc_topology_destroy(topology);
    read_cpuinfo(&host);
    read_memory(&host);
    host.cpus_usable = cpu_cores_usable();
    host.cpus_bound =
        sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : host.cpus;
    *ret_host = host;
    return STATUS_OK;
}

uint64_t host_cache_bytes(const struct host *host)
{
    uint32_t deepest = 0;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < host->n_caches; i++) {
        const struct host_cache *cache = &host->caches[i];

        if (cache->level > deepest && !cache->instructions) {
            deepest = cache->level;
            bytes = cache->bytes * cache->count;
        }
    }
    return bytes;
}
