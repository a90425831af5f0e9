/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wiring.h"

#include <errno.h>
#include <sys/stat.h>

#include "rpc/region.h"

enum {
    /* Memory of the trace ring is taken from the machine when it is first written. */
    FIXED_BYTES = sizeof(struct ring_line) + sizeof(struct trace_ring), /* behind the status page */
    STATUS_BYTES = (STATUS_PAGE_BYTES + RING_LINE_BYTES - 1) / RING_LINE_BYTES * RING_LINE_BYTES
};

static struct ring_shape plan_ring(const struct wiring_shape *shape)
{
    return (struct ring_shape){shape->n_slots, shape->plan_bytes, shape->epoch};
}

static struct ring_shape result_ring(const struct wiring_shape *shape)
{
    return (struct ring_shape){shape->n_slots, shape->result_bytes, shape->epoch};
}

size_t wiring_leader_bytes(const struct wiring_shape *shape)
{
    struct ring_shape plans = plan_ring(shape);
    size_t bytes = ring_bytes(&plans);

    if (bytes == 0 || shape->n_ranks == 0 || shape->n_ranks > RING_MAX_READERS) {
        return 0;
    }
    return bytes + shape->n_ranks * sizeof(struct ring_line) + sizeof(struct trace_switch);
}

size_t wiring_rank_bytes(const struct wiring_shape *shape)
{
    struct ring_shape results = result_ring(shape);
    size_t bytes = ring_bytes(&results);

    return bytes == 0 ? 0 : STATUS_BYTES + FIXED_BYTES + bytes;
}

static struct ring_line *leader_line(const struct wiring_shape *shape, const void *leader,
                                     uint32_t rank)
{
    struct ring_shape plans = plan_ring(shape);

    return (struct ring_line *)((uintptr_t)leader + ring_bytes(&plans)) + rank;
}

static struct ring_line *rank_line(const void *rank)
{
    return (struct ring_line *)((uintptr_t)rank + STATUS_BYTES);
}

static struct trace_ring *trace_ring(const void *rank)
{
    return (struct trace_ring *)(rank_line(rank) + 1);
}

static void *result_memory(const void *rank)
{
    return trace_ring(rank) + 1;
}

static struct trace_switch *trace_switch(const struct wiring_shape *shape, const void *leader)
{
    return (struct trace_switch *)leader_line(shape, leader, shape->n_ranks);
}

json_t *wiring_to_json(const struct wiring_shape *shape)
{
    return json_pack("{s:I, s:I, s:I}", "slots", (json_int_t)shape->n_slots, "plan_bytes",
                     (json_int_t)shape->plan_bytes, "result_bytes",
                     (json_int_t)shape->result_bytes);
}

enum status wiring_from_json(const json_t *json, uint64_t epoch, uint32_t n_ranks,
                             struct wiring_shape *ret_shape, struct err *err)
{
    struct wiring_shape shape = {.epoch = epoch, .n_ranks = n_ranks};
    int64_t slots;
    int64_t plan_bytes;
    int64_t result_bytes;
    enum status status;

    if ((status = json_need_int(json, "slots", 2, 65536, &slots, err)) != STATUS_OK ||
        (status = json_need_int(json, "plan_bytes", 1, 16 << 20, &plan_bytes, err)) != STATUS_OK ||
        (status = json_need_int(json, "result_bytes", 1, 16 << 20, &result_bytes, err)) !=
            STATUS_OK) {
        return status;
    }
    shape.n_slots = (uint32_t)slots;
    shape.plan_bytes = (uint32_t)plan_bytes;
    shape.result_bytes = (uint32_t)result_bytes;
    *ret_shape = shape;
    return STATUS_OK;
}

/* --- The leader's side --- */

enum status wiring_leader_init(struct wiring_leader *wiring, const struct wiring_shape *shape,
                               int leader_fd, const int *rank_fds, struct err *err)
{
    const struct ring_line *lines[RING_MAX_READERS];
    struct ring_shape plans = plan_ring(shape);
    enum status status;

    *wiring = (struct wiring_leader){.shape = *shape};
    status = region_map(leader_fd, wiring_leader_bytes(shape), true, &wiring->own, err);
    if (status == STATUS_OK) {
        status = region_seal(leader_fd, err);
    }
    for (uint32_t r = 0; r < shape->n_ranks && status == STATUS_OK; r++) {
        void *memory;

        status = region_map(rank_fds[r], wiring_rank_bytes(shape), false, &memory, err);
        if (status == STATUS_OK) {
            wiring->ranks[r] = memory;
            lines[r] = rank_line(memory);
        }
    }
    if (status != STATUS_OK) {
        wiring_leader_release(wiring);
        return status;
    }
    ring_writer_init(&wiring->plans, wiring->own, &plans, lines, shape->n_ranks);
    return STATUS_OK;
}

enum status wiring_leader_attach(struct wiring_leader *wiring, uint32_t rank, struct err *err)
{
    struct ring_shape results = result_ring(&wiring->shape);
    enum status status =
        ring_reader_init(&wiring->results[rank], result_memory(wiring->ranks[rank]), &results,
                         leader_line(&wiring->shape, wiring->own, rank), err);

    if (status == STATUS_OK) {
        wiring->attached[rank] = true;
    }
    return status;
}

void wiring_leader_trace(struct wiring_leader *wiring, bool on)
{
    atomic_store_explicit(&trace_switch(&wiring->shape, wiring->own)->on, on, memory_order_relaxed);
}

const struct trace_ring *wiring_leader_trace_ring(const struct wiring_leader *wiring, uint32_t rank)
{
    return trace_ring(wiring->ranks[rank]);
}

void wiring_leader_release(struct wiring_leader *wiring)
{
    for (uint32_t r = 0; r < wiring->shape.n_ranks; r++) {
        region_unmap((void *)(uintptr_t)wiring->ranks[r], wiring_rank_bytes(&wiring->shape));
    }
    region_unmap(wiring->own, wiring_leader_bytes(&wiring->shape));
    *wiring = (struct wiring_leader){0};
}

/* --- A rank's side --- */

enum status wiring_rank_init(struct wiring_rank *wiring, int own_fd, uint32_t rank, uint64_t epoch,
                             struct err *err)
{
    struct stat info;
    enum status status;

    *wiring = (struct wiring_rank){.rank = rank};
    if (fstat(own_fd, &info) != 0 || (size_t)info.st_size < STATUS_BYTES + FIXED_BYTES) {
        return err_set(err, STATUS_CORRUPT, "descriptor %d is no region of a rank", own_fd);
    }
    wiring->own_bytes = (size_t)info.st_size;
    status = region_map(own_fd, wiring->own_bytes, true, &wiring->own, err);
    if (status == STATUS_OK) {
        status = region_seal(own_fd, err);
    }
    if (status == STATUS_OK) {
        status_page_init(&wiring->status, wiring->own, rank, epoch);
    }
    return status;
}

enum status wiring_rank_connect(struct wiring_rank *wiring, const struct wiring_shape *shape,
                                int leader_fd, struct err *err)
{
    struct ring_shape plans = plan_ring(shape);
    struct ring_shape results = result_ring(shape);
    struct ring_line *line = rank_line(wiring->own);
    const struct ring_line *readers[1];
    void *memory;
    enum status status;

    if (wiring_leader_bytes(shape) == 0 || wiring_rank_bytes(shape) == 0 ||
        wiring_rank_bytes(shape) > wiring->own_bytes || wiring->rank >= shape->n_ranks) {
        return err_set(err, STATUS_CORRUPT, "rings of %u ranks that do not fit this rank's region",
                       shape->n_ranks);
    }
    status = region_map(leader_fd, wiring_leader_bytes(shape), false, &memory, err);
    if (status != STATUS_OK) {
        return status;
    }
    wiring->shape = *shape;
    wiring->leader = memory;
    readers[0] = leader_line(shape, memory, wiring->rank);
    wiring->trace = (struct trace_writer){.ring = trace_ring(wiring->own),
                                          .asked = trace_switch(shape, memory)};
    ring_writer_init(&wiring->results, result_memory(wiring->own), &results, readers, 1);
    return ring_reader_init(&wiring->plans, memory, &plans, line, err);
}

void wiring_rank_release(struct wiring_rank *wiring)
{
    if (wiring->leader != NULL) {
        region_unmap((void *)(uintptr_t)wiring->leader, wiring_leader_bytes(&wiring->shape));
    }
    region_unmap(wiring->own, wiring->own_bytes);
    *wiring = (struct wiring_rank){0};
}
