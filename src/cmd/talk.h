/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `run` and `chat` share: a model with its tokenizer and templates, sampling settings from
 * options and model, and answers that stream to standard output. One thread.
 */
#pragma once

#include "chat/prompt.h"
#include "cmd/service.h"
#include "tokenizer/tokenizer.h"

struct talk {
    const struct options *options;
    struct tokenizer *tokenizer; /* NULL where the model has none and none is needed */
    struct chat_prompt *prompt;  /* NULL where the model has no template */
    struct service service;
    struct sample_params params;
    struct generation_defaults ends; /* the model's end tokens and the tokenizer's */
    uint64_t seed;
    const _Atomic bool *stop; /* NULL, or cuts an answer short */
};

struct talk_result {
    enum batch_end finish;
    uint32_t n_prompt; /* computed now, without what the ranks had already */
    uint32_t n_generated;
    uint64_t prefill_ns; /* up to the first token */
    uint64_t decode_ns;  /* from there on */
};

/* Opens tokenizer and templates of options->path; errors name the file. */
NODISCARD enum status talk_open_text(struct talk *talk, const struct options *options,
                                     struct err *err);

/* Brings up the ranks, with room for max_context positions (0: the model's own limit). */
NODISCARD enum status talk_open_world(struct talk *talk, const struct options *options,
                                      uint32_t max_context, struct err *err);
void talk_release(struct talk *talk); /* accepts a zeroed talk */

/* Renders the conversation (an array of messages) with the model's template and appends its ids. */
NODISCARD enum status talk_encode_messages(struct talk *talk, json_t *messages,
                                           struct token_ids *ids, struct err *err);

/* Answers ids (all of the prompt; what the ranks hold of it already is not computed again), and
 * streams text (or ids, with --ids) to standard output. Generated ids are appended to ids, and
 * their text to answer unless it is NULL. */
NODISCARD enum status talk_answer(struct talk *talk, struct token_ids *ids, struct buf *answer,
                                  struct talk_result *ret_result, struct err *err);

/* One line on standard error: rates of prompt and answer. */
void talk_print_statistics(const struct talk *talk, const struct talk_result *result);
