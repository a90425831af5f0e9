/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to no model: answers by their code, and the process as the kernel sees it (what
 * cannot be read, because /proc is not there, is left out).
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "metrics/metrics_priv.h"

enum { CODES = 600 };

static _Atomic uint64_t answers[CODES]; /* the page of the process */
static _Atomic uint64_t start_ms;       /* 0: not yet known; kept, since dashboards count changes */

void metrics_http_answer(uint32_t code)
{
    atomic_fetch_add_explicit(&answers[code < CODES ? code : 0], 1, memory_order_relaxed);
}

static void append(struct buf *out, const char *name, const char *type, const char *help,
                   double value)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s ", name, help, name, type, name);
    metrics_number(out, value);
    buf_append_char(out, '\n');
}

static void append_answers(struct buf *out)
{
    buf_append_str(out, "# HELP lockstep:http_requests_total HTTP requests answered, by status "
                        "code.\n# TYPE lockstep:http_requests_total counter\n");
    for (uint32_t code = 0; code < CODES; code++) {
        uint64_t n = atomic_load_explicit(&answers[code], memory_order_relaxed);

        if (n > 0 || code == 200) {
            buf_printf(out, "lockstep:http_requests_total{code=\"%u\"} %llu\n", code,
                       (unsigned long long)n);
        }
    }
}

/* Up to size - 1 bytes of a file of /proc, as a string; false if it cannot be read. */
static bool read_small(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    n = read(fd, text, size - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    text[n] = '\0';
    return true;
}

/* Milliseconds since 1970 at which the process began: field 22 of its stat is in ticks since boot.
 * 0: not known. */
static uint64_t read_start(void)
{
    char stat[1024];
    char *at;
    char *end;
    struct timespec now;
    struct timespec up;
    unsigned long long ticks = 0;

    if (!read_small("/proc/self/stat", stat, sizeof(stat)) || (at = strrchr(stat, ')')) == NULL) {
        return 0;
    }
    for (int field = 3; field <= 22; field++) { /* the program's name may hold spaces */
        at = strchr(at, ' ');
        if (at == NULL) {
            return 0;
        }
        at++;
    }
    ticks = strtoull(at, &end, 10);
    if (end == at || clock_gettime(CLOCK_REALTIME, &now) != 0 ||
        clock_gettime(CLOCK_BOOTTIME, &up) != 0) {
        return 0;
    }
    return (uint64_t)(now.tv_sec - up.tv_sec) * 1000 +
           (uint64_t)((now.tv_nsec - up.tv_nsec) / 1000000) +
           ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static uint64_t start_time(void)
{
    uint64_t known = 0;
    uint64_t mine;

    if (atomic_load_explicit(&start_ms, memory_order_relaxed) == 0) {
        mine = read_start();
        atomic_compare_exchange_strong_explicit(&start_ms, &known, mine, memory_order_relaxed,
                                                memory_order_relaxed);
    }
    return atomic_load_explicit(&start_ms, memory_order_relaxed);
}

static bool open_fds(double *ret_n)
{
    DIR *folder = opendir("/proc/self/fd");
    uint32_t n = 0;

    if (folder == NULL) {
        return false;
    }
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        n += entry->d_name[0] != '.';
    }
    closedir(folder);
    *ret_n = n - 1; /* without the folder's own */
    return true;
}

static void append_memory(struct buf *out)
{
    char text[256];
    char *end;
    double pages;

    if (!read_small("/proc/self/statm", text, sizeof(text))) {
        return;
    }
    pages = (double)strtoull(text, &end, 10);
    append(out, "process_virtual_memory_bytes", "gauge", "Virtual memory of the leader.",
           pages * (double)sysconf(_SC_PAGESIZE));
    pages = (double)strtoull(end, NULL, 10);
    append(out, "process_resident_memory_bytes", "gauge", "Resident memory of the leader.",
           pages * (double)sysconf(_SC_PAGESIZE));
}

void metrics_render_process(struct buf *out)
{
    struct rusage usage;
    struct rlimit limit;
    double value;

    append_answers(out);
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        append(out, "process_cpu_seconds_total", "counter", "CPU time of the leader.",
               (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    }
    append_memory(out);
    if (open_fds(&value)) {
        append(out, "process_open_fds", "gauge", "Open descriptors of the leader.", value);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        append(out, "process_max_fds", "gauge", "Descriptors that the leader may open.",
               limit.rlim_cur == RLIM_INFINITY ? -1 : (double)limit.rlim_cur);
    }
    if (start_time() > 0) {
        append(out, "process_start_time_seconds", "gauge", "Start of the leader since 1970.",
               (double)start_time() / 1000);
    }
}
