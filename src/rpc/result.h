/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank reports of one step: that it is done, with which plan, what was sampled, or why it
 * failed. It is the acknowledgement that the leader waits for. Numbers and arrays only; borrowed
 * memory; pure. The encoding: record.h.
 */
#pragma once

#include "rpc/plan.h"

/* Flags of a token. */
enum {
    RESULT_NAN = 1, /* there is none: the logits are not numbers from nan_layer on */
    RESULT_FLAGS = RESULT_NAN,
};

struct result_token {
    uint32_t slot;
    int32_t token; /* sampled, or that of a score; -1 with RESULT_NAN */
    uint32_t flags;
    int32_t nan_layer; /* with RESULT_NAN: the layer, or the number of layers for the output head;
                          otherwise -1 */
    float logprob;     /* of token; 0 where none was asked for, and with RESULT_NAN */
    uint32_t n_top;    /* of the result's tops, in order of tokens; fewer than asked for only where
                          no others are above -infinity */
};

/* One of the likeliest, in their order. */
struct result_top {
    uint32_t token;
    float logprob;
};

struct step_result {
    uint64_t step;
    uint64_t plan_hash;  /* of the plan that was carried out (plan_decode) */
    uint64_t state_hash; /* of the activations, with PLAN_HASH_STATE; otherwise 0 */
    uint32_t rank;
    int32_t status;                    /* enum status */
    const struct result_token *tokens; /* in the order of the plan's wants; none on failure */
    const struct result_top *tops;
    const char *text; /* what went wrong, not terminated */
    uint32_t n_tokens;
    uint32_t n_tops;
    uint32_t n_text; /* below ERR_TEXT_BYTES */
};

/* What the leader knows about the step that it awaits. */
struct result_limits {
    uint32_t rank;
    uint32_t max_tokens; /* wants of the plan */
    uint32_t n_slots;
    uint32_t n_layers;
    uint32_t vocab;
    uint32_t max_top;
};

size_t result_bytes(const struct step_result *result);

/* STATUS_LIMIT if it is longer than size. */
NODISCARD enum status result_encode(const struct step_result *result, void *out, size_t size,
                                    struct err *err);

/* The result in n bytes, 8-byte aligned, into which its arrays then point. STATUS_CORRUPT, naming
 * the field. Whether step and hash are the awaited ones is for the caller. */
NODISCARD enum status result_decode(const void *bytes, size_t n, const struct result_limits *limits,
                                    struct step_result *ret_result, struct err *err);
