/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a context is given to do, as plain data: a rank's part of a collective, its part in building
 * a world, or a call of a function. For a context in another process it is copied into shared
 * memory; there addresses mean nothing and offsets in the arena count.
 */
#pragma once

#include <lockstep/collectives.h>

#include "comm/shm.h"

enum { WORK_TEXT_BYTES = 256, WORK_NAME_BYTES = 64 };

/* Beyond enum lockstep_operation. */
enum work_kind {
    WORK_JOIN = 32, /* a communicator is made in the region that comes with it */
    WORK_SANITY,    /* the sum of a one from each rank */
    WORK_LEAVE,     /* the communicator is dropped */
    WORK_COPY,      /* in or out of a tensor; done by this program for all contexts */
};

struct work_span {
    void *data;  /* here */
    uint64_t at; /* in the arena */
};

/* The pieces of an all_to_allv, of one rank. */
struct work_shares {
    uint64_t send_count[LOCKSTEP_RANKS_MAX];
    uint64_t send_at[LOCKSTEP_RANKS_MAX];
    uint64_t receive_count[LOCKSTEP_RANKS_MAX];
    uint64_t receive_at[LOCKSTEP_RANKS_MAX];
};

struct work {
    uint32_t kind; /* enum lockstep_operation or enum work_kind */
    uint32_t type;
    uint32_t reduction;
    uint32_t peer;  /* or root */
    uint64_t count; /* as comm.h counts; COPY: bytes */
    struct work_span in;
    struct work_span out;
    uint64_t in_bytes; /* of what is read and written, to be checked against the arena */
    uint64_t out_bytes;
    unsigned char factor[8]; /* PREMUL_SUM: of type (f16, bf16: f32) */
    struct work_shares shares;
};

struct work_tensor {
    struct work_span span;
    uint64_t count;
    uint32_t type;
};

struct work_call {
    char name[WORK_NAME_BYTES];
    struct work_tensor tensors[LOCKSTEP_CALL_MAX];
    uint32_t n_tensors;
    uint32_t args_bytes;
    _Alignas(16) unsigned char args[LOCKSTEP_BYTES_MAX];
    uint32_t result_bytes;
    _Alignas(16) unsigned char result[LOCKSTEP_BYTES_MAX];
};

/* Memory of one epoch's communicator. */
struct work_join {
    struct comm_id id;
    uint32_t rank;
    uint32_t n_ranks;
    struct region *region; /* here; a process gets its descriptor */
};

struct work_result {
    enum lockstep_status status;
    uint32_t sum; /* SANITY */
    char text[WORK_TEXT_BYTES];
};

/* Fills result and returns its status. */
enum lockstep_status work_fail(struct work_result *result, enum lockstep_status status,
                               const char *format, ...) PRINTF_LIKE(3, 4);

/* Where spans lie: in an arena of that size, or (NULL) at their address. */
struct work_place {
    char *arena;
    uint64_t bytes;
};

/* The span's address; NULL if it is not inside the arena. */
void *work_address(const struct work_place *place, const struct work_span *span, uint64_t bytes);

/* Carries out n collectives of comm, several as a group, until the deadline (clock_ns). */
void work_run(struct comm *comm, const struct work_place *place, const struct work *const *works,
              size_t n, uint64_t deadline_ns, struct work_result *ret_result);

/* Runs the named function. */
void work_run_call(const struct work_place *place, struct work_call *call,
                   const struct lockstep_function *functions, size_t n_functions,
                   const char *device, uint64_t generation, struct work_result *ret_result);

/* "all_reduce" for errors. */
const char *work_kind_text(uint32_t kind);
