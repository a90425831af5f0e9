/* SPDX-License-Identifier: Apache-2.0 */
/* How many cores this process may keep busy. */
#include <sched.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "cpu/cpu.h"

/* Cores that a cgroup file allows, 0 if it names no limit. v2: cpu.max holds "QUOTA PERIOD" or "max
 * PERIOD". */
static uint32_t quota_v2(const char *path)
{
    struct buf text = {0};
    uint32_t cores = 0;
    char *end;

    if (file_read_all(path, 256, &text, NULL) == STATUS_OK) {
        unsigned long long quota = strtoull(buf_str(&text), &end, 10);
        unsigned long long period = strtoull(end, NULL, 10);

        if (quota > 0 && period > 0) {
            cores = (uint32_t)MAX(quota / period, 1);
        }
    }
    buf_release(&text);
    return cores;
}

/* v1: two files, the quota is -1 where there is none. */
static uint32_t quota_v1(void)
{
    struct buf quota = {0};
    struct buf period = {0};
    uint32_t cores = 0;

    if (file_read_all("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", 256, &quota, NULL) == STATUS_OK &&
        file_read_all("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 256, &period, NULL) == STATUS_OK) {
        long long q = strtoll(buf_str(&quota), NULL, 10);
        long long p = strtoll(buf_str(&period), NULL, 10);

        if (q > 0 && p > 0) {
            cores = (uint32_t)MAX(q / p, 1);
        }
    }
    buf_release(&quota);
    buf_release(&period);
    return cores;
}

/* The tightest limit from this process's own v2 group up to the root. */
static uint32_t cgroup_cores(void)
{
    struct buf text = {0};
    uint32_t tightest = 0;

    if (file_read_all("/proc/self/cgroup", 4096, &text, NULL) == STATUS_OK) {
        char *group = strstr(text.data, "0::/");

        if (group != NULL) {
            group += 3;
            group[strcspn(group, "\n")] = '\0';
            for (;;) {
                char path[4096];
                uint32_t cores;
                char *slash;

                snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
                cores = quota_v2(path);
                tightest = cores > 0 && (tightest == 0 || cores < tightest) ? cores : tightest;
                slash = strrchr(group, '/');
                if (slash == NULL) {
                    break;
                }
                *slash = '\0';
            }
        }
    }
    buf_release(&text);
    return tightest > 0 ? tightest : quota_v1();
}

uint32_t cpu_cores_usable(void)
{
    cpu_set_t set;
    uint32_t cores = 1;
    uint32_t quota = cgroup_cores();

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        cores = (uint32_t)MAX(CPU_COUNT(&set), 1);
    } else {
        cores = (uint32_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1); /* more than 1,024 cores */
    }
    return quota > 0 ? MIN(cores, quota) : cores;
}
