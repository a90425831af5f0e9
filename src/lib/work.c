/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/work.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "lib/fail.h"

_Static_assert((int)LOCKSTEP_F32 == (int)COMM_F32 && (int)LOCKSTEP_F64 == (int)COMM_F64 &&
                   (int)LOCKSTEP_F16 == (int)COMM_F16 && (int)LOCKSTEP_BF16 == (int)COMM_BF16 &&
                   (int)LOCKSTEP_I8 == (int)COMM_I8 && (int)LOCKSTEP_U8 == (int)COMM_U8 &&
                   (int)LOCKSTEP_I32 == (int)COMM_I32 && (int)LOCKSTEP_U32 == (int)COMM_U32 &&
                   (int)LOCKSTEP_I64 == (int)COMM_I64 && (int)LOCKSTEP_U64 == (int)COMM_U64,
               "same numbers");
_Static_assert((int)LOCKSTEP_SUM == (int)COMM_SUM && (int)LOCKSTEP_PROD == (int)COMM_PROD &&
                   (int)LOCKSTEP_MIN == (int)COMM_MIN && (int)LOCKSTEP_MAX == (int)COMM_MAX &&
                   (int)LOCKSTEP_AVG == (int)COMM_AVG &&
                   (int)LOCKSTEP_PREMUL_SUM == (int)COMM_PREMUL_SUM,
               "same numbers");
_Static_assert((int)LOCKSTEP_RANKS_MAX == (int)COMM_SHM_RANKS_MAX, "same limit");

static const uint64_t LONG_NS = (uint64_t)365 * 86400 * 1000000000;

enum lockstep_status work_fail(struct work_result *result, enum lockstep_status status,
                               const char *format, ...)
{
    va_list args;

    result->status = status;
    va_start(args, format);
    vsnprintf(result->text, sizeof(result->text), format, args);
    va_end(args);
    return status;
}

void *work_address(const struct work_place *place, const struct work_span *span, uint64_t bytes)
{
    if (place->arena == NULL) {
        return span->data;
    }
    if (span->at > place->bytes || bytes > place->bytes - span->at) {
        return NULL;
    }
    return place->arena + span->at;
}

static enum status run_vectors(struct comm *comm, const struct work *work, const void *in,
                               void *out, struct err *err)
{
    size_t numbers[4][LOCKSTEP_RANKS_MAX];

    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        numbers[0][r] = work->shares.send_count[r];
        numbers[1][r] = work->shares.send_at[r];
        numbers[2][r] = work->shares.receive_count[r];
        numbers[3][r] = work->shares.receive_at[r];
    }
    return comm_all_to_allv(comm,
                            &(struct comm_vectors){
                                .in = in,
                                .out = out,
                                .send_counts = numbers[0],
                                .send_offsets = numbers[1],
                                .recv_counts = numbers[2],
                                .recv_offsets = numbers[3],
                                .type = (enum comm_type)work->type,
                            },
                            err);
}

static enum status run_one(struct comm *comm, const struct work_place *place,
                           const struct work *work, struct err *err)
{
    struct comm_data data = {
        .in = work_address(place, &work->in, work->in_bytes),
        .out = work_address(place, &work->out, work->out_bytes),
        .count = work->count,
        .type = (enum comm_type)work->type,
        .scale = work->factor,
    };
    enum comm_reduction reduction = (enum comm_reduction)work->reduction;

    switch (work->kind) {
    case LOCKSTEP_ALL_REDUCE:
        return comm_all_reduce(comm, &data, reduction, err);
    case LOCKSTEP_ALL_GATHER:
        return comm_all_gather(comm, &data, err);
    case LOCKSTEP_REDUCE_SCATTER:
        return comm_reduce_scatter(comm, &data, reduction, err);
    case LOCKSTEP_BROADCAST:
        return comm_broadcast(comm, &data, work->peer, err);
    case LOCKSTEP_REDUCE:
        return comm_reduce(comm, &data, reduction, work->peer, err);
    case LOCKSTEP_ALL_TO_ALL:
        return comm_all_to_all(comm, &data, err);
    case LOCKSTEP_ALL_TO_ALLV:
        return run_vectors(comm, work, data.in, data.out, err);
    case LOCKSTEP_SEND:
        return comm_send(comm, data.in, data.count, data.type, work->peer, err);
    case LOCKSTEP_RECV:
        return comm_recv(comm, data.out, data.count, data.type, work->peer, err);
    case LOCKSTEP_BARRIER:
        return comm_barrier(comm, err);
    default:
        return err_set(err, STATUS_INVALID, "operation %u is not known", (unsigned)work->kind);
    }
}

static enum status run_sanity(struct comm *comm, uint32_t *ret_sum, struct err *err)
{
    const uint32_t one = 1;
    uint32_t sum = 0;
    enum status status = comm_all_reduce(
        comm, &(struct comm_data){.in = &one, .out = &sum, .count = 1, .type = COMM_U32}, COMM_SUM,
        err);

    *ret_sum = sum;
    return status;
}

static void set_deadline(struct comm *comm, uint64_t deadline_ns)
{
    uint64_t now = clock_ns();

    /* no limit is a long one, so that nobody's sums overflow */
    comm->timeout_ns = deadline_ns > now ? MIN(deadline_ns - now, LONG_NS) : 1;
}

void work_run(struct comm *comm, const struct work_place *place, const struct work *const *works,
              size_t n, uint64_t deadline_ns, struct work_result *ret_result)
{
    enum status status = STATUS_OK;
    struct err err = {0};

    set_deadline(comm, deadline_ns);
    if (n == 1 && works[0]->kind == WORK_SANITY) {
        status = run_sanity(comm, &ret_result->sum, &err);
    } else if (n == 1) {
        status = run_one(comm, place, works[0], &err);
    } else {
        enum status end;
        struct err end_err = {0};

        comm_group_begin(comm);
        for (size_t i = 0; i < n && status == STATUS_OK; i++) {
            status = run_one(comm, place, works[i], &err);
        }
        end = comm_group_end(comm, &end_err);
        if (status == STATUS_OK) {
            status = end;
            err = end_err;
        }
    }
    if (status != STATUS_OK) {
        work_fail(ret_result, lib_status(status), "%s", err.text);
    } else {
        ret_result->status = LOCKSTEP_OK;
    }
}

void work_run_call(const struct work_place *place, struct work_call *work,
                   const struct lockstep_function *functions, size_t n_functions,
                   const char *device, uint64_t generation, struct work_result *ret_result)
{
    struct lockstep_call call = {
        .device = device,
        .generation = generation,
        .n_tensors = MIN(work->n_tensors, (uint32_t)LOCKSTEP_CALL_MAX),
        .args = work->args,
        .args_bytes = MIN(work->args_bytes, (uint32_t)LOCKSTEP_BYTES_MAX),
        .result = work->result,
    };
    const struct lockstep_function *function = NULL;
    enum lockstep_status status;
    bool was;

    for (size_t i = 0; i < n_functions && function == NULL; i++) {
        function = strcmp(functions[i].name, work->name) == 0 ? &functions[i] : NULL;
    }
    if (function == NULL) {
        work_fail(ret_result, LOCKSTEP_NOT_FOUND, "device %s has no function '%s'", device,
                  work->name);
        return;
    }
    for (size_t i = 0; i < call.n_tensors; i++) {
        const struct work_tensor *tensor = &work->tensors[i];
        enum lockstep_type type = (enum lockstep_type)tensor->type;

        call.tensors[i] = (struct lockstep_view){
            .data = work_address(place, &tensor->span, tensor->count * lockstep_type_bytes(type)),
            .count = tensor->count,
            .type = type,
        };
    }
    was = lib_callback_enter();
    status = function->run(&call);
    lib_callback_leave(was);
    work->result_bytes = (uint32_t)MIN(call.result_bytes, (size_t)LOCKSTEP_BYTES_MAX);
    ret_result->status = LOCKSTEP_OK;
    if (status == LOCKSTEP_OK) {
        return;
    }
    call.text[sizeof(call.text) - 1] = '\0';
    work_fail(ret_result, status == LOCKSTEP_DEVICE ? LOCKSTEP_DEVICE : LOCKSTEP_CALL_FAILED,
              "function '%s': %s", work->name,
              call.text[0] != '\0' ? call.text : lockstep_status_text(status));
}

const char *work_kind_text(uint32_t kind)
{
    static const char *const texts[] = {
        [LOCKSTEP_ALL_REDUCE] = "all_reduce",
        [LOCKSTEP_ALL_GATHER] = "all_gather",
        [LOCKSTEP_REDUCE_SCATTER] = "reduce_scatter",
        [LOCKSTEP_BROADCAST] = "broadcast",
        [LOCKSTEP_REDUCE] = "reduce",
        [LOCKSTEP_ALL_TO_ALL] = "all_to_all",
        [LOCKSTEP_ALL_TO_ALLV] = "all_to_allv",
        [LOCKSTEP_SEND] = "send",
        [LOCKSTEP_RECV] = "recv",
        [LOCKSTEP_BARRIER] = "barrier",
        [LOCKSTEP_CALL] = "call",
        [WORK_JOIN] = "join",
        [WORK_SANITY] = "sanity",
        [WORK_LEAVE] = "leave",
        [WORK_COPY] = "copy",
    };

    return kind < ARRAY_LEN(texts) && texts[kind] != NULL ? texts[kind] : "unknown operation";
}
