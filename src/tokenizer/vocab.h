/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token table: for each id its spelling in the file and the bytes it stands for, and the way
 * from a spelling to its id. In byte-level BPE an ordinary token is spelt in an alphabet of 256
 * printable characters, one a byte value (GPT-2's); an added token stands for its own text. Filled
 * once, then immutable.
 */
#pragma once

#include "base/err.h"

enum {
    VOCAB_MAX_IDS = 1 << 22, /* no vocabulary comes near; bounds what a file can make us allocate */
    VOCAB_ALPHABET_END = 324, /* the alphabet's code points lie below */
};

enum vocab_flag {
    VOCAB_PRESENT = 1,
    VOCAB_MODEL = 2,   /* known to BPE */
    VOCAB_ADDED = 4,   /* found in the text before BPE; stands for its spelling */
    VOCAB_SPECIAL = 8, /* a control token */
};

struct vocab_token {
    const char *text;  /* as the file spells it */
    const char *bytes; /* what it stands for */
    uint32_t text_size;
    uint32_t n_bytes;
    unsigned flags; /* 0: no token has this id */
};

struct vocab {
    struct vocab_token *tokens; /* [n_ids] */
    size_t n_ids;
    size_t max_text; /* bytes of the longest spelling */
    uint32_t *slots; /* open addressing, id + 1 by the spelling; [mask + 1] */
    size_t mask;
    uint64_t seed; /* of the hash: a file cannot aim at it */
    char *arena;   /* all texts and bytes */
    size_t arena_used;
    size_t arena_size;
    uint16_t code_of[256];               /* the alphabet */
    int16_t byte_of[VOCAB_ALPHABET_END]; /* and back, -1 */
};

/* Room for ids below n_ids, n_tokens of them at most, whose spellings have text_bytes in all.
 * Release also after a failure. */
NODISCARD enum status vocab_init(struct vocab *vocab, size_t n_ids, size_t n_tokens,
                                 size_t text_bytes, struct err *err);
void vocab_release(struct vocab *vocab);

/* Adds a token within the room of vocab_init. If the same spelling is there under the same id, the
 * flags are joined. STATUS_INVALID if id is out of range, taken by another spelling, or the
 * spelling has another id; the text says which, the caller says where. */
NODISCARD enum status vocab_add(struct vocab *vocab, int64_t id, const char *text, size_t size,
                                unsigned flags, struct err *err);

/* The id of a spelling, -1 if there is none. */
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t size);

/* The token, NULL if id has none. */
const struct vocab_token *vocab_get(const struct vocab *vocab, int64_t id);

/* Spells n bytes in the alphabet, into out (2 n bytes). Returns the length. */
size_t vocab_spell(const struct vocab *vocab, const char *bytes, size_t n, char *out);
