/* SPDX-License-Identifier: Apache-2.0 */
/* What `lockstep inspect` has found out about a model, and its two forms on standard output. */
#pragma once

#include "model/model.h"
#include "tokenizer/tokenizer.h"

struct inspect_rank {
    struct model_share share;
    uint64_t kv_token_bytes; /* of the KV cache for one position */
};

struct inspect_report {
    const char *path; /* borrowed */
    struct weights *weights;
    struct model_config config;
    struct tokenizer *tokenizer; /* NULL if the model has none */
    struct buf sample;           /* the chat template's text for one message */
    bool has_template;
    bool kv_given; /* kv_type as it is, not what goes with the activations */
    enum kv_type kv_type;
    enum model_bf16 bf16;
    char arith_class[64];
    uint64_t n_parameters;
    uint64_t n_tensors_used;
    uint64_t stored_bytes; /* of the tensors used, in the files */
    uint64_t host_bytes;   /* packed, held once for all ranks: an embedding that is not the head */
    struct inspect_rank *ranks;
    uint32_t n_ranks;
};

/* Fills what depends on weights and config: ranks (n_ranks, kv_given and kv_type are)
 * and sizes. Errors name the
 * tensor. */
NODISCARD enum status inspect_shares(struct inspect_report *report, struct err *err);

void inspect_print_text(const struct inspect_report *report);
void inspect_print_json(const struct inspect_report *report);
