/* SPDX-License-Identifier: Apache-2.0 */
/* Private to rank.c, rank_load.c and rank_step.c: the state of a rank's process. */
#pragma once

#include "engine/draw.h"
#include "engine/engine.h"
#include "engine/fault.h"
#include "engine/rank.h"
#include "engine/watched_comm.h"
#include "rpc/channel.h"
#include "rpc/plan.h"
#include "rpc/result.h"
#include "rpc/wiring.h"

/* The KV pages of one slot, in the order of its positions. */
struct rank_slot {
    uint32_t *pages; /* [n_pages], room for those of max_context */
    uint32_t n_pages;
    bool lost; /* a row stood for a token that there is not; until it gets new parameters */
};

struct rank {
    const struct rank_args *args;
    struct channel channel;
    struct wiring_rank wiring;
    struct faults faults;
    bool connected; /* the rings are there */
    bool leave;

    uint32_t n_ranks;
    char device[64];
    void *comm_region;
    size_t comm_region_bytes;
    struct comm *comm;            /* over the region */
    struct watched_comm *watched; /* around it: progress and faults */

    int memory_fds[CHANNEL_MAX_FDS]; /* [n_memory_fds] that came with load: the engine's, till
                                        unload */
    uint32_t n_memory_fds;
    struct engine *engine;
    bool takes_ahead; /* there may be KV pages whose memory is to be taken while idle */
    struct draw *draw;
    struct rank_slot *slots; /* [limits.n_slots] */
    struct plan_limits limits;
    float
        *logits; /* NULL, or shared memory for the logits of max_chunk rows, this rank's columns */
    size_t logits_bytes;

    void *record; /* a plan as it came, 16-byte aligned */
    void *result; /* a result to be sent */
    uint64_t state_hash;
    struct draw_want *wants;        /* [limits.max_rows] */
    struct model_want *model_wants; /* likewise */
    struct result_token *tokens;    /* likewise */
    struct sample_logprob *tops;    /* [limits.max_rows * PLAN_MAX_TOP] */
    struct result_top *result_tops; /* likewise */
    struct ops_segment *segments;   /* likewise */
    int32_t *step_tokens;           /* likewise */
    uint64_t load_said_ns;          /* when load_progress was last sent */
};

/* Each answers one request, by its own message or (not STATUS_OK) by the error. */
NODISCARD enum status rank_comm_init(struct rank *rank, struct message *message, struct err *err);
NODISCARD enum status rank_load(struct rank *rank, struct message *message, struct err *err);
/* Accept a rank without them. */
void rank_unload(struct rank *rank);
void rank_comm_release(struct rank *rank);

/* Carries out the encoded plan of n bytes (16-byte aligned) and encodes what came of it into
 * rank->result; *ret_bytes is its length. A step that fails is a result too. STATUS_BUG: the result
 * does not fit. */
NODISCARD enum status rank_step(struct rank *rank, const void *plan, size_t n, size_t *ret_bytes,
                                struct err *err);

enum { RANK_RESULT_BYTES = 1 << 20 }; /* longest result, over the channel */

/* A channel answer of this type; it may be swallowed or damaged by an armed fault. */
NODISCARD enum status rank_answer(struct rank *rank, enum message_type type,
                                  const struct message_out *out, struct err *err);
/* The same with a new reference to a body. */
NODISCARD enum status rank_answer_json(struct rank *rank, enum message_type type, json_t *body,
                                       struct err *err);
