/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/bandwidth.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cpu/pool.h"

/* Eight pages are read side by side: that keeps more lines in flight than one stream does. */
enum { PAGE = 4096, STREAMS = 8, BLOCK = PAGE * STREAMS };

typedef uint64_t line_t __attribute__((vector_size(64)));

struct reader {
    _Alignas(CACHE_LINE) double bytes_per_s;
    uint64_t sum; /* so that the reads are not left out */
};

struct bandwidth {
    struct pool *pool;
    struct reader *readers; /* one a thread */
    char *memory;
    size_t bytes;
    uint64_t for_ns;
};

static uint64_t read_block(const char *block)
{
    line_t even = {0};
    line_t odd = {0};

    for (size_t at = 0; at < PAGE; at += sizeof(line_t)) {
        for (size_t stream = 0; stream < STREAMS; stream += 2) {
            even ^= *(const line_t *)(block + stream * PAGE + at);
            odd ^= *(const line_t *)(block + (stream + 1) * PAGE + at);
        }
    }
    even ^= odd;
    return even[0] ^ even[1] ^ even[2] ^ even[3] ^ even[4] ^ even[5] ^ even[6] ^ even[7];
}

static void share_of(const struct bandwidth *bandwidth, uint32_t thread, uint32_t n_threads,
                     char **ret_begin, char **ret_end)
{
    uint32_t begin;
    uint32_t end;

    pool_share((uint32_t)(bandwidth->bytes / BLOCK), 1, thread, n_threads, &begin, &end);
    *ret_begin = bandwidth->memory + (size_t)begin * BLOCK;
    *ret_end = bandwidth->memory + (size_t)end * BLOCK;
}

static void place_pages(void *arg, uint32_t thread, uint32_t n_threads)
{
    char *begin;
    char *end;

    share_of(arg, thread, n_threads, &begin, &end);
    memset(begin, (int)thread + 1, (size_t)(end - begin));
}

static void read_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct bandwidth *bandwidth = arg;
    uint64_t start = clock_ns();
    uint64_t now = start;
    uint64_t sum = 0;
    size_t bytes = 0;
    const char *at;
    char *begin;
    char *end;

    share_of(bandwidth, thread, n_threads, &begin, &end);
    at = begin;
    while (now - start < bandwidth->for_ns) {
        for (size_t i = 0; i < 32; i++) { /* 1 MiB between two looks at the clock */
            sum ^= read_block(at);
            at = at + BLOCK == end ? begin : at + BLOCK;
        }
        bytes += (size_t)32 * BLOCK;
        now = clock_ns();
    }
    bandwidth->readers[thread].bytes_per_s = (double)bytes * 1e9 / (double)(now - start);
    bandwidth->readers[thread].sum = sum;
}

size_t bandwidth_bytes(uint64_t cache_bytes, uint64_t available_bytes)
{
    uint64_t want = MAX(cache_bytes * 4, (uint64_t)256 << 20);

    return (size_t)MIN(want, available_bytes / 4);
}

enum status bandwidth_create(uint32_t n_threads, size_t bytes, struct bandwidth **ret_bandwidth,
                             struct err *err)
{
    struct bandwidth *bandwidth = xalloc(sizeof(*bandwidth));
    enum status status;

    bandwidth->bytes = round_up(MAX(bytes, (size_t)n_threads * BLOCK), BLOCK);
    bandwidth->readers = aligned_alloc(CACHE_LINE, n_threads * sizeof(*bandwidth->readers));
    bandwidth->memory = mem_map(bandwidth->bytes);
    status = pool_create(n_threads, &bandwidth->pool, err);
    if (status == STATUS_OK && (bandwidth->memory == NULL || bandwidth->readers == NULL)) {
        status = err_set(err, STATUS_NO_MEMORY, "bandwidth: no memory for a buffer of %zu bytes",
                         bandwidth->bytes);
    }
    if (status != STATUS_OK) {
        bandwidth_destroy(&bandwidth);
        return status;
    }
    pool_run(bandwidth->pool, place_pages, bandwidth);
    *ret_bandwidth = bandwidth;
    return STATUS_OK;
}

void bandwidth_destroy(struct bandwidth **bandwidth)
{
    if (*bandwidth == NULL) {
        return;
    }
    pool_destroy(&(*bandwidth)->pool);
    mem_unmap((*bandwidth)->memory, (*bandwidth)->bytes);
    free((*bandwidth)->readers);
    free(*bandwidth);
    *bandwidth = NULL;
}

double bandwidth_measure(struct bandwidth *bandwidth, uint32_t ms)
{
    double total = 0;

    bandwidth->for_ns = (uint64_t)ms * 1000000;
    pool_run(bandwidth->pool, read_share, bandwidth);
    for (uint32_t i = 0; i < pool_n_threads(bandwidth->pool); i++) {
        total += bandwidth->readers[i].bytes_per_s;
    }
    return total;
}
