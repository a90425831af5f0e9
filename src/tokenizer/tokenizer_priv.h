/* SPDX-License-Identifier: Apache-2.0 */
/* What the makers (hf.c, gguf.c) fill and the users (encode.c, decode.c) read. */
#pragma once

#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretok.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

/* GPT-2's pattern, which the ByteLevel pre-tokenizer has built in. */
#define TOKENIZER_GPT2_PATTERN \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct tokenizer {
    struct vocab vocab;
    struct bpe bpe;
    struct pretok pretok;
    struct added added;            /* found in the raw text */
    struct added added_normalized; /* found in the normalised text */
    bool nfc;
    bool byte_level; /* the pre-tokenizer ends with the step to the byte alphabet */
    int32_t bos;     /* -1: none */
    int32_t eos;
    int32_t pad;
    struct token_ids prefix; /* what TOKENIZER_ADD_SPECIAL puts before */
    struct token_ids suffix; /* and after a text */
    size_t longest;          /* bytes of a token; 0: not known of all */
};

/* No memory but the struct's; ids -1. */
struct tokenizer *tokenizer_new(void);

/* Adds a splitting stage by a pattern, isolating its matches. */
NODISCARD enum status tokenizer_add_pattern(struct tokenizer *tokenizer, const char *pattern,
                                            bool add_prefix_space, struct err *err);

/* Makes a token of the vocabulary one that is found in the text; normalized: in the normalised
 * text, and its own text is normalised too. */
NODISCARD enum status tokenizer_add_added(struct tokenizer *tokenizer,
                                          const struct added_token *token, bool normalized,
                                          struct err *err);

/* What follows the last token and merge. */
NODISCARD enum status tokenizer_finish(struct tokenizer *tokenizer, struct err *err);

/* hf_steps.c: the "normalizer", "pre_tokenizer", "decoder" and "post_processor" of a
 * tokenizer.json. The last needs the vocabulary. Errors name the field. */
NODISCARD enum status hf_read_normalizer(struct tokenizer *tokenizer, const json_t *root,
                                         struct err *err);
NODISCARD enum status hf_read_pre_tokenizer(struct tokenizer *tokenizer, const json_t *root,
                                            struct err *err);
NODISCARD enum status hf_read_decoder(const json_t *root, struct err *err);
NODISCARD enum status hf_read_post_processor(struct tokenizer *tokenizer, const json_t *root,
                                             struct err *err);
