/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that are connected (rank_rig.h), their load, and plans for one slot. */
#pragma once

#include "rank_rig.h"

/* comm_init with the right body, after rig_wire. */
static inline void rig_connect(struct rig *rig)
{
    int fds[2] = {rig->leader_fd, rig->comm_fd};

    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        json_t *body = rig_comm_body(rig, r);
        const struct message_out out = {.json = body, .fds = fds, .n_fds = 2};
        struct message message;

        assert_int_equal(channel_request(&rig->ranks[r].channel, MESSAGE_COMM_INIT, &out, NULL),
                         STATUS_OK);
        message = rig_answer(rig, r, MESSAGE_INIT_OK);
        message_release(&message);
        json_decref(body);
        assert_int_equal(wiring_leader_attach(&rig->wiring, r, NULL), STATUS_OK);
    }
    rig->connected = true;
}

static inline json_t *rig_load_body(bool keep, bool logits)
{
    return json_pack("{s:s, s:{s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b}}", "model", RIG_MODEL,
                     "options", "threads", 1, "max_context", (int)RIG_CONTEXT, "max_chunk",
                     (int)RIG_ROWS, "max_wants", (int)RIG_ROWS, "n_slots", (int)RIG_SLOTS,
                     "keep_weights", keep, "keep_kv", keep, "logits", logits);
}

/* Loads on all ranks; what rank 0 says to it goes to *ret_answer (a new reference). */
static inline void rig_load(struct rig *rig, bool keep, bool logits, json_t **ret_answer)
{
    json_t *body = rig_load_body(keep, logits);

    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct rig_rank *rank = &rig->ranks[r];
        int fds[4] = {rank->weights_fd, rig->host_fd, rank->kv_fd, rank->logits_fd};
        const struct message_out out = {.json = body, .fds = fds, .n_fds = logits ? 4 : 3};

        assert_int_equal(channel_request(&rank->channel, MESSAGE_LOAD, &out, NULL), STATUS_OK);
    }
    rig_bell(rig);
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct message message = rig_answer(rig, r, MESSAGE_LOAD_OK);

        if (r == 0 && ret_answer != NULL) {
            *ret_answer = json_incref(message.json);
        }
        message_release(&message);
    }
    json_decref(body);
}

/* Ends the ranks politely where they run, and checks that nothing is left. */
static inline void rig_close(struct rig *rig)
{
    if (rig->ranks[0].runs) {
        rig_do(rig, MESSAGE_SHUTDOWN, NULL);
    }
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct rig_rank *rank = &rig->ranks[r];

        if (rank->runs) {
            pthread_join(rank->thread, NULL);
            if (rank->status != STATUS_OK) {
                fail_msg("rank %u: %s", r, rank->err.text);
            }
        }
        channel_release(&rank->channel);
        close(rank->region_fd);
        close(rank->weights_fd);
        close(rank->kv_fd);
        close(rank->logits_fd);
    }
    if (rig->comm_fd > 0) {
        wiring_leader_release(&rig->wiring);
        close(rig->comm_fd);
    }
    close(rig->leader_fd);
    close(rig->host_fd);
    assert_int_equal(rig_count_fds(), rig->n_fds);
}

/* Up to a loaded model. */
static inline void rig_up(struct rig *rig, uint32_t n_ranks)
{
    rig_open(rig, n_ranks);
    rig_wire(rig);
    rig_connect(rig);
    rig_load(rig, false, true, NULL);
}

/* A plan with one segment. */
struct rig_plan {
    int32_t tokens[RIG_ROWS];
    uint32_t pages[2];
    struct plan_ref ref;
    struct plan_segment segment;
    struct plan_want wants[RIG_ROWS];
    struct plan_params params;
    int32_t history[RIG_CONTEXT];
    struct plan_bias bias[200];
    uint32_t cleared[1];
    struct step_plan plan;
};

static inline int32_t rig_token(uint32_t i)
{
    return (int32_t)((i * 2654435761u >> 8) % RIG_VOCAB);
}

/* n positions from pos on for slot, whose pages are slot; params come with the first. */
static inline void rig_make(struct rig_plan *p, uint32_t slot, uint32_t pos, uint32_t n)
{
    *p = (struct rig_plan){
        .pages = {slot},
        .segment = {.slot = slot, .n = n, .pos = pos, .n_pages = 1},
        .wants = {{.row = n - 1, .slot = slot}},
        .params = {.slot = slot, .top_p = 1, .repetition_penalty = 1},
    };
    for (uint32_t i = 0; i < n; i++) {
        p->tokens[i] = rig_token(pos + i);
        p->history[i] = rig_token(i);
    }
    p->params.n_prompt = pos == 0 ? n : 0;
    p->plan = (struct step_plan){
        .tokens = p->tokens,
        .n_tokens = n,
        .refs = &p->ref,
        .segments = &p->segment,
        .n_segments = 1,
        .pages = p->pages,
        .n_pages = 1,
        .wants = p->wants,
        .n_wants = 1,
        .params = &p->params,
        .n_params = pos == 0,
        .history = p->history,
        .n_history = p->params.n_prompt,
        .bias = p->bias,
        .cleared = p->cleared,
    };
}

/* Sends the plan to all ranks through the ring, as the next step. */
static inline void rig_send(struct rig *rig, struct step_plan *plan)
{
    size_t n;
    uint64_t number;

    plan->step = ++rig->step;
    n = plan_bytes(plan);
    assert_int_equal(plan_encode(plan, rig->bytes, sizeof(rig->bytes), &number, NULL), STATUS_OK);
    assert_int_equal(ring_publish(&rig->wiring.plans, RING_PLAN, rig->bytes, n, &number, NULL),
                     STATUS_OK);
}

/* A result that points into rig->bytes. */
static inline struct step_result rig_decode(struct rig *rig, uint32_t rank, size_t n)
{
    const struct result_limits limits = {.rank = rank,
                                         .max_tokens = RIG_ROWS,
                                         .n_slots = RIG_SLOTS,
                                         .n_layers = RIG_LAYERS,
                                         .vocab = RIG_VOCAB,
                                         .max_top = PLAN_MAX_TOP};
    struct step_result result = {0};
    struct err err = {0};

    if (result_decode(rig->bytes, n, &limits, &result, &err) != STATUS_OK) {
        fail_msg("rank %u: %s", rank, err.text);
    }
    return result;
}

static inline struct step_result rig_result(struct rig *rig, uint32_t rank)
{
    struct wait wait = wait_leader(rig_deadline());
    struct ring_record record;

    assert_int_equal(ring_read(&rig->wiring.results[rank], &wait, rig->bytes, &record, NULL),
                     STATUS_OK);
    assert_int_equal(record.kind, RING_RESULT);
    ring_ack(&rig->wiring.results[rank], record.number);
    return rig_decode(rig, rank, record.n_bytes);
}

/* Runs it on all ranks, which must agree; the sampled token, or -1. */
static inline int32_t rig_step(struct rig *rig, struct step_plan *plan)
{
    int32_t token = -1;
    uint64_t hash = 0;

    rig_send(rig, plan);
    for (uint32_t r = 0; r < rig->n_ranks; r++) {
        struct step_result result = rig_result(rig, r);

        if (result.status != STATUS_OK) {
            fail_msg("rank %u: %.*s", r, (int)result.n_text, result.text);
        }
        assert_int_equal(result.step, plan->step);
        assert_int_equal(result.n_tokens, plan->n_wants);
        assert_true(r == 0 || hash == result.state_hash);
        assert_true(r == 0 || result.n_tokens == 0 || token == result.tokens[0].token);
        hash = result.state_hash;
        token = result.n_tokens > 0 ? result.tokens[0].token : -1;
    }
    return token;
}

/* Runs it on the one rank there is, which must refuse it. */
static inline void rig_fails(struct rig *rig, struct step_plan *plan, const char *words)
{
    struct step_result result;

    rig_send(rig, plan);
    result = rig_result(rig, 0);
    if (result.status >= STATUS_OK ||
        memmem(result.text, result.n_text, words, strlen(words)) == NULL) {
        fail_msg("%d: \"%.*s\" does not say \"%s\"", result.status, (int)result.n_text, result.text,
                 words);
    }
    assert_int_equal(result.n_tokens, 0);
}
