/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte pair encoding of one word: its bytes become one-byte tokens, then the adjacent pair of the
 * lowest rank is merged (the leftmost of equals) until no pair has a rank. Filled once, then
 * immutable; the scratch belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

struct bpe_merge {
    uint64_t pair; /* left id << 32 | right id; BPE_NO_PAIR: a free slot */
    uint32_t rank;
    int32_t id; /* what the pair becomes */
};

struct bpe {
    struct bpe_merge *merges; /* open addressing; [mask + 1] */
    size_t mask;
    uint64_t seed;
    int32_t byte_id[256]; /* -1: no token, the byte is dropped or becomes unk */
    int32_t unk;          /* -1: none */
    bool fuse_unk;        /* a run of unknown bytes gives one unk */
    bool ignore_merges;   /* a word that is a token is that token, however it merges */
};

/* Working memory of bpe_encode. Zero-initialise; release with bpe_scratch_release. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    size_t symbols_cap;
    uint64_t *heap; /* rank << 32 | position */
    size_t heap_n;
    size_t heap_cap;
    struct buf spelling;
};

/* Room for n_merges merges. Release also after a failure. */
NODISCARD enum status bpe_init(struct bpe *bpe, size_t n_merges, struct err *err);
void bpe_release(struct bpe *bpe);

/* The one-byte tokens of the model's vocabulary. */
void bpe_set_bytes(struct bpe *bpe, const struct vocab *vocab);

/* Adds "left right" of the next rank; of a pair given twice the last rank counts. STATUS_INVALID
 * names the token that the vocabulary lacks. */
NODISCARD enum status bpe_add_merge(struct bpe *bpe, const struct vocab *vocab, uint32_t rank,
                                    const struct tokenizer_text *left,
                                    const struct tokenizer_text *right, struct err *err);

/* Appends the ids of one word. Time n log n, memory 20 to 50 bytes a byte for a long one.
 * STATUS_NO_MEMORY, STATUS_LIMIT; ids may then have grown. */
NODISCARD enum status bpe_encode(const struct bpe *bpe, const struct vocab *vocab,
                                 const struct tokenizer_text *word, struct bpe_scratch *scratch,
                                 struct token_ids *ids);

void bpe_scratch_release(struct bpe_scratch *scratch);
