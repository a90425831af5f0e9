/* SPDX-License-Identifier: Apache-2.0 */
/* What draw.c (sequences, a world of one), draw_world.c (several ranks) and draw_score.c
 * (log-probabilities) share. */
#pragma once

#include "engine/draw.h"
#include "sample/sampler.h"

/* What a slot holds. */
struct draw_sequence {
    bool is_set;
    bool has_drawn;     /* since it was set */
    uint64_t last_step; /* of the token drawn last */
    uint64_t call;      /* the last that wanted a token of it */
    struct sample_params params;
    struct sample_key key;
    struct sample_bias *bias; /* params.bias; the lists are owned */
    int32_t *prompt;
    int32_t *generated; /* [cap_generated] */
    uint32_t n_prompt;
    uint32_t n_generated;
    uint32_t cap_generated;
};

/* How a rank's words about a want begin. Above DRAW_NOT_A_NUMBER it is DRAW_FIRST_LAYER + the layer
 * that was not a number. */
enum { DRAW_GOOD, DRAW_NOT_A_NUMBER, DRAW_FIRST_LAYER };

/* What is told of the wants that report, from before the sampling to after it. */
struct draw_scores {
    uint32_t *words; /* [n_ranks][stride], room for cap_words */
    size_t cap_words;
    size_t stride;
    float *raw; /* this rank's rows of the wants whose logits sampling changes, room for cap_raw */
    size_t cap_raw;
};

/* A want among several ranks until its token is known. Its part and merge share the scratch of the
 * draw's own, which holds nothing between two calls to them, but for the blocks, which do last. */
struct draw_open {
    bool is_open;
    uint32_t state;
    struct sample_request request;
    struct sample_part part;
    struct sample_merge merge;
    struct sample_ask ask;
};

struct draw {
    struct draw_config config;
    struct draw_sequence *slots; /* [n_slots] */
    uint64_t n_calls;
    struct sampler sampler;    /* a world of one draws with it; else its scratch is used */
    struct draw_open *opens;   /* [cap_opens] */
    struct mass_block *blocks; /* [cap_opens] times those of the part, then of the merge */
    uint32_t cap_opens;
    bool met;                      /* rank_rows and max_rows are known */
    uint32_t *rank_rows;           /* [n_ranks] */
    uint32_t max_rows;             /* of any rank */
    struct sample_answer *answers; /* [n_ranks] to one want */
    uint32_t *words;               /* [cap_words] what all ranks sent in a round */
    size_t cap_words;
    struct draw_scores scores;
};

/* The request for the slot's next token; borrows from it. */
struct sample_request draw_request_of(const struct draw_sequence *slot);

/* Learns which rows each rank has, unless that is known, and checks that together they are the
 * vocabulary. Collective. */
NODISCARD enum status draw_meet(struct draw *draw, struct err *err);

/* True if every rank's state (at words + r * stride) is good; else the smallest layer, if any. */
bool draw_all_good(const uint32_t *words, size_t stride, uint32_t n_ranks, int32_t *ret_nan_layer);

/* Draws the tokens of the wants that are no scores, which are checked, together with the other
 * ranks, which have met; appends none. Sets token and ret_nan_layer where they are not -1. */
NODISCARD enum status draw_together(struct draw *draw, struct draw_want *wants, uint32_t n,
                                    struct err *err);

/* Around the sampling, for calls with a want that reports: before it, notes what this rank's logits
 * say; after it, tells the other ranks and sets ret_logprob, tops and ret_n_top. A want that turns
 * out to have no number gets token -1. Collective in draw_scores_tell. */
NODISCARD enum status draw_scores_note(struct draw *draw, const struct draw_want *wants, uint32_t n,
                                       struct err *err);
NODISCARD enum status draw_scores_tell(struct draw *draw, struct draw_want *wants, uint32_t n,
                                       struct err *err);
