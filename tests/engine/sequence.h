/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence on one engine without a world: its tokens so far in the KV cache, and the steps that
 * extend it, in chunks. Its pages are those from first_page on. The engine outlives it.
 */
#pragma once

#include "base/mem.h"
#include "engine/engine.h"

struct sequence {
    struct engine *engine;
    uint32_t pos;        /* tokens in the cache */
    uint32_t first_page; /* set it after sequence_init if several share the engine */
    uint32_t *pages;     /* [n_pages] */
    uint32_t n_pages;
};

/* Called with the logits of position pos (vocab floats, borrowed for the call). */
typedef enum status sequence_logits_fn(void *arg, uint32_t pos, const float *logits,
                                       struct err *err);

/* What sequence_extend should do with the logits, and how to compute. */
struct sequence_extend {
    const int32_t *tokens;
    uint32_t n;
    uint32_t chunk;             /* rows in a step; 0: the engine's limit */
    bool every;                 /* logits of every position, not only of the last */
    sequence_logits_fn *logits; /* NULL: nobody looks (the last step still computes them) */
    void *arg;
    const _Atomic bool *stop; /* NULL, or: STATUS_CANCELLED between steps once it is true */
};

static inline void sequence_init(struct sequence *sequence, struct engine *engine)
{
    *sequence = (struct sequence){.engine = engine};
    sequence->pages =
        xcalloc(div_up(engine_max_context(engine), OPS_PAGE_TOKENS), sizeof(*sequence->pages));
}

/* Forgets the positions from pos on (pos <= the present length). */
static inline void sequence_truncate(struct sequence *sequence, uint32_t pos)
{
    ENSURE_OP(pos, <=, sequence->pos);
    sequence->n_pages = MIN(sequence->n_pages, (uint32_t)div_up(pos, OPS_PAGE_TOKENS));
    sequence->pos = pos;
}

static inline void sequence_release(struct sequence *sequence)
{
    if (sequence->pages != NULL) {
        sequence_truncate(sequence, 0);
        free(sequence->pages);
    }
    *sequence = (struct sequence){0};
}

/* One step over rows [at, at + n) of args->tokens. */
static inline enum status sequence_step(struct sequence *sequence,
                                        const struct sequence_extend *args, uint32_t at, uint32_t n,
                                        struct model_want *wants, struct err *err)
{
    const struct ops_segment segment = {
        .row = 0, .n = n, .pos = sequence->pos, .pages = sequence->pages};
    uint32_t n_wants = args->every ? n : at + n == args->n ? 1 : 0;
    enum status status;

    for (uint32_t i = 0; i < n_wants; i++) {
        wants[i] = (struct model_want){.row = n - n_wants + i};
    }
    status = engine_step(sequence->engine,
                         &(struct model_step){
                             .tokens = args->tokens + at,
                             .n_tokens = n,
                             .segments = &segment,
                             .n_segments = 1,
                             .wants = wants,
                             .n_wants = n_wants,
                         },
                         err);
    for (uint32_t i = 0; i < n_wants && status == STATUS_OK && args->logits != NULL; i++) {
        status = args->logits(args->arg, sequence->pos + wants[i].row, wants[i].logits, err);
    }
    if (status == STATUS_OK) {
        sequence->pos += n;
    }
    return status;
}

/* Zeroed pages for n positions in all. */
static inline enum status sequence_take_pages(struct sequence *sequence, uint32_t n,
                                              struct err *err)
{
    while (sequence->n_pages < div_up(n, OPS_PAGE_TOKENS)) {
        uint32_t page = sequence->first_page + sequence->n_pages;
        enum status status = engine_page_clear(sequence->engine, page, err);

        if (status != STATUS_OK) {
            return status;
        }
        sequence->pages[sequence->n_pages++] = page;
    }
    return STATUS_OK;
}

/* Appends n tokens. STATUS_INVALID (a token beyond the vocabulary), STATUS_LIMIT (context full;
 * nothing was appended), STATUS_CANCELLED and STATUS_NUMERIC leave what earlier steps appended. */
static inline enum status sequence_extend(struct sequence *sequence,
                                          const struct sequence_extend *args, struct err *err)
{
    uint32_t chunk = MIN(args->chunk > 0 ? args->chunk : engine_max_chunk(sequence->engine),
                         engine_max_chunk(sequence->engine));
    uint32_t vocab = engine_config(sequence->engine)->vocab;
    struct model_want *wants;
    enum status status;

    for (uint32_t i = 0; i < args->n; i++) {
        if (args->tokens[i] < 0 || (uint32_t)args->tokens[i] >= vocab) {
            return err_set(err, STATUS_INVALID, "token %d is not in the vocabulary of %u",
                           args->tokens[i], vocab);
        }
    }
    if (args->n > engine_max_context(sequence->engine) - sequence->pos) {
        return err_set(err, STATUS_LIMIT, "%u tokens do not fit the context of %u (%u are in use)",
                       args->n, engine_max_context(sequence->engine), sequence->pos);
    }
    status = sequence_take_pages(sequence, sequence->pos + args->n, err);
    if (status != STATUS_OK) {
        return status;
    }
    wants = xcalloc(args->every ? chunk : 1, sizeof(*wants));
    for (uint32_t at = 0; at < args->n && status == STATUS_OK;) {
        uint32_t n = MIN(chunk, args->n - at);

        if (args->stop != NULL && *args->stop) {
            status = err_set(err, STATUS_CANCELLED, "stopped");
            break;
        }
        status = sequence_step(sequence, args, at, n, wants, err);
        at += n;
    }
    free(wants);
    return status;
}
