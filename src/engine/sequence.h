/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence on one engine without a world, as tests use it: its tokens so far in the KV cache,
 * and the steps that extend it. A request on a world is world/batch.h. A
 * prompt is computed in chunks; the result does not depend on their size. Owned by the engine's
 * thread; the engine outlives it.
 */
#pragma once

#include "engine/engine.h"

struct sequence {
    struct engine *engine;
    uint32_t pos;    /* tokens in the cache */
    uint32_t *pages; /* [n_pages] */
    uint32_t n_pages;
};

void sequence_init(struct sequence *sequence, struct engine *engine);
void sequence_release(struct sequence *sequence);

/* Forgets the positions from pos on (pos <= the present length). */
void sequence_truncate(struct sequence *sequence, uint32_t pos);

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

/* Appends n tokens. STATUS_INVALID (a token beyond the vocabulary), STATUS_LIMIT (context full;
 * nothing was appended), STATUS_CANCELLED and STATUS_NUMERIC leave what earlier steps appended. */
NODISCARD enum status sequence_extend(struct sequence *sequence, const struct sequence_extend *args,
                                      struct err *err);
