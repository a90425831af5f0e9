/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Added tokens: texts that become one id wherever they stand, before BPE. Searching takes the
 * leftmost, and of those the longest. Filled once, then immutable; a struct added_scan belongs to
 * one thread.
 */
#pragma once

#include "base/err.h"
#include "tokenizer/tokenizer.h"

enum { ADDED_MAX_BYTES = 1024 }; /* of one text: bounds the search's time a byte */

struct added_token {
    char *text; /* owned */
    size_t size;
    int32_t id;
    bool special;
    bool single_word; /* only where no word character stands beside it */
    bool lstrip;      /* takes the white space before it along */
    bool rstrip;      /* and after it */
};

struct added {
    struct added_token *tokens; /* sorted by text once added_finish was called */
    size_t n;
    size_t cap;
    struct regex *word;  /* a word character; for single_word */
    uint32_t first[257]; /* tokens that begin with byte b: [first[b], first[b + 1]) */
};

void added_release(struct added *added);

/* Copies the token; a second one of the same text is ignored. STATUS_INVALID (empty),
 * STATUS_LIMIT (too long), STATUS_NO_MEMORY. */
NODISCARD enum status added_add(struct added *added, const struct added_token *token,
                                struct err *err);

/* To be called after the last added_add. */
NODISCARD enum status added_finish(struct added *added, struct err *err);

/* A pass over one text. Zero-initialise but for the first three. */
struct added_scan {
    const struct added *added;
    struct tokenizer_text text;
    bool skip_special;  /* special tokens are plain text */
    size_t at;          /* searched up to here */
    size_t done;        /* handed out up to here */
    size_t space_start; /* [space_start, space_end) is white space, as far as it goes */
    size_t space_end;
};

/* The next token: *ret_before is the text between the last one and this (possibly empty). False at
 * the end; *ret_before is then the rest. */
bool added_next(struct added_scan *scan, struct tokenizer_text *ret_before, int32_t *ret_id);
