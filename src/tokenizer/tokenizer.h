/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to token ids and back: byte-level BPE as Hugging Face's `tokenizers` does it, made from a
 * tokenizer.json or from a GGUF file's metadata. Ids are equal to that library's, the quirks of its
 * Unicode tables included. Not here: other models (SentencePiece, WordPiece), chat templates,
 * files.
 *
 * A text passes: added tokens of the raw text -> NFC -> added tokens of the normalised text ->
 * pre-tokenizer (splits into words) -> BPE of each word. Bytes that are not UTF-8 are neither
 * normalised nor matched by a pattern: each maximal run of them is a word. A byte that no token can
 * express is dropped.
 *
 * A tokenizer is immutable after creation: any thread may use it. Everything else here belongs to
 * one thread at a time.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "json/json.h"

struct tokenizer;

enum tokenizer_flag {
    TOKENIZER_PARSE_SPECIAL = 1, /* encode: special tokens inside the text become their ids */
    TOKENIZER_ADD_SPECIAL = 2,   /* encode: put before and after what the model wants (BOS, EOS) */
    TOKENIZER_SKIP_SPECIAL = 4,  /* decode: special tokens give no text */
};

/* A growable list of ids. Zero-initialise; release with token_ids_release. */
struct token_ids {
    int32_t *data;
    size_t n;
    size_t cap;
    size_t limit; /* of n; 0: none */
    bool full;    /* the limit has kept an id out */
};

void token_ids_release(struct token_ids *ids);

/* STATUS_NO_MEMORY, STATUS_LIMIT (and it is full), and ids as before. */
NODISCARD enum status token_ids_push(struct token_ids *ids, int32_t id);

/* tokenizer_json is the parsed tokenizer.json; tokenizer_config (may be NULL) the parsed
 * tokenizer_config.json, from which bos_token, eos_token, pad_token, add_bos_token and
 * add_eos_token are taken. Nothing is kept of either. Errors name the field: STATUS_INVALID (wrong
 * or contradictory), STATUS_UNSUPPORTED (a component that is not here), STATUS_LIMIT,
 * STATUS_NO_MEMORY. */
NODISCARD enum status tokenizer_create_hf(const json_t *tokenizer_json,
                                          const json_t *tokenizer_config,
                                          struct tokenizer **ret_tokenizer, struct err *err);

struct tokenizer_text {
    const char *data;
    size_t size;
};

/* The metadata under "tokenizer.ggml."; everything is borrowed for the call. */
struct tokenizer_gguf {
    const char *model; /* "gpt2" is the byte-level BPE */
    const char *pre;   /* the kind of pre-tokenizer; NULL if absent */
    const struct tokenizer_text *tokens;
    const int32_t *token_types; /* n_tokens of them, or NULL: all normal */
    size_t n_tokens;
    const struct tokenizer_text *merges;
    size_t n_merges;
    int64_t bos; /* ids, -1 if absent */
    int64_t eos;
    int64_t pad;
    bool add_bos;
    bool add_eos;
    bool add_space_prefix;
};

/* As tokenizer_create_hf; errors name the metadata key. */
NODISCARD enum status tokenizer_create_gguf(const struct tokenizer_gguf *gguf,
                                            struct tokenizer **ret_tokenizer, struct err *err);

/* Accepts NULL inside; nulls it. */
void tokenizer_destroy(struct tokenizer **tokenizer);

/* Appends the ids of size bytes (any bytes) to ids, which stay as they were on an error:
 * STATUS_LIMIT (a pattern of the model takes too many steps or too much memory on this text, or a
 * word has 2^31 bytes), STATUS_NO_MEMORY. Added tokens that are not special are recognised always;
 * so does `tokenizers`. */
NODISCARD enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text,
                                       size_t size, unsigned flags, struct token_ids *ids,
                                       struct err *err);

/* Appends the bytes of n ids to text, which stays as it was on an error: STATUS_INVALID names the
 * first id that has no token. */
NODISCARD enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids,
                                       size_t n, unsigned flags, struct buf *text, struct err *err);

/* One more than the largest id; some ids below it may have no token. */
size_t tokenizer_n_vocab(const struct tokenizer *tokenizer);

/* The bytes that an id stands for (not terminated, may be none); NULL if it has no token. */
const char *tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *ret_size);

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

/* -1 if the model names none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
int32_t tokenizer_pad(const struct tokenizer *tokenizer);

/* The id whose token is spelt so in the vocabulary ("<|im_end|>"; ordinary tokens in the byte-level
 * alphabet), -1 if there is none. */
int32_t tokenizer_id_of(const struct tokenizer *tokenizer, const char *text, size_t size);

/*
 * The streaming decoder: gives the bytes of one id after the other, but holds back the beginning of
 * a UTF-8 sequence (3 bytes at most) until it is complete or turns out to be none. What all pushes
 * and the flush append, put together, is what tokenizer_decode gives.
 */
struct detok {
    const struct tokenizer *tokenizer; /* borrowed */
    unsigned flags;
    char tail[4];
    size_t n_tail;
};

/* flags: TOKENIZER_SKIP_SPECIAL or 0. Nothing to release. */
void detok_init(struct detok *detok, const struct tokenizer *tokenizer, unsigned flags);

/* Appends what became complete. An id without a token gives nothing: a model's vocabulary is often
 * padded beyond the tokenizer's. */
void detok_push(struct detok *detok, int32_t id, struct buf *text);

/* Appends the incomplete rest as it is and starts over. */
void detok_flush(struct detok *detok, struct buf *text);
