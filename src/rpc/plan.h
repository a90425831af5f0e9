/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step plan: what the leader tells every rank to compute in one step, and nothing that a rank
 * could decide by itself. Ranks keep a little per *slot* (a sequence being served): its block
 * table, its sampling parameters with the tokens that penalties look at, and the token it sampled
 * last. A plan carries what changed and takes effect in this order:
 *
 *   cleared   slots whose state is forgotten
 *   params    slots that begin, or begin anew after a rebuild
 *   tokens    one a row, cut into segments of one slot each, in order
 *   wants     rows whose logits are sampled, or in which a token is scored, each for one slot
 *
 * A token may be "what slot s sampled in step k", so that a plan can be sent before the step ahead
 * of it is done. The block table of a segment may be sent from page_first on; the pages before are
 * those that the rank has.
 *
 * Numbers and arrays only; borrowed memory; pure. What the encoding is: record.h.
 */
#pragma once

#include "base/err.h"

enum {
    PLAN_TOKEN_REF = -1, /* the row's token is in refs */
    PLAN_MAX_SLOTS = 1024,
    PLAN_MAX_TOP = 20, /* likeliest tokens that a want may ask for */
};

/* Flags of a plan. */
enum {
    PLAN_HASH_STATE = 1, /* results carry a hash of the activations (result.h) */
    PLAN_LOGITS = 2,     /* nothing is sampled: the wanted rows' logits go to the memory that load
                            named, and a slot may be wanted several times */
    PLAN_FLAGS = PLAN_HASH_STATE | PLAN_LOGITS,
};

/* tokens[row] is what `slot` sampled in `step`. */
struct plan_ref {
    uint32_t row;
    uint32_t slot;
    uint64_t step; /* an earlier one */
};

/* The next n rows are positions [pos, pos + n) of slot. */
struct plan_segment {
    uint32_t slot;
    uint32_t n;
    uint32_t pos;
    uint32_t page_first; /* number in the slot's block table of the first page given here */
    uint32_t n_pages;    /* page_first + n_pages are exactly what pos + n positions need */
};

/* Flags of a want. Log-probabilities are those of the model: of the logits as they are before bias,
 * penalties and temperature. */
enum {
    PLAN_WANT_LOGPROB = 1, /* report the token's, and those of the n_top likeliest */
    PLAN_WANT_SCORE = 2,   /* nothing is sampled: the token is given, and its log-probability is
                              wanted. With PLAN_WANT_LOGPROB, not with PLAN_LOGITS */
    PLAN_WANT_FLAGS = PLAN_WANT_LOGPROB | PLAN_WANT_SCORE,
};

/* Sample row's logits for slot, which may be wanted once in a plan, or score a token, of which a
 * slot may have any number; max_rows in all. Results come in the order of wants. */
struct plan_want {
    uint32_t row;
    uint32_t slot;
    union {
        uint32_t position; /* tokens generated for the slot before this one */
        uint32_t token;    /* with PLAN_WANT_SCORE: the token */
    };
    uint16_t n_top; /* likeliest tokens to report with their log-probability; 0 without
                       PLAN_WANT_LOGPROB */
    uint16_t flags;
};

/* Flags of parameters. */
enum {
    PLAN_PARAMS_ALLOW = 1, /* only tokens of the slot's biases after the first n_min_bias and
                              before the last n_phrase_bias may be sampled (and their biases
                              count); there is at least one */
    PLAN_PARAMS_FLAGS = PLAN_PARAMS_ALLOW,
};

/* Sampling parameters of a slot, as sample/params.h defines them (which also checks their ranges),
 * its key of random numbers, and the tokens there are already. Biases may be -infinity: the token
 * is never sampled. The first n_min_bias of them hold only while fewer than n_min tokens have been
 * generated (those of n_generated included): so end tokens, at -infinity, do not come too early.
 * The last n_phrase_bias of them are phrases: tokens with 0, then one whose bias holds only while
 * the generated tokens end with the others: so a word of several tokens is not completed. */
struct plan_params {
    uint64_t seed;
    uint32_t slot;
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    float repetition_penalty;
    float presence_penalty;
    float frequency_penalty;
    uint32_t prompt_index;
    uint32_t choice;
    uint32_t n_bias;      /* of the plan's bias, in order of params */
    uint32_t n_prompt;    /* of the plan's history, in order of params: first the prompt's tokens */
    uint32_t n_generated; /* then those generated */
    uint32_t n_min;
    uint32_t n_min_bias; /* with n_phrase_bias at most n_bias */
    uint16_t flags;
    uint16_t n_phrase_bias;
};

struct plan_bias {
    uint32_t token;
    float add; /* below +infinity */
};

struct step_plan {
    uint64_t step; /* from 1 on */
    uint64_t flags;
    const int32_t *tokens;       /* a token, or PLAN_TOKEN_REF */
    const struct plan_ref *refs; /* ascending rows */
    const struct plan_segment *segments;
    const uint32_t *pages; /* of all segments, one after the other */
    const struct plan_want *wants;
    const struct plan_params *params;
    const struct plan_bias *bias;
    const int32_t *history;
    const uint32_t *cleared;
    uint32_t n_tokens;
    uint32_t n_refs;
    uint32_t n_segments;
    uint32_t n_pages;
    uint32_t n_wants;
    uint32_t n_params;
    uint32_t n_bias;
    uint32_t n_history;
    uint32_t n_cleared;
};

/* What a rank has room for. */
struct plan_limits {
    uint32_t max_rows;    /* rows in a step, and wants */
    uint32_t n_slots;     /* at most PLAN_MAX_SLOTS */
    uint32_t n_pages;     /* KV pages there are */
    uint32_t page_tokens; /* positions in one */
    uint32_t max_context; /* positions of a slot */
    uint32_t vocab;
    uint32_t max_top;  /* at most PLAN_MAX_TOP */
    uint32_t max_bias; /* of one slot */
};

/* Length of the encoding, and the encoding itself: STATUS_LIMIT if it is longer than size.
 * *ret_hash identifies the plan: ranks that report different ones were told different things. */
size_t plan_bytes(const struct step_plan *plan);
NODISCARD enum status plan_encode(const struct step_plan *plan, void *out, size_t size,
                                  uint64_t *ret_hash, struct err *err);

/* The plan in n bytes, 8-byte aligned, into which its arrays then point; checked against limits.
 * STATUS_CORRUPT, naming the field. */
NODISCARD enum status plan_decode(const void *bytes, size_t n, const struct plan_limits *limits,
                                  struct step_plan *ret_plan, uint64_t *ret_hash, struct err *err);

/* Every index within its range, every slot at most once in each array, segments that cover the
 * rows. STATUS_CORRUPT, naming the field. */
NODISCARD enum status plan_check(const struct step_plan *plan, const struct plan_limits *limits,
                                 struct err *err);
