/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing tokens on the ranks of a world. Each rank holds the logits of its own rows of the
 * vocabulary, in whole blocks of 1,024, possibly none. The ranks exchange the small answers of
 * sample/part.h and merge them alike (sample/merge.h), so that all of them draw the same token,
 * the one that sampler_token draws from the logits of the whole vocabulary. A world of one
 * exchanges nothing.
 *
 * One all_gather serves all wants of a call that are still open: usually one a call (greedy, top-k,
 * min-p), two where every token may be drawn, more where top-p keeps many; and one more for all
 * wants that report log-probabilities, if there are any. The first call of a world of several also
 * tells everyone which rows each rank has.
 *
 * A slot is a sequence being served. A rank keeps of it what sampling needs: the parameters, the
 * prompt, the tokens so far. All ranks set, clear and draw alike; whoever calls sees to that. Which
 * slot is whose, and when a sequence ends, is not decided here.
 *
 * Owns copies of all it is given; borrows the communicator. One thread at a time. Floats are
 * computed in the environment of the caller, which must be the same on every rank.
 */
#pragma once

#include "comm/comm.h"
#include "sample/merge.h"

struct draw;

struct draw_config {
    struct comm *comm; /* outlives the draw */
    uint32_t vocab;    /* rows of all ranks together, at least 1 */
    uint32_t
        vocab_begin;    /* this rank's rows: in the order of the ranks, whole blocks (the last of */
    uint32_t vocab_end; /* the vocabulary may be short); equal: none */
    uint32_t n_slots;
    const struct mass_table *masses; /* NULL: mass_plain; copied, what it refers to is borrowed */
};

/* STATUS_INVALID where the rows are not such blocks, STATUS_NO_MEMORY. Not collective. */
NODISCARD enum status draw_create(const struct draw_config *config, struct draw **ret_draw,
                                  struct err *err);
void draw_destroy(struct draw **draw);

/* A sequence at its start, or, with a history, where it is to be continued. */
struct draw_slot {
    struct sample_params params; /* bias is borrowed for the call, as are the lists below */
    struct sample_key key;       /* seed, prompt, choice; position and draw are not used */
    const int32_t *prompt;
    uint32_t n_prompt;
    const int32_t *generated;
    uint32_t n_generated;
};

/* Sets a slot, whatever it held before. STATUS_INVALID naming the slot or the field of the
 * parameters, STATUS_NO_MEMORY; the slot is then as it was. */
NODISCARD enum status draw_slot_set(struct draw *draw, uint32_t slot, const struct draw_slot *from,
                                    struct err *err);

/* Forgets the slot, if it is set; slot is below n_slots. */
void draw_slot_clear(struct draw *draw, uint32_t slot);

/* The token that the slot drew last since it was set, and the step of that call of draw_tokens.
 * False if it drew none, is not set, or there is no such slot. */
bool draw_slot_last(const struct draw *draw, uint32_t slot, uint64_t *ret_step, int32_t *ret_token);

/* One token to be drawn, or to be scored. */
struct draw_want {
    uint32_t slot;
    uint32_t position; /* tokens generated before: as many as the slot has; not of a score */
    float *logits;     /* [vocab_end - vocab_begin], changed by bias and penalties */
    int32_t nan_layer; /* -1, or the layer in which this rank saw what is not a number */
    bool score;        /* nothing is drawn: the token is given */
    bool logprob;      /* report log-probabilities: those of the logits as they come, before bias,
                          penalties and temperature. With score */
    uint32_t n_top;    /* with logprob: how many of the likeliest to report */
    int32_t token;     /* set, but of a score given: the token; set to -1 if a rank has a nan_layer
                          or a logit that is not a number, or no logit is above -infinity; with
                          logprob also if one is +infinity */
    int32_t ret_nan_layer;       /* set: the smallest nan_layer of any rank; -1: none has one */
    float ret_logprob;           /* set, as what follows, with logprob where there is a token */
    struct sample_logprob *tops; /* [n_top], the caller's: the likeliest, best first */
    uint32_t ret_n_top;          /* n_top, or all that are above -infinity */
};

/* Draws one token for each want that is no score and appends it to the generated tokens of its
 * slot; a slot whose token is -1 stays as it is. Scores do not touch their slots. Collective: every
 * rank calls with the same step and wants, but for logits and nan_layer. STATUS_BUG, at once and
 * with nothing changed, for a slot that is not set, comes twice but for scores, or is at another
 * position, and for a score of no token. After STATUS_NO_MEMORY, STATUS_LINK (impossible answers),
 * STATUS_INVALID (the rows are no division of the vocabulary) or an error of the communicator no
 * slot has changed, and the communicator is of no more use: the caller aborts it, so that the
 * others do not wait. */
NODISCARD enum status draw_tokens(struct draw *draw, uint64_t step, struct draw_want *wants,
                                  uint32_t n, struct err *err);
