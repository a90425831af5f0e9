/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's share of sampling. The vocabulary is cut into blocks of 1,024 rows; a part owns a
 * contiguous range of whole blocks (the last may be short, a part may be empty) and answers what
 * the merge (merge.h) asks: its likeliest tokens, the mass of its blocks, the token at some mass
 * inside a block. Answers are small and say the same whoever owns the rows, so the token drawn does
 * not depend on how the blocks are divided.
 *
 * What a block's mass is stands in tensor/mass.h. It costs most of what is done here, so a device
 * that computes it faster may be given to a part; the bits are the same.
 *
 * Not a model's layer: it knows logits, not where they come from. A part owns its scratch and
 * borrows the logits; one thread at a time.
 */
#pragma once

#include "sample/params.h"
#include "sample/philox.h"
#include "tensor/mass.h"

enum { SAMPLE_BLOCK_ROWS = MASS_BLOCK_ROWS };

struct sample_candidate {
    float logit;
    uint32_t token;
};

/* True if a comes before b: greater logit, lower index on ties. No NaN. */
static inline bool sample_before(struct sample_candidate a, struct sample_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/* One token to be chosen. Everything is borrowed for the time until it is. */
struct sample_request {
    const struct sample_params *params; /* checked (sample_params_check) */
    struct sample_key key;
    const int32_t *prompt; /* [n_prompt] token ids */
    size_t n_prompt;
    const int32_t *generated; /* [n_generated] */
    size_t n_generated;
};

struct sample_ask {
    uint32_t n_top;      /* this many of the likeliest tokens */
    bool blocks;         /* the blocks' maxima and masses */
    bool pick;           /* the token of pick_block at which its running mass exceeds pick_mass */
    uint32_t pick_block; /* number within the whole vocabulary */
    double pick_mass;    /* relative to the block's maximum */
};

/* Arrays are the part's, valid until its next answer. */
struct sample_answer {
    const struct sample_candidate *top; /* best first; -infinity never among them */
    uint32_t n_top;
    bool more; /* there may be tokens after the last of top */
    const struct mass_block *blocks;
    uint32_t n_blocks;
    int64_t picked; /* token, -1 if the block is not here */
};

struct sample_part {
    uint32_t first_row; /* multiple of SAMPLE_BLOCK_ROWS */
    uint32_t n_rows;
    struct mass_table masses; /* mass_plain; the owner may set another before a begin */
    float inv_temperature;
    float *logits;                /* [n_rows], borrowed from sample_part_begin on */
    uint32_t *counts;             /* [n_rows] times generated; zero between calls */
    struct sample_candidate *top; /* [n_rows] */
    struct mass_block *blocks;    /* [ceil(n_rows / SAMPLE_BLOCK_ROWS)] */
};

/* The part of rows [first_row, first_row + n_rows). STATUS_NO_MEMORY. */
NODISCARD enum status sample_part_init(struct sample_part *part, uint32_t first_row,
                                       uint32_t n_rows);
void sample_part_release(struct sample_part *part);

/* Starts a token: applies bias and penalties to logits ([n_rows], in place). STATUS_NUMERIC if one
 * is not a number. Tokens in the request that other parts own are ignored. */
NODISCARD enum status sample_part_begin(struct sample_part *part,
                                        const struct sample_request *request, float *logits);

/* False if sample_part_begin leaves the logits as they are. */
bool sample_changes_logits(const struct sample_params *params);

/* Answers one question about the logits of the last sample_part_begin. */
void sample_part_answer(struct sample_part *part, const struct sample_ask *ask,
                        struct sample_answer *ret_answer);
